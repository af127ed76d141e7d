"""Refits a small splat to a big one without photos: invents cameras, renders the big splat, and trains a student."""

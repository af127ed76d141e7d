"""Refit a small splat to a big one without its photos: invented cameras, their renders, a student of them."""

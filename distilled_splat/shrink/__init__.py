"""A small splat refitted to a big one, without the photos."""

"""Finished runs: measured on held-out photos, compared with their teachers, exported, pictured and reported.

It uses `teachers`, `training`, `ops`, `splat` and `runs`.
"""

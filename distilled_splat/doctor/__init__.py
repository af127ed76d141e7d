"""`distilled-splat doctor`: whether this machine can do the main job, line by line.

It uses the scene of `demo`, the short trainings of `benchmarks`, and `evaluation`, `teachers`, `ops`, `splat` and
`runs`.
"""

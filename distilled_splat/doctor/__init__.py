"""`distilled-splat doctor`: check line by line whether this machine can train students.

It uses the scene of `demo`, the short trainings of `benchmarks`, and `evaluation`, `teachers`, `ops`, `splat` and
`runs`.
"""

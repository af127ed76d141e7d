"""Benchmarks: the time of a step and of a whole command, memory, and what the processor could do at best.

It measures single kernels, so besides `ops` only this subpackage uses `cpu`. It uses `methods`, `student`, `training`,
`ops` and `splat` for whole steps, and `demo`, `evaluation` and `runs` for whole commands.
"""

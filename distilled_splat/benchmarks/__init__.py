"""Benchmarks: the time of a step and of a whole command, the memory, and the peak speed of the processor.

It measures single kernels, so this is the only subpackage besides `ops` that uses `cpu`. It uses `methods`,
`student`, `training`, `ops` and `splat` for whole steps, and `demo`, `evaluation` and `runs` for whole commands.
"""

"""How long a step and a whole command take and where the time goes, beside what the processor could do.

It measures single kernels, so besides `ops` only this subpackage uses `cpu`. It uses `methods`, `student`, `training`,
`ops` and `splat` for whole steps, and `demo`, `evaluation` and `runs` for whole commands.
"""

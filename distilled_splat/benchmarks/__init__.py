"""How long a step takes and where its time goes, beside what the processor could do.

It measures single kernels, so besides `ops` only this subpackage uses `cpu`. It uses `methods`, `student`, `training`,
`ops` and `splat` for whole steps.
"""

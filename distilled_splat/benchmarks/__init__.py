"""How long a step takes and where its time goes, beside what the processor could do.

It measures the kernels one by one, and so is the only wing besides `ops` that uses `cpu`; it uses `methods`, `student`,
`training`, `ops` and `splat` for whole steps.
"""

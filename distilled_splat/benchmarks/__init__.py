"""How long a step and a whole command take and where the time goes, beside what the processor could do.

It measures the kernels one by one, and so is the only wing besides `ops` that uses `cpu`; it uses `methods`, `student`,
`training`, `ops` and `splat` for whole steps, and `demo`, `evaluation` and `runs` for whole commands.
"""

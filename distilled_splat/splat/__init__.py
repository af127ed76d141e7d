"""A splat in memory, its frames and its files.

`gaussians` holds the six tensors, `frames` moves them between frames, `files` reads and `formats` writes files. It uses
`runs` for the texts of errors. It renders nothing and trains nothing.
"""

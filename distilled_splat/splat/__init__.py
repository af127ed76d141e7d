"""A splat in memory, its frames and its files.

`gaussians` holds the six tensors, `frames` moves them between worlds, `ply`, `compressed` and `formats` read and write
files. It uses `runs` for the words of errors; it renders nothing and trains nothing.
"""

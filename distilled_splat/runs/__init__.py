"""A run folder: whole, resumable, of one owner.

Files are written beside and renamed, checkpoints are data and never code, a record tells what a run is, a lock keeps
other processes out, and faults are told in one sentence. It uses nothing else of this package.
"""

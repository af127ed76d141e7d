"""Run folders: every file is whole, every run can resume, and one process at a time writes.

Files are written beside their place and renamed. Checkpoints are read as data, never as code. A record describes each
run, a lock keeps other processes out, and a fault ends in one sentence. It uses nothing else of this package.
"""

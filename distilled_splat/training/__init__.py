"""Splatfacto on any device, resumable.

The model, the trainer and the datamanager that teachers and students share, with the checks of photos, points and
memory before a run starts. It uses `ops`, `splat` and `runs`, and does not depend on teachers or students.
"""

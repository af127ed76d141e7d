"""Splatfacto on any device, resumable.

The model, the trainer and the datamanager that teachers and students share, with the checks of photos, points and
memory before a run begins. It uses `ops`, `splat` and `runs`, and knows neither teachers nor students.
"""

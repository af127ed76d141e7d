"""Teachers: how each kind is trained, how a trained one is read, whether it fits the data, and their mean.

It uses `training` (a teacher is a splatfacto), `ops`, `splat` and `runs`.
"""

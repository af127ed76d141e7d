"""Teachers: train each kind, read a trained one, check that it fits the data, and average their renders.

It uses `training` (a teacher is a splatfacto), `ops`, `splat` and `runs`.
"""

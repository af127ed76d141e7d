"""The student: what it learns from photos and teachers, and which Gaussians it prunes.

It uses `teachers`, `training` (a student is a splatfacto), `ops`, `splat` and `runs`. A trained student needs none of
its teachers.
"""

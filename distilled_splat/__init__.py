"""Distilled-3DGS for nerfstudio: a small splat taught by an ensemble of larger ones."""

__version__ = "0.1.0"

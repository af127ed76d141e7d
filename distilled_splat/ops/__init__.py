"""Computations for every pixel and every Gaussian: with gsplat and torch on CUDA, with `cpu` elsewhere.

Rendering, importance, losses, Adam, densification and compositing. Only this subpackage knows which kernels
belong to which device. It uses `cpu`, `splat` and `runs`.
"""

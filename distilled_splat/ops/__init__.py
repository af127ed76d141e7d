"""What is computed for every pixel and every Gaussian: gsplat and torch on CUDA, `cpu` elsewhere.

Rendering, importance, losses, Adam, densification and compositing. Only this subpackage knows which device has which
kernels; it uses `cpu`, `splat` and `runs`.
"""

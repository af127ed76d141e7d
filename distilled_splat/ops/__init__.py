"""What is computed for every pixel and every Gaussian: gsplat and torch on CUDA, `cpu` elsewhere.

Rendering, importance, losses, Adam, densification and compositing. It is the only wing that knows which device has
which kernels; it uses `cpu`, `splat` and `runs`.
"""

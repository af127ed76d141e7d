"""Kernels that train and render Gaussian splats on a CPU.

Nothing is imported here: Numba is loaded when a kernel is first asked for, never when a plugin is.
"""

"""A rasterizer for Gaussian splats on a CPU, with gsplat's signature, and the other kernels that training needs.

`from distilled_splat.cpu import rasterization` replaces `from gsplat import rasterization`. This subpackage uses
nothing else of the package. Numba is loaded when a kernel is first asked for, never when a plugin is.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distilled_splat.cpu.rasterize import rasterization

__all__ = ["rasterization"]


def __getattr__(name: str) -> Any:
    if name != "rasterization":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from distilled_splat.cpu.rasterize import rasterization

    return rasterization

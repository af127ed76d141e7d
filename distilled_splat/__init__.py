"""Distilled-3DGS for nerfstudio: a small splat taught by an ensemble of larger ones.

nerfstudio finds the methods in `methods`; `cli` is the `distilled-splat` command. See docs/architecture.md.
The names here are for notebooks and other programs; each is imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distilled_splat.cpu import rasterization
    from distilled_splat.ops.render import render
    from distilled_splat.ops.views import View
    from distilled_splat.splat.gaussians import Gaussians
    from distilled_splat.teachers.reading import read_teacher

__version__ = "0.1.0"
__all__ = ["Gaussians", "View", "__version__", "rasterization", "read_teacher", "render"]

_PLACES = {
    "Gaussians": "splat.gaussians",
    "View": "ops.views",
    "rasterization": "cpu",
    "read_teacher": "teachers.reading",
    "render": "ops.render",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)

"""gsplat 1.4's compiled functions in torch, for tensors of the sham device: projection, harmonics and tiles.

Arguments, order of outputs, checks and what is left unwritten follow gsplat/cuda/csrc. The mathematics of projection
and harmonics is that of gsplat's own torch reference, which shares no code with the plugin; gradients are autograd's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from importlib import metadata
from types import ModuleType, SimpleNamespace
from typing import Any, Optional

import torch
from gsplat.cuda import _torch_impl as reference
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from sham_cuda import blending
from sham_cuda.device import ShamTensor
from sham_cuda.ledger import LEDGER

UNWRITTEN = float("nan")
"""What memory holds that a kernel leaves as it was; on a GPU it may be anything."""
PINHOLE = "pinhole"
DEPTH_BITS = 32


def compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of plain tensors one of contiguous float32 or integer tensors on the sham device."""

    @wraps(kernel)
    def call(*args: Any) -> Any:
        for place, value in enumerate(args):
            if isinstance(value, Tensor):
                refuse_what_cuda_refuses(value, f"argument {place} of {kernel.__name__}")
        # plain tensors need not go through the sham device's Python, which takes longer than the numbers do
        with _disable_current_modes(), torch._C.DisableTorchFunction(), torch.no_grad():
            outputs = kernel(*(v.numbers.detach() if isinstance(v, ShamTensor) else v for v in args))
        if isinstance(outputs, Tensor):
            return ShamTensor(outputs.contiguous())
        return tuple(None if output is None else ShamTensor(output.contiguous()) for output in outputs)

    return call


def refuse_what_cuda_refuses(tensor: Tensor, name: str) -> None:
    """Do the checks of gsplat's GSPLAT_CHECK_INPUT, and that of data_ptr<float>().

    Raises:
        RuntimeError: if one fails.
    """
    if not isinstance(tensor, ShamTensor):
        raise RuntimeError(f"{name} must be a CUDA tensor")
    if not tensor.numbers.is_contiguous():
        raise RuntimeError(f"{name} must be contiguous")
    if tensor.dtype.is_floating_point and tensor.dtype != torch.float32:
        raise RuntimeError(f"expected scalar type Float but found {tensor.dtype} ({name})")


def project(
    means: Tensor, quats: Tensor, scales: Tensor, viewmats: Tensor, Ks: Tensor, *settings: Any
) -> tuple[Tensor, ...]:
    """Project by gsplat's torch reference; `settings` are width, height, eps2d, near, far, whether to compensate."""
    covariances, _ = reference._quat_scale_to_covar_preci(quats, scales, compute_preci=False)
    assert covariances is not None
    return reference._fully_fused_projection(means, covariances, viewmats, Ks, *settings)  # type: ignore[return-value]


@compiled
def fully_fused_projection_fwd(
    means: Tensor,
    covars: Optional[Tensor],
    quats: Tensor,
    scales: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    eps2d: float,
    near: float,
    far: float,
    radius_clip: float,
    compensate: bool,
    camera_model: str,
) -> tuple[Optional[Tensor], ...]:
    """Return radii [C, N], centres [C, N, 2], depths, conics [C, N, 3] and compensations, or None for these."""
    assert covars is None and camera_model == PINHOLE
    radii, *floats, compensations = project(
        means, quats, scales, viewmats, Ks, width, height, eps2d, near, far, compensate
    )
    radii = torch.where(radii > radius_clip, radii, 0)
    unseen = radii == 0
    for tensor in floats:
        tensor[unseen] = UNWRITTEN
    if compensations is not None:
        compensations = torch.where(unseen, 0.0, compensations)
    return radii, *floats, compensations


@compiled
def fully_fused_projection_bwd(
    means: Tensor,
    covars: Optional[Tensor],
    quats: Tensor,
    scales: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    eps2d: float,
    camera_model: str,
    radii: Tensor,
    conics: Tensor,
    compensations: Optional[Tensor],
    v_means2d: Tensor,
    v_depths: Tensor,
    v_conics: Tensor,
    v_compensations: Optional[Tensor],
    wants_views: bool,
) -> tuple[Optional[Tensor], ...]:
    """Return the gradients of means, covariances (None), quaternions, scales and view matrices (None if not wanted)."""
    assert len(viewmats) == 1, "the sham kernels draw one camera at a time"
    seen = radii[0] > 0
    compensate = compensations is not None
    with torch.enable_grad():
        leaves = [tensor.clone().requires_grad_() for tensor in (means[seen], quats[seen], scales[seen], viewmats)]
        outputs = project(*leaves, Ks, width, height, eps2d, -torch.inf, torch.inf, compensate)[1:]
        cotangents = (v_means2d, v_depths, v_conics, v_compensations)
        terms = [(o * v[:, seen]).sum() for o, v in zip(outputs, cotangents) if o is not None and v is not None]
        per_seen = torch.autograd.grad(sum(terms, torch.zeros(())), leaves, allow_unused=True, materialize_grads=True)
    v_means, v_quats, v_scales = (torch.zeros_like(tensor) for tensor in (means, quats, scales))
    for gradient, value in zip((v_means, v_quats, v_scales), per_seen):
        gradient[seen] = value
    return v_means, None, v_quats, v_scales, per_seen[3] if wants_views else None


@compiled
def compute_sh_fwd(degree: int, dirs: Tensor, coeffs: Tensor, masks: Optional[Tensor]) -> Tensor:
    """Return colours [..., 3] of coefficients [..., K, 3] seen along directions [..., 3]."""
    colors = reference._spherical_harmonics(degree, dirs, coeffs)
    if masks is not None:
        colors[~masks] = UNWRITTEN
    return colors


@compiled
def compute_sh_bwd(
    num_bases: int,
    degree: int,
    dirs: Tensor,
    coeffs: Tensor,
    masks: Optional[Tensor],
    v_colors: Tensor,
    wants_dirs: bool,
) -> tuple[Optional[Tensor], ...]:
    """Return the gradients of coefficients, and of directions if they are wanted."""
    assert num_bases == coeffs.shape[-2]
    seen = torch.ones(dirs.shape[:-1], dtype=torch.bool) if masks is None else masks
    with torch.enable_grad():
        leaves = [tensor[seen].requires_grad_() for tensor in (dirs, coeffs)]
        colors = reference._spherical_harmonics(degree, *leaves)
        gradients = torch.autograd.grad(colors, leaves, v_colors[seen], allow_unused=True, materialize_grads=True)
    v_dirs, v_coeffs = torch.zeros_like(dirs), torch.zeros_like(coeffs)
    v_dirs[seen], v_coeffs[seen] = gradients
    return v_coeffs, v_dirs if wants_dirs else None


@compiled
def isect_tiles(
    means2d: Tensor,
    radii: Tensor,
    depths: Tensor,
    camera_ids: Optional[Tensor],
    gaussian_ids: Optional[Tensor],
    num_cameras: int,
    tile_size: int,
    tile_width: int,
    tile_height: int,
    sort: bool,
    double_buffer: bool,
) -> tuple[Tensor, ...]:
    """List which Gaussian touches which tile, ordered by tile and depth.

    Returns:
        The number of tiles of each Gaussian [1, N], keys (tile, then depth) and numbers of Gaussians [touches].
    """
    assert num_cameras == 1 and camera_ids is None and sort
    LEDGER.note("item")  # of the number of touches, for which memory is then made
    seen = torch.nonzero(radii[0] > 0)[:, 0]
    centres, reach = means2d[0, seen] / tile_size, radii[0, seen, None] / tile_size
    limits = torch.tensor([tile_width, tile_height])
    first = torch.floor(centres - reach).long().clamp_min(0).minimum(limits)
    last = torch.ceil(centres + reach).long().clamp_min(0).minimum(limits)
    columns, rows = torch.arange(tile_width), torch.arange(tile_height)
    in_column = (columns >= first[:, :1]) & (columns < last[:, :1])
    in_row = (rows >= first[:, 1:]) & (rows < last[:, 1:])
    touched, tiles = torch.nonzero((in_row[:, :, None] & in_column[:, None, :]).flatten(1), as_tuple=True)
    ids = seen[touched]
    keys = (tiles << DEPTH_BITS) | depths[0, ids].view(torch.int32).long()
    keys, order = keys.sort(stable=True)
    counts = torch.zeros_like(radii)
    counts[0, seen] = (last - first).prod(dim=1).int()
    return counts, keys, ids[order].int()


@compiled
def isect_offset_encode(keys: Tensor, num_cameras: int, tile_width: int, tile_height: int) -> Tensor:
    """Return where each tile's part of the sorted list begins [1, tile_height, tile_width]."""
    assert num_cameras == 1
    first = torch.searchsorted(keys >> DEPTH_BITS, torch.arange(tile_width * tile_height))
    return first.int().reshape(1, tile_height, tile_width)


def install() -> None:
    """Put these functions where gsplat looks for its compiled ones, before it builds them.

    Raises:
        RuntimeError: if another gsplat than 1.4 is installed.
    """
    version = metadata.version("gsplat")
    if not version.startswith("1.4."):
        raise RuntimeError(f"The sham kernels are those of gsplat 1.4, and {version} is installed.")
    backend = ModuleType("gsplat.cuda._backend")
    backend._C = SimpleNamespace(  # type: ignore[attr-defined]
        fully_fused_projection_fwd=fully_fused_projection_fwd,
        fully_fused_projection_bwd=fully_fused_projection_bwd,
        compute_sh_fwd=compute_sh_fwd,
        compute_sh_bwd=compute_sh_bwd,
        isect_tiles=isect_tiles,
        isect_offset_encode=isect_offset_encode,
        rasterize_to_pixels_fwd=compiled(blending.rasterize_to_pixels_fwd),
        rasterize_to_pixels_bwd=compiled(blending.rasterize_to_pixels_bwd),
        CameraModelType=SimpleNamespace(PINHOLE=PINHOLE),
        PINHOLE=PINHOLE,
    )
    sys.modules["gsplat.cuda._backend"] = backend

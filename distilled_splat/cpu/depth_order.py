"""Depth order of the Gaussians that can be seen: a stable radix sort, in parallel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from distilled_splat.cpu.kernels import kernel
from distilled_splat.cpu.simd import float_bits
from distilled_splat.cpu.threads import num_threads, parallel_ranges

SERIAL = 8192
"""Number of Gaussians below which one thread sorts faster than several."""
_RADIX_BITS = 11


def split(count: int, parts: int) -> np.ndarray:
    """Give the bounds of equal parts of range(count) [parts + 1]."""
    return np.arange(parts + 1) * count // parts


def first_places(counts: np.ndarray) -> np.ndarray:
    """Turn counts [parts, bins] into the first place of each part in each bin, bins in order and parts within them."""
    by_bin = counts.T.ravel()
    return (np.cumsum(by_bin) - by_bin).reshape(counts.T.shape).T.copy()


@kernel
def _count_kernel(start: int, stop: int, bounds: Any, radii: Any, opacities: Any, counts: Any) -> None:
    for part in range(start, stop):
        count = 0
        for g in range(bounds[part], bounds[part + 1]):
            count += _is_drawn(radii[g], opacities[g])
        counts[part] = count


@njit(nogil=True)
def _is_drawn(radius: Any, opacity: Any) -> Any:
    """Tell whether a Gaussian can reach alpha 1 / 255 anywhere; an opacity that is not finite never does."""
    return radius > 0 and opacity >= np.float32(1 / 255) and opacity < np.float32(np.inf)


@kernel
def _collect_kernel(
    start: int, stop: int, bounds: Any, radii: Any, opacities: Any, depths: Any, firsts: Any, keys: Any, ids: Any
) -> None:
    """Write the depth bits and numbers of the drawn Gaussians; bits of positive floats sort as the floats do."""
    for part in range(start, stop):
        at = firsts[part]
        for g in range(bounds[part], bounds[part + 1]):
            if _is_drawn(radii[g], opacities[g]):
                keys[at] = float_bits(depths[g])
                ids[at] = g
                at += 1


@kernel
def _histogram_kernel(start: int, stop: int, bounds: Any, keys: Any, shift: int, histogram: Any) -> None:
    digit_mask = np.uint32((1 << _RADIX_BITS) - 1)
    for part in range(start, stop):
        counts = histogram[part]
        counts[:] = 0
        for i in range(bounds[part], bounds[part + 1]):
            counts[(keys[i] >> np.uint32(shift)) & digit_mask] += 1


@kernel
def _reorder_kernel(
    start: int,
    stop: int,
    bounds: Any,
    keys: Any,
    ids: Any,
    shift: int,
    places: Any,
    sorted_keys: Any,
    sorted_ids: Any,
) -> None:
    digit_mask = np.uint32((1 << _RADIX_BITS) - 1)
    for part in range(start, stop):
        place = places[part]
        for i in range(bounds[part], bounds[part + 1]):
            digit = (keys[i] >> np.uint32(shift)) & digit_mask
            at = place[digit]
            place[digit] = at + 1
            sorted_keys[at] = keys[i]
            sorted_ids[at] = ids[i]


def depth_order(depths: np.ndarray, radii: np.ndarray, opacities: np.ndarray) -> np.ndarray:
    """Sort the Gaussians that can be seen by depth, nearest first and equal depths by number (stable radix sort).

    Args:
        depths: Camera-space z, positive [N].
        radii: Image-plane radii, 0 where not visible [N].
        opacities: Opacities [N]; below 1/255 nothing is drawn.

    Returns:
        Numbers of the drawn Gaussians [M], int32.
    """
    parts = num_threads() if len(depths) > SERIAL else 1
    bounds = split(len(depths), parts)
    counts = np.zeros(parts, np.int64)
    parallel_ranges(_count_kernel, parts, bounds, radii, opacities, counts, chunks=parts)
    total = int(counts.sum())
    keys, ids = np.empty(total, np.uint32), np.empty(total, np.int32)
    firsts = np.cumsum(counts) - counts
    parallel_ranges(_collect_kernel, parts, bounds, radii, opacities, depths, firsts, keys, ids, chunks=parts)
    other_keys, other_ids = np.empty_like(keys), np.empty_like(ids)
    bounds = split(total, parts)
    histogram = np.empty((parts, 1 << _RADIX_BITS), np.int64)
    for shift in range(0, 32, _RADIX_BITS):
        parallel_ranges(_histogram_kernel, parts, bounds, keys, shift, histogram, chunks=parts)
        if histogram.sum(axis=0).max(initial=0) == total:
            continue
        inputs = (bounds, keys, ids, shift, first_places(histogram), other_keys, other_ids)
        parallel_ranges(_reorder_kernel, parts, *inputs, chunks=parts)
        keys, ids, other_keys, other_ids = other_keys, other_ids, keys, ids
    return ids

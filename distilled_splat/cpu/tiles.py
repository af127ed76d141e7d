"""Which Gaussian reaches which tile: depth order, packed records, and the list of pairs of every tile.

A tile is 16 by 16 pixels and is blended in slabs of LANES columns. For every pair of a tile and a Gaussian the rows of each
slab that the Gaussian's visible ellipse crosses are found once here, so that blending visits no others.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from distilled_splat.cpu.simd import LANES, float_bits
from distilled_splat.cpu.threads import num_threads, parallel_ranges

TILE = 16
SLABS = TILE // LANES
ROW_BITS = 5
"""Rows of a slab are packed into 2 * ROW_BITS bits: first row, and the row after the last."""

RECORD = 16
"""Floats in a record, one cache line: x, y, A, B, C, L, four channels, then what only this file reads.

The exponent of a Gaussian's alpha is L + A dx^2 + B dx dy + C dy^2 in base 2, with its opacity folded into L.
"""
CHANNEL = 6
CHANNELS = 4
_REACH, _DISCRIMINANT, _EXTENT_X, _EXTENT_Y = 10, 11, 12, 13

PAIR = 4
"""Integers in a pair: record, packed rows, slot; the fourth keeps pairs aligned."""

_LOG2_E = np.float32(math.log2(math.e))
CUTOFF = np.float32(-math.log2(255.0))
"""Exponent below which a Gaussian does not touch a pixel: alpha = 1 / 255."""
_MARGIN = np.float32(0.05)
"""Pixels by which the ellipse is widened, so that rounding never loses a pixel: the exponent itself decides."""

_RADIX_BITS = 11
_SERIAL = 8192
"""Number of Gaussians below which one thread sorts faster than several."""


class TileLists(NamedTuple):
    """The Gaussians of one camera in depth order, and the pairs of each tile."""

    order: np.ndarray
    """Gaussian of each record [M], int32."""
    records: np.ndarray
    """[M, RECORD]."""
    tiles_per_gaussian: np.ndarray
    """Tiles that each Gaussian's square touches [N], int32."""
    slot_first: np.ndarray
    """First slot of each record [M], int32; its slots are consecutive."""
    slot_count: np.ndarray
    """Number of slots, which is the number of pairs, of each record [M], int32."""
    num_slots: int
    """Upper bound of slot numbers."""
    pairs: np.ndarray
    """Pairs of all tiles, tile by tile in depth order [P, PAIR], int32."""
    tile_starts: np.ndarray
    """First pair of each tile, and the number of pairs at the end [tiles + 1], int64."""


@njit(nogil=True, cache=True)
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


@njit(nogil=True, cache=True)
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


@njit(nogil=True, cache=True)
def _histogram_kernel(start: int, stop: int, bounds: Any, keys: Any, shift: int, histogram: Any) -> None:
    digit_mask = np.uint32((1 << _RADIX_BITS) - 1)
    for part in range(start, stop):
        counts = histogram[part]
        counts[:] = 0
        for i in range(bounds[part], bounds[part + 1]):
            counts[(keys[i] >> np.uint32(shift)) & digit_mask] += 1


@njit(nogil=True, cache=True)
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


def _split(count: int, parts: int) -> np.ndarray:
    return np.arange(parts + 1) * count // parts


def _starts(counts: np.ndarray) -> np.ndarray:
    """Turn counts [parts, bins] into the first place of each part in each bin, bins in order and parts within them."""
    by_bin = counts.T.ravel()
    return (np.cumsum(by_bin) - by_bin).reshape(counts.T.shape).T.copy()


def depth_order(depths: np.ndarray, radii: np.ndarray, opacities: np.ndarray) -> np.ndarray:
    """Sort the Gaussians that can be seen by depth, nearest first and equal depths by number (stable radix sort).

    Args:
        depths: Camera-space z, positive [N].
        radii: Image-plane radii, 0 where not visible [N].
        opacities: Opacities [N]; below 1/255 nothing is drawn.

    Returns:
        Numbers of the drawn Gaussians [M], int32.
    """
    parts = num_threads() if len(depths) > _SERIAL else 1
    bounds = _split(len(depths), parts)
    counts = np.zeros(parts, np.int64)
    parallel_ranges(_count_kernel, parts, bounds, radii, opacities, counts, chunks=parts)
    total = int(counts.sum())
    keys, ids = np.empty(total, np.uint32), np.empty(total, np.int32)
    firsts = np.cumsum(counts) - counts
    parallel_ranges(_collect_kernel, parts, bounds, radii, opacities, depths, firsts, keys, ids, chunks=parts)
    other_keys, other_ids = np.empty_like(keys), np.empty_like(ids)
    bounds = _split(total, parts)
    histogram = np.empty((parts, 1 << _RADIX_BITS), np.int64)
    for shift in range(0, 32, _RADIX_BITS):
        parallel_ranges(_histogram_kernel, parts, bounds, keys, shift, histogram, chunks=parts)
        if histogram.sum(axis=0).max(initial=0) == total:
            continue
        inputs = (bounds, keys, ids, shift, _starts(histogram), other_keys, other_ids)
        parallel_ranges(_reorder_kernel, parts, *inputs, chunks=parts)
        keys, ids, other_keys, other_ids = other_keys, other_ids, keys, ids
    return ids


@njit(nogil=True)
def _clip(value: Any, low: int, high: int) -> int:
    """Turn a float into an integer within bounds; the float may be far outside the integers."""
    return int(min(max(value, np.float32(low)), np.float32(high)))


@njit(nogil=True)
def _clip_up(value: Any, low: int, high: int) -> int:
    """Round a float up to an integer within bounds."""
    clipped = _clip(value, low, high)
    return clipped + 1 if clipped < high and clipped < value else clipped


@njit(nogil=True)
def _put_channels(record: Any, colors: Any, depths: Any, with_depth: bool, g: int, first_channel: int) -> None:
    num_colors = colors.shape[1]
    for k in range(CHANNELS):
        channel = first_channel + k
        value = np.float32(0)
        if channel < num_colors:
            value = colors[g, channel]
        elif channel == num_colors and with_depth:
            value = depths[g]
        record[CHANNEL + k] = value


@njit(nogil=True, cache=True)
def pack_channels_kernel(
    start: int, stop: int, order: Any, colors: Any, depths: Any, with_depth: bool, first_channel: int, records: Any
) -> None:
    """Put the next CHANNELS channels into the records."""
    for i in range(start, stop):
        _put_channels(records[i], colors, depths, with_depth, order[i], first_channel)


@njit(nogil=True, cache=True)
def _pack_kernel(
    start: int,
    stop: int,
    bounds: Any,
    order: Any,
    means2d: Any,
    conics: Any,
    opacities: Any,
    radii: Any,
    colors: Any,
    depths: Any,
    with_depth: bool,
    width: int,
    height: int,
    records: Any,
    boxes: Any,
    tiles_per_gaussian: Any,
    most_pairs: Any,
) -> None:
    """Write records in depth order, the box of tiles of each (left, right, top, bottom), and each part's tile count."""
    tiles_x, tiles_y = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    half, two, tile = np.float32(0.5), np.float32(2), np.float32(TILE)
    for part in range(start, stop):
        total = 0
        for i in range(bounds[part], bounds[part + 1]):
            g = order[i]
            record, box = records[i], boxes[i]
            x, y, radius = means2d[g, 0], means2d[g, 1], np.float32(radii[g])
            a = half * conics[g, 0] * _LOG2_E
            b = conics[g, 1] * _LOG2_E
            c = half * conics[g, 2] * _LOG2_E
            # Rounding can turn a needle's conic into a hyperbola, which would be seen far from the needle.
            steepest = two * np.float32(math.sqrt(a)) * np.float32(math.sqrt(c)) * np.float32(1 - 1e-6)
            b = min(max(b, -steepest), steepest)
            level = np.float32(math.log2(opacities[g]))
            record[0], record[1], record[2], record[3], record[4], record[5] = x, y, -a, -b, -c, level
            _put_channels(record, colors, depths, with_depth, g, 0)
            reach = max(level - CUTOFF, np.float32(0)) * np.float32(1 + 1e-5) + np.float32(1e-5)
            discriminant = np.float32(4.0 * np.float64(a) * np.float64(c) - np.float64(b) * np.float64(b))
            extent_x = np.float32(math.sqrt(np.float32(4) * c * reach / discriminant))
            extent_y = np.float32(math.sqrt(np.float32(4) * a * reach / discriminant))
            record[_REACH], record[_DISCRIMINANT] = reach, discriminant
            record[_EXTENT_X], record[_EXTENT_Y] = extent_x, extent_y
            left, right = _clip((x - radius) / tile, 0, tiles_x), _clip_up((x + radius) / tile, 0, tiles_x)
            top, bottom = _clip((y - radius) / tile, 0, tiles_y), _clip_up((y + radius) / tile, 0, tiles_y)
            tiles_per_gaussian[g] = (right - left) * (bottom - top)
            near_x, near_y = extent_x + _MARGIN, extent_y + _MARGIN
            box[0] = max(left, _clip((x - near_x) / tile, 0, tiles_x))
            box[1] = min(right, _clip((x + near_x) / tile + np.float32(1), 0, tiles_x))
            box[2] = max(top, _clip((y - near_y) / tile, 0, tiles_y))
            box[3] = min(bottom, _clip((y + near_y) / tile + np.float32(1), 0, tiles_y))
            total += max(box[1] - box[0], 0) * max(box[3] - box[2], 0)
        most_pairs[part] = total


@njit(nogil=True)
def _crossed_rows(record: Any, left: int, row_first: int, row_stop: int) -> tuple[int, int]:
    """Find the rows within bounds whose pixels in the LANES columns from `left` the ellipse may reach.

    The upper arc of an ellipse is concave, so over the columns it is highest at the column nearest to its top.
    """
    x, y = record[0], record[1]
    a, b, c = -record[2], -record[3], -record[4]
    reach, discriminant, extent_x, extent_y = (
        record[_REACH],
        record[_DISCRIMINANT],
        record[_EXTENT_X],
        record[_EXTENT_Y],
    )
    low = np.float32(left) + np.float32(0.5) - x
    high = low + np.float32(LANES - 1)
    if low > extent_x + _MARGIN or high < -extent_x - _MARGIN:
        return 0, 0
    low, high = min(max(low, -extent_x), extent_x), min(max(high, -extent_x), extent_x)
    bottom_at = -b * extent_y / (np.float32(2) * a)
    inverse = np.float32(0.5) / c
    dx = min(max(bottom_at, low), high)
    root = math.sqrt(max(np.float32(4) * c * reach - discriminant * dx * dx, np.float32(0)))
    lowest = y + (root - b * dx) * inverse + _MARGIN
    dx = min(max(-bottom_at, low), high)
    root = math.sqrt(max(np.float32(4) * c * reach - discriminant * dx * dx, np.float32(0)))
    highest = y - (root + b * dx) * inverse - _MARGIN
    first = _clip(highest + np.float32(0.5), row_first, row_stop)
    stop = _clip(lowest + np.float32(0.5), row_first, row_stop)
    return first, stop


@njit(nogil=True, cache=True)
def _find_pairs_kernel(
    start: int,
    stop: int,
    bounds: Any,
    width: int,
    height: int,
    records: Any,
    boxes: Any,
    slot_firsts: Any,
    slot_first: Any,
    slot_count: Any,
    pair_tiles: Any,
    pair_rows: Any,
    counts: Any,
) -> None:
    """Write tile and packed rows of every pair, Gaussian by Gaussian, and count each part's pairs per tile."""
    tiles_x = (width + TILE - 1) // TILE
    slab_first, slab_stop = np.empty(SLABS, np.int64), np.empty(SLABS, np.int64)
    for part in range(start, stop):
        tile_counts = counts[part]
        tile_counts[:] = 0
        slot = slot_firsts[part]
        for i in range(bounds[part], bounds[part + 1]):
            slot_first[i] = slot
            box = boxes[i]
            row_first, row_stop = box[2] * TILE, min(box[3] * TILE, height)
            for tile_x in range(box[0], box[1]):
                first, last = row_stop, row_first
                for slab in range(SLABS):
                    rows = _crossed_rows(records[i], tile_x * TILE + slab * LANES, row_first, row_stop)
                    slab_first[slab], slab_stop[slab] = rows
                    if rows[1] > rows[0]:
                        first, last = min(first, rows[0]), max(last, rows[1])
                if first >= last:
                    continue
                for tile_y in range(first // TILE, (last + TILE - 1) // TILE):
                    packed = 0
                    for slab in range(SLABS):
                        a = min(max(slab_first[slab] - tile_y * TILE, 0), TILE)
                        b = min(max(slab_stop[slab] - tile_y * TILE, 0), TILE)
                        if b > a:
                            packed |= (a | b << ROW_BITS) << (2 * ROW_BITS * slab)
                    if packed != 0:
                        tile = tile_y * tiles_x + tile_x
                        pair_tiles[slot] = tile
                        pair_rows[slot] = packed
                        tile_counts[tile] += 1
                        slot += 1
            slot_count[i] = slot - slot_first[i]


@njit(nogil=True, cache=True)
def _fill_tiles_kernel(
    start: int,
    stop: int,
    bounds: Any,
    slot_first: Any,
    slot_count: Any,
    pair_tiles: Any,
    pair_rows: Any,
    places: Any,
    pairs: Any,
) -> None:
    """Append the pairs to their tiles' lists, in depth order."""
    for part in range(start, stop):
        place = places[part]
        for i in range(bounds[part], bounds[part + 1]):
            for slot in range(slot_first[i], slot_first[i] + slot_count[i]):
                tile = pair_tiles[slot]
                at = place[tile]
                place[tile] = at + 1
                pairs[at, 0] = i
                pairs[at, 1] = pair_rows[slot]
                pairs[at, 2] = slot


def list_tiles(
    means2d: np.ndarray,
    conics: np.ndarray,
    opacities: np.ndarray,
    radii: np.ndarray,
    colors: np.ndarray,
    depths: np.ndarray,
    with_depth: bool,
    width: int,
    height: int,
) -> TileLists:
    """Sort one camera's Gaussians by depth, pack them, and list the pairs of every tile.

    Args:
        means2d, conics, opacities, radii, depths: The projection, see `projection.Projection`, [N, ...].
        colors: [N, D]; the records take the first CHANNELS channels.
        with_depth: Whether depth is one more channel after the colours.
        width, height: Image size in pixels.
    """
    order = depth_order(depths, radii, opacities)
    num_records, num_tiles = len(order), math.ceil(width / TILE) * math.ceil(height / TILE)
    records, boxes = np.empty((num_records, RECORD), np.float32), np.empty((num_records, 4), np.int32)
    tiles_per_gaussian = np.zeros(len(radii), np.int32)
    parts = 4 * num_threads() if num_records > _SERIAL else 1
    bounds = _split(num_records, parts)
    most_pairs = np.zeros(parts, np.int64)
    projected = (order, means2d, conics, opacities, radii, colors, depths, with_depth, width, height)
    outputs = (records, boxes, tiles_per_gaussian, most_pairs)
    parallel_ranges(_pack_kernel, parts, bounds, *projected, *outputs, chunks=parts)

    slot_firsts, num_slots = np.cumsum(most_pairs) - most_pairs, int(most_pairs.sum())
    slot_first, slot_count = np.empty(num_records, np.int32), np.empty(num_records, np.int32)
    pair_tiles, pair_rows = np.empty(num_slots, np.int32), np.empty(num_slots, np.int32)
    counts = np.empty((parts, num_tiles), np.int64)
    slots = (slot_first, slot_count, pair_tiles, pair_rows)
    inputs = (bounds, width, height, records, boxes, slot_firsts)
    parallel_ranges(_find_pairs_kernel, parts, *inputs, *slots, counts, chunks=parts)

    places = _starts(counts)
    tile_starts = np.append(places[0], counts.sum())
    pairs = np.empty((int(counts.sum()), PAIR), np.int32)
    parallel_ranges(_fill_tiles_kernel, parts, bounds, *slots, places, pairs, chunks=parts)
    return TileLists(order, records, tiles_per_gaussian, slot_first, slot_count, num_slots, pairs, tile_starts)

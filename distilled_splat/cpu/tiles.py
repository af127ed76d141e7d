"""Which Gaussian reaches which tile: depth order, packed records, and the list of pairs of every tile.

A tile is 16 by 16 pixels and is blended in slabs of LANES columns. For every pair of a tile and a Gaussian the rows of
each slab that the Gaussian's visible ellipse crosses are found once here, so that blending visits no others.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from distilled_splat.cpu import buffers
from distilled_splat.cpu.depth_order import SERIAL, depth_order, first_places, split
from distilled_splat.cpu.simd import LANES, log2, maximum, minimum, square_root
from distilled_splat.cpu.simd_memory import gather, prefetch, scatter
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
_HEIGHT, _NARROWING, _EXTENT_X, _LOWEST_AT, _HALF_INVERSE_C = 10, 11, 12, 13, 14

PAIR = 2
"""Integers in a pair: Gaussian, packed rows."""

_AHEAD = 8
"""Records fetched ahead."""
_HALF, _ONE, _TWO, _FOUR, _ZERO = (np.float32(i) for i in (0.5, 1, 2, 4, 0))
_LOG2_E = np.float32(math.log2(math.e))
CUTOFF = np.float32(-math.log2(255.0))
"""Exponent below which a Gaussian does not touch a pixel: alpha = 1 / 255."""
_MARGIN = np.float32(0.05)
"""Pixels by which the ellipse is widened, so that rounding never loses a pixel: the exponent itself decides."""


class TileLists(NamedTuple):
    """One camera's Gaussians, packed, and the pairs of each tile.

    An entry is a pair seen from its Gaussian: the entries of a Gaussian are consecutive.
    """

    order: np.ndarray
    """The drawn Gaussians, nearest first [M], int32."""
    records: np.ndarray
    """[N, RECORD]."""
    tiles_per_gaussian: np.ndarray
    """Tiles that each Gaussian's square touches [N], int32."""
    entry_first: np.ndarray
    """First entry of each Gaussian [N], int32."""
    entry_count: np.ndarray
    """Number of entries of each Gaussian [N], int32."""
    entry_pairs: np.ndarray
    """The pair of each entry, int32."""
    pairs: np.ndarray
    """Pairs of all tiles, tile by tile in depth order [P, PAIR], int32."""
    tile_starts: np.ndarray
    """First pair of each tile, and the number of pairs at the end [tiles + 1], int64."""


@njit(nogil=True)
def _clip(value: Any, low: int, high: int) -> int:
    """Turn a float into an integer within bounds; the float may be far outside the integers."""
    return int(min(max(value, np.float32(low)), np.float32(high)))


@njit(nogil=True)
def _clip_up(value: Any, low: int, high: int) -> int:
    """Round a float up to an integer within bounds."""
    clipped = _clip(value, low, high)
    return clipped + 1 if clipped < high and clipped < value else clipped


@njit(nogil=True, cache=True)
def pack_channels_kernel(
    start: int, stop: int, colors: Any, depths: Any, with_depth: bool, first_channel: int, records: Any
) -> None:
    """Put the next CHANNELS channels into the records."""
    num_colors = colors.shape[1]
    for g in range(start, stop):
        for k in range(CHANNELS):
            channel = first_channel + k
            value = _ZERO
            if channel < num_colors:
                value = colors[g, channel]
            elif channel == num_colors and with_depth:
                value = depths[g]
            records[g, CHANNEL + k] = value


@njit(nogil=True, cache=True)
def _pack_kernel(start: int, stop: int, means2d: Any, conics: Any, opacities: Any, records: Any) -> None:
    """Write all of the records but the channels, for blocks of LANES Gaussians; what is not drawn gets anything."""
    for block in range(start, stop):
        first = block * LANES
        count = min(LANES, means2d.shape[0] - first)
        at = RECORD * first
        a = gather(conics, 3 * first, 3, count) * (_HALF * _LOG2_E)
        b = gather(conics, 3 * first + 1, 3, count) * _LOG2_E
        c = gather(conics, 3 * first + 2, 3, count) * (_HALF * _LOG2_E)
        # Rounding can turn a needle's conic into a hyperbola, which would be seen far from the needle.
        steepest = square_root(a) * square_root(c) * np.float32(2 - 2e-6)
        b = minimum(maximum(b, _ZERO - steepest), steepest)
        level = log2(gather(opacities, first, 1, count))
        reach = maximum(level - CUTOFF, _ZERO) * np.float32(1 + 1e-5) + np.float32(1e-5)
        # 4 a c - b^2, factored because the two nearly cancel for a needle.
        spread = _TWO * square_root(a) * square_root(c)
        narrowing = (spread - b) * (spread + b)
        extent_x, extent_y = square_root(_FOUR * c * reach / narrowing), square_root(_FOUR * a * reach / narrowing)
        scatter(records, at, RECORD, count, gather(means2d, 2 * first, 2, count))
        scatter(records, at + 1, RECORD, count, gather(means2d, 2 * first + 1, 2, count))
        scatter(records, at + 2, RECORD, count, _ZERO - a)
        scatter(records, at + 3, RECORD, count, _ZERO - b)
        scatter(records, at + 4, RECORD, count, _ZERO - c)
        scatter(records, at + 5, RECORD, count, level)
        scatter(records, at + _HEIGHT, RECORD, count, _FOUR * c * reach)
        scatter(records, at + _NARROWING, RECORD, count, narrowing)
        scatter(records, at + _EXTENT_X, RECORD, count, extent_x)
        scatter(records, at + _LOWEST_AT, RECORD, count, _ZERO - b * extent_y * (_HALF / a))
        scatter(records, at + _HALF_INVERSE_C, RECORD, count, _HALF / c)


@njit(nogil=True, cache=True)
def _box_kernel(
    start: int,
    stop: int,
    bounds: Any,
    order: Any,
    radii: Any,
    width: int,
    height: int,
    records: Any,
    boxes: Any,
    tiles_per_gaussian: Any,
    most_pairs: Any,
) -> None:
    """Find the box of tiles (left, right, top, bottom) of each drawn Gaussian, and each part's number of tiles."""
    tiles_x, tiles_y = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    tile = np.float32(TILE)
    for part in range(start, stop):
        total = 0
        for i in range(bounds[part], bounds[part + 1]):
            g = order[i]
            x, y, radius, box = records[g, 0], records[g, 1], np.float32(radii[g]), boxes[i]
            left, right = _clip((x - radius) / tile, 0, tiles_x), _clip_up((x + radius) / tile, 0, tiles_x)
            top, bottom = _clip((y - radius) / tile, 0, tiles_y), _clip_up((y + radius) / tile, 0, tiles_y)
            tiles_per_gaussian[g] = (right - left) * (bottom - top)
            reach = records[g, _EXTENT_X] + _MARGIN
            box[0] = max(left, _clip((x - reach) / tile, 0, tiles_x))
            box[1] = min(right, _clip_up((x + reach) / tile, 0, tiles_x))
            box[2], box[3] = top, bottom
            total += max(box[1] - box[0], 0) * max(box[3] - box[2], 0)
        most_pairs[part] = total


@njit(nogil=True)
def _crossed_rows(record: Any, left: int, row_first: int, row_stop: int) -> tuple[int, int]:
    """Find the rows within bounds whose pixels in the LANES columns from `left` the ellipse may reach.

    The upper arc of an ellipse is concave, so over the columns it is highest at the column nearest to its top.
    """
    x, y, b = record[0], record[1], -record[3]
    height, narrowing, inverse = record[_HEIGHT], record[_NARROWING], record[_HALF_INVERSE_C]
    extent_x, lowest_at = record[_EXTENT_X], record[_LOWEST_AT]
    low = np.float32(left) + _HALF - x
    high = low + np.float32(LANES - 1)
    if low > extent_x + _MARGIN or high < -extent_x - _MARGIN:
        return 0, 0
    low, high = min(max(low, -extent_x), extent_x), min(max(high, -extent_x), extent_x)
    dx = min(max(lowest_at, low), high)
    lowest = y + (math.sqrt(max(height - narrowing * dx * dx, _ZERO)) - b * dx) * inverse + _MARGIN
    dx = min(max(-lowest_at, low), high)
    highest = y - (math.sqrt(max(height - narrowing * dx * dx, _ZERO)) + b * dx) * inverse - _MARGIN
    first = _clip(highest + np.float32(0.5), row_first, row_stop)
    stop = _clip(lowest + np.float32(0.5), row_first, row_stop)
    return first, stop


@njit(nogil=True, cache=True)
def _find_pairs_kernel(
    start: int,
    stop: int,
    bounds: Any,
    order: Any,
    width: int,
    height: int,
    records: Any,
    boxes: Any,
    entry_firsts: Any,
    entry_first: Any,
    entry_count: Any,
    entry_tiles: Any,
    entry_rows: Any,
    counts: Any,
) -> None:
    """Write tile and packed rows of every pair, Gaussian by Gaussian, and count each part's pairs per tile."""
    tiles_x = (width + TILE - 1) // TILE
    slab_first, slab_stop = np.empty(SLABS, np.int64), np.empty(SLABS, np.int64)
    for part in range(start, stop):
        tile_counts = counts[part]
        tile_counts[:] = 0
        entry = entry_firsts[part]
        for i in range(bounds[part], bounds[part + 1]):
            prefetch(records, RECORD * order[min(i + _AHEAD, len(order) - 1)])
            g = order[i]
            entry_first[g] = entry
            record, box = records[g], boxes[i]
            row_first, row_stop = box[2] * TILE, min(box[3] * TILE, height)
            for tile_x in range(box[0], box[1]):
                first, last = row_stop, row_first
                for slab in range(SLABS):
                    rows = _crossed_rows(record, tile_x * TILE + slab * LANES, row_first, row_stop)
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
                        entry_tiles[entry] = tile
                        entry_rows[entry] = packed
                        tile_counts[tile] += 1
                        entry += 1
            entry_count[g] = entry - entry_first[g]


@njit(nogil=True, cache=True)
def _fill_tiles_kernel(
    start: int,
    stop: int,
    bounds: Any,
    order: Any,
    entry_first: Any,
    entry_count: Any,
    entry_tiles: Any,
    entry_rows: Any,
    places: Any,
    entry_pairs: Any,
    pairs: Any,
) -> None:
    """Append the entries to their tiles' lists, in depth order, and note where each went."""
    for part in range(start, stop):
        place = places[part]
        for i in range(bounds[part], bounds[part + 1]):
            g = order[i]
            for entry in range(entry_first[g], entry_first[g] + entry_count[g]):
                tile = entry_tiles[entry]
                at = place[tile]
                place[tile] = at + 1
                pairs[at, 0] = g
                pairs[at, 1] = entry_rows[entry]
                entry_pairs[entry] = at


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
    num_gaussians, num_tiles = len(radii), math.ceil(width / TILE) * math.ceil(height / TILE)
    records = buffers.empty((num_gaussians, RECORD))
    num_blocks = (num_gaussians + LANES - 1) // LANES
    parallel_ranges(_pack_kernel, num_blocks, means2d, conics, opacities, records)
    parallel_ranges(pack_channels_kernel, num_gaussians, colors, depths, with_depth, 0, records)

    parts = 4 * num_threads() if len(order) > SERIAL else 1
    bounds = split(len(order), parts)
    boxes, most_pairs = buffers.empty((len(order), 4), np.int32), np.zeros(parts, np.int64)
    tiles_per_gaussian = np.zeros(num_gaussians, np.int32)
    drawn = (bounds, order, radii, width, height, records, boxes)
    parallel_ranges(_box_kernel, parts, *drawn, tiles_per_gaussian, most_pairs, chunks=parts)

    num_entries = int(most_pairs.sum())
    entry_first, entry_count = np.zeros(num_gaussians, np.int32), np.zeros(num_gaussians, np.int32)
    entry_tiles, entry_rows = buffers.empty((num_entries,), np.int32), buffers.empty((num_entries,), np.int32)
    counts = np.empty((parts, num_tiles), np.int64)
    entries = (entry_first, entry_count, entry_tiles, entry_rows)
    inputs = (bounds, order, width, height, records, boxes, np.cumsum(most_pairs) - most_pairs)
    parallel_ranges(_find_pairs_kernel, parts, *inputs, *entries, counts, chunks=parts)

    places, num_pairs = first_places(counts), int(counts.sum())
    tile_starts = np.append(places[0], num_pairs)
    entry_pairs, pairs = buffers.empty((num_entries,), np.int32), buffers.empty((num_pairs, PAIR), np.int32)
    parallel_ranges(_fill_tiles_kernel, parts, bounds, order, *entries, places, entry_pairs, pairs, chunks=parts)
    return TileLists(order, records, tiles_per_gaussian, entry_first, entry_count, entry_pairs, pairs, tile_starts)

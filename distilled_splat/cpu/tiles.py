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
from distilled_splat.cpu.kernels import kernel
from distilled_splat.cpu.simd import LANES, log2, maximum, minimum, round_up, select, square_root
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
_NARROWING, _LOWEST_AT, _LEFT, _RIGHT, _TOP, _BOTTOM = 10, 11, 12, 13, 14, 15

PAIR = 2
"""Integers in a pair: Gaussian, packed rows."""

_AHEAD = 8
"""Records fetched ahead."""
_HALF, _ONE, _TWO, _FOUR, _ZERO = (np.float32(i) for i in (0.5, 1, 2, 4, 0))
_LOG2_E = np.float32(math.log2(math.e))
CUTOFF = np.float32(-math.log2(255.0))
"""Exponent below which a Gaussian does not touch a pixel: alpha = 1 / 255."""
_SLACK = np.float32(1e-4)
"""Added to the exponent's fall from the centre to the cutoff, so that rounding never loses a pixel."""
_MARGIN = np.float32(0.05)
"""Pixels by which the ellipse is widened for the same reason: the exponent itself decides."""


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
    entries: np.ndarray
    """First entry of each Gaussian and how many it has [N, 2], int32."""
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


@kernel
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


@njit(nogil=True)
def _tile_range(centre: Any, reach: Any, num_tiles: Any) -> Any:
    """Give the first tile and the one after the last that centre - reach to centre + reach touches, as floats."""
    per_tile = np.float32(1 / TILE)
    first, last = (centre - reach) * per_tile, (centre + reach) * per_tile
    first = _ZERO - round_up(_ZERO - minimum(maximum(first, _ZERO), num_tiles))
    return first, round_up(minimum(maximum(last, _ZERO), num_tiles))


@kernel
def _pack_kernel(
    start: int,
    stop: int,
    means2d: Any,
    conics: Any,
    opacities: Any,
    radii: Any,
    width: int,
    height: int,
    records: Any,
    tiles_per_gaussian: Any,
    box_tiles: Any,
) -> None:
    """Write all of the records but the channels, for blocks of LANES Gaussians; what is not drawn gets anything.

    Also count the tiles that each Gaussian's square touches, and those in the box of its ellipse within the square.
    """
    tiles_x, tiles_y = np.float32((width + TILE - 1) // TILE), np.float32((height + TILE - 1) // TILE)
    for block in range(start, stop):
        first = block * LANES
        count = min(LANES, means2d.shape[0] - first)
        at = RECORD * first
        x, y = gather(means2d, 2 * first, 2, count), gather(means2d, 2 * first + 1, 2, count)
        a = gather(conics, 3 * first, 3, count) * (_HALF * _LOG2_E)
        b = gather(conics, 3 * first + 1, 3, count) * _LOG2_E
        c = gather(conics, 3 * first + 2, 3, count) * (_HALF * _LOG2_E)
        # Rounding can turn a needle's conic into a hyperbola, which would be seen far from the needle.
        spread = _TWO * square_root(a) * square_root(c)
        steepest = spread * np.float32(1 - 1e-6)
        b = minimum(maximum(b, _ZERO - steepest), steepest)
        narrowing = (spread - b) * (spread + b)  # 4 a c - b^2, which nearly cancels for a needle
        level = log2(gather(opacities, first, 1, count))
        scale = _FOUR * (maximum(level - CUTOFF, _ZERO) + _SLACK) / narrowing
        extent_x, extent_y = square_root(c * scale), square_root(a * scale)
        radius = gather(radii, first, 1, count)
        visible = radius > _ZERO
        left, right = _tile_range(x, radius, tiles_x)
        top, bottom = _tile_range(y, radius, tiles_y)
        square = select(visible, (right - left) * (bottom - top), _ZERO)
        left, right = _tile_range(x, minimum(extent_x + _MARGIN, radius), tiles_x)
        top, bottom = _tile_range(y, minimum(extent_y + _MARGIN, radius), tiles_y)
        box = select(visible, (right - left) * (bottom - top), _ZERO)
        scatter(tiles_per_gaussian, first, 1, count, square)
        scatter(box_tiles, first, 1, count, box)
        scatter(records, at, RECORD, count, x)
        scatter(records, at + 1, RECORD, count, y)
        scatter(records, at + 2, RECORD, count, _ZERO - a)
        scatter(records, at + 3, RECORD, count, _ZERO - b)
        scatter(records, at + 4, RECORD, count, _ZERO - c)
        scatter(records, at + 5, RECORD, count, level)
        scatter(records, at + _NARROWING, RECORD, count, narrowing)
        scatter(records, at + _LOWEST_AT, RECORD, count, _ZERO - b * extent_y * (_HALF / a))
        scatter(records, at + _LEFT, RECORD, count, left)
        scatter(records, at + _RIGHT, RECORD, count, right)
        scatter(records, at + _TOP, RECORD, count, top)
        scatter(records, at + _BOTTOM, RECORD, count, bottom)


@kernel
def _bound_entries_kernel(start: int, stop: int, bounds: Any, order: Any, box_tiles: Any, most_entries: Any) -> None:
    """Count the tiles in the boxes of each part's Gaussians: no part has more entries than that."""
    for part in range(start, stop):
        total = 0
        for i in range(bounds[part], bounds[part + 1]):
            total += box_tiles[order[i]]
        most_entries[part] = total


@njit(nogil=True)
def _crossed_rows(x: Any, y: Any, b: Any, ellipse: Any, left: int, row_first: int, row_stop: int) -> tuple[int, int]:
    """Find the rows within bounds whose pixels in the LANES columns from `left` the ellipse may reach.

    The lower edge of an ellipse is a concave arc: over some columns it is lowest at that nearest to its lowest point.
    """
    height, narrowing, extent_x, lowest_at, inverse = ellipse
    low = np.float32(left) + _HALF - x
    high = low + np.float32(LANES - 1)
    if low > extent_x + _MARGIN or high < -extent_x - _MARGIN:
        return 0, 0
    low, high = min(max(low, -extent_x), extent_x), min(max(high, -extent_x), extent_x)
    dx = min(max(lowest_at, low), high)
    lowest = y + (math.sqrt(max(height - narrowing * dx * dx, _ZERO)) + b * dx) * inverse + _MARGIN
    dx = min(max(-lowest_at, low), high)
    highest = y - (math.sqrt(max(height - narrowing * dx * dx, _ZERO)) - b * dx) * inverse - _MARGIN
    return _clip(highest + _HALF, row_first, row_stop), _clip(lowest + _HALF, row_first, row_stop)


@kernel
def _find_entries_kernel(
    start: int,
    stop: int,
    bounds: Any,
    order: Any,
    width: int,
    height: int,
    records: Any,
    part_first: Any,
    entries: Any,
    entry_gaussians: Any,
    entry_tiles: Any,
    entry_rows: Any,
    part_count: Any,
    counts: Any,
) -> None:
    """Write Gaussian, tile and packed rows of every entry in depth order, and count each part's entries per tile."""
    tiles_x = (width + TILE - 1) // TILE
    slab_first, slab_stop = np.empty(SLABS, np.int64), np.empty(SLABS, np.int64)
    for part in range(start, stop):
        tile_counts = counts[part]
        tile_counts[:] = 0
        entry = part_first[part]
        for i in range(bounds[part], bounds[part + 1]):
            prefetch(records, RECORD * order[min(i + _AHEAD, len(order) - 1)])
            g = order[i]
            first_entry = entry
            record = records[g]
            x, y, b, c, narrowing = record[0], record[1], record[3], -record[4], record[_NARROWING]
            reach = max(record[5] - CUTOFF, _ZERO) + _SLACK
            extent_x = math.sqrt(_FOUR * c * reach / narrowing)
            ellipse = (_FOUR * c * reach, narrowing, extent_x, record[_LOWEST_AT], _HALF / c)
            row_first, row_stop = int(record[_TOP]) * TILE, min(int(record[_BOTTOM]) * TILE, height)
            for tile_x in range(int(record[_LEFT]), int(record[_RIGHT])):
                first, last = row_stop, row_first
                for slab in range(SLABS):
                    rows = _crossed_rows(x, y, b, ellipse, tile_x * TILE + slab * LANES, row_first, row_stop)
                    slab_first[slab], slab_stop[slab] = rows
                    if rows[1] > rows[0]:
                        first, last = min(first, rows[0]), max(last, rows[1])
                if first >= last:
                    continue
                for tile_y in range(first // TILE, (last + TILE - 1) // TILE):
                    packed = 0
                    for slab in range(SLABS):
                        top = min(max(slab_first[slab] - tile_y * TILE, 0), TILE)
                        bottom = min(max(slab_stop[slab] - tile_y * TILE, 0), TILE)
                        if bottom > top:
                            packed |= (top | bottom << ROW_BITS) << (2 * ROW_BITS * slab)
                    if packed != 0:
                        tile = tile_y * tiles_x + tile_x
                        entry_gaussians[entry] = g
                        entry_tiles[entry] = tile
                        entry_rows[entry] = packed
                        tile_counts[tile] += 1
                        entry += 1
            entries[g, 0], entries[g, 1] = first_entry, entry - first_entry
        part_count[part] = entry - part_first[part]


@kernel
def _fill_tiles_kernel(
    start: int,
    stop: int,
    part_first: Any,
    part_count: Any,
    entry_gaussians: Any,
    entry_tiles: Any,
    entry_rows: Any,
    places: Any,
    entry_pairs: Any,
    pairs: Any,
) -> None:
    """Append the entries to their tiles' lists, in depth order, and note where each went."""
    for part in range(start, stop):
        place = places[part]
        for entry in range(part_first[part], part_first[part] + part_count[part]):
            tile = entry_tiles[entry]
            at = place[tile]
            place[tile] = at + 1
            pairs[at, 0] = entry_gaussians[entry]
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
    records, box_tiles = buffers.empty((num_gaussians, RECORD)), buffers.empty((num_gaussians,), np.int32)
    tiles_per_gaussian = np.empty(num_gaussians, np.int32)
    num_blocks = (num_gaussians + LANES - 1) // LANES
    projected = (means2d, conics, opacities, radii, width, height)
    parallel_ranges(_pack_kernel, num_blocks, *projected, records, tiles_per_gaussian, box_tiles)
    parallel_ranges(pack_channels_kernel, num_gaussians, colors, depths, with_depth, 0, records)

    parts = 4 * num_threads() if len(order) > SERIAL else 1
    bounds, most_entries, part_count = split(len(order), parts), np.zeros(parts, np.int64), np.zeros(parts, np.int64)
    parallel_ranges(_bound_entries_kernel, parts, bounds, order, box_tiles, most_entries, chunks=parts)
    part_first, most = np.cumsum(most_entries) - most_entries, int(most_entries.sum())
    columns = [buffers.empty((most,), np.int32) for _ in range(3)]
    entries, counts = buffers.empty((num_gaussians, 2), np.int32), buffers.empty((parts, num_tiles), np.int64)
    entries.fill(0)
    inputs = (bounds, order, width, height, records, part_first)
    parallel_ranges(_find_entries_kernel, parts, *inputs, entries, *columns, part_count, counts, chunks=parts)

    places, num_pairs = first_places(counts), int(part_count.sum())
    tile_starts = np.append(places[0], num_pairs)
    entry_pairs, pairs = buffers.empty((most,), np.int32), buffers.empty((num_pairs, PAIR), np.int32)
    parallel_ranges(
        _fill_tiles_kernel, parts, part_first, part_count, *columns, places, entry_pairs, pairs, chunks=parts
    )
    return TileLists(order, records, tiles_per_gaussian, entries, entry_pairs, pairs, tile_starts)

"""Front-to-back blending of the Gaussians of a tile.

A tile's pixels lie in planes that stay in the first-level cache. The kernel takes one slab row, LANES pixels, at a
time; a Gaussian's record is read once per tile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from distilled_splat.cpu.exp2 import EXP2_TABLE, exp2, splat_table
from distilled_splat.cpu.kernels import kernel
from distilled_splat.cpu.simd import (
    LANES,
    any_lane,
    count_lanes,
    lane_numbers,
    minimum,
    multiply_add,
    select,
    splat,
    splat_integer,
)
from distilled_splat.cpu.simd_memory import load, prefetch, store, take_next
from distilled_splat.cpu.tiles import CHANNEL, CUTOFF, RECORD, ROW_BITS, SLABS, TILE

PIXELS = TILE * TILE + 16
"""Floats from one plane to the next: a little more than a tile, so that no two planes are 4096 bytes apart."""

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_MAX_ALPHA, _MIN_TRANSMITTANCE = 0.999, 1e-4
TABLE = np.concatenate([EXP2_TABLE, splat_table(float(CUTOFF), _MAX_ALPHA, _MIN_TRANSMITTANCE)])
"""The constants that the kernels read from memory, of which exp2's come first."""
CUTOFF_AT, MAX_ALPHA_AT, _MIN_TRANSMITTANCE_AT = (len(EXP2_TABLE) + i * LANES for i in range(3))
AHEAD = 8
"""Records fetched ahead."""
ROW_MASK = (1 << ROW_BITS) - 1


@njit(nogil=True)
def exponent_in_row(level: Any, slope: Any, c: Any, dy: Any) -> Any:
    """Give the exponent of alpha in base 2 for one slab row: (c dy + slope) dy + level."""
    return multiply_add(multiply_add(c, dy, slope), dy, level)


@njit(nogil=True)
def slab_columns(left: int, slab: int, x: Any) -> Any:
    """Give dx of a slab's pixel centres to a Gaussian's centre."""
    return lane_numbers() + (np.float32(left + slab * LANES) + _HALF - x)


@kernel
def blend_kernel(
    start: int,
    stop: int,
    counter: Any,
    table: Any,
    records: Any,
    pairs: Any,
    tile_starts: Any,
    background: Any,
    first_channel: int,
    num_channels: int,
    width: int,
    height: int,
    image: Any,
    alphas: Any,
    keeps: bool,
    transmittances: Any,
    stops: Any,
) -> None:
    """Blend tiles until the shared counter has given out all of them.

    Every call takes tiles of its own, so `start` and `stop` only say how many threads there are. With `keeps`, what the
    backward pass needs is written: each pixel's last transmittance, and the first pair that it no longer saw.
    """
    tiles_x = (width + TILE - 1) // TILE
    num_tiles = len(tile_starts) - 1
    state = np.empty(5 * PIXELS, np.float32)
    last = np.empty(PIXELS, np.int32)
    planes = min(4, num_channels - first_channel)
    while True:
        tile = take_next(counter)
        if tile >= num_tiles:
            break
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        columns, rows = min(TILE, width - left), min(TILE, height - top)
        _start_tile(state, last, columns, rows, tile_starts[tile + 1])
        span, is_open = (tile_starts[tile], tile_starts[tile + 1]), columns * rows
        _blend_tile(table, records, pairs, span, left, top, is_open, planes > 3, state, last)
        for row in range(rows):
            for column in range(columns):
                pixel = row * TILE + column
                y, x = top + row, left + column
                transmittance = abs(state[pixel])
                for k in range(planes):
                    value = state[(k + 1) * PIXELS + pixel]
                    image[y, x, first_channel + k] = value + transmittance * background[first_channel + k]
                if first_channel == 0:
                    alphas[y, x, 0] = _ONE - transmittance
                    if keeps:
                        transmittances[y, x] = transmittance
                        stops[y, x] = last[pixel]


@njit(nogil=True)
def _start_tile(state: Any, last: Any, columns: int, rows: int, end: int) -> None:
    """Set every pixel to black and fully transparent; those outside the image are done from the start."""
    for pixel in range(PIXELS):
        inside = pixel % TILE < columns and pixel // TILE < rows
        state[pixel] = _ONE if inside else -_ONE
        last[pixel] = end
    state[PIXELS:] = _ZERO


@njit(nogil=True)
def _blend_tile(
    table: Any,
    records: Any,
    pairs: Any,
    span: tuple[int, int],
    left: int,
    top: int,
    open_pixels: int,
    four: bool,
    state: Any,
    last: Any,
) -> None:
    """Blend one tile's pairs into its planes: transmittance, negative once a pixel is done, and its channels."""
    first, end = span
    for pair in range(first, end):
        prefetch(records, RECORD * pairs[min(pair + AHEAD, end - 1), 0])
        record, packed = records[pairs[pair, 0]], pairs[pair, 1]
        x, y, a, b, c = record[0], record[1], splat(record[2]), splat(record[3]), splat(record[4])
        log_opacity = splat(record[5])
        c0, c1 = splat(record[CHANNEL]), splat(record[CHANNEL + 1])
        c2, c3 = splat(record[CHANNEL + 2]), splat(record[CHANNEL + 3])
        for slab in range(SLABS):
            rows = packed >> (2 * ROW_BITS * slab)
            row, row_stop = rows & ROW_MASK, (rows >> ROW_BITS) & ROW_MASK
            dx = slab_columns(left, slab, x)
            slope = b * dx
            level = multiply_add(a * dx, dx, log_opacity)
            dy = splat(np.float32(top + row) + _HALF - y)
            for at in range(row * TILE + slab * LANES, row_stop * TILE + slab * LANES, TILE):
                exponent = exponent_in_row(level, slope, c, dy)
                dy = dy + load(table, LANES)
                transmittance = load(state, at)
                seen = (exponent >= load(table, CUTOFF_AT)) & (transmittance > _ZERO)
                alpha = minimum(exp2(exponent, table), load(table, MAX_ALPHA_AT))
                weight = select(seen, alpha * transmittance, _ZERO)
                left_over = transmittance - weight
                ends = seen & (left_over <= load(table, _MIN_TRANSMITTANCE_AT))
                if any_lane(ends):
                    weight = select(ends, _ZERO, weight)
                    left_over = select(ends, _ZERO - transmittance, left_over)
                    store(last, at, select(ends, splat_integer(pair), load(last, at)))
                    open_pixels -= count_lanes(ends)
                store(state, at, left_over)
                store(state, at + PIXELS, load(state, at + PIXELS) + weight * c0)
                store(state, at + 2 * PIXELS, load(state, at + 2 * PIXELS) + weight * c1)
                store(state, at + 3 * PIXELS, load(state, at + 3 * PIXELS) + weight * c2)
                if four:
                    store(state, at + 4 * PIXELS, load(state, at + 4 * PIXELS) + weight * c3)
        if open_pixels == 0:
            break

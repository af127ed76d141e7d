"""The gradient of blending, from back to front: each pair writes its own slot, each Gaussian adds up its slots."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from distilled_splat.cpu.blend_forward import (
    AHEAD,
    CUTOFF_AT,
    MAX_ALPHA_AT,
    PIXELS,
    ROW_MASK,
    exponent_in_row,
    slab_columns,
)
from distilled_splat.cpu.exp2 import exp2
from distilled_splat.cpu.kernels import kernel
from distilled_splat.cpu.simd import (
    LANES,
    absolute,
    any_lane,
    greater_integers,
    minimum,
    multiply_add,
    select,
    splat,
    splat_integer,
)
from distilled_splat.cpu.simd_memory import load, prefetch, store, store_sums, take_next
from distilled_splat.cpu.tiles import CHANNEL, RECORD, ROW_BITS, SLABS, TILE

SUMS = 16
"""Floats in a slot, one cache line: the four channels' gradients, then moments of dL/d(ln alpha) over the pixels:
1, dx, dy, dx^2, dx dy, dy^2, and the sums of absolute gradients by dx and by dy in units of log2 e."""

_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)


@kernel
def blend_backward_kernel(
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
    transmittances: Any,
    stops: Any,
    v_image: Any,
    v_alphas: Any,
    absgrad: bool,
    slots: Any,
) -> None:
    """Write what every pair gives to its Gaussian's gradient into the pair's own slot, tile by tile."""
    tiles_x = (width + TILE - 1) // TILE
    num_tiles = len(tile_starts) - 1
    state = np.empty(6 * PIXELS, np.float32)
    last = np.empty(PIXELS, np.int32)
    planes = min(4, num_channels - first_channel)
    state[:] = _ZERO
    while True:
        tile = take_next(counter)
        if tile >= num_tiles:
            break
        first, end = tile_starts[tile], tile_starts[tile + 1]
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        columns, rows = min(TILE, width - left), min(TILE, height - top)
        last[:] = first
        state[: 2 * PIXELS] = _ONE
        furthest = first
        for row in range(rows):
            for column in range(columns):
                pixel = row * TILE + column
                y, x = top + row, left + column
                transmittance = transmittances[y, x]
                v_alpha = v_alphas[y, x, 0] if first_channel == 0 else _ZERO
                for k in range(planes):
                    v_channel = v_image[y, x, first_channel + k]
                    state[(k + 2) * PIXELS + pixel] = v_channel
                    v_alpha -= background[first_channel + k] * v_channel
                state[pixel] = transmittance
                state[PIXELS + pixel] = -transmittance * v_alpha
                last[pixel] = stops[y, x]
                furthest = max(furthest, stops[y, x])
        for pair in range(furthest, end):
            slots[pair] = _ZERO
        _blend_tile_backward(table, records, pairs, first, furthest, left, top, planes > 3, absgrad, state, last, slots)


@njit(nogil=True)
def _blend_tile_backward(
    table: Any,
    records: Any,
    pairs: Any,
    first: int,
    end: int,
    left: int,
    top: int,
    four: bool,
    absgrad: bool,
    state: Any,
    last: Any,
    slots: Any,
) -> None:
    """Go through one tile's pairs from back to front.

    The planes are: transmittance behind the current Gaussian, the light from behind it weighed by the gradient of the
    pixel (one number, whatever the number of channels), and the four channels' gradients.
    """
    zero = splat(_ZERO)
    for pair in range(end - 1, first - 1, -1):
        prefetch(records, RECORD * pairs[max(pair - AHEAD, first), 0])
        record, packed = records[pairs[pair, 0]], pairs[pair, 1]
        x, y, a, b, c = record[0], record[1], splat(record[2]), splat(record[3]), splat(record[4])
        log_opacity = splat(record[5])
        c0, c1 = splat(record[CHANNEL]), splat(record[CHANNEL + 1])
        c2, c3 = splat(record[CHANNEL + 2]), splat(record[CHANNEL + 3])
        this = splat_integer(pair)
        v_c0, v_c1, v_c2, v_c3, abs_x, abs_y = zero, zero, zero, zero, zero, zero
        m, m_x, m_y, m_xx, m_xy, m_yy = zero, zero, zero, zero, zero, zero
        for slab in range(SLABS):
            rows = packed >> (2 * ROW_BITS * slab)
            row, row_stop = rows & ROW_MASK, (rows >> ROW_BITS) & ROW_MASK
            dx = slab_columns(left, slab, x)
            slope = b * dx
            level = multiply_add(a * dx, dx, log_opacity)
            dy = splat(np.float32(top + row) + _HALF - y)
            slab_m, slab_y = zero, zero
            for at in range(row * TILE + slab * LANES, row_stop * TILE + slab * LANES, TILE):
                exponent = exponent_in_row(level, slope, c, dy)
                seen = (exponent >= load(table, CUTOFF_AT)) & greater_integers(load(last, at), this)
                if any_lane(seen):
                    alpha = select(seen, exp2(exponent, table), _ZERO)
                    free = alpha <= load(table, MAX_ALPHA_AT)
                    alpha = minimum(alpha, load(table, MAX_ALPHA_AT))
                    one = load(table, LANES)
                    inverse = one / (one - alpha)
                    transmittance = load(state, at) * inverse
                    behind = load(state, at + PIXELS)
                    weight = alpha * transmittance
                    v0, v1 = load(state, at + 2 * PIXELS), load(state, at + 3 * PIXELS)
                    v2 = load(state, at + 4 * PIXELS)
                    light = c0 * v0 + c1 * v1 + c2 * v2
                    v_c0, v_c1, v_c2 = v_c0 + weight * v0, v_c1 + weight * v1, v_c2 + weight * v2
                    if four:
                        v3 = load(state, at + 5 * PIXELS)
                        light = light + c3 * v3
                        v_c3 = v_c3 + weight * v3
                    v_log_alpha = select(free, alpha * (light * transmittance - behind * inverse), _ZERO)
                    store(state, at, transmittance)
                    store(state, at + PIXELS, behind + light * weight)
                    slab_m = slab_m + v_log_alpha
                    along = v_log_alpha * dy
                    slab_y = slab_y + along
                    m_yy = m_yy + along * dy
                    if absgrad:
                        abs_x = abs_x + absolute(v_log_alpha * (_TWO * a * dx + b * dy))
                        abs_y = abs_y + absolute(v_log_alpha * (slope + _TWO * c * dy))
                dy = dy + load(table, LANES)
            m, m_y = m + slab_m, m_y + slab_y
            m_x, m_xy = m_x + slab_m * dx, m_xy + slab_y * dx
            m_xx = m_xx + slab_m * (dx * dx)
        sums = (v_c0, v_c1, v_c2, v_c3, m, m_x, m_y, m_xx, m_xy, m_yy, abs_x, abs_y)
        store_sums(slots, SUMS * pair, sums)


@njit(nogil=True)
def _prefetch_slots(g: int, entries: Any, entry_pairs: Any, slots: Any) -> None:
    for entry in range(entries[g, 0], entries[g, 0] + entries[g, 1]):
        prefetch(slots, SUMS * entry_pairs[entry])


@kernel
def gather_kernel(
    start: int,
    stop: int,
    entries: Any,
    entry_pairs: Any,
    slots: Any,
    conics: Any,
    opacities: Any,
    first_channel: int,
    v_means2d: Any,
    v_conics: Any,
    v_opacities: Any,
    v_colors: Any,
    v_depths: Any,
    with_depth: bool,
    absgrads: Any,
) -> None:
    """Add up each Gaussian's slots and turn the moments into gradients; those of later channels are added."""
    num_colors = v_colors.shape[1]
    ln2 = np.float32(np.log(2.0))
    sums = np.empty(SUMS, np.float32)
    for g in range(start, stop):
        _prefetch_slots(min(g + AHEAD, stop - 1), entries, entry_pairs, slots)
        prefetch(entry_pairs, entries[min(g + 2 * AHEAD, stop - 1), 0])
        first, count = entries[g, 0], entries[g, 1]
        for k in range(0, SUMS, LANES):
            total = splat(_ZERO)
            for entry in range(first, first + count):
                total = total + load(slots, SUMS * entry_pairs[entry] + k)
            store(sums, k, total)
        for k in range(4):
            channel = first_channel + k
            if channel < num_colors:
                v_colors[g, channel] = sums[k]
            elif channel == num_colors and with_depth:
                v_depths[g] = sums[k]
        a, b, c = conics[g, 0], conics[g, 1], conics[g, 2]
        m, m_x, m_y = sums[4], sums[5], sums[6]
        v_opacity = m / opacities[g] if count > 0 else _ZERO
        if first_channel > 0:
            v_means2d[g, 0] += a * m_x + b * m_y
            v_means2d[g, 1] += b * m_x + c * m_y
            v_conics[g, 0] -= _HALF * sums[7]
            v_conics[g, 1] -= sums[8]
            v_conics[g, 2] -= _HALF * sums[9]
            v_opacities[g] += v_opacity
        else:
            v_means2d[g, 0] = a * m_x + b * m_y
            v_means2d[g, 1] = b * m_x + c * m_y
            v_conics[g, 0] = -_HALF * sums[7]
            v_conics[g, 1] = -sums[8]
            v_conics[g, 2] = -_HALF * sums[9]
            v_opacities[g] = v_opacity
            if len(absgrads) > 0:
                absgrads[g, 0] = sums[10] * ln2
                absgrads[g, 1] = sums[11] * ln2

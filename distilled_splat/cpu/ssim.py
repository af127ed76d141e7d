"""L1 and SSIM of two images in one pass on the CPU, with the gradient in closed form.

SSIM (Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity") is
written on the sum s = x + y and the difference d = x - y, which takes four Gaussian blurs G instead of five
and loses no digits when the images are close:

    m_s = G s, m_d = G d, v_s = G s^2 - m_s^2, v_d = G d^2 - m_d^2,
    luminance = 1 - 2 m_d^2 / P,   P = m_s^2 + m_d^2 + 2 C1,
    contrast  = 1 - 2 v_d / Q,     Q = v_s + v_d + 2 C2,
    SSIM = luminance * contrast.

The gradient of the summed SSIM with respect to x is G^T a + s G^T b + d G^T c, where a, b and c are pixelwise
functions of the four blurs. A column strip of the image is swept from top to bottom with the last rows of s
and d and of the half-blurred a, b and c kept in the processor's cache, so that no map is written to memory.
"""

from __future__ import annotations

import math
from typing import Optional

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distilled_splat.cpu import buffers
from distilled_splat.cpu.kernels import kernel
from distilled_splat.cpu.threads import num_threads, parallel_ranges

WINDOW_SIZE = 11
_HALO = WINDOW_SIZE - 1
_SIGMA = 1.5
_C1 = np.float32(0.01**2)
_C2 = np.float32(0.03**2)

# Strips have at most _COLUMNS pixels, and at least _MIN_COLUMNS unless the image is narrower: each must reach
# into the map, and halos are computed twice. They are swept _ROWS rows at a time, at least _HALO, so that
# carried rows do not overlap. Offsets are unsigned and the row stride is fixed because LLVM vectorises these
# loops only if no index can be negative and all rows of a buffer are a known distance apart.
_COLUMNS = 128
_MIN_COLUMNS = 32
_ROWS = 16
_U = np.uint64
_STRIDE = _U(3 * (_COLUMNS + 2 * _HALO))
_BLOCK = _U(_ROWS) * _STRIDE
_CARRIED = _U(_HALO) * _STRIDE
_PLANE = _BLOCK + _CARRIED


def _gaussian_window() -> np.ndarray:
    offsets = np.arange(WINDOW_SIZE) - WINDOW_SIZE // 2
    window = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    return (window / window.sum()).astype(np.float32)


_WINDOW = _gaussian_window()


@kernel(fastmath={"contract", "reassoc"})
def _sum_of_absolutes(plane, offset, count):
    total = np.float32(0)
    for j in range(count):
        total += abs(plane[offset + j])
    return total


@kernel
def _carry_rows(plane, offset, source):
    for j in range(_CARRIED):
        plane[offset + j] = plane[source + j]


@kernel
def _read_row(x, y, sums, diffs, offset):
    for j in range(x.shape[0]):
        sums[offset + _U(j)] = x[j] + y[j]
        diffs[offset + _U(j)] = x[j] - y[j]


@kernel(fastmath={"contract"})
def _blur_down(sums, diffs, offset, count, blurred):
    """Blur over the window's rows into four planes: mean and variance of s, means of d and d^2."""
    for j in range(count):
        top = offset + j
        centre = sums[top + _U(5) * _STRIDE]
        b = diffs[top + _U(5) * _STRIDE]
        m_s = np.float32(0)
        e_s = np.float32(0)
        m_d = _WINDOW[5] * b
        e_d = _WINDOW[5] * (b * b)
        for k in range(5):
            weight = _WINDOW[k]
            a = sums[top + _U(k) * _STRIDE] - centre
            b = sums[top + _U(10 - k) * _STRIDE] - centre
            m_s += weight * (a + b)
            e_s += weight * (a * a + b * b)
            a = diffs[top + _U(k) * _STRIDE]
            b = diffs[top + _U(10 - k) * _STRIDE]
            m_d += weight * (a + b)
            e_d += weight * (a * a + b * b)
        blurred[j] = centre + m_s
        blurred[_STRIDE + j] = e_s - m_s * m_s
        blurred[_U(2) * _STRIDE + j] = m_d
        blurred[_U(3) * _STRIDE + j] = e_d


@kernel(fastmath={"contract"})
def _tap_across(plane, at):
    total = _WINDOW[5] * plane[at + _U(15)]
    for k in range(5):
        total += _WINDOW[k] * (plane[at + _U(3 * k)] + plane[at + _U(3 * (10 - k))])
    return total


@kernel(fastmath={"contract"}, error_model="numpy")
def _compare(blurred, count, maps, offset, losses):
    """Finish the blurs across a row; write 1 - SSIM and the maps a, b and c."""
    for j in range(count):
        # The mean of the columns' variances plus the variance of their means, each about a value near by:
        # as G s^2 - m_s^2, v_s would drown in rounding where the image is flat.
        centre = blurred[j + _U(15)]
        m_s = np.float32(0)
        v_s = _tap_across(blurred, _STRIDE + j)
        for k in range(5):
            a = blurred[j + _U(3 * k)] - centre
            b = blurred[j + _U(3 * (10 - k))] - centre
            m_s += _WINDOW[k] * (a + b)
            v_s += _WINDOW[k] * (a * a + b * b)
        v_s -= m_s * m_s
        m_s += centre
        m_d = _tap_across(blurred, _U(2) * _STRIDE + j)
        v_d = _tap_across(blurred, _U(3) * _STRIDE + j) - m_d * m_d
        base = m_s * m_s + np.float32(2) * _C1
        square = m_d * m_d
        p = np.float32(1) / (base + square)
        spread = v_s + np.float32(2) * _C2
        q = np.float32(1) / (spread + v_d)
        lost_luminance = np.float32(2) * square * p
        lost_contrast = np.float32(2) * v_d * q
        luminance = np.float32(1) - lost_luminance
        contrast = np.float32(1) - lost_contrast
        by_mean = np.float32(4) * contrast * m_d * p * p * (m_d * m_s - base)
        by_s = np.float32(2) * luminance * lost_contrast * q
        by_d = np.float32(-4) * luminance * spread * q * q
        losses[j] = lost_luminance + lost_contrast * luminance
        maps[offset + j] = by_mean - m_s * by_s - m_d * by_d
        maps[offset + _STRIDE + j] = by_s
        maps[offset + _U(2) * _STRIDE + j] = by_d


@kernel(fastmath={"contract"})
def _spread_across(maps, count, halves, offset):
    """Blur the maps a, b and c across a row (the transposed blur, thanks to the zeros beside it)."""
    for j in range(count):
        halves[offset + j] = _tap_across(maps, j)
        halves[offset + _PLANE + j] = _tap_across(maps, _STRIDE + j)
        halves[offset + _U(2) * _PLANE + j] = _tap_across(maps, _U(2) * _STRIDE + j)


@kernel(fastmath={"contract"})
def _tap_down(plane, at):
    total = np.float32(0)
    for k in range(5):
        total += _WINDOW[k] * (plane[at + _U(k) * _STRIDE] + plane[at + _U(10 - k) * _STRIDE])
    return total + _WINDOW[5] * plane[at + _U(5) * _STRIDE]


@kernel(fastmath={"contract"})
def _gather_gradient(halves, sums, diffs, offset, owned, gradient):
    """Finish the transposed blurs for a row and write its gradient; its own s and d begin at ``owned``."""
    for j in range(gradient.shape[0]):
        at = offset + _U(j)
        a = _tap_down(halves, at)
        b = _tap_down(halves, at + _PLANE)
        c = _tap_down(halves, at + _U(2) * _PLANE)
        gradient[j] = a + sums[owned + at] * b + diffs[owned + at] * c


@kernel
def _sweep_strip(left, right, rendered, target, with_gradient, gradient):
    """Return the sums of |d| and of 1 - SSIM that columns left..right own, and write their SSIM gradient."""
    height = rendered.shape[0]
    map_height = height - _HALO
    # A map's value covers _HALO columns to its right, so the gradient needs _HALO map columns to the left.
    first = max(left - _HALO, 0)
    map_end = min(right, rendered.shape[1] // 3 - _HALO)
    map_values = _U(3 * (map_end - first))
    input_values = map_values + _U(3 * _HALO)
    owned = _U(3 * (left - first))
    owned_values = _U(3 * (right - left))
    padding = _U(3 * (first - (left - _HALO)))
    sums = np.empty(_PLANE, np.float32)
    diffs = np.empty(_PLANE, np.float32)
    blurred = np.empty(_U(4) * _STRIDE, np.float32)
    losses = np.empty(_STRIDE, np.float32)
    maps = np.zeros(_U(3) * _STRIDE, np.float32)
    no_maps = np.zeros(_U(3) * _STRIDE, np.float32)
    halves = np.zeros(_U(3) * _PLANE, np.float32)
    difference = 0.0
    loss = 0.0
    filled = 0
    for top in range(0, height, _ROWS):
        if top > 0:
            _carry_rows(sums, _U(0), _BLOCK)
            _carry_rows(diffs, _U(0), _BLOCK)
            for p in range(3):
                _carry_rows(halves, _U(p) * _PLANE, _U(p) * _PLANE + _BLOCK)
        for row in range(filled, min(top + _ROWS + _HALO, height)):
            offset = _U(row - top) * _STRIDE
            start = 3 * first
            stop = start + 3 * (map_end - first + _HALO)
            _read_row(rendered[row, start:stop], target[row, start:stop], sums, diffs, offset)
            difference += _sum_of_absolutes(diffs, offset + owned, owned_values)
            filled = row + 1
        for r in range(_ROWS):
            offset = _U(r) * _STRIDE
            if top + r < map_height:
                _blur_down(sums, diffs, offset, input_values, blurred)
                _compare(blurred, map_values, maps, padding, losses)
                # 1 - SSIM is negative by rounding alone, so absolutes are as good as the values.
                loss += _sum_of_absolutes(losses, owned, map_values - owned)
                if with_gradient:
                    _spread_across(maps, owned_values, halves, _CARRIED + offset)
            elif with_gradient:
                _spread_across(no_maps, owned_values, halves, _CARRIED + offset)
        if with_gradient:
            for r in range(min(_ROWS, height - top)):
                offset = _U(r) * _STRIDE
                _gather_gradient(halves, sums, diffs, offset, owned, gradient[top + r, 3 * left : 3 * right])
    return difference, loss


@kernel
def _sweep_strips(start, stop, rendered, target, strips, with_gradient, gradient, totals):
    """Sweep strips start..stop of an image; rendered, target and gradient: [H, 3 W]; totals: [strips, 2]."""
    width = rendered.shape[1] // 3
    for strip in range(start, stop):
        left = strip * width // strips
        right = (strip + 1) * width // strips
        difference, loss = _sweep_strip(left, right, rendered, target, with_gradient, gradient)
        totals[strip, 0] = difference
        totals[strip, 1] = loss


@kernel(fastmath={"contract"})
def _combine_gradients(start, stop, rendered, target, ssim_gradient, l1_scale, ssim_scale, adds, gradient):
    x = rendered[start:stop]
    y = target[start:stop]
    g = ssim_gradient[start:stop]
    out = gradient[start:stop]
    if adds:
        for i in range(out.shape[0]):
            sign = np.float32(x[i] > y[i]) - np.float32(x[i] < y[i])
            out[i] += l1_scale * sign + ssim_scale * g[i]
    else:
        for i in range(out.shape[0]):
            sign = np.float32(x[i] > y[i]) - np.float32(x[i] < y[i])
            out[i] = l1_scale * sign + ssim_scale * g[i]


def _count_strips(width: int) -> int:
    """Return a multiple of the number of threads where strips stay wide enough."""
    strips = math.ceil(width / _COLUMNS / num_threads()) * num_threads()
    return max(1, min(strips, width // _MIN_COLUMNS))


def _measure(rendered: Tensor, target: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return L1, SSIM and the gradient of the summed SSIM (empty without ``with_gradient``)."""
    width = rendered.shape[1]
    ssim_gradient = buffers.empty_tensor(rendered.shape) if with_gradient else rendered[:0]
    strips = _count_strips(width)
    totals = np.empty((strips, 2))
    x, y, gradient = (image.detach().flatten(1).numpy() for image in (rendered, target, ssim_gradient))
    parallel_ranges(_sweep_strips, strips, x, y, strips, with_gradient, gradient, totals, chunks=strips)
    difference, loss = totals.sum(axis=0)
    l1 = rendered.new_tensor(difference / rendered.numel())
    return l1, rendered.new_tensor(1 - loss / _count_map_values(rendered)), ssim_gradient


def _count_map_values(image: Tensor) -> int:
    height, width, channels = image.shape
    return (height - _HALO) * (width - _HALO) * channels


class _L1AndSSIM(torch.autograd.Function):
    """L1 and SSIM of one image and several targets, as L1, SSIM, L1, SSIM, ..."""

    @staticmethod
    def forward(ctx, rendered: Tensor, *targets: Tensor) -> tuple[Tensor, ...]:
        measured = [_measure(rendered, target, with_gradient=True) for target in targets]
        ctx.save_for_backward(rendered, *targets, *(gradient for _, _, gradient in measured))
        return tuple(value for l1, ssim, _ in measured for value in (l1, ssim))

    @staticmethod
    @once_differentiable
    def backward(ctx, *v_values: Tensor) -> tuple[Optional[Tensor], ...]:
        rendered, *others = ctx.saved_tensors
        count = len(others) // 2
        gradient = buffers.empty_tensor(rendered.shape)
        x, out = rendered.detach().view(-1).numpy(), gradient.view(-1).numpy()
        for i in range(count):
            y, g = (image.detach().view(-1).numpy() for image in (others[i], others[count + i]))
            l1_scale = np.float32(v_values[2 * i].item() / rendered.numel())
            ssim_scale = np.float32(v_values[2 * i + 1].item() / _count_map_values(rendered))
            parallel_ranges(_combine_gradients, rendered.numel(), x, y, g, l1_scale, ssim_scale, i > 0, out)
        return gradient, *(None for _ in range(count))


def l1_and_ssim(rendered: Tensor, *targets: Tensor) -> tuple[Tensor, ...]:
    """Compare an image with others by mean absolute error and mean SSIM, differentiable in the first.

    Equal to ``torch.abs(rendered - target).mean()`` and to the mean SSIM with an 11 x 11 Gaussian window of
    sigma 1.5, data range 1 and no padding, as splatfacto uses it (Wang et al. 2004). The gradient is computed
    together with the values when ``rendered`` requires one. NaN anywhere makes both values NaN.

    Args:
        rendered: image, values about [0, 1], float32 on the CPU, H and W at least 11. [H, W, 3]
        targets: images to compare with, of the same type and shape; they take no gradient. [H, W, 3]

    Returns:
        For each target the mean absolute error and the mean SSIM, all float32 scalars. The gradients by all of them
        are put together in one image.

    Raises:
        ValueError: an image is not float32 on the CPU, the shapes differ or are not [H, W, 3] with H and W at
            least 11, or a target requires a gradient.
    """
    shape = tuple(rendered.shape)
    if len(shape) != 3 or shape[2] != 3 or min(shape[:2]) < WINDOW_SIZE:
        raise ValueError(f"rendered is {shape}; give [H, W, 3] with H and W at least {WINDOW_SIZE}.")
    for name, image in (("rendered", rendered), *(("target", target) for target in targets)):
        if image.dtype != torch.float32 or image.device.type != "cpu":
            raise ValueError(f"{name} is {image.dtype} on {image.device}; convert it to float32 on the CPU.")
    for target in targets:
        if rendered.shape != target.shape:
            raise ValueError(f"rendered is {shape} and target {tuple(target.shape)}; give both the same shape.")
        if target.requires_grad:
            raise ValueError("target requires a gradient, which only rendered can have; detach the target.")
    rendered, targets = rendered.contiguous(), tuple(target.contiguous() for target in targets)
    if torch.is_grad_enabled() and rendered.requires_grad:
        return _L1AndSSIM.apply(rendered, *targets)
    return tuple(value for target in targets for value in _measure(rendered, target, with_gradient=False)[:2])

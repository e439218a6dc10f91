"""Triton kernels between the convolutions: statistics, batch norms, block outputs, rounding."""

from __future__ import annotations

import triton
import triton.language as tl

from apq_moo.supernet.gpu.primitives import round_, settle_stored


@triton.jit(do_not_specialize=["P", "tiles"])
def settle(
    stats, tiles, P, gamma, beta, scale, span_in, a, b, mean, rstd,
    WEIGHT: tl.constexpr, INPUT: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """One channel's statistics from its tiles: batch norm as a gain and a bias, ``a z + b``.

    If the weight is levels (``WEIGHT``) or the input is (``INPUT``), ``z`` is in units of their
    sizes.
    """
    c = tl.program_id(0)
    place = stats + (c * 2).to(tl.int64) * tiles
    total = tl.zeros((BT,), tl.float64)
    squares = tl.zeros((BT,), tl.float64)
    for start in range(0, tiles, BT):
        t = start + tl.arange(0, BT)
        there = t < tiles
        total += tl.load(place + t, mask=there, other=0.0)
        squares += tl.load(place + tiles + t, mask=there, other=0.0)
    unit = tl.full((), 1.0, tl.float64)
    if WEIGHT:
        unit = tl.load(scale + c).to(tl.float64)
    if INPUT:
        unit = unit * tl.load(span_in + 2).to(tl.float64)
    middle = tl.sum(total, 0) / P
    variance = tl.maximum(tl.sum(squares, 0) / P - middle * middle, 0.0)
    middle = (middle * unit).to(tl.float32)
    variance = (variance * unit * unit).to(tl.float32)
    root = tl.sqrt(variance.to(tl.float64) + 1e-5)
    gain = tl.load(gamma + c).to(tl.float64) / root
    shift = (tl.load(beta + c).to(tl.float64) - middle.to(tl.float64) * gain).to(tl.float32)
    gain = (gain * unit).to(tl.float32)
    tl.store(a + c, gain)
    tl.store(b + c, shift)
    tl.store(mean + c, middle)
    tl.store(rstd + c, (1.0 / root).to(tl.float32))


@triton.jit(do_not_specialize=["P", "tiles"])
def settle_gradient(
    stats, tiles, P, gamma, mean, rstd, p, q, r, gamma_grad, beta_grad, BT: tl.constexpr
):  # fmt: skip
    """Batch norm's gradient of one channel: coefficients of ``dz = p du + q z + r``.

    The gradients of scale and shift are added to what is there.
    """
    c = tl.program_id(0)
    place = stats + (c * 2).to(tl.int64) * tiles
    first = tl.zeros((BT,), tl.float64)
    second = tl.zeros((BT,), tl.float64)
    for start in range(0, tiles, BT):
        t = start + tl.arange(0, BT)
        first += tl.load(place + t, mask=t < tiles, other=0.0)
        second += tl.load(place + tiles + t, mask=t < tiles, other=0.0)
    inverse = tl.load(rstd + c)
    d_beta = tl.sum(first, 0).to(tl.float32)
    d_gamma = tl.sum(second, 0).to(tl.float32) * inverse
    tl.store(gamma_grad + c, tl.load(gamma_grad + c) + d_gamma)
    tl.store(beta_grad + c, tl.load(beta_grad + c) + d_beta)
    gain = tl.load(gamma + c) * inverse
    slope = -gain * inverse * d_gamma / P
    tl.store(p + c, gain)
    tl.store(q + c, slope)
    tl.store(r + c, -gain * d_beta / P - slope * tl.load(mean + c))


@triton.jit(do_not_specialize=["P"])
def close(
    z, a, b, other, out, span, P, pitch,
    RELU: tl.constexpr, RESIDUAL: tl.constexpr, STORED: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """The output of a block from its last raw layer: batch norm and shortcut.

    With ``STORED`` integers are written, in the spans of ``OUT_STORED``.
    """
    parts = tl.cdiv(P, BN)
    c = tl.program_id(0) // parts
    pixels = (tl.program_id(0) % parts) * BN + tl.arange(0, BN)
    offsets = c.to(tl.int64) * pitch + pixels
    there = pixels < pitch
    y = tl.load(z + offsets, mask=there, other=0.0).to(tl.float32)
    y = y * tl.load(a + c) + tl.load(b + c)
    if RELU:
        y = tl.minimum(tl.maximum(y, 0.0), 6.0)
    if STORED:
        kept = 0.0
        if RESIDUAL:
            kept = tl.load(other + offsets, mask=there, other=0)
        y = settle_stored(y, kept, span, RESIDUAL)
    elif RESIDUAL:
        y += tl.load(other + offsets, mask=there, other=0.0).to(tl.float32)
    y = y.to(out.dtype.element_ty)
    tl.store(out + offsets, y, mask=there)


@triton.jit(do_not_specialize=["N", "P", "tiles", "plane", "size"])
def pooled_gradient(
    pooled, z, a, b, mean, out, stats, P, N, pitch, tiles, plane, size,
    RELU: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """The gradient of average pooling, ``pooled[C, N]`` over planes, as ``OUT_GRADIENT``."""
    c = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    pixels = tile * BN + tl.arange(0, BN)
    there = pixels < P
    inside = there & (pixels % plane < size)
    offsets = c.to(tl.int64) * pitch + pixels
    y = tl.load(pooled + c * N + pixels // plane, mask=inside, other=0.0).to(tl.float32) / size
    raw = tl.load(z + offsets, mask=there, other=0.0).to(tl.float32)
    if RELU:
        u = raw * tl.load(a + c) + tl.load(b + c)
        y = tl.where((u > 0.0) & (u < 6.0), y, 0.0)
    y = tl.where(inside, y, 0.0)
    tl.store(out + offsets, y.to(out.dtype.element_ty), mask=there)
    off = tl.where(inside, raw - tl.load(mean + c), 0.0)
    place = stats + (c * 2).to(tl.int64) * tiles + tile
    tl.store(place, tl.sum(y, 0))
    tl.store(place + tiles, tl.sum(y * off, 0))


@triton.jit(do_not_specialize=["inputs", "w_row", "top"])
def quantise_rows(w, levels, values, scale, inputs, w_row, top, BK: tl.constexpr):
    """Round each row of a weight to symmetric levels, as integers and dequantised."""
    c = tl.program_id(0)
    ks = tl.arange(0, BK)
    there = ks < inputs
    x = tl.load(w + c * w_row + ks, mask=there, other=0.0)
    size = tl.maximum(tl.max(tl.abs(x), 0), 1e-8) / top
    y = tl.minimum(tl.maximum(round_(x * (1.0 / size)), -top), top)
    tl.store(scale + c, size)
    tl.store(levels + c * inputs + ks, y.to(levels.dtype.element_ty), mask=there)
    tl.store(values + c * inputs + ks, (y * size).to(values.dtype.element_ty), mask=there)

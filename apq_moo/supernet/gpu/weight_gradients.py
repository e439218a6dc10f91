"""Triton kernels of the gradients with respect to weights."""

from __future__ import annotations

import triton
import triton.language as tl

from apq_moo.supernet.gpu.convolutions import gathered, pixels_of
from apq_moo.supernet.gpu.primitives import enter, gradient_of, levels_of


@triton.jit(do_not_specialize=["P", "K", "C", "chunk", "plane", "size"])
def pointwise_weights(
    du, z, x, out, P, K, C, pitch, chunk, plane, size, p, q, r, in_a, in_b, span_in,
    IN: tl.constexpr, TYPE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Gradient of :func:`pointwise`'s weight, ``out[split, C, K]``, over ``chunk`` tiles each."""
    parts_c = tl.cdiv(C, BM)
    parts_k = tl.cdiv(K, BN)
    split = tl.program_id(0) // (parts_c * parts_k)
    part = tl.program_id(0) % (parts_c * parts_k)
    cs = (part % parts_c) * BM + tl.arange(0, BM)
    ks = (part // parts_c) * BN + tl.arange(0, BN)
    c_in = cs < C
    k_in = ks < K
    pc = tl.load(p + cs, mask=c_in, other=0.0)[:, None]
    qc = tl.load(q + cs, mask=c_in, other=0.0)[:, None]
    rc = tl.load(r + cs, mask=c_in, other=0.0)[:, None]
    unit, inverse, lowest, highest = levels_of(span_in, IN)
    a = 1.0
    b = 0.0
    if IN >= 2:
        a = tl.load(in_a + ks, mask=k_in, other=0.0)[:, None]
        b = tl.load(in_b + ks, mask=k_in, other=0.0)[:, None]
    acc = tl.zeros((BM, BN), tl.float32)
    for tile in range(split * chunk, tl.minimum(split * chunk + chunk, tl.cdiv(P, BK))):
        # In units of BK, so that the compiler knows that loads are aligned.
        pixels = tile * BK + tl.arange(0, BK)
        there = (pixels < P) & (pixels % plane < size)
        at = cs[:, None].to(tl.int64) * pitch + pixels[None, :]
        g = gradient_of(du, z, at, c_in[:, None], there[None, :], pc, qc, rc, TYPE)
        at = ks[:, None].to(tl.int64) * pitch + pixels[None, :]
        v = tl.load(x + at, mask=k_in[:, None], other=0.0)
        v = enter(v, a, b, inverse, lowest, highest, IN)
        v = tl.where(there[None, :], v, 0.0).to(TYPE)
        acc = tl.dot(g, tl.trans(v), acc)
    place = out + split.to(tl.int64) * C * K + cs[:, None] * K + ks[None, :]
    tl.store(place, acc * unit, mask=c_in[:, None] & k_in[None, :])


@triton.jit(do_not_specialize=["N", "C", "K", "CIN", "chunk"])
def dense_weights(
    du, z, x, out, N, C, K, CIN, pitch_in, pitch_out, chunk, p, q, r, span_in,
    HS: tl.constexpr, WS: tl.constexpr, HD: tl.constexpr, WD: tl.constexpr, STRIDE: tl.constexpr,
    PLANE_S: tl.constexpr, PLANE_D: tl.constexpr, IN: tl.constexpr, TYPE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Gradient of :func:`dense`'s weight, ``out[split, C, CIN K K]``, over ``chunk`` tiles each."""
    taps = CIN * K * K
    parts_c = tl.cdiv(C, BM)
    parts_k = tl.cdiv(taps, BN)
    split = tl.program_id(0) // (parts_c * parts_k)
    part = tl.program_id(0) % (parts_c * parts_k)
    cs = (part % parts_c) * BM + tl.arange(0, BM)
    ks = (part // parts_c) * BN + tl.arange(0, BN)
    c_in = cs < C
    k_in = ks < taps
    pc = tl.load(p + cs, mask=c_in, other=0.0)[:, None]
    qc = tl.load(q + cs, mask=c_in, other=0.0)[:, None]
    rc = tl.load(r + cs, mask=c_in, other=0.0)[:, None]
    unit, inverse, lowest, highest = levels_of(span_in, IN)
    acc = tl.zeros((BM, BN), tl.float32)
    for tile in range(split * chunk, tl.minimum(split * chunk + chunk, tl.cdiv(N * PLANE_D, BK))):
        pixels = tile * BK + tl.arange(0, BK)
        there = (pixels < N * PLANE_D) & (pixels % PLANE_D < HD * WD)
        at = cs[:, None].to(tl.int64) * pitch_out + pixels[None, :]
        g = gradient_of(du, z, at, c_in[:, None], there[None, :], pc, qc, rc, TYPE)
        v = gathered(
            x, ks // (K * K), ks % (K * K) // K, ks % K, k_in, pixels, there, pitch_in,
            HS, WS, WD, STRIDE, PLANE_S, PLANE_D, K // 2, inverse, lowest, highest, IN, TYPE,
        )  # fmt: skip
        acc = tl.dot(g, tl.trans(v), acc)
    place = out + split.to(tl.int64) * C * taps + cs[:, None] * taps + ks[None, :]
    tl.store(place, acc * unit, mask=c_in[:, None] & k_in[None, :])


@triton.jit(do_not_specialize=["N", "C", "splits"])
def patches_weights(
    du, z, x, out, N, C, pitch_in, pitch_out, splits, p, q, r, in_a, in_b, span_in,
    HS: tl.constexpr, WS: tl.constexpr, HD: tl.constexpr, WD: tl.constexpr, STRIDE: tl.constexpr,
    PLANE_S: tl.constexpr, PLANE_D: tl.constexpr, K: tl.constexpr,
    IN: tl.constexpr, TYPE: tl.constexpr,
    TH: tl.constexpr, TW: tl.constexpr, LEFT: tl.constexpr, WIDTH: tl.constexpr,
    CHUNKS: tl.constexpr, BM: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """Gradient of :func:`patches`' weight, ``out[split, chunk, C, K, K]``.

    The product of windows by patches is a matrix ``BS x TH TW``, whose diagonals are summed; a
    program takes one of the ``CHUNKS`` of the windows' rows.
    """
    channel = tl.program_id(0) % C
    part = tl.program_id(0) // C
    chunk = part % CHUNKS
    split = part // CHUNKS
    across: tl.constexpr = (WD + TW - 1) // TW
    each: tl.constexpr = across * ((HD + TH - 1) // TH)
    pad: tl.constexpr = K // 2
    s = tl.arange(0, BS)
    d = tl.arange(0, TH * TW)
    i = (s // WIDTH + chunk * (BS // WIDTH))[:, None] - (d // TW)[None, :] * STRIDE
    j = (s % WIDTH - LEFT + pad)[:, None] - (d % TW)[None, :] * STRIDE
    reached = s // WIDTH + chunk * (BS // WIDTH) < (TH - 1) * STRIDE + K
    pc = tl.load(p + channel)
    qc = tl.load(q + channel)
    rc = tl.load(r + channel)
    unit, inverse, lowest, highest = levels_of(span_in, IN)
    acc = tl.zeros((BS, TH * TW), tl.float32)
    for tile in range(split, tl.cdiv(N * each, BM), splits):
        patch = tile * BM + tl.arange(0, BM)
        image = patch // each
        down = (patch % each) // across
        right = patch % across
        row = (down * TH)[:, None] + (d // TW)[None, :]
        column = (right * TW)[:, None] + (d % TW)[None, :]
        mask = (image < N)[:, None] & (row < HD) & (column < WD)
        at = channel.to(tl.int64) * pitch_out + image.to(tl.int64) * PLANE_D
        at = at[:, None] + (row * WD + column)
        g = gradient_of(du, z, at, mask, mask, pc, qc, rc, TYPE)
        row = (down * (TH * STRIDE) - pad + chunk * (BS // WIDTH))[:, None] + (s // WIDTH)[None, :]
        column = (right * (TW * STRIDE) - LEFT)[:, None] + (s % WIDTH)[None, :]
        mask = (image < N)[:, None] & reached[None, :]
        mask = mask & (row >= 0) & (row < HS) & (column >= 0) & (column < WS)
        at = channel.to(tl.int64) * pitch_in + image.to(tl.int64) * PLANE_S
        at = at[:, None] + (row * WS + column)
        v = pixels_of(
            x, x, at, mask, channel, in_a, in_b, in_b, inverse, lowest, highest, IN, TYPE
        )  # fmt: skip
        acc = tl.dot(tl.trans(v), g, acc)
    for tap in range(K * K):
        value = tl.sum(tl.sum(tl.where((i == tap // K) & (j == tap % K), acc, 0.0), 1), 0)
        tl.store(out + (part * C + channel) * (K * K) + tap, value * unit)


@triton.jit(do_not_specialize=["N", "C", "splits"])
def planes_weights(
    du, z, x, out, N, C, pitch_in, pitch_out, splits, p, q, r, in_a, in_b, span_in,
    HS: tl.constexpr, WS: tl.constexpr, HD: tl.constexpr, WD: tl.constexpr, STRIDE: tl.constexpr,
    PLANE_S: tl.constexpr, PLANE_D: tl.constexpr, K: tl.constexpr,
    IN: tl.constexpr, TYPE: tl.constexpr,
    BI: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Gradient of :func:`planes`' weight, ``out[split, C, K, K]``."""
    channel = tl.program_id(0) % C
    split = tl.program_id(0) // C
    s = tl.arange(0, BS)
    d = tl.arange(0, BD)
    pad: tl.constexpr = K // 2
    i = (s // WS)[:, None] - (d // WD)[None, :] * STRIDE + pad
    j = (s % WS)[:, None] - (d % WD)[None, :] * STRIDE + pad
    exists = (s < HS * WS)[:, None] & (d < HD * WD)[None, :]
    pc = tl.load(p + channel)
    qc = tl.load(q + channel)
    rc = tl.load(r + channel)
    unit, inverse, lowest, highest = levels_of(span_in, IN)
    acc = tl.zeros((BS, BD), tl.float32)
    for tile in range(split, tl.cdiv(N, BI), splits):
        image = tile * BI + tl.arange(0, BI)
        mask = (image < N)[:, None] & (d < HD * WD)[None, :]
        at = channel.to(tl.int64) * pitch_out + (image * PLANE_D)[:, None] + d[None, :]
        g = gradient_of(du, z, at, mask, mask, pc, qc, rc, TYPE)
        mask = (image < N)[:, None] & (s < HS * WS)[None, :]
        at = channel.to(tl.int64) * pitch_in + (image * PLANE_S)[:, None] + s[None, :]
        v = pixels_of(
            x, x, at, mask, channel, in_a, in_b, in_b, inverse, lowest, highest, IN, TYPE
        )  # fmt: skip
        acc = tl.dot(tl.trans(v), g, acc)
    for tap in range(K * K):
        chosen = exists & (i == tap // K) & (j == tap % K)
        value = tl.sum(tl.sum(tl.where(chosen, acc, 0.0), 1), 0)
        tl.store(out + (split * C + channel) * (K * K) + tap, value * unit)


@triton.jit(do_not_specialize=["splits", "count", "columns", "row"])
def add_parts(parts, grad, splits, count, columns, row, BLOCK: tl.constexpr):
    """Add ``parts[splits, count]``, rows of ``columns``, to a gradient whose rows are longer."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = at < count
    total = tl.zeros((BLOCK,), tl.float32)
    for split in range(splits):
        total += tl.load(parts + split * count + at, mask=there, other=0.0)
    place = grad + (at // columns) * row + at % columns
    tl.store(place, tl.load(place, mask=there, other=0.0) + total, mask=there)

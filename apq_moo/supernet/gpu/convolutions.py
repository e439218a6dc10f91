"""Triton kernels of the convolutions, and of their gradients with respect to the input."""

from __future__ import annotations

import triton
import triton.language as tl

from apq_moo.supernet.gpu.primitives import enter, leave, levels_of


@triton.jit
def columns_of(
    x, x_raw, ks, k_in, pixels, pitch, in_a, in_b, in_c, inverse, lowest, highest,
    IN: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Channels ``ks`` by ``pixels`` as the convolution multiplies them; zero where masked."""
    places = ks[:, None].to(tl.int64) * pitch + pixels[None, :]
    t = tl.load(x + places, mask=k_in[:, None], other=0)
    if IN == 0:
        v = t.to(TYPE)
    elif IN == 1:
        v = enter(t, 0.0, 0.0, inverse, lowest, highest, IN).to(TYPE)
    elif IN == 5:
        v = enter(t, tl.load(in_a + 2), 0.0, inverse, lowest, highest, IN).to(TYPE)
    else:
        a = tl.load(in_a + ks, mask=k_in, other=0.0)[:, None]
        b = tl.load(in_b + ks, mask=k_in, other=0.0)[:, None]
        if IN == 4:
            raw = tl.load(x_raw + places, mask=k_in[:, None], other=0).to(tl.float32)
            c = tl.load(in_c + ks, mask=k_in, other=0.0)[:, None]
            v = (t.to(tl.float32) * a + raw * b + c).to(TYPE)
        else:
            v = enter(t, a, b, inverse, lowest, highest, IN).to(TYPE)
    return v


@triton.jit
def weights_of(w, w_row, rows, rows_in, ks, k_in, BACK: tl.constexpr, TYPE: tl.constexpr):
    """Weights from channels ``ks`` to channels ``rows``, or of the transpose."""
    if BACK:
        at = rows[:, None] + ks[None, :] * w_row
    else:
        at = rows[:, None] * w_row + ks[None, :]
    return tl.load(w + at, mask=rows_in[:, None] & k_in[None, :], other=0.0).to(TYPE)


@triton.jit(do_not_specialize=["P", "K", "C", "w_row", "tiles", "group", "plane", "size"])
def pointwise(
    x, x_raw, w, out, P, K, C, w_row, pitch, group, plane, size,
    in_a, in_b, in_c, span_in, top_in, scale, a, b, mean, span_out, top_out, other, z,
    entered, stats, tiles,
    IN: tl.constexpr, OUT: tl.constexpr, QUANTISED: tl.constexpr, RELU: tl.constexpr,
    RESIDUAL: tl.constexpr, TYPE: tl.constexpr,
    SHORT: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """``out[C, P] = w[C, K] x[K, P]``, or with the transpose of ``w[K, C]`` for a gradient.

    Rows of ``w`` are ``w_row`` apart. Rows of ``x`` and ``out`` are ``pitch`` apart, a multiple of
    ``BN``, so that no tile leaves them; they consist of planes of ``plane`` elements, the first
    ``size`` of which exist. A program makes ``group`` tiles of ``BM`` channels; if ``SHORT``, all
    ``K <= BK`` channels of ``x`` are read once for them.
    """
    parts = tl.cdiv(tl.cdiv(C, BM), group)
    tile = tl.program_id(0) // parts
    first = (tl.program_id(0) % parts) * group
    pixels = tile * BN + tl.arange(0, BN)
    exists = (pixels < P) & (pixels % plane < size)
    _, inverse, lowest, highest = levels_of(span_in, top_in, IN)
    if SHORT:
        ks = tl.arange(0, BK)
        k_in = ks < K
        v = columns_of(
            x, x_raw, ks, k_in, pixels, pitch, in_a, in_b, in_c, inverse, lowest, highest, IN, TYPE
        )  # fmt: skip
        for part in range(first, tl.minimum(first + group, tl.cdiv(C, BM))):
            rows = part * BM + tl.arange(0, BM)
            rows_in = rows < C
            u = weights_of(w, w_row, rows, rows_in, ks, k_in, IN == 4, TYPE)
            acc = tl.dot(u, v)
            offsets = rows[:, None].to(tl.int64) * pitch + pixels[None, :]
            stored = tl.broadcast_to(rows_in[:, None], (BM, BN))
            leave(
                acc, offsets, stored & exists[None, :], stored, rows, rows_in, tile,
                out, scale, a, b, mean, span_in, top_in, span_out, top_out, other, z,
                entered, stats, tiles,
                True, OUT, QUANTISED, RELU, RESIDUAL,
            )  # fmt: skip
    else:
        rows = first * BM + tl.arange(0, BM)
        rows_in = rows < C
        acc = tl.zeros((BM, BN), tl.float32)
        for start in range(0, K, BK):
            ks = start + tl.arange(0, BK)
            k_in = ks < K
            v = columns_of(
                x, x_raw, ks, k_in, pixels, pitch, in_a, in_b, in_c, inverse, lowest, highest,
                IN, TYPE,
            )  # fmt: skip
            u = weights_of(w, w_row, rows, rows_in, ks, k_in, IN == 4, TYPE)
            acc = tl.dot(u, v, acc)
        offsets = rows[:, None].to(tl.int64) * pitch + pixels[None, :]
        stored = tl.broadcast_to(rows_in[:, None], (BM, BN))
        leave(
            acc, offsets, stored & exists[None, :], stored, rows, rows_in, tile,
            out, scale, a, b, mean, span_in, top_in, span_out, top_out, other, z,
            entered, stats, tiles,
            True, OUT, QUANTISED, RELU, RESIDUAL,
        )  # fmt: skip


@triton.jit
def pixels_of(
    x, x_raw, places, mask, channel, in_a, in_b, in_c, inverse, lowest, highest,
    IN: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Pixels of one channel as the convolution multiplies them; zero where masked."""
    t = tl.load(x + places, mask=mask, other=0)
    if IN == 0:
        v = t.to(TYPE)
    elif IN == 1:
        v = enter(t, 0.0, 0.0, inverse, lowest, highest, IN).to(TYPE)
    elif IN == 5:
        v = enter(t, tl.load(in_a + 2), 0.0, inverse, lowest, highest, IN).to(TYPE)
    else:
        a = tl.load(in_a + channel)
        b = tl.load(in_b + channel)
        if IN == 4:
            raw = tl.load(x_raw + places, mask=mask, other=0).to(tl.float32)
            v = t.to(tl.float32) * a + raw * b + tl.load(in_c + channel)
        else:
            v = enter(t, a, b, inverse, lowest, highest, IN)
        v = tl.where(mask, v, 0.0).to(TYPE)
    return v


@triton.jit(do_not_specialize=["N", "C", "K", "tiles"])
def rows(
    x, x_raw, w, out, N, C, K, pitch_in, pitch_out,
    in_a, in_b, in_c, span_in, top_in, scale, a, b, mean, span_out, top_out, other, z,
    entered, stats, tiles,
    HS: tl.constexpr, WS: tl.constexpr, HD: tl.constexpr, WD: tl.constexpr, STRIDE: tl.constexpr,
    PLANE_S: tl.constexpr, PLANE_D: tl.constexpr, CIN: tl.constexpr, BACK: tl.constexpr,
    IN: tl.constexpr, OUT: tl.constexpr, QUANTISED: tl.constexpr, RELU: tl.constexpr,
    RESIDUAL: tl.constexpr, TYPE: tl.constexpr,
    BR: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """A convolution of planes ``HS x WS`` into planes ``HD x WD``, rows of pixels at a time.

    For each kernel row, ``BR`` rows of pixels times a band matrix ``BS x BD`` that holds that
    kernel row along its diagonals. Depthwise where ``CIN`` is 0, else dense over ``CIN`` input
    channels; with ``BACK`` the gradient with respect to the input of a depthwise one. Planes are
    ``PLANE_S`` and ``PLANE_D`` elements apart; what lies between them is not written.
    """
    channel = tl.program_id(0) % C
    tile = tl.program_id(0) // C
    r = tile * BR + tl.arange(0, BR)
    image = r // HD
    hd = r % HD
    ws = tl.arange(0, BS)
    wd = tl.arange(0, BD)
    pad = K // 2
    if BACK:
        j = wd[None, :] - ws[:, None] * STRIDE + pad
    else:
        j = ws[:, None] - wd[None, :] * STRIDE + pad
    band = (j >= 0) & (j < K) & (ws < WS)[:, None] & (wd < WD)[None, :]
    _, inverse, lowest, highest = levels_of(span_in, top_in, IN)
    acc = tl.zeros((BR, BD), tl.float32)
    for q in tl.static_range(CIN if CIN > 0 else 1):
        source = q if CIN > 0 else channel
        weights = w + ((channel * CIN + q if CIN > 0 else channel) * K) * K
        for i in range(K):
            if BACK:
                t = hd + pad - i
                hs = t // STRIDE
                there = (t >= 0) & (t % STRIDE == 0) & (hs < HS)
            else:
                hs = hd * STRIDE + i - pad
                there = (hs >= 0) & (hs < HS)
            mask = (there & (image < N))[:, None] & (ws < WS)[None, :]
            places = source.to(tl.int64) * pitch_in if CIN == 0 else q * pitch_in
            v = pixels_of(
                x, x_raw, places + (image * PLANE_S + hs * WS)[:, None] + ws[None, :], mask, source,
                in_a, in_b, in_c, inverse, lowest, highest, IN, TYPE,
            )  # fmt: skip
            taps = tl.load(weights + i * K + j, mask=band, other=0.0).to(TYPE)
            acc = tl.dot(v, taps, acc)
    inside = (image < N)[:, None] & (wd < WD)[None, :]
    offsets = channel.to(tl.int64) * pitch_out + (image * PLANE_D + hd * WD)[:, None] + wd[None, :]
    leave(
        acc, offsets, inside, inside, channel, True, tile,
        out, scale, a, b, mean, span_in, top_in, span_out, top_out, other, z,
        entered, stats, tiles,
        False, OUT, QUANTISED, RELU, RESIDUAL,
    )  # fmt: skip


@triton.jit(do_not_specialize=["K"])
def band_matrices(
    w, out, K, HS: tl.constexpr, WS: tl.constexpr, HD: tl.constexpr, WD: tl.constexpr,
    STRIDE: tl.constexpr, BACK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    BS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """A spatial kernel as the matrix that maps plane to plane, ``out[C, ROWS, COLUMNS]``.

    Row ``s`` and column ``d`` hold the tap that leads from source pixel ``s`` to pixel ``d``, or 0.
    """
    parts: tl.constexpr = (ROWS // BS) * (COLUMNS // BD)
    channel = tl.program_id(0) // parts
    part = tl.program_id(0) % parts
    s = (part // (COLUMNS // BD)) * BS + tl.arange(0, BS)
    d = (part % (COLUMNS // BD)) * BD + tl.arange(0, BD)
    pad = K // 2
    if BACK:
        i = (d // WD)[None, :] - (s // WS)[:, None] * STRIDE + pad
        j = (d % WD)[None, :] - (s % WS)[:, None] * STRIDE + pad
    else:
        i = (s // WS)[:, None] - (d // WD)[None, :] * STRIDE + pad
        j = (s % WS)[:, None] - (d % WD)[None, :] * STRIDE + pad
    tapped = (i >= 0) & (i < K) & (j >= 0) & (j < K)
    tapped = tapped & (s < HS * WS)[:, None] & (d < HD * WD)[None, :]
    taps = tl.load(w + channel * K * K + i * K + j, mask=tapped, other=0.0)
    place = out + channel.to(tl.int64) * ROWS * COLUMNS + s[:, None] * COLUMNS + d[None, :]
    tl.store(place, taps.to(out.dtype.element_ty))


@triton.jit(do_not_specialize=["N", "C", "K", "tiles"])
def planes(
    x, x_raw, bands, out, N, C, K, pitch_in, pitch_out,
    in_a, in_b, in_c, span_in, top_in, scale, a, b, mean, span_out, top_out, other, z,
    entered, stats, tiles,
    HS: tl.constexpr, WS: tl.constexpr, HD: tl.constexpr, WD: tl.constexpr, STRIDE: tl.constexpr,
    PLANE_S: tl.constexpr, PLANE_D: tl.constexpr, CIN: tl.constexpr, BACK: tl.constexpr,
    IN: tl.constexpr, OUT: tl.constexpr, QUANTISED: tl.constexpr, RELU: tl.constexpr,
    RESIDUAL: tl.constexpr, TYPE: tl.constexpr,
    BI: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The same as :func:`rows` for planes that are not large, whole planes at a time.

    ``BI`` planes of pixels times the columns ``BD`` of a matrix of :func:`band_matrices`; rows
    that cannot reach those columns are left out. What lies between planes is written too, so that
    it is finite wherever it is read.
    """
    channel = tl.program_id(0) % C
    rest = tl.program_id(0) // C
    parts: tl.constexpr = COLUMNS // BD
    part = rest % parts
    tile = rest // parts
    image = tile * BI + tl.arange(0, BI)
    d = part * BD + tl.arange(0, BD)
    pad = K // 2
    top = (part * BD) // WD
    bottom = tl.minimum((part * BD + BD - 1) // WD, HD - 1)
    if BACK:
        top = tl.maximum(top - pad, 0) // STRIDE
        bottom = (bottom + pad) // STRIDE
    else:
        top = tl.maximum(top * STRIDE - pad, 0)
        bottom = bottom * STRIDE + pad
    bottom = tl.minimum(bottom, HS - 1)
    _, inverse, lowest, highest = levels_of(span_in, top_in, IN)
    acc = tl.zeros((BI, BD), tl.float32)
    for q in tl.static_range(CIN if CIN > 0 else 1):
        source = channel * 0 + q if CIN > 0 else channel
        matrix = channel * CIN + q if CIN > 0 else channel
        for start in range(top * WS // BS * BS, (bottom + 1) * WS, BS):
            s = start + tl.arange(0, BS)
            mask = (image < N)[:, None] & (s < PLANE_S)[None, :]
            places = source.to(tl.int64) * pitch_in + (image * PLANE_S)[:, None] + s[None, :]
            v = pixels_of(
                x, x_raw, places, mask, source,
                in_a, in_b, in_c, inverse, lowest, highest, IN, TYPE,
            )  # fmt: skip
            place = bands + matrix.to(tl.int64) * (ROWS * COLUMNS)
            taps = tl.load(place + s[:, None] * COLUMNS + d[None, :]).to(TYPE)
            acc = tl.dot(v, taps, acc)
    stored = (image < N)[:, None] & (d < PLANE_D)[None, :]
    inside = stored
    if PLANE_D != HD * WD:
        inside = stored & (d < HD * WD)[None, :]
    offsets = channel.to(tl.int64) * pitch_out + (image * PLANE_D)[:, None] + d[None, :]
    leave(
        acc, offsets, inside, stored, channel, True, tile * parts + part,
        out, scale, a, b, mean, span_in, top_in, span_out, top_out, other, z,
        entered, stats, tiles,
        False, OUT, QUANTISED, RELU, RESIDUAL,
    )  # fmt: skip

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
    in_a, in_b, in_c, span_in, scale, a, b, mean, span_out, other, z,
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
    _, inverse, lowest, highest = levels_of(span_in, IN)
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
                out, scale, a, b, mean, span_in, span_out, other, z,
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
            out, scale, a, b, mean, span_in, span_out, other, z,
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


@triton.jit(do_not_specialize=["N", "C", "window", "top", "tiles"])
def patches(
    x, x_raw, bands, out, N, C, window, top, pitch_in, pitch_out,
    in_a, in_b, in_c, span_in, scale, a, b, mean, span_out, other, z,
    entered, stats, tiles,
    HS: tl.constexpr, WS: tl.constexpr, HD: tl.constexpr, WD: tl.constexpr,
    PLANE_S: tl.constexpr, PLANE_D: tl.constexpr,
    IN: tl.constexpr, OUT: tl.constexpr, QUANTISED: tl.constexpr, RELU: tl.constexpr,
    RESIDUAL: tl.constexpr, TYPE: tl.constexpr,
    TH: tl.constexpr, TW: tl.constexpr, STEP_H: tl.constexpr, STEP_W: tl.constexpr,
    BASE_H: tl.constexpr, BASE_W: tl.constexpr, LEFT: tl.constexpr, WIDTH: tl.constexpr,
    BM: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """A depthwise convolution of planes ``HS x WS`` into planes ``HD x WD``, patch by patch.

    A patch is ``TH x TW`` pixels of the output, of which ``STEP_H x STEP_W`` are its own; the
    window that it depends on is ``WIDTH`` pixels wide and ``window`` in all. It begins ``top`` rows
    and ``LEFT`` columns before the pixel that the patch's number times ``BASE_H``, ``BASE_W``
    names. ``BM`` windows times a matrix of :func:`band_matrices` are ``BM`` patches; a program goes
    through the windows ``BS`` pixels at a time. What lies between planes is not written.
    """
    channel = tl.program_id(0) % C
    tile = tl.program_id(0) // C
    across: tl.constexpr = (WD + STEP_W - 1) // STEP_W
    each: tl.constexpr = across * ((HD + STEP_H - 1) // STEP_H)
    patch = tile * BM + tl.arange(0, BM)
    image = patch // each
    down = (patch % each) // across
    right = patch % across
    source = channel.to(tl.int64) * pitch_in + image.to(tl.int64) * PLANE_S
    _, inverse, lowest, highest = levels_of(span_in, IN)
    d = tl.arange(0, TH * TW)
    bands += channel.to(tl.int64) * window * (TH * TW)
    acc = tl.zeros((BM, TH * TW), tl.float32)
    for start in range(0, window, BS):
        s = tl.arange(0, BS)
        row = (down * BASE_H - top + start // WIDTH)[:, None] + (s // WIDTH)[None, :]
        column = (right * BASE_W - LEFT)[:, None] + (s % WIDTH)[None, :]
        mask = (image < N)[:, None] & (row >= 0) & (row < HS) & (column >= 0) & (column < WS)
        v = pixels_of(
            x, x_raw, source[:, None] + (row * WS + column), mask, channel,
            in_a, in_b, in_c, inverse, lowest, highest, IN, TYPE,
        )  # fmt: skip
        taps = tl.load(bands + (start + s)[:, None] * (TH * TW) + d[None, :]).to(TYPE)
        acc = tl.dot(v, taps, acc)
    row = (down * STEP_H)[:, None] + (d // TW)[None, :]
    column = (right * STEP_W)[:, None] + (d % TW)[None, :]
    inside = (image < N)[:, None] & (row < HD) & (column < WD)
    if STEP_H < TH or STEP_W < TW:
        inside = inside & (d // TW < STEP_H)[None, :] & (d % TW < STEP_W)[None, :]
    dest = channel.to(tl.int64) * pitch_out + image.to(tl.int64) * PLANE_D
    offsets = dest[:, None] + (row * WD + column)
    leave(
        acc, offsets, inside, inside, channel, True, tile,
        out, scale, a, b, mean, span_in, span_out, other, z,
        entered, stats, tiles,
        False, OUT, QUANTISED, RELU, RESIDUAL,
    )  # fmt: skip


@triton.jit
def gathered(
    x, q, i, j, k_in, pixels, exists, pitch, HS: tl.constexpr, WS: tl.constexpr,
    WD: tl.constexpr, STRIDE: tl.constexpr, PLANE_S: tl.constexpr, PLANE_D: tl.constexpr, pad,
    inverse, lowest, highest, IN: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Taps by pixels of a dense convolution: what channel ``q``, row ``i``, column ``j`` reads."""
    image = pixels // PLANE_D
    at = pixels % PLANE_D
    row = ((at // WD) * STRIDE - pad)[None, :] + i[:, None]
    column = ((at % WD) * STRIDE - pad)[None, :] + j[:, None]
    mask = k_in[:, None] & exists[None, :]
    mask = mask & (row >= 0) & (row < HS) & (column >= 0) & (column < WS)
    places = (q.to(tl.int64) * pitch)[:, None] + (image.to(tl.int64) * PLANE_S)[None, :]
    t = tl.load(x + places + (row * WS + column), mask=mask, other=0)
    if IN == 0:
        v = t.to(TYPE)
    else:
        v = enter(t, 0.0, 0.0, inverse, lowest, highest, IN)
        v = tl.where(mask, v, 0.0).to(TYPE)
    return v


@triton.jit(do_not_specialize=["N", "C", "K", "CIN", "tiles"])
def dense(
    x, w, out, N, C, K, CIN, pitch_in, pitch_out,
    span_in, scale, a, b, mean, span_out, other, z,
    entered, stats, tiles,
    HS: tl.constexpr, WS: tl.constexpr, HD: tl.constexpr, WD: tl.constexpr, STRIDE: tl.constexpr,
    PLANE_S: tl.constexpr, PLANE_D: tl.constexpr,
    IN: tl.constexpr, OUT: tl.constexpr, QUANTISED: tl.constexpr, RELU: tl.constexpr,
    RESIDUAL: tl.constexpr, TYPE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """A dense spatial convolution of ``CIN`` channels, the network's first, as one product.

    As in :func:`pointwise` a tile is ``BM`` channels by ``BN`` pixels; what is multiplied are
    ``BK`` taps of all input channels at a time. Its input is read in the ways ``IN_PLAIN`` and
    ``IN_QUANTISED``.
    """
    parts = tl.cdiv(C, BM)
    tile = tl.program_id(0) // parts
    rows = (tl.program_id(0) % parts) * BM + tl.arange(0, BM)
    rows_in = rows < C
    pixels = tile * BN + tl.arange(0, BN)
    exists = (pixels < N * PLANE_D) & (pixels % PLANE_D < HD * WD)
    _, inverse, lowest, highest = levels_of(span_in, IN)
    taps = CIN * K * K
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(0, taps, BK):
        ks = start + tl.arange(0, BK)
        k_in = ks < taps
        v = gathered(
            x, ks // (K * K), ks % (K * K) // K, ks % K, k_in, pixels, exists, pitch_in,
            HS, WS, WD, STRIDE, PLANE_S, PLANE_D, K // 2, inverse, lowest, highest, IN, TYPE,
        )  # fmt: skip
        u = weights_of(w, taps, rows, rows_in, ks, k_in, False, TYPE)
        acc = tl.dot(u, v, acc)
    offsets = rows[:, None].to(tl.int64) * pitch_out + pixels[None, :]
    stored = tl.broadcast_to(rows_in[:, None], (BM, BN))
    leave(
        acc, offsets, stored & exists[None, :], stored, rows, rows_in, tile,
        out, scale, a, b, mean, span_in, span_out, other, z,
        entered, stats, tiles,
        True, OUT, QUANTISED, RELU, RESIDUAL,
    )  # fmt: skip


@triton.jit(do_not_specialize=["K", "top", "left", "rows", "columns", "inputs", "outputs"])
def band_matrices(
    w, out, K, top, left, rows, columns, inputs, outputs,
    WS: tl.constexpr, WD: tl.constexpr, STRIDE: tl.constexpr, BACK: tl.constexpr,
    BS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """A spatial kernel as the matrix that maps pixels to pixels, ``out[C, rows, columns]``.

    Row ``s`` and column ``d`` hold the tap that leads from source pixel ``s`` to pixel ``d``, or 0;
    ``inputs`` and ``outputs`` of them exist. Pixels are counted along rows of ``WS`` and ``WD``;
    the sources begin ``top`` rows and ``left`` columns before the others.
    """
    parts = (rows // BS) * (columns // BD)
    channel = tl.program_id(0) // parts
    part = tl.program_id(0) % parts
    s = (part // (columns // BD)) * BS + tl.arange(0, BS)
    d = (part % (columns // BD)) * BD + tl.arange(0, BD)
    pad = K // 2
    if BACK:
        i = (d // WD)[None, :] - (s // WS - top)[:, None] * STRIDE + pad
        j = (d % WD)[None, :] - (s % WS - left)[:, None] * STRIDE + pad
    else:
        i = (s // WS - top)[:, None] - (d // WD)[None, :] * STRIDE + pad
        j = (s % WS - left)[:, None] - (d % WD)[None, :] * STRIDE + pad
    tapped = (i >= 0) & (i < K) & (j >= 0) & (j < K)
    tapped = tapped & (s < inputs)[:, None] & (d < outputs)[None, :]
    taps = tl.load(w + channel * K * K + i * K + j, mask=tapped, other=0.0)
    place = out + channel.to(tl.int64) * rows * columns + s[:, None] * columns + d[None, :]
    tl.store(place, taps.to(out.dtype.element_ty))


@triton.jit(do_not_specialize=["N", "C", "K", "tiles"])
def planes(
    x, x_raw, bands, out, N, C, K, pitch_in, pitch_out,
    in_a, in_b, in_c, span_in, scale, a, b, mean, span_out, other, z,
    entered, stats, tiles,
    HS: tl.constexpr, WS: tl.constexpr, HD: tl.constexpr, WD: tl.constexpr, STRIDE: tl.constexpr,
    PLANE_S: tl.constexpr, PLANE_D: tl.constexpr, BACK: tl.constexpr,
    IN: tl.constexpr, OUT: tl.constexpr, QUANTISED: tl.constexpr, RELU: tl.constexpr,
    RESIDUAL: tl.constexpr, TYPE: tl.constexpr,
    BI: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A depthwise convolution of planes that are not large, whole planes at a time.

    ``BI`` planes of pixels times the columns ``BD`` of a matrix of :func:`band_matrices`; rows
    that cannot reach those columns are left out. With ``BACK`` it is the gradient with respect to
    the input. What lies between planes is written too, so that
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
    _, inverse, lowest, highest = levels_of(span_in, IN)
    acc = tl.zeros((BI, BD), tl.float32)
    bands += channel.to(tl.int64) * (ROWS * COLUMNS)
    for start in range(top * WS // BS * BS, (bottom + 1) * WS, BS):
        s = start + tl.arange(0, BS)
        mask = (image < N)[:, None] & (s < PLANE_S)[None, :]
        places = channel.to(tl.int64) * pitch_in + (image * PLANE_S)[:, None] + s[None, :]
        v = pixels_of(
            x, x_raw, places, mask, channel,
            in_a, in_b, in_c, inverse, lowest, highest, IN, TYPE,
        )  # fmt: skip
        taps = tl.load(bands + s[:, None] * COLUMNS + d[None, :]).to(TYPE)
        acc = tl.dot(v, taps, acc)
    stored = (image < N)[:, None] & (d < PLANE_D)[None, :]
    inside = stored
    if PLANE_D != HD * WD:
        inside = stored & (d < HD * WD)[None, :]
    offsets = channel.to(tl.int64) * pitch_out + (image * PLANE_D)[:, None] + d[None, :]
    leave(
        acc, offsets, inside, stored, channel, True, tile * parts + part,
        out, scale, a, b, mean, span_in, span_out, other, z,
        entered, stats, tiles,
        False, OUT, QUANTISED, RELU, RESIDUAL,
    )  # fmt: skip

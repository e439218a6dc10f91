"""Triton kernels: convolutions with what comes before and behind them fused in.

A convolution kernel reads its input in one of the ``IN_*`` ways and writes its output in one of the
``OUT_*`` ways, so that batch norm, ReLU6, quantisation, residual sums and their gradients never
make a pass over memory of their own.

Pointers named ``span`` point to two floats, the bottom and the top of an activation's range; ``top``
is the highest level, ``2^bits - 1``.
"""

from __future__ import annotations

import triton
import triton.language as tl

IN_PLAIN = tl.constexpr(0)
"""The stored numbers themselves: integer levels or floats."""
IN_QUANTISED = tl.constexpr(1)
"""The stored floats, rounded to levels."""
IN_NORM = tl.constexpr(2)
"""Raw outputs of a convolution: batch norm's affine map, then ReLU6."""
IN_NORM_QUANTISED = tl.constexpr(3)
"""The same, rounded to levels."""
IN_GRADIENT = tl.constexpr(4)
"""Gradients behind a batch norm, taken through it: ``p * du + q * z + r``."""

WEIGHT_LEVELS = tl.constexpr(1)
"""The weights are levels: outputs are multiplied by their size."""
ALL_LEVELS = tl.constexpr(2)
"""So are the inputs."""

OUT_RAW = tl.constexpr(0)
"""The convolution's own output, with partial statistics of every tile."""
OUT_LEVELS = tl.constexpr(1)
"""Normed, ReLU6, rounded to the levels of the next layer."""
OUT_NORMED = tl.constexpr(2)
"""Normed, ReLU6 if asked, residual sum if asked, as floats."""
OUT_GRADIENT = tl.constexpr(3)
"""A gradient taken through a ReLU6, with the partial sums that batch norm's gradient needs."""


@triton.jit
def _round(x):
    """To the nearest integer, ties to even; exact below 2^22."""
    return (x + 12582912.0) - 12582912.0


@triton.jit
def _step(span, top):
    """Step between two levels, its inverse, and the lowest and highest level around zero.

    In double precision, as the reference on a CPU does it.
    """
    low = tl.minimum(tl.load(span), 0.0).to(tl.float64)
    high = tl.maximum(tl.load(span + 1), 0.0).to(tl.float64)
    levels = tl.full((), 0.0, tl.float64) + top
    wide = tl.maximum(high - low, 1e-8) / levels
    step = wide.to(tl.float32)
    inverse = (1.0 / step.to(tl.float64)).to(tl.float32)
    zero = ((-low / wide + 6755399441055744.0) - 6755399441055744.0).to(tl.float32)
    return step, inverse, -zero, top - zero


@triton.jit
def _enter(x, a, b, inverse, lowest, highest, IN: tl.constexpr):
    """What a convolution multiplies, from what is stored."""
    x = x.to(tl.float32)
    if IN == 2 or IN == 3:
        x = tl.minimum(tl.maximum(x * a + b, 0.0), 6.0)
    if IN == 1 or IN == 3:
        x = tl.minimum(tl.maximum(_round(x * inverse), lowest), highest)
    return x


@triton.jit
def _of(vector, rows, rows_in, MANY: tl.constexpr):
    """Each channel's number: a column for a tile of many channels, else the one channel's."""
    if MANY:
        value = tl.load(vector + rows, mask=rows_in, other=0.0)[:, None]
    else:
        value = tl.load(vector + rows)
    return value


@triton.jit
def _sum(x, MANY: tl.constexpr):
    if MANY:
        total = tl.sum(x, 1)
    else:
        total = tl.sum(tl.sum(x, 1), 0)
    return total


@triton.jit
def _spread(x, MANY: tl.constexpr):
    if MANY:
        x = x[:, None]
    return x


@triton.jit
def _put(place, value, rows_in, MANY: tl.constexpr):
    if MANY:
        tl.store(place, value, mask=rows_in)
    else:
        tl.store(place, value, mask=rows_in)


@triton.jit
def _leave(
    acc, offsets, inside, stored, rows, rows_in, tile,
    out, scale, a, b, mean, span_in, top_in, span_out, top_out, other, z, stats, tiles,
    MANY: tl.constexpr, OUT: tl.constexpr, QUANTISED: tl.constexpr, RELU: tl.constexpr,
    RESIDUAL: tl.constexpr,
):  # fmt: skip
    """Finish and store a tile of many channels by pixels, or of one channel's pixels.

    ``inside`` marks the elements that exist, ``stored`` those that may be written (a row's padding
    may); ``rows`` are the channels and ``rows_in`` marks those that exist.
    """
    y = acc
    step = 1.0
    if QUANTISED == 2:
        step, _, _, _ = _step(span_in, top_in)
    if QUANTISED > 0:
        y = y * (_of(scale, rows, rows_in, MANY) * step)
    if OUT == 0:
        tl.store(out + offsets, y.to(out.dtype.element_ty), mask=stored)
        place = stats + (rows * 4).to(tl.int64) * tiles + tile
        if out.dtype.element_ty == tl.float32:
            exact = tl.where(inside, y, 0.0).to(tl.float64)
            total = _sum(exact, MANY)
            squares = _sum(exact * exact, MANY)
        else:
            count = tl.maximum(_sum(inside.to(tl.float32), MANY), 1.0)
            total = _sum(tl.where(inside, y, 0.0), MANY)
            off = tl.where(inside, y - _spread(total / count, MANY), 0.0)
            squares = _sum(off * off, MANY).to(tl.float64) + total.to(tl.float64) * (total / count)
        _put(place, total, rows_in, MANY)
        _put(place + tiles, squares, rows_in, MANY)
        low = tl.min(tl.where(inside, y, float("inf")), 1)
        high = tl.max(tl.where(inside, y, float("-inf")), 1)
        if not MANY:
            low = tl.min(low, 0)
            high = tl.max(high, 0)
        _put(place + 2 * tiles, low, rows_in, MANY)
        _put(place + 3 * tiles, high, rows_in, MANY)
    elif OUT == 3:
        if RESIDUAL:
            y += tl.load(other + offsets, mask=stored, other=0.0).to(tl.float32)
        raw = tl.load(z + offsets, mask=stored, other=0.0).to(tl.float32)
        if RELU:
            u = raw * _of(a, rows, rows_in, MANY) + _of(b, rows, rows_in, MANY)
            y = tl.where((u > 0.0) & (u < 6.0), y, 0.0)
        tl.store(out + offsets, y.to(out.dtype.element_ty), mask=stored)
        y = tl.where(inside, y, 0.0)
        off = tl.where(inside, raw - _of(mean, rows, rows_in, MANY), 0.0)
        place = stats + (rows * 4).to(tl.int64) * tiles + tile
        _put(place, _sum(y, MANY), rows_in, MANY)
        _put(place + tiles, _sum(y * off, MANY), rows_in, MANY)
    else:
        y = y * _of(a, rows, rows_in, MANY) + _of(b, rows, rows_in, MANY)
        if OUT == 1:
            # Levels behind a ReLU6: their range begins at 0.
            _, inverse, _, highest = _step(span_out, top_out)
            y = tl.minimum(tl.minimum(tl.maximum(y, 0.0), 6.0) * inverse, highest)
            # The lowest bits of this sum are the rounded number.
            y = (y + 12582912.0).to(tl.int32, bitcast=True)
        else:
            if RELU:
                y = tl.minimum(tl.maximum(y, 0.0), 6.0)
            if RESIDUAL:
                y += tl.load(other + offsets, mask=stored, other=0.0).to(tl.float32)
        tl.store(out + offsets, y.to(out.dtype.element_ty), mask=stored)


@triton.jit
def _columns(
    x, x_raw, ks, k_in, pixels, pitch, in_a, in_b, in_c, inverse, lowest, highest,
    IN: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Channels ``ks`` by ``pixels`` as the convolution multiplies them; zero where masked."""
    places = ks[:, None].to(tl.int64) * pitch + pixels[None, :]
    t = tl.load(x + places, mask=k_in[:, None], other=0)
    if IN == 0:
        v = t.to(TYPE)
    elif IN == 1:
        v = _enter(t, 0.0, 0.0, inverse, lowest, highest, IN).to(TYPE)
    else:
        a = tl.load(in_a + ks, mask=k_in, other=0.0)[:, None]
        b = tl.load(in_b + ks, mask=k_in, other=0.0)[:, None]
        if IN == 4:
            raw = tl.load(x_raw + places, mask=k_in[:, None], other=0).to(tl.float32)
            c = tl.load(in_c + ks, mask=k_in, other=0.0)[:, None]
            v = (t.to(tl.float32) * a + raw * b + c).to(TYPE)
        else:
            v = _enter(t, a, b, inverse, lowest, highest, IN).to(TYPE)
    return v


@triton.jit
def _weights(w, w_row, rows, rows_in, ks, k_in, BACK: tl.constexpr, TYPE: tl.constexpr):
    if BACK:
        at = rows[:, None] + ks[None, :] * w_row
    else:
        at = rows[:, None] * w_row + ks[None, :]
    return tl.load(w + at, mask=rows_in[:, None] & k_in[None, :], other=0.0).to(TYPE)


@triton.jit(do_not_specialize=["P", "K", "C", "w_row", "tiles", "group", "plane", "size"])
def pointwise(
    x, x_raw, w, out, P, K, C, w_row, pitch, group, plane, size,
    in_a, in_b, in_c, span_in, top_in, scale, a, b, mean, span_out, top_out, other, z, stats, tiles,
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
    inverse = 1.0
    lowest = 0.0
    highest = 0.0
    if IN == 1 or IN == 3:
        _, inverse, lowest, highest = _step(span_in, top_in)
    if SHORT:
        ks = tl.arange(0, BK)
        k_in = ks < K
        v = _columns(
            x, x_raw, ks, k_in, pixels, pitch, in_a, in_b, in_c, inverse, lowest, highest, IN, TYPE
        )  # fmt: skip
        for part in range(first, tl.minimum(first + group, tl.cdiv(C, BM))):
            rows = part * BM + tl.arange(0, BM)
            rows_in = rows < C
            u = _weights(w, w_row, rows, rows_in, ks, k_in, IN == 4, TYPE)
            acc = tl.dot(u, v)
            offsets = rows[:, None].to(tl.int64) * pitch + pixels[None, :]
            stored = tl.broadcast_to(rows_in[:, None], (BM, BN))
            _leave(
                acc, offsets, stored & exists[None, :], stored, rows, rows_in, tile,
                out, scale, a, b, mean, span_in, top_in, span_out, top_out, other, z, stats, tiles,
                True, OUT, QUANTISED, RELU, RESIDUAL,
            )  # fmt: skip
    else:
        rows = first * BM + tl.arange(0, BM)
        rows_in = rows < C
        acc = tl.zeros((BM, BN), tl.float32)
        for start in range(0, K, BK):
            ks = start + tl.arange(0, BK)
            k_in = ks < K
            v = _columns(
                x, x_raw, ks, k_in, pixels, pitch, in_a, in_b, in_c, inverse, lowest, highest,
                IN, TYPE,
            )  # fmt: skip
            u = _weights(w, w_row, rows, rows_in, ks, k_in, IN == 4, TYPE)
            acc = tl.dot(u, v, acc)
        offsets = rows[:, None].to(tl.int64) * pitch + pixels[None, :]
        stored = tl.broadcast_to(rows_in[:, None], (BM, BN))
        _leave(
            acc, offsets, stored & exists[None, :], stored, rows, rows_in, tile,
            out, scale, a, b, mean, span_in, top_in, span_out, top_out, other, z, stats, tiles,
            True, OUT, QUANTISED, RELU, RESIDUAL,
        )  # fmt: skip


@triton.jit
def _pixels(
    x, x_raw, places, mask, channel, in_a, in_b, in_c, inverse, lowest, highest,
    IN: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Pixels of one channel as the convolution multiplies them; zero where masked."""
    t = tl.load(x + places, mask=mask, other=0)
    if IN == 0:
        v = t.to(TYPE)
    elif IN == 1:
        v = _enter(t, 0.0, 0.0, inverse, lowest, highest, IN).to(TYPE)
    else:
        a = tl.load(in_a + channel)
        b = tl.load(in_b + channel)
        if IN == 4:
            raw = tl.load(x_raw + places, mask=mask, other=0).to(tl.float32)
            v = t.to(tl.float32) * a + raw * b + tl.load(in_c + channel)
        else:
            v = _enter(t, a, b, inverse, lowest, highest, IN)
        v = tl.where(mask, v, 0.0).to(TYPE)
    return v


@triton.jit(do_not_specialize=["N", "C", "K", "tiles"])
def rows(
    x, x_raw, w, out, N, C, K, pitch_in, pitch_out,
    in_a, in_b, in_c, span_in, top_in, scale, a, b, mean, span_out, top_out, other, z, stats, tiles,
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
    inverse = 1.0
    lowest = 0.0
    highest = 0.0
    if IN == 1 or IN == 3:
        _, inverse, lowest, highest = _step(span_in, top_in)
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
            v = _pixels(
                x, x_raw, places + (image * PLANE_S + hs * WS)[:, None] + ws[None, :], mask, source,
                in_a, in_b, in_c, inverse, lowest, highest, IN, TYPE,
            )  # fmt: skip
            taps = tl.load(weights + i * K + j, mask=band, other=0.0).to(TYPE)
            acc = tl.dot(v, taps, acc)
    inside = (image < N)[:, None] & (wd < WD)[None, :]
    offsets = channel.to(tl.int64) * pitch_out + (image * PLANE_D + hd * WD)[:, None] + wd[None, :]
    _leave(
        acc, offsets, inside, inside, channel, True, tile,
        out, scale, a, b, mean, span_in, top_in, span_out, top_out, other, z, stats, tiles,
        False, OUT, QUANTISED, RELU, RESIDUAL,
    )  # fmt: skip


@triton.jit(do_not_specialize=["K"])
def band_matrices(
    w, out, K, HS: tl.constexpr, WS: tl.constexpr, HD: tl.constexpr, WD: tl.constexpr,
    STRIDE: tl.constexpr, BACK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    BS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """A spatial kernel as the matrix that maps a plane of pixels to a plane: ``out[C, ROWS, COLUMNS]``.

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
    in_a, in_b, in_c, span_in, top_in, scale, a, b, mean, span_out, top_out, other, z, stats, tiles,
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
    inverse = 1.0
    lowest = 0.0
    highest = 0.0
    if IN == 1 or IN == 3:
        _, inverse, lowest, highest = _step(span_in, top_in)
    acc = tl.zeros((BI, BD), tl.float32)
    for q in tl.static_range(CIN if CIN > 0 else 1):
        source = channel * 0 + q if CIN > 0 else channel
        matrix = channel * CIN + q if CIN > 0 else channel
        for start in range(top * WS // BS * BS, (bottom + 1) * WS, BS):
            s = start + tl.arange(0, BS)
            mask = (image < N)[:, None] & (s < PLANE_S)[None, :]
            places = source.to(tl.int64) * pitch_in + (image * PLANE_S)[:, None] + s[None, :]
            v = _pixels(
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
    _leave(
        acc, offsets, inside, stored, channel, True, tile * parts + part,
        out, scale, a, b, mean, span_in, top_in, span_out, top_out, other, z, stats, tiles,
        False, OUT, QUANTISED, RELU, RESIDUAL,
    )  # fmt: skip


@triton.jit(do_not_specialize=["P", "tiles"])
def settle(
    stats, tiles, P, gamma, beta, scale, span_in, top_in, a, b, mean, rstd, span,
    WEIGHT: tl.constexpr, INPUT: tl.constexpr, SPAN: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """One channel's statistics from its tiles: batch norm as a gain and a bias, ``a z + b``.

    If the weight is levels (``WEIGHT``) or the input is (``INPUT``), ``z`` is in units of their
    sizes. With ``SPAN`` the range behind a ReLU6 is widened to contain this channel's.
    """
    c = tl.program_id(0)
    place = stats + (c * 4).to(tl.int64) * tiles
    total = tl.zeros((BT,), tl.float64)
    squares = tl.zeros((BT,), tl.float64)
    low = tl.full((BT,), float("inf"), tl.float32)
    high = tl.full((BT,), float("-inf"), tl.float32)
    for start in range(0, tiles, BT):
        t = start + tl.arange(0, BT)
        there = t < tiles
        total += tl.load(place + t, mask=there, other=0.0)
        squares += tl.load(place + tiles + t, mask=there, other=0.0)
        least = tl.load(place + 2 * tiles + t, mask=there, other=float("inf"))
        most = tl.load(place + 3 * tiles + t, mask=there, other=float("-inf"))
        low = tl.minimum(low, least.to(tl.float32))
        high = tl.maximum(high, most.to(tl.float32))
    unit = tl.full((), 1.0, tl.float64)
    if WEIGHT:
        unit = tl.load(scale + c).to(tl.float64)
    if INPUT:
        step, _, _, _ = _step(span_in, top_in)
        unit = unit * step.to(tl.float64)
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
    if SPAN:
        peak = tl.maximum(tl.max(high, 0) * gain + shift, tl.min(low, 0) * gain + shift)
        tl.atomic_max(span + 1, tl.minimum(tl.maximum(peak, 0.0), 6.0))


@triton.jit(do_not_specialize=["P", "tiles"])
def settle_gradient(
    stats, tiles, P, gamma, mean, rstd, p, q, r, gamma_grad, beta_grad, BT: tl.constexpr
):  # fmt: skip
    """Batch norm's gradient of one channel: coefficients of ``dz = p du + q z + r``.

    The gradients of scale and shift are added to what is there.
    """
    c = tl.program_id(0)
    place = stats + (c * 4).to(tl.int64) * tiles
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


@triton.jit(do_not_specialize=["P", "plane", "size"])
def close(
    z, a, b, other, out, span, P, pitch, plane, size,
    RELU: tl.constexpr, RESIDUAL: tl.constexpr, SPAN: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """The output of a block from its last raw layer: batch norm and residual sum.

    With ``SPAN`` the range is widened to contain what was written.
    """
    parts = tl.cdiv(P, BN)
    c = tl.program_id(0) // parts
    pixels = (tl.program_id(0) % parts) * BN + tl.arange(0, BN)
    inside = (pixels < P) & (pixels % plane < size)
    offsets = c.to(tl.int64) * pitch + pixels
    there = pixels < pitch
    y = tl.load(z + offsets, mask=there, other=0.0).to(tl.float32)
    y = y * tl.load(a + c) + tl.load(b + c)
    if RELU:
        y = tl.minimum(tl.maximum(y, 0.0), 6.0)
    if RESIDUAL:
        y += tl.load(other + offsets, mask=there, other=0.0).to(tl.float32)
    y = y.to(out.dtype.element_ty)
    tl.store(out + offsets, y, mask=there)
    if SPAN:
        y = tl.where(inside, y.to(tl.float32), 0.0)
        tl.atomic_min(span, tl.min(y, 0))
        tl.atomic_max(span + 1, tl.max(y, 0))


@triton.jit(do_not_specialize=["P", "K", "C", "chunk", "plane", "size"])
def pointwise_weights(
    du, z, x, out, P, K, C, pitch, chunk, plane, size, p, q, r, in_a, in_b, span_in, top_in,
    IN: tl.constexpr, TYPE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Gradient of :func:`pointwise`'s weight over ``chunk`` pixels: ``out[split, C, K]``."""
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
    inverse = 1.0
    lowest = 0.0
    highest = 0.0
    unit = 1.0
    if IN == 1 or IN == 3:
        unit, inverse, lowest, highest = _step(span_in, top_in)
    a = 1.0
    b = 0.0
    if IN >= 2:
        a = tl.load(in_a + ks, mask=k_in, other=0.0)[:, None]
        b = tl.load(in_b + ks, mask=k_in, other=0.0)[:, None]
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(split * chunk, tl.minimum(split * chunk + chunk, P), BK):
        pixels = start + tl.arange(0, BK)
        there = (pixels < P) & (pixels % plane < size)
        at = cs[:, None].to(tl.int64) * pitch + pixels[None, :]
        g = tl.load(du + at, mask=c_in[:, None], other=0.0).to(tl.float32) * pc
        g += tl.load(z + at, mask=c_in[:, None], other=0.0).to(tl.float32) * qc + rc
        g = tl.where(there[None, :], g, 0.0).to(TYPE)
        at = ks[:, None].to(tl.int64) * pitch + pixels[None, :]
        v = tl.load(x + at, mask=k_in[:, None], other=0.0)
        v = _enter(v, a, b, inverse, lowest, highest, IN)
        v = tl.where(there[None, :], v, 0.0).to(TYPE)
        acc = tl.dot(g, tl.trans(v), acc)
    place = out + split.to(tl.int64) * C * K + cs[:, None] * K + ks[None, :]
    tl.store(place, acc * unit, mask=c_in[:, None] & k_in[None, :])


@triton.jit(do_not_specialize=["N", "C", "splits"])
def rows_weights(
    du, z, x, out, N, C, pitch_in, pitch_out, splits, p, q, r, in_a, in_b, span_in, top_in,
    HS: tl.constexpr, WS: tl.constexpr, HD: tl.constexpr, WD: tl.constexpr, STRIDE: tl.constexpr,
    PLANE_S: tl.constexpr, PLANE_D: tl.constexpr, K: tl.constexpr, CIN: tl.constexpr, IN: tl.constexpr, TYPE: tl.constexpr,
    BR: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Gradient of :func:`rows`' weight, ``out[split, C (CIN), K, K]``.

    For each kernel row the product of input rows by output rows is a matrix ``BS x BD``, whose
    diagonals are summed.
    """
    outputs = C * (CIN if CIN > 0 else 1)
    which = tl.program_id(0) % outputs
    split = tl.program_id(0) // outputs
    if CIN > 0:
        channel = which // CIN
        source = which % CIN
    else:
        channel = which
        source = which
    ws = tl.arange(0, BS)
    wd = tl.arange(0, BD)
    pad: tl.constexpr = K // 2
    j = ws[:, None] - wd[None, :] * STRIDE + pad
    exists = (ws < WS)[:, None] & (wd < WD)[None, :]
    pc = tl.load(p + channel)
    qc = tl.load(q + channel)
    rc = tl.load(r + channel)
    inverse = 1.0
    lowest = 0.0
    highest = 0.0
    unit = 1.0
    if IN == 1 or IN == 3:
        unit, inverse, lowest, highest = _step(span_in, top_in)
    for i in tl.static_range(K):
        acc = tl.zeros((BS, BD), tl.float32)
        for tile in range(split, tl.cdiv(N * HD, BR), splits):
            row = tile * BR + tl.arange(0, BR)
            image = row // HD
            hs = (row % HD) * STRIDE + i - pad
            mask = (image < N)[:, None] & (wd < WD)[None, :]
            at = (image * PLANE_D + (row % HD) * WD)[:, None] + wd[None, :]
            at += channel.to(tl.int64) * pitch_out
            g = tl.load(du + at, mask=mask, other=0.0).to(tl.float32) * pc
            g += tl.load(z + at, mask=mask, other=0.0).to(tl.float32) * qc + rc
            g = tl.where(mask, g, 0.0).to(TYPE)
            mask = ((image < N) & (hs >= 0) & (hs < HS))[:, None] & (ws < WS)[None, :]
            at = (image * PLANE_S + hs * WS)[:, None] + ws[None, :]
            at += source.to(tl.int64) * pitch_in
            v = _pixels(
                x, x, at, mask, source, in_a, in_b, in_b, inverse, lowest, highest, IN, TYPE
            )  # fmt: skip
            acc = tl.dot(tl.trans(v), g, acc)
        for tap in tl.static_range(K):
            value = tl.sum(tl.sum(tl.where(exists & (j == tap), acc, 0.0), 1), 0)
            tl.store(out + (split * outputs + which) * (K * K) + i * K + tap, value * unit)


@triton.jit(do_not_specialize=["N", "C", "splits"])
def planes_weights(
    du, z, x, out, N, C, pitch_in, pitch_out, splits, p, q, r, in_a, in_b, span_in, top_in,
    HS: tl.constexpr, WS: tl.constexpr, HD: tl.constexpr, WD: tl.constexpr, STRIDE: tl.constexpr,
    PLANE_S: tl.constexpr, PLANE_D: tl.constexpr, K: tl.constexpr, IN: tl.constexpr, TYPE: tl.constexpr,
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
    inverse = 1.0
    lowest = 0.0
    highest = 0.0
    unit = 1.0
    if IN == 1 or IN == 3:
        unit, inverse, lowest, highest = _step(span_in, top_in)
    acc = tl.zeros((BS, BD), tl.float32)
    for tile in range(split, tl.cdiv(N, BI), splits):
        image = tile * BI + tl.arange(0, BI)
        mask = (image < N)[:, None] & (d < HD * WD)[None, :]
        at = channel.to(tl.int64) * pitch_out + (image * PLANE_D)[:, None] + d[None, :]
        g = tl.load(du + at, mask=mask, other=0.0).to(tl.float32) * pc
        g += tl.load(z + at, mask=mask, other=0.0).to(tl.float32) * qc + rc
        g = tl.where(mask, g, 0.0).to(TYPE)
        mask = (image < N)[:, None] & (s < HS * WS)[None, :]
        at = channel.to(tl.int64) * pitch_in + (image * PLANE_S)[:, None] + s[None, :]
        v = _pixels(
            x, x, at, mask, channel, in_a, in_b, in_b, inverse, lowest, highest, IN, TYPE
        )  # fmt: skip
        acc = tl.dot(tl.trans(v), g, acc)
    for tap in range(K * K):
        chosen = exists & (i == tap // K) & (j == tap % K)
        value = tl.sum(tl.sum(tl.where(chosen, acc, 0.0), 1), 0)
        tl.store(out + (split * C + channel) * (K * K) + tap, value * unit)


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
    place = stats + (c * 4).to(tl.int64) * tiles + tile
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
    y = tl.minimum(tl.maximum(_round(x * (1.0 / size)), -top), top)
    tl.store(scale + c, size)
    tl.store(levels + c * inputs + ks, y.to(levels.dtype.element_ty), mask=there)
    tl.store(values + c * inputs + ks, (y * size).to(values.dtype.element_ty), mask=there)


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

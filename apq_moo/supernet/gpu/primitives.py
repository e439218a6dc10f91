"""What all kernels share: how activations are read and written.

A convolution kernel reads its input in one of the ``IN_*`` ways and writes its output in one of the
``OUT_*`` ways, so that batch norm, ReLU6, quantisation, shortcuts and their gradients never
make a pass over memory of their own.

Pointers named ``span`` point to the eight floats of an activation's range and levels; see
:class:`~apq_moo.supernet.gpu.spans.Spans`. Pointers named ``span_out`` point to two more spans if
integers are stored between blocks: that behind the shortcut, and that of what was kept.
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
IN_STORED = tl.constexpr(5)
"""The integers stored between blocks, rounded to levels."""

WEIGHT_LEVELS = tl.constexpr(1)
"""The weights are levels: outputs are multiplied by their size."""
ALL_LEVELS = tl.constexpr(2)
"""So are the inputs."""

OUT_RAW = tl.constexpr(0)
"""The convolution's own output, with partial statistics of every tile."""
OUT_LEVELS = tl.constexpr(1)
"""Normed, ReLU6, rounded to the levels of the next layer."""
OUT_NORMED = tl.constexpr(2)
"""Normed, ReLU6 if asked, shortcut if asked, as floats."""
OUT_GRADIENT = tl.constexpr(3)
"""A gradient taken through a ReLU6, with the partial sums that batch norm's gradient needs."""
OUT_STORED = tl.constexpr(4)
"""As ``OUT_NORMED``, but integers: rounded before a shortcut is added, and again behind it."""

CLIPPED_NORM = tl.constexpr(1)
"""What the gradient leads to was rounded to levels behind a ReLU6: there is none outside them."""
CLIPPED_STORED = tl.constexpr(2)
"""Likewise, and it was read as floats between blocks."""


@triton.jit
def round_(x):
    """To the nearest integer, ties to even; exact below 2^22."""
    return (x + 12582912.0) - 12582912.0


@triton.jit
def limits_of(span):
    """The inverse of the step between two levels, and the lowest and highest level around zero."""
    return tl.load(span + 3), tl.load(span + 4), tl.load(span + 5)


@triton.jit
def levels_of(span, IN: tl.constexpr):
    """The step and :func:`limits_of`, where the input is rounded; else what changes nothing."""
    step = 1.0
    inverse = 1.0
    lowest = 0.0
    highest = 0.0
    if IN == 1 or IN == 3 or IN == 5:
        step = tl.load(span + 2)
        inverse, lowest, highest = limits_of(span)
    return step, inverse, lowest, highest


@triton.jit
def gradient_of(du, z, at, mask, there, p, q, r, TYPE: tl.constexpr):
    """Gradients behind a batch norm, taken through it; loaded by ``mask``, zero but ``there``."""
    g = tl.load(du + at, mask=mask, other=0.0).to(tl.float32) * p
    g += tl.load(z + at, mask=mask, other=0.0).to(tl.float32) * q + r
    return tl.where(there, g, 0.0).to(TYPE)


@triton.jit
def enter(x, a, b, inverse, lowest, highest, IN: tl.constexpr):
    """What a convolution multiplies, from what is stored."""
    x = x.to(tl.float32)
    if IN == 2 or IN == 3:
        x = tl.minimum(tl.maximum(x * a + b, 0.0), 6.0)
    if IN == 5:
        x = x * a
    if IN == 1 or IN == 3 or IN == 5:
        x = tl.minimum(tl.maximum(round_(x * inverse), lowest), highest)
    return x


@triton.jit
def stored_level(x, span):
    """The integer between blocks for a float, as a float."""
    inverse, lowest, highest = limits_of(span)
    return tl.minimum(tl.maximum(round_(x * inverse), lowest), highest)


@triton.jit
def settle_stored(y, kept, span, RESIDUAL: tl.constexpr):
    """The integer between blocks for a part's output and, if asked, the integers kept before it."""
    level = stored_level(y, span)
    if RESIDUAL:
        y = level * tl.load(span + 2) + kept.to(tl.float32) * tl.load(span + 18)
        level = stored_level(y, span + 8)
    return level


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
def leave(
    acc, offsets, inside, stored, rows, rows_in, tile,
    out, scale, a, b, mean, span_in, span_out, other, z, entered, stats, tiles,
    MANY: tl.constexpr, OUT: tl.constexpr, QUANTISED: tl.constexpr, RELU: tl.constexpr,
    RESIDUAL: tl.constexpr,
):  # fmt: skip
    """Finish and store a tile of many channels by pixels, or of one channel's pixels.

    ``inside`` marks the elements that exist, ``stored`` those that may be written (a row's padding
    may); ``rows`` are the channels and ``rows_in`` marks those that exist. ``QUANTISED`` is one of
    ``WEIGHT_LEVELS`` and ``ALL_LEVELS``, or for a gradient of ``CLIPPED_NORM`` and
    ``CLIPPED_STORED``, whose activations are ``entered``.
    """
    y = acc
    step = 1.0
    if QUANTISED == 2 and OUT != 3:
        step = tl.load(span_in + 2)
    if QUANTISED > 0 and OUT != 3:
        y = y * (_of(scale, rows, rows_in, MANY) * step)
    if OUT == 0:
        tl.store(out + offsets, y.to(out.dtype.element_ty), mask=stored)
        place = stats + (rows * 2).to(tl.int64) * tiles + tile
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
    elif OUT == 3:
        if QUANTISED == 2:
            inverse, lowest, highest = limits_of(span_out)
            level = round_(
                tl.load(entered + offsets, mask=stored, other=0.0).to(tl.float32) * inverse
            )
            y = tl.where((level >= lowest) & (level <= highest), y, 0.0)
        if RESIDUAL:
            y += tl.load(other + offsets, mask=stored, other=0.0).to(tl.float32)
        raw = tl.load(z + offsets, mask=stored, other=0.0).to(tl.float32)
        if RELU:
            u = raw * _of(a, rows, rows_in, MANY) + _of(b, rows, rows_in, MANY)
            y = tl.where((u > 0.0) & (u < 6.0), y, 0.0)
            if QUANTISED == 1:
                inverse, _, highest = limits_of(span_out)
                y = tl.where(round_(u * inverse) <= highest, y, 0.0)
        tl.store(out + offsets, y.to(out.dtype.element_ty), mask=stored)
        y = tl.where(inside, y, 0.0)
        off = tl.where(inside, raw - _of(mean, rows, rows_in, MANY), 0.0)
        place = stats + (rows * 2).to(tl.int64) * tiles + tile
        _put(place, _sum(y, MANY), rows_in, MANY)
        _put(place + tiles, _sum(y * off, MANY), rows_in, MANY)
    else:
        y = y * _of(a, rows, rows_in, MANY) + _of(b, rows, rows_in, MANY)
        if OUT == 1:
            # Levels behind a ReLU6: their range begins at 0.
            inverse, _, highest = limits_of(span_out)
            y = tl.minimum(tl.minimum(tl.maximum(y, 0.0), 6.0) * inverse, highest)
            # The lowest bits of this sum are the rounded number.
            y = (y + 12582912.0).to(tl.int32, bitcast=True)
        else:
            if RELU:
                y = tl.minimum(tl.maximum(y, 0.0), 6.0)
            if OUT == 4:
                kept = 0.0
                if RESIDUAL:
                    kept = tl.load(other + offsets, mask=stored, other=0)
                y = settle_stored(y, kept, span_out, RESIDUAL)
            elif RESIDUAL:
                y += tl.load(other + offsets, mask=stored, other=0.0).to(tl.float32)
        tl.store(out + offsets, y.to(out.dtype.element_ty), mask=stored)

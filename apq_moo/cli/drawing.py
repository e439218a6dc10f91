"""Small pictures of characters for terminals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apq_moo.arrays import IntArray

_BARS = "▁▂▃▄▅▆▇█"
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""Bits of the eight dots of a braille character, by row and column (Unicode, block 2800)."""

_BLANK = 0x2800


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """Values as bars of eighths, from the least to the largest.

    >>> sparkline([0.0, 1.0, 2.0, 7.0])
    '▁▂▃█'
    """
    if not len(values):
        return ""
    places = np.linspace(0, len(values) - 1, min(width, len(values))).round().astype(int)
    chosen = np.asarray(values, dtype=np.float64)[places]
    low, high = chosen.min(), chosen.max()
    scaled = (chosen - low) / (high - low) if high > low else np.ones(len(chosen))
    return "".join(_BARS[i] for i in (scaled * (len(_BARS) - 1)).round().astype(int))


def scatter(x: Sequence[float], y: Sequence[float], width: int = 48, height: int = 10) -> list[str]:
    """Points as braille dots, two by four a character, on axes from least to largest value.

    Args:
        x: to the right.
        y: upwards.
        width: characters of a line.
        height: lines.

    Returns:
        The lines, from the top.

    >>> scatter([0, 1], [0, 1], width=2, height=1)
    ['⡀⠈']
    """
    cells = np.zeros((height, width), dtype=int)
    if len(x):
        columns = _places(x, 2 * width)
        rows = 4 * height - 1 - _places(y, 4 * height)
        np.bitwise_or.at(cells, (rows // 4, columns // 2), _DOTS[rows % 4, columns % 2])
    return ["".join(chr(_BLANK + cell) for cell in line) for line in cells]


def _places(values: Sequence[float], n: int) -> IntArray:
    """Where values lie on ``n`` dots."""
    array = np.asarray(values, dtype=np.float64)
    low, span = array.min(), np.ptp(array)
    places: IntArray = ((array - low) / (span or 1.0) * (n - 1)).round().astype(np.int64)
    return places

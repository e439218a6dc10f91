"""Which members of a front to measure on the supernet."""

from __future__ import annotations

import numpy as np

from apq_moo.arrays import FloatArray, IntArray


def spread(values: FloatArray, k: int) -> IntArray:
    """``k`` positions (or all, if fewer) spread evenly over the sorted values, ascending."""
    order = np.argsort(values, kind="stable")
    picked = np.linspace(0, len(order) - 1, min(k, len(order))).round().astype(int)
    chosen: IntArray = np.sort(order[picked])
    return chosen

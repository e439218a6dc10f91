"""Types of arrays that every room shares, and what is done to any matrix of genotypes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


def distinct(X: IntArray) -> IntArray:
    """The rows of a matrix without repetitions, each where it occurs first."""
    first = np.unique(X, axis=0, return_index=True)[1]
    return X[np.sort(first)]

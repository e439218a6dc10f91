"""Types of arrays that every room shares, and what is done to any matrix of genotypes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
"""Genotypes, and whatever else is an index."""

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


def first_occurrences(X: IntArray) -> IntArray:
    """Where each distinct row of a matrix occurs first, ascending."""
    return np.sort(np.unique(X, axis=0, return_index=True)[1])


def distinct(X: IntArray) -> IntArray:
    """The rows of a matrix without repetitions, each where it occurs first."""
    return X[first_occurrences(X)]

"""Inputs of the tree ensembles: what a network's genes stand for, as ordered numbers."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import IntArray
from apq_moo.space import Space


@lru_cache(maxsize=16)
def _option_table(space: Space) -> NDArray[np.float32]:
    table = np.zeros((space.n_var, int(space.n_options.max())), dtype=np.float32)
    for row, gene in zip(table, space.genes, strict=True):
        row[: len(gene.options)] = gene.options
    return table


def option_values(space: Space, X: IntArray) -> NDArray[np.float32]:
    """The option that each gene chooses, shape ``(n, n_var)``; 0 where it is inactive.

    Depths, kernels, channels and bits are ordered, which a tree can use and a one-hot hides: on
    the same samples, trees over these rank networks better than trees over the one-hot inputs.
    """
    values = _option_table(space)[np.arange(space.n_var), X]
    return np.where(space.active_genes(X), values, np.float32(0))

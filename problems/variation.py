"""Recombining networks, as functions of matrices and random numbers.

Networks are rows of block configurations, see :class:`apq_moo.space.Layout`. A child that is deeper
than one of its parents takes the blocks that this parent lacks from the other one. A *unit* is what
varies as a whole: a depth gene or a block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import BoolArray, IntArray
from apq_moo.space import Layout, Space


def n_units(space: Space) -> int:
    """Number of depth genes and blocks."""
    return len(space.depth_columns) + space.n_blocks


def cross(space: Space, A: IntArray, B: IntArray, from_b: BoolArray) -> IntArray:
    """Recombine pairs of networks by units.

    Args:
        space: their space.
        A: networks, shape ``(n, n_blocks)``.
        B: their partners.
        from_b: which units come from ``B``, shape ``(n, n_units)``: depth genes, then blocks.

    Returns:
        Children; each active block is that of a parent in which it is active.
    """
    layout, stages = space.layout, list(space.depth_columns)
    depths, others = layout.depths(A), layout.depths(B)
    taken = from_b[:, : len(stages)]
    depths[:, stages] = np.where(taken, others[:, stages], depths[:, stages])
    return layout.cut(inherit(layout, A, B, from_b[:, len(stages) :]), depths)


def inherit(layout: Layout, A: IntArray, B: IntArray, from_b: BoolArray) -> IntArray:
    """Blocks of either network, shape ``(n, n_blocks)``; where one lacks a block, the other's."""
    chosen, other = np.where(from_b, B, A), np.where(from_b, A, B)
    return np.where(layout.active(chosen), chosen, other)


def mix(
    layout: Layout, A: IntArray, B: IntArray, genes_from_b: BoolArray
) -> tuple[IntArray, BoolArray]:
    """Recombine pairs of networks by genes.

    Args:
        layout: of their space.
        A: networks, shape ``(n, n_blocks)``.
        B: their partners.
        genes_from_b: which genes of blocks come from ``B``, shape ``(n, n_blocks * 6)``.

    Returns:
        The configurations, and where they mean something: where both have a block.
    """
    genes_a, genes_b = (layout.gather(layout.genes, N).reshape(len(N), -1) for N in (A, B))
    mixed: NDArray[Any] = np.where(genes_from_b, genes_b, genes_a)
    return layout.number(mixed), layout.active(A) & layout.active(B)

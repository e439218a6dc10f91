"""Recombining and changing genotypes, as functions of matrices and random numbers.

Both respect what the encoding means. A child that is deeper than one of its parents takes the
blocks that this parent lacks from the other one, instead of meaningless inactive genes; blocks that
a mutation adds are drawn at random. A *unit* is what varies as a whole: a depth gene or a block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.space import Space

if TYPE_CHECKING:
    from apq_moo.problems.options import BlockOptions


def n_units(space: Space) -> int:
    """Number of depth genes and blocks."""
    return len(space.depth_columns) + space.n_blocks


def block_genes(space: Space, blocks: BoolArray) -> BoolArray:
    """Which genes belong to chosen blocks: from ``(n, n_blocks)`` to ``(n, n_var)``."""
    mask = np.zeros((len(blocks), space.n_var), dtype=bool)
    mask[:, space.block_columns] = blocks[:, :, None]
    return mask


def cross(
    space: Space, A: IntArray, B: IntArray, from_b: BoolArray, genes_from_b: BoolArray | None = None
) -> IntArray:
    """Recombine pairs of networks.

    Args:
        space: their space.
        A: canonical genotypes, shape ``(n, n_var)``.
        B: their partners.
        from_b: which units come from ``B``, shape ``(n, n_units)``: depth genes, then blocks.
        genes_from_b: where given, which genes come from ``B`` in blocks that are active in both,
            shape ``(n, n_var)``; ``from_b`` decides the others.

    Returns:
        Canonical children; each active gene is that of a parent in which it is active.
    """
    n_depth = len(space.depth_columns)
    active_a, active_b = space.active(A), space.active(B)
    shared = active_a & active_b
    take = block_genes(space, np.where(shared, from_b[:, n_depth:], active_b))
    if genes_from_b is not None:
        take = np.where(block_genes(space, shared), genes_from_b, take)
    take[:, :n_depth] = from_b[:, :n_depth]
    return space.canonical(np.where(take, B, A))


def resample(options: BlockOptions, X: IntArray, chosen: BoolArray, u: FloatArray) -> IntArray:
    """Redraw units uniformly over what is feasible.

    Args:
        options: the feasible configurations.
        X: canonical genotypes, shape ``(n, n_var)``.
        chosen: which units to redraw, shape ``(n, n_units)``: depth genes, then blocks.
        u: uniform numbers in [0, 1) of the same shape.

    Returns:
        Canonical genotypes. Blocks that a redrawn depth adds are drawn as well.
    """
    space = options.space
    n_depth = len(space.depth_columns)
    result = X.copy()
    depths = options.draw_depths(u[:, :n_depth])
    result[:, :n_depth] = np.where(chosen[:, :n_depth], depths, X[:, :n_depth])
    redrawn = chosen[:, n_depth:] | (space.active(result) & ~space.active(X))
    drawn = np.zeros_like(X)
    drawn[:, space.block_columns] = options.genes(options.draw(u[:, n_depth:]))
    return space.canonical(np.where(block_genes(space, redrawn), drawn, result))

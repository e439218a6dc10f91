"""The feasible configurations of every block, laid out flat so that populations gather from them.

A configuration is numbered as in :meth:`apq_moo.space.Space.block_index`; one more number for each
block, its size, means that the block is inactive.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np

from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.errors import UserError
from apq_moo.space import Space
from apq_moo.space.spec import FIELDS


def starts(sizes: list[int]) -> IntArray:
    """Where each piece begins in a concatenation."""
    return np.array([0, *accumulate(sizes)][:-1], dtype=np.int64)


class BlockOptions:
    """Which configurations of each block may be used, and the depths that they leave open.

    Args:
        space: the search space.
        feasible: for each block, which configurations may be used, shape ``(block_sizes[b],)``.

    Attributes:
        space: the search space.
        feasible: as given.
        offsets: where each block begins in arrays that concatenate ``block_sizes[b] + 1`` entries.
        counts: how many feasible configurations each block has, shape ``(n_blocks,)``.
        choices: these, one block after the other.
        choice_offsets: where each block begins in them.
        open_depths: how many depths of each stage have a feasible configuration for all their
            blocks, shape ``(n_stages,)``; depths ascend, so these are the first ones.

    Raises:
        UserError: some stage has no open depth.
    """

    def __init__(self, space: Space, feasible: tuple[BoolArray, ...]) -> None:
        self.space = space
        self.feasible = feasible
        self.offsets = starts([len(mask) + 1 for mask in feasible])
        self._usable = np.concatenate([np.append(mask, True) for mask in feasible])
        self._genes = np.concatenate(
            [
                np.vstack([space.block_genes(b, np.arange(len(mask))), np.zeros((1, len(FIELDS)))])
                for b, mask in enumerate(feasible)
            ]
        ).astype(np.int64)
        self._nearest = np.concatenate(
            [_nearest(mask, plan.shape) for mask, plan in zip(feasible, space.plans, strict=True)]
        )
        self.counts = np.array([mask.sum() for mask in feasible], dtype=np.int64)
        self.choices = np.concatenate([np.flatnonzero(mask) for mask in feasible])
        self.choice_offsets = starts(self.counts.tolist())
        self.open_depths = self._open_depths()

    def _open_depths(self) -> IntArray:
        counts = []
        for number, stage in enumerate(self.space.spec.stages):
            blocks = [b for b, plan in enumerate(self.space.plans) if plan.stage == number]
            empty = next((i for i, b in enumerate(blocks) if not self.counts[b]), len(blocks))
            counts.append(sum(depth <= empty for depth in stage.depths))
            if counts[-1] == 0:
                raise UserError(
                    f"no network of space {self.space.name!r} can run: the device supports no "
                    f"configuration of block {blocks[empty]}"
                )
        return np.array(counts, dtype=np.int64)

    def infeasible_blocks(self, index: IntArray) -> IntArray:
        """How many active blocks of each network may not be used, shape ``(n,)``."""
        counts: IntArray = (~self._usable[self.offsets + index]).sum(axis=1, dtype=np.int64)
        return counts

    def feasible_blocks(self, X: IntArray) -> BoolArray:
        """Whether each block is inactive or has a feasible configuration, ``(n, n_blocks)``."""
        usable: BoolArray = self._usable[self.offsets + self.space.block_index(X)]
        return usable

    def draw(self, u: FloatArray) -> IntArray:
        """Uniform feasible configurations of all blocks.

        Args:
            u: uniform numbers in [0, 1), shape ``(n, n_blocks)``.

        Returns:
            Indices, shape ``(n, n_blocks)``; "inactive" for a block that has none.
        """
        rank = (u * self.counts).astype(np.int64)
        place = np.minimum(self.choice_offsets + rank, len(self.choices) - 1)
        return np.where(self.counts > 0, self.choices[place], self.space.block_sizes)

    def draw_depths(self, u: FloatArray) -> IntArray:
        """Uniform open depths: columns ``(n, n_depth)`` of a genotype for uniform numbers in it."""
        stages = list(self.space.depth_columns)
        return (u * self.open_depths[stages]).astype(np.int64)

    def genes(self, index: IntArray) -> IntArray:
        """Genes of all blocks, shape ``(n, n_blocks, 6)``; zeros for inactive ones."""
        genes: IntArray = self._genes[self.offsets + index]
        return genes

    def assemble(self, depth: IntArray, index: IntArray) -> IntArray:
        """Canonical genotypes.

        Args:
            depth: index of each stage's depth, shape ``(n, n_stages)``.
            index: configuration of each block, shape ``(n, n_blocks)``.
        """
        X = np.zeros((len(depth), self.space.n_var), dtype=np.int64)
        for stage, column in self.space.depth_columns.items():
            X[:, column] = depth[:, stage]
        X[:, self.space.block_columns] = self.genes(index)
        return self.space.canonical(X)

    def depth_index(self, X: IntArray) -> IntArray:
        """Index of each stage's depth, shape ``(n, n_stages)``; inverse of :meth:`assemble`."""
        depth = np.zeros((len(X), len(self.open_depths)), dtype=np.int64)
        for stage, column in self.space.depth_columns.items():
            depth[:, stage] = X[:, column]
        return depth

    def mend(self, X: IntArray) -> IntArray:
        """Replace what may not be used by what is nearest to it.

        A depth that is not open becomes the deepest open one; an infeasible configuration becomes
        the feasible one that needs the fewest steps to neighbouring options.

        Args:
            X: genotypes within bounds, shape ``(n, n_var)``.

        Returns:
            Canonical genotypes without infeasible blocks; feasible ones come back unchanged.
        """
        depth = np.minimum(self.depth_index(X), self.open_depths - 1)
        index = self.space.block_index(X)
        return self.assemble(depth, self._nearest[self.offsets + index])


def _nearest(mask: BoolArray, shape: tuple[int, ...]) -> IntArray:
    """For each configuration the nearest feasible one, by steps to neighbouring options."""
    nearest = np.where(mask, np.arange(len(mask)), -1).reshape(shape)
    while mask.any() and (nearest < 0).any():
        before = nearest.copy()
        for axis in range(len(shape)):
            target, source = np.moveaxis(nearest, axis, 0), np.moveaxis(before, axis, 0)
            for to, of in ((slice(1, None), slice(-1)), (slice(-1), slice(1, None))):
                target[to] = np.where(target[to] < 0, source[of], target[to])
    return np.append(nearest.ravel(), len(mask))

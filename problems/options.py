"""The feasible configurations of every block: which there are, random ones, the nearest ones."""

from __future__ import annotations

import numpy as np

from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.errors import UserError
from apq_moo.space import Space
from apq_moo.space.layout import starts


class BlockOptions:
    """Which configurations of each block may be used, and the depths that they leave open.

    Networks are rows of block configurations, see :class:`apq_moo.space.Layout`.

    Args:
        space: the search space.
        feasible: for each block, which configurations may be used, shape ``(block_sizes[b],)``.

    Attributes:
        space: the search space.
        feasible: as given.
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
        self.counts = np.array([mask.sum() for mask in feasible], dtype=np.int64)
        self.choices = np.concatenate([np.flatnonzero(mask) for mask in feasible])
        self.choice_offsets = starts(self.counts)
        self.open_depths = self._open_depths()
        layout = space.layout
        self._usable = layout.table(feasible, inactive=True)
        deepest = layout.depth_options[range(len(self.open_depths)), self.open_depths - 1]
        nearest = [
            _nearest(mask, plan.shape)
            if plan.position < deepest[plan.stage]
            else np.full(len(mask), len(mask))
            for mask, plan in zip(feasible, space.plans, strict=True)
        ]
        self._nearest: IntArray = layout.table(nearest, inactive=layout.sizes)

    def _open_depths(self) -> IntArray:
        counts = []
        for stage, blocks in zip(
            self.space.spec.stages, self.space.layout.stage_blocks, strict=True
        ):
            filled = int(np.argmin([*(self.counts[blocks] > 0), False]))
            counts.append(sum(depth <= filled for depth in stage.depths))
            if counts[-1] == 0:
                raise UserError(
                    f"no network of space {self.space.name!r} can run: the device supports no "
                    f"configuration of block {blocks.start + filled}"
                )
        return np.array(counts, dtype=np.int64)

    def feasible_blocks(self, index: IntArray) -> BoolArray:
        """Whether each block is inactive or has a feasible configuration, ``(n, n_blocks)``."""
        usable: BoolArray = self.space.layout.gather(self._usable, index)
        return usable

    def draw(self, u: FloatArray) -> IntArray:
        """Uniform feasible configurations of all blocks.

        Args:
            u: uniform numbers in [0, 1), shape ``(n, n_blocks)``.

        Returns:
            Configurations, shape ``(n, n_blocks)``; the first one of a block that has no feasible.
        """
        rank = (u * self.counts).astype(np.int64)
        place = np.minimum(self.choice_offsets + rank, len(self.choices) - 1)
        return np.where(self.counts > 0, self.choices[place], 0)

    def repair(self, index: IntArray) -> IntArray:
        """Replace what may not be used by what is nearest to it.

        A depth that is not open becomes the deepest open one; an infeasible configuration becomes
        the feasible one that needs the fewest steps to neighbouring options.

        Args:
            index: networks, shape ``(n, n_blocks)``.

        Returns:
            Networks without infeasible blocks; feasible ones come back unchanged.
        """
        repaired: IntArray = self.space.layout.gather(self._nearest, index)
        return repaired


def _nearest(mask: BoolArray, shape: tuple[int, ...]) -> IntArray:
    """For each configuration the nearest feasible one, by steps to neighbouring options."""
    nearest = np.where(mask, np.arange(len(mask)), -1).reshape(shape)
    while mask.any() and (nearest < 0).any():
        before = nearest.copy()
        for axis in range(len(shape)):
            target, source = np.moveaxis(nearest, axis, 0), np.moveaxis(before, axis, 0)
            for to, of in ((slice(1, None), slice(-1)), (slice(-1), slice(1, None))):
                target[to] = np.where(target[to] < 0, source[of], target[to])
    return nearest.ravel()

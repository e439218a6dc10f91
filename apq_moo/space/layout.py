"""Where what is known of the blocks' configurations stands in flat arrays.

A block's configurations are numbered in row-major order of their fields, and one more number, its
size, means that the block is inactive. A network is a row of such numbers, its *block index*. A
*block table* holds an entry for each of them, block after block, so that what is known of many
networks is gathered by one take.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apq_moo.arrays import BoolArray, IntArray
from apq_moo.space.plan import BlockPlan
from apq_moo.space.spec import FIELDS, Stage


class Layout:
    """The block tables of a space.

    Args:
        plans: its blocks, stage by stage.
        stages: its stages.

    Attributes:
        sizes: configurations of each block, shape ``(n_blocks,)``; also the number of an inactive
            one.
        offsets: where each block begins in a block table, shape ``(n_blocks,)``.
        length: entries of a block table.
        stage_blocks: which blocks each stage has.
        stage_of: stage of each block, shape ``(n_blocks,)``.
        position: place of each block in its stage, shape ``(n_blocks,)``.
        depth_options: the depths that each stage offers, ascending, shape
            ``(n_stages, most)``; the last again where a stage offers fewer.
    """

    def __init__(self, plans: Sequence[BlockPlan], stages: Sequence[Stage]) -> None:
        self._shapes = [plan.shape for plan in plans]
        self.sizes: IntArray = np.array([plan.n_configurations for plan in plans], np.int64)
        self.offsets = starts(self.sizes + 1)
        self.length = int(self.sizes.sum()) + len(plans)
        depths = np.array([max(stage.depths) for stage in stages])
        self._first = starts(depths)
        self.stage_blocks = tuple(
            slice(first, first + depth)
            for first, depth in zip(self._first.tolist(), depths.tolist(), strict=True)
        )
        self.stage_of: IntArray = np.array([plan.stage for plan in plans], np.int64)
        self.position: IntArray = np.array([plan.position for plan in plans], np.int64)
        most = max(len(stage.depths) for stage in stages)
        self.depth_options: IntArray = np.array(
            [[*stage.depths, *[stage.depths[-1]] * (most - len(stage.depths))] for stage in stages]
        )

    # -- block tables ------------------------------------------------------------------------------

    def table(self, parts: Sequence[NDArray[Any]], inactive: ArrayLike = 0) -> NDArray[Any]:
        """A block table, shape ``(length, ...)``.

        Args:
            parts: what is known of each block's configurations, shape ``(sizes[b], ...)``.
            inactive: the entry of an inactive block, for all or for each.
        """
        table = np.empty((self.length, *parts[0].shape[1:]), dtype=np.result_type(*parts, inactive))
        table[self.offsets + self.sizes] = inactive
        for start, part in zip(self.offsets, parts, strict=True):
            table[start : start + len(part)] = part
        return table

    def split(self, table: NDArray[Any]) -> list[NDArray[Any]]:
        """A block table by block, shape ``(sizes[b] + 1, ...)`` each, as views of it."""
        return np.split(table, self.offsets[1:])

    def gather(self, table: NDArray[Any], index: IntArray) -> NDArray[Any]:
        """The entries of networks in a block table, shape ``(n, n_blocks, ...)``.

        Args:
            table: shape ``(length, ...)``.
            index: the networks, shape ``(n, n_blocks)``.
        """
        return table.take(self.offsets + index, axis=0)

    # -- activity ----------------------------------------------------------------------------------

    def active(self, index: IntArray) -> BoolArray:
        """Which blocks are active, shape ``(n, n_blocks)``."""
        mask: BoolArray = index != self.sizes
        return mask

    def depths(self, index: IntArray) -> IntArray:
        """Active blocks of each stage, shape ``(n, n_stages)``."""
        depths: IntArray = np.add.reduceat(self.active(index), self._first, axis=1, dtype=np.int64)
        return depths

    def depth_genes(self, index: IntArray) -> IntArray:
        """Which of its stage's options each depth is, shape ``(n, n_stages)``."""
        genes: IntArray = (self.depths(index)[:, :, None] > self.depth_options).sum(axis=2)
        return genes

    def cut(self, index: IntArray, depths: IntArray) -> IntArray:
        """The index with all blocks inactive that lie beyond depths, shape ``(n, n_stages)``."""
        return np.where(depths[:, self.stage_of] > self.position, index, self.sizes)

    # -- genes -------------------------------------------------------------------------------------

    @cached_property
    def genes(self) -> NDArray[np.integer]:
        """The option of each field in every configuration, a block table of shape ``(length, 6)``.

        Zeros for an inactive block; of the smallest type that holds them.
        """
        parts = [np.indices(shape).reshape(len(shape), -1).T for shape in self._shapes]
        return self.table(parts).astype(np.min_scalar_type(max(map(max, self._shapes)) - 1))

    def number(self, genes: NDArray[Any], out: IntArray | None = None) -> IntArray:
        """Inverse of :attr:`genes`: the number of each block's configuration.

        Args:
            genes: options of all blocks, shape ``(n, n_blocks * 6)``.
            out: where to put the result, transposed.

        Returns:
            Shape ``(n, n_blocks)``, columns contiguous in memory.
        """
        reals = genes.astype(np.float32)
        index = np.empty((len(self.sizes), len(genes)), dtype=np.int64) if out is None else out
        for blocks, columns, weights in self._weights:
            # Exact: every partial sum is an integer below MAX_CONFIGURATIONS = 2^24.
            np.copyto(index[blocks], weights @ reals[:, columns].T, casting="unsafe")
        return index.T

    @cached_property
    def _weights(self) -> list[tuple[slice, slice, NDArray[np.float32]]]:
        """For each stage its blocks, their columns, and what these genes count for.

        The last has shape ``(n_blocks of the stage, n_columns)``.
        """
        stages = []
        n = len(FIELDS)
        for blocks in self.stage_blocks:
            weights = np.zeros((blocks.stop - blocks.start, blocks.stop - blocks.start, n))
            for row, strides in enumerate(self.strides[blocks]):
                weights[row, row] = strides
            flat = weights.reshape(len(weights), -1).astype(np.float32)
            stages.append((blocks, slice(blocks.start * n, blocks.stop * n), flat))
        return stages

    @cached_property
    def strides(self) -> IntArray:
        """What a step of each gene adds to its block's number, shape ``(n_blocks, 6)``."""
        return np.array(
            [[math.prod(shape[i + 1 :]) for i in range(len(shape))] for shape in self._shapes],
            dtype=np.int64,
        )


def starts(lengths: IntArray) -> IntArray:
    """Where each piece begins in a concatenation."""
    begins: IntArray = np.cumsum(lengths) - lengths
    return begins

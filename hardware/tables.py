"""Additive costs compiled to one table for each block, and their extremes over a space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from apq_moo.errors import UserError
from apq_moo.space import IntArray, Space

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class CostTable:
    """A cost that adds up over the layers of a network.

    Attributes:
        name: the objective it serves.
        unit: of its values.
        space: the space.
        fixed: cost of the layers outside the searchable blocks.
        blocks: cost of each block by configuration (see :meth:`Space.block_index`), shape
            ``(block_sizes[b],)``; inf where the device cannot run it.
    """

    name: str
    unit: str
    space: Space
    fixed: float
    blocks: tuple[FloatArray, ...]

    @cached_property
    def _padded(self) -> list[FloatArray]:
        """The tables, with a last entry of 0 for an inactive block."""
        return [np.append(costs, 0.0) for costs in self.blocks]

    def gather(self, index: IntArray) -> FloatArray:
        """Costs of networks, shape ``(n,)``.

        Args:
            index: what :meth:`Space.block_index` returned, shape ``(n, n_blocks)``.
        """
        total = np.full(len(index), self.fixed)
        for b, costs in enumerate(self._padded):
            total += costs.take(index[:, b])
        return total

    def __call__(self, X: IntArray) -> FloatArray:
        """Costs of genotypes of shape ``(n, n_var)``, shape ``(n,)``."""
        return self.gather(self.space.block_index(X))


def feasible_options(space: Space, tables: Sequence[CostTable]) -> tuple[BoolArray, ...]:
    """Which configurations of each block no rule forbids and every table can run.

    Returns:
        For each block a mask of shape ``(block_sizes[b],)``.
    """
    masks = []
    for b, size in enumerate(space.block_sizes):
        mask = np.zeros(size, dtype=bool)
        mask[space.allowed(b)] = True
        for table in tables:
            mask &= np.isfinite(table.blocks[b])
        masks.append(mask)
    return tuple(masks)


def minimum(table: CostTable, feasible: Sequence[BoolArray]) -> tuple[float, IntArray]:
    """The smallest cost of any feasible network, and one canonical genotype that has it.

    Exact: costs add up, so each block and each stage's depth is chosen on its own.

    Args:
        table: the cost.
        feasible: usable configurations of each block, see :func:`feasible_options`.

    Raises:
        UserError: no network is feasible.
    """
    return _extreme(table, feasible, 1.0)


def maximum(table: CostTable, feasible: Sequence[BoolArray]) -> tuple[float, IntArray]:
    """The largest cost of any feasible network; see :func:`minimum`."""
    return _extreme(table, feasible, -1.0)


def _extreme(
    table: CostTable, feasible: Sequence[BoolArray], sign: float
) -> tuple[float, IntArray]:
    space = table.space
    if not np.isfinite(table.fixed):
        raise UserError(
            f"no network of space {space.name!r} can run: its fixed layers cannot; lower bits.fixed"
        )
    row = np.zeros(space.n_var, dtype=np.int64)
    block = 0
    for number, stage in enumerate(space.spec.stages):
        sums = [0.0]
        for b in range(block, block + max(stage.depths)):
            costs = np.where(feasible[b], sign * table.blocks[b], np.inf)
            best = int(costs.argmin())
            row[space.block_columns[b]] = space.block_genes(b, best)
            sums.append(sums[-1] + float(costs[best]))
        by_depth = [sums[depth] for depth in stage.depths]
        chosen = int(np.argmin(by_depth))
        if not np.isfinite(by_depth[chosen]):
            raise UserError(f"no network of space {space.name!r} can run: stage {number} has none")
        if number in space.depth_columns:
            row[space.depth_columns[number]] = chosen
        block += max(stage.depths)
    genotype = space.canonical(row[None])
    return float(table(genotype)[0]), genotype[0]

"""Costs compiled to one table for each block, and their extremes over a space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from apq_moo.arrays import BoolArray, FloatArray, IntArray, distinct
from apq_moo.errors import UserError
from apq_moo.space import Space

_CHUNK = 4096
"""Networks gathered at a time, so that what is summed stays in the processor's cache."""

_ATTEMPTS = 50


@dataclass(frozen=True)
class CostTable:
    """A cost of networks that is the sum, or the maximum, of what their blocks cost.

    Attributes:
        name: the objective it serves.
        unit: of its values.
        space: the space.
        fixed: cost of the layers outside the searchable blocks.
        blocks: cost of each block by configuration (see :meth:`Space.block_index`), shape
            ``(block_sizes[b],)``; inf where the device cannot run it.
        combine: ``sum``, or ``max`` for costs of which the largest part counts (peak memory).
    """

    name: str
    unit: str
    space: Space
    fixed: float
    blocks: tuple[FloatArray, ...]
    combine: Literal["sum", "max"] = "sum"

    @cached_property
    def flat(self) -> FloatArray:
        """The costs as a block table, see :class:`apq_moo.space.Layout`; 0 for inactive blocks."""
        return self.space.layout.table(self.blocks, inactive=0.0)

    @cached_property
    def _columns(self) -> list[FloatArray]:
        return self.space.layout.split(self.flat)

    def gather(self, index: IntArray) -> FloatArray:
        """Costs of networks, shape ``(n,)``.

        Args:
            index: what :meth:`Space.block_index` returned, shape ``(n, n_blocks)``.
        """
        into = np.add if self.combine == "sum" else np.maximum
        total = np.full(len(index), self.fixed)
        part = np.empty(_CHUNK)
        for start in range(0, len(index), _CHUNK):
            some = total[start : start + _CHUNK]
            rows = index[start : start + _CHUNK]
            for b, costs in enumerate(self._columns):
                # The mode spares a check: the index is within the table by construction.
                costs.take(rows[:, b], out=part[: len(some)], mode="clip")
                into(some, part[: len(some)], out=some)
        return total

    def __call__(self, X: IntArray) -> FloatArray:
        """Costs of genotypes of shape ``(n, n_var)``, shape ``(n,)``."""
        return self.gather(self.space.block_index(X))


class CostBatch:
    """Several costs of one space, gathered together: equal to each table's own, and faster.

    Args:
        tables: the costs.

    Attributes:
        tables: as given.
    """

    def __init__(self, tables: Sequence[CostTable]) -> None:
        self.tables = tuple(tables)
        self._sums = [i for i, table in enumerate(tables) if table.combine == "sum"]
        self._others = [i for i, table in enumerate(tables) if table.combine != "sum"]
        summed = [tables[i] for i in self._sums]
        self._fixed = np.array([table.fixed for table in summed])
        self._blocks: list[FloatArray] = []
        if summed:
            layout = summed[0].space.layout
            self._blocks = layout.split(np.stack([table.flat for table in summed], axis=1))

    def gather(self, index: IntArray) -> FloatArray:
        """Costs of networks, shape ``(n, n_tables)``; see :meth:`CostTable.gather`."""
        values = np.empty((len(index), len(self.tables)))
        if self._sums:
            values[:, self._sums] = self._gather_sums(index)
        for i in self._others:
            values[:, i] = self.tables[i].gather(index)
        return values

    def _gather_sums(self, index: IntArray) -> FloatArray:
        total = np.empty((len(index), len(self._sums)))
        total[:] = self._fixed
        part = np.empty((_CHUNK, len(self._sums)))
        for start in range(0, len(index), _CHUNK):
            some = total[start : start + _CHUNK]
            rows = index[start : start + _CHUNK]
            for b, costs in enumerate(self._blocks):
                costs.take(rows[:, b], axis=0, out=part[: len(some)], mode="clip")
                some += part[: len(some)]
        return total

    def __call__(self, X: IntArray) -> FloatArray:
        """Costs of genotypes of shape ``(n, n_var)``, shape ``(n, n_tables)``."""
        if not self.tables:
            return np.empty((len(X), 0))
        space = self.tables[0].space
        values = np.empty((len(X), len(self.tables)))
        for start in range(0, len(X), _CHUNK):
            rows = slice(start, start + _CHUNK)
            values[rows] = self.gather(space.block_index(X[rows]))
        return values


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


def random_networks(
    space: Space, feasible: Sequence[BoolArray], n: int, rng: np.random.Generator
) -> IntArray:
    """Distinct networks whose depths and configurations are uniform over what is feasible.

    Args:
        space: the space.
        feasible: usable configurations of each block, see :func:`feasible_options`.
        n: how many.
        rng: source of randomness.

    Returns:
        Canonical genotypes, shape ``(n, n_var)``; fewer where no more were found.
    """
    found = np.empty((0, space.n_var), dtype=np.int64)
    empty = np.array([not mask.any() for mask in feasible])
    for _ in range(_ATTEMPTS):
        X = space.sample(n, rng, usable=feasible)
        usable = ~space.active(X)[:, empty].any(axis=1)
        found = distinct(np.vstack([found, X[usable]]))[:n]
        if len(found) == n:
            break
    return found


def minimum(table: CostTable, feasible: Sequence[BoolArray]) -> tuple[float, IntArray]:
    """The smallest cost of any feasible network, and one canonical genotype that has it.

    Exact: costs add up (or the largest counts), so each block and each stage's depth is chosen on
    its own.

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
    """See :func:`minimum`; the sign is 1 for the smallest and -1 for the largest cost."""
    space = table.space
    if not np.isfinite(table.fixed):
        raise UserError(
            f"no network of space {space.name!r} can run: its fixed layers cannot; lower bits.fixed"
        )
    index = space.block_sizes.copy()
    for number, stage in enumerate(space.spec.stages):
        blocks = space.layout.stage_blocks[number]
        costs, runs, best = [0.0], [True], []
        for mask, values in zip(feasible[blocks], table.blocks[blocks], strict=True):
            best.append(int(np.where(mask, sign * values, np.inf).argmin()))
            runs.append(runs[-1] and bool(mask[best[-1]]))
            least = float(values[best[-1]]) if runs[-1] else np.inf
            costs.append(costs[-1] + least if table.combine == "sum" else max(costs[-1], least))
        by_depth = [sign * costs[depth] if runs[depth] else np.inf for depth in stage.depths]
        chosen = int(np.argmin(by_depth))
        if not np.isfinite(by_depth[chosen]):
            raise UserError(f"no network of space {space.name!r} can run: stage {number} has none")
        depth = stage.depths[chosen]
        index[blocks][:depth] = best[:depth]
    found = index[None]
    return float(table.gather(found)[0]), space.from_block_index(found)[0]

"""What a system can choose of a network whose other genes stay, and what that costs at least."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np

from apq_moo.algorithms.baselines.reference import nearest_blocks
from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.errors import UserError
from apq_moo.hardware import CostTable
from apq_moo.problems import APQProblem, FeasibleRegion
from apq_moo.problems.feasibility import cheap_network
from apq_moo.space import Space
from apq_moo.space.spec import FIELDS

DEPTH = "depth"
"""Stands for the depths of all stages among the fields that a system chooses."""

_ROUNDING = 1e-9
_TINY = 1e-100


@dataclass(frozen=True)
class Choice:
    """The networks that differ from one network in some fields of its blocks only.

    Attributes:
        problem: with the limits.
        base: the network, shape ``(n_blocks,)``.
        fields: those that may differ, of :data:`~apq_moo.space.spec.FIELDS`, or :data:`DEPTH`.
        title: who chooses, for messages.
    """

    problem: APQProblem
    base: IntArray
    fields: tuple[str, ...]
    title: str

    @cached_property
    def open(self) -> tuple[BoolArray, ...]:
        """Which configurations each block may have, shape ``(block_sizes[b],)``.

        None where it stays inactive.

        Raises:
            UserError: an active block may have none.
        """
        space = self.problem.space
        active = space.layout.active(self.base[None])[0]
        kept = np.array([field not in self.fields for field in FIELDS])
        like = self.base
        if DEPTH in self.fields:
            like = np.where(active, self.base, nearest_blocks(self.problem))
        genes = space.layout.split(space.layout.genes)
        masks = []
        for b, feasible in enumerate(self.problem.region.options.feasible):
            if not active[b] and DEPTH not in self.fields:
                masks.append(np.zeros_like(feasible))
                continue
            same = genes[b][:-1, kept] == genes[b][like[b], kept]
            masks.append(feasible & same.all(axis=1))
            if active[b] and not masks[-1].any():
                raise UserError(
                    f"{self.title} cannot begin with this network: the device and the limits leave "
                    f"block {b} no configuration with its other options"
                )
        return tuple(masks)

    def offers(self) -> bool:
        """Whether there is anything to choose."""
        return DEPTH in self.fields or any(mask.sum() > 1 for mask in self.open)

    @property
    def _shallowest(self) -> BoolArray:
        """Which blocks are active at the smallest depths that may be chosen."""
        space = self.problem.space
        blocks = (
            space.block_index(space.smallest()[None]) if DEPTH in self.fields else self.base[None]
        )
        active: BoolArray = space.layout.active(blocks)[0]
        return active

    def cheapest(self) -> IntArray:
        """The network with the least sum of costs relative to their limits that meets them all.

        Returns:
            Shape ``(n_blocks,)``; without limits the first that there is.

        Raises:
            UserError: none meets them; the smallest cost is named.
        """
        space, limits, active = self.problem.space, self.problem.region.limits, self._shallowest
        chosen = np.array([int(mask.argmax()) for mask in self.open])
        if limits:
            of = f" that {self.title} can choose"
            chosen = cheap_network(space, self.open, limits, active, of)
        return np.where(active, chosen, space.block_sizes)

    def least(self, table: CostTable) -> float:
        """The smallest cost of any of these networks, whatever the limits.

        Args:
            table: of a cost that adds up.
        """
        blocks = np.flatnonzero(self._shallowest).tolist()
        return float(table.fixed + sum(table.blocks[b][self.open[b]].min() for b in blocks))


Limits: TypeAlias = Sequence[tuple[CostTable, float]]


def broken(region: FeasibleRegion, index: IntArray) -> Limits:
    """The limits of a region that a network breaks, shape ``(n_blocks,)``."""
    return [(table, limit) for table, limit in region.limits if table.gather(index[None]) > limit]


def saved(limits: Limits, index: IntArray, block: int) -> FloatArray:
    """What each configuration of a block would save a network, relative to limits.

    Args:
        limits: of which the sum is taken.
        index: the network, shape ``(n_blocks,)``; the block runs in it.
        block: which.

    Returns:
        Shape ``(block_sizes[b],)``.
    """
    total = np.zeros(len(limits[0][0].blocks[block]) if limits else 0)
    for table, limit in limits:
        costs = table.blocks[block]
        total += (costs[index[block]] - costs) / max(limit, _TINY)
    return total


def brought_under(choice: Choice, index: IntArray) -> IntArray:
    """A network with as many of its last blocks as need be replaced by the cheapest choice's.

    Args:
        choice: whose networks all have its depths.
        index: one of them, shape ``(n_blocks,)``.

    Raises:
        UserError: none of them meets the limits; the smallest cost is named.
    """
    region = choice.problem.region
    index = index.copy()
    if region.contains_blocks(index[None])[0]:
        return index
    cheapest = choice.cheapest()
    for b in np.flatnonzero(index != cheapest)[::-1]:
        index[b] = cheapest[b]
        if region.contains_blocks(index[None])[0]:
            break
    return index


def reachable(problem: APQProblem, fields: Collection[str]) -> list[tuple[CostTable, float]]:
    """The limits of a problem, on what networks cost once some fields are as cheap as can be.

    Args:
        problem: with the limits.
        fields: of blocks.

    Returns:
        For each limit a table of the smallest cost that each configuration leads to, and the limit.
        A network that breaks one cannot be brought under the limits by these fields.
    """
    axes = tuple(i for i, field in enumerate(FIELDS) if field in fields)
    limits = []
    for table, limit in problem.region.limits:
        blocks = []
        for plan, costs, mask in zip(
            problem.space.plans, table.blocks, problem.region.options.feasible, strict=True
        ):
            usable = np.where(mask, costs, np.inf).reshape(plan.shape)
            least = np.broadcast_to(usable.min(axis=axes, keepdims=True), plan.shape)
            blocks.append(least.ravel().copy())
        limits.append((replace(table, blocks=tuple(blocks)), limit))
    return limits


def with_fields(space: Space, base: IntArray, other: IntArray, fields: Sequence[str]) -> IntArray:
    """A network with some fields of another, where both have a block.

    Args:
        space: the space.
        base: shape ``(n_blocks,)``.
        other: the same; a block that the base lacks is its alone.
        fields: see :class:`Choice`; without depths among them, blocks are active as in the base.
    """
    active, there = (space.layout.active(index[None])[0] for index in (base, other))
    genes = [space.layout.gather(space.layout.genes, index[None])[0] for index in (base, other)]
    taken = np.array([field in fields for field in FIELDS]) & there[:, None] | ~active[:, None]
    mixed = np.where(taken, genes[1], genes[0]).astype(np.int64)
    number = (mixed * space.layout.strides).sum(axis=1)
    return np.where(there if DEPTH in fields else active, number, space.block_sizes)


def cheapest_of(choices: Sequence[Choice]) -> IntArray:
    """The network of several choices with the least sum of relative costs that meets the limits.

    Args:
        choices: under the same limits, at least one.

    Raises:
        UserError: none meets them; the smallest cost is named.
    """
    limits = choices[0].problem.region.limits
    found = []
    for choice in choices:
        # Sums of blocks round differently from the tables' own.
        if all(choice.least(table) <= limit * (1 + _ROUNDING) for table, limit in limits):
            with suppress(UserError):
                found.append(choice.cheapest())
    if found:
        relative = sum(table.gather(np.array(found)) / max(limit, _TINY) for table, limit in limits)
        return found[int(np.argmin(relative))]
    return min(choices, key=lambda choice: _excess(choice, limits)).cheapest()


def _excess(choice: Choice, limits: Sequence[tuple[CostTable, float]]) -> float:
    return max(choice.least(table) / max(limit, _TINY) for table, limit in limits)

"""Whether limits on additive costs can be met, exactly, and a cheap network that meets them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
from moocore import is_nondominated
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import block_diag

from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.errors import UserError
from apq_moo.hardware import CostTable
from apq_moo.space import Space

Limits = Sequence[tuple[CostTable, float]]

_TOLERANCE = 2e-6
"""Twice the relative amount by which HiGHS lets a constraint be broken."""
_LEAST_SCALE = 1e-100
"""Smaller limits, by which nothing can be divided, are as good as 0."""


def cheap_network(
    space: Space,
    feasible: Sequence[BoolArray],
    limits: Limits,
    active: BoolArray | None = None,
    of: str = "",
) -> IntArray:
    """The network with the least sum of relative costs (cost over limit) that meets all limits.

    Args:
        space: the space.
        feasible: for each block, which configurations may be used, shape ``(block_sizes[b],)``.
        limits: non-negative cost tables with their upper limits.
        active: its blocks, shape ``(n_blocks,)``. By default those of the smallest depths: a
            network costs at least what its shallowest part does, so limits that no such network
            meets are met by none.
        of: which networks these are, for the message, such as `` that haq can choose``.

    Returns:
        A feasible configuration of every block, active or not, shape ``(n_blocks,)``; "inactive"
        for a block that has none.

    Raises:
        UserError: no network meets them; the message names the first limit that cannot be met
            under those before it, and the smallest value that can.
    """
    knapsack = _Knapsack(space, feasible, limits, active)
    chosen = knapsack.solve(1 / knapsack.scale, len(limits))
    if chosen is None:
        raise UserError(_explanation(knapsack, of))
    return chosen


def best_network(
    space: Space,
    feasible: Sequence[BoolArray],
    limits: Limits,
    gains: Sequence[FloatArray],
    active: BoolArray,
) -> IntArray | None:
    """The network with the largest sum of gains that meets all limits, exactly.

    Args:
        space: see :func:`cheap_network`.
        feasible: see :func:`cheap_network`.
        limits: see :func:`cheap_network`.
        gains: of each configuration of each block, shape ``(block_sizes[b],)``.
        active: its blocks, shape ``(n_blocks,)``.

    Returns:
        A feasible configuration of every block, see :func:`cheap_network`; None if none is found.
    """
    top = max((float(np.max(part, initial=0.0)) for part in gains), default=0.0)
    losses = CostTable("loss", "", space, 0.0, tuple(top - part for part in gains))
    unbound = 1.0 + sum(float(np.max(part, initial=0.0)) for part in losses.blocks)
    knapsack = _Knapsack(space, feasible, [*limits, (losses, unbound)], active)
    weights = np.zeros(len(limits) + 1)
    weights[-1] = 1.0
    return knapsack.solve(weights, len(limits))


class _Knapsack:
    """A configuration for each block under linear limits: a multiple-choice knapsack.

    Args:
        space: the space.
        feasible: for each block, which configurations may be used.
        limits: cost tables with their upper limits.
        active: the blocks of the network; by default those of the smallest depths.
    """

    def __init__(
        self,
        space: Space,
        feasible: Sequence[BoolArray],
        limits: Limits,
        active: BoolArray | None = None,
    ) -> None:
        self.space = space
        self.active = space.active(space.smallest()[None])[0] if active is None else active
        self.limits = limits
        self.bounds: FloatArray = np.array([limit for _, limit in limits])
        self.scale: FloatArray = np.where(self.bounds > _LEAST_SCALE, self.bounds, 1.0)
        self.allowed = [np.flatnonzero(mask) for mask in feasible]
        self.costs = [
            np.stack([table.blocks[b][rows] for table, _ in limits], axis=1)
            for b, rows in enumerate(self.allowed)
        ]

    def totals(self, chosen: IntArray) -> FloatArray:
        """Costs of the network, as the tables add them up."""
        index = np.where(self.active, chosen, self.space.block_sizes)[None]
        return np.array([table.gather(index)[0] for table, _ in self.limits])

    def solve(self, weights: FloatArray, n_binding: int) -> IntArray | None:
        """Minimise weighted costs under the first limits.

        Args:
            weights: of the costs, shape ``(n_limits,)``.
            n_binding: how many limits must be met.

        Returns:
            A configuration of every block, or None if the limits cannot be met.
        """
        chosen = self.space.block_sizes.copy()
        for b, rows in enumerate(self.allowed):
            if len(rows):
                chosen[b] = rows[(self.costs[b] @ weights).argmin()]
        binding = slice(n_binding)
        for tolerance in (0.0, _TOLERANCE):
            if (self.totals(chosen)[binding] <= self.bounds[binding]).all():
                return chosen
            blocks, picked = self._integer_program(weights, n_binding, tolerance)
            if picked is None:
                return None
            chosen[blocks] = picked
        return chosen if (self.totals(chosen)[binding] <= self.bounds[binding]).all() else None

    @cached_property
    def _efficient(self) -> dict[int, IntArray]:
        """For each block of the network, the configurations worth choosing from.

        Positions in :attr:`allowed`; others cost at least as much in every table.
        """
        return {
            int(b): np.flatnonzero(is_nondominated(self.costs[b], keep_weakly=False))
            for b in np.flatnonzero(self.active)
        }

    def _integer_program(
        self, weights: FloatArray, n_binding: int, tolerance: float
    ) -> tuple[list[int], IntArray | None]:
        blocks = list(self._efficient)
        costs = [self.costs[b][rows] for b, rows in self._efficient.items()]
        flat = np.vstack(costs)
        fixed = np.array([table.fixed for table, _ in self.limits])
        room = (self.bounds - fixed) / self.scale - tolerance
        one_each = block_diag([np.ones((1, len(rows))) for rows in costs])
        answer = milp(
            flat @ weights,
            integrality=np.ones(len(flat)),
            bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(one_each, 1, 1),
                LinearConstraint((flat / self.scale).T[:n_binding], -np.inf, room[:n_binding]),
            ],
            options={"mip_rel_gap": 0.0},
        )
        if answer.x is None:
            return blocks, None
        edges = accumulate((len(rows) for rows in costs), initial=0)
        best = [answer.x[start:end].argmax() for start, end in pairwise(edges)]
        picked = [
            self.allowed[b][rows[i]]
            for (b, rows), i in zip(self._efficient.items(), best, strict=True)
        ]
        return blocks, np.array(picked)


def _explanation(knapsack: _Knapsack, of: str) -> str:
    """Names the first limit that cannot be met under those before it."""
    name = knapsack.space.name
    for i, (table, limit) in enumerate(knapsack.limits):
        chosen = knapsack.solve(np.eye(len(knapsack.limits))[i], i)
        least = np.inf if chosen is None else float(knapsack.totals(chosen)[i])
        if limit < least < np.inf:
            others = " and ".join(
                f"{other.name} <= {bound:g} {other.unit}" for other, bound in knapsack.limits[:i]
            )
            return unreachable(table, limit, least, f" with {others}" if others else "", of)
    return f"no network of space {name!r}{of} was found that meets all limits together; raise one"


def unreachable(table: CostTable, limit: float, least: float, under: str = "", of: str = "") -> str:
    """What to tell of a limit below the smallest cost of any network.

    Args:
        table: the cost.
        limit: the limit.
        least: the smallest cost.
        under: the conditions for that, such as `` with energy <= 3 mJ``.
        of: see :func:`cheap_network`.
    """
    return (
        f"no network of space {table.space.name!r}{of} has {table.name} <= {limit:g} {table.unit}"
        f"{under}; the smallest reachable {table.name} is {_rounded_up(least)} {table.unit}: raise "
        "the limit"
    )


def _rounded_up(value: float, digits: int = 4) -> str:
    """A limit that a value meets, in significant digits.

    >>> _rounded_up(2.95881), _rounded_up(2.0), _rounded_up(0.00012341)
    ('2.959', '2', '0.0001235')
    """
    text = f"{value:.{digits}g}"
    if float(text) >= value:
        return text
    unit = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    return f"{value + unit:.{digits}g}"

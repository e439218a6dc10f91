"""The complete Pareto front of an accuracy that adds up over blocks, and one cost that does too.

Accuracies of an additive predictor and additive costs are sums over blocks, so the front of whole
networks can be built block by block: the non-dominated sums of a front and a block's options, with
a union over the depths of each stage (dominance-merging dynamic programming; multi-objective
knapsack problems are solved so, see Ehrgott, Multicriteria Optimization, 2005, section 10.3). Sums
are kept in integers, so that they are exact whatever their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.errors import UserError
from apq_moo.space import Space

_SUM_BITS = 52
"""Sums of costs take at most this many bits: a unit is 2^-52 of the largest sum."""

GAIN_UNIT = 2.0**-30
"""Unit of accuracy in percent; additive predictors round their coefficients to it."""

_ROUNDING = 1e-12
"""Relative difference of costs that counts as none."""

MAX_POINTS = 2_000_000
"""Points of an intermediate front beyond which it is given up."""

_CHUNK = 2_000_000


@dataclass(frozen=True)
class Front:
    """Non-dominated networks, by ascending cost.

    Attributes:
        X: canonical genotypes, shape ``(n, n_var)``.
        acc: additive accuracy in percent, strictly ascending, shape ``(n,)``.
        cost: cost, strictly ascending, shape ``(n,)``.
    """

    X: IntArray
    acc: FloatArray
    cost: FloatArray


@dataclass(frozen=True)
class _Partial:
    """A front of networks up to some block, and where each of its points comes from.

    Attributes:
        cost: in units, ascending, shape ``(n,)``.
        gain: in units, ascending, shape ``(n,)``.
        origin: for each point which of ``sources`` it comes from.
        parent: its row there.
        choice: the configuration that was added, or -1 where none was.
        sources: the fronts that it was made of.
        block: the block whose configuration was chosen, or -1.
    """

    cost: IntArray
    gain: IntArray
    origin: IntArray
    parent: IntArray
    choice: IntArray
    sources: tuple[_Partial, ...]
    block: int

    def __len__(self) -> int:
        return len(self.cost)


def exact_front(
    space: Space,
    intercept: float,
    gains: Sequence[FloatArray],
    fixed: float,
    costs: Sequence[FloatArray],
    feasible: Sequence[BoolArray],
    limit: float = np.inf,
) -> Front:
    """All non-dominated networks under a limit on the cost.

    Of networks with equal accuracy and cost one is kept; costs are equal that differ by less than
    1e-12 of themselves. Time grows with the number of points of
    the fronts times the non-dominated options of a block.

    Args:
        space: the search space.
        intercept: accuracy in percent of a network without blocks.
        gains: what each block's configurations add to it, shape ``(block_sizes[b],)``.
        fixed: cost of a network without blocks.
        costs: what each block's configurations add to it, non-negative; inf where infeasible.
        feasible: which configurations may be used.
        limit: the largest cost, inclusive.

    Raises:
        UserError: no network meets the limit, or a front passes :data:`MAX_POINTS`.
    """
    unit = _unit(costs, feasible)
    room = np.inf if np.isinf(limit) else (limit - fixed) / unit * (1 + 1e-12) + 0.5
    options = [
        _options(gain, cost, mask, unit)
        for gain, cost, mask in zip(gains, costs, feasible, strict=True)
    ]
    ahead = _cheapest_rest(space, options)
    zero = np.zeros(1, dtype=np.int64)
    front = _Partial(zero, zero, zero, zero, zero - 1, (), -1)
    for number, stage in enumerate(space.spec.stages):
        layers = [front]
        blocks = space.layout.stage_blocks[number]
        for b in range(blocks.start, blocks.stop):
            # A deeper network of this stage still needs the cheapest of what follows the stage.
            layers.append(_merge(layers[-1], options[b], b, room - ahead[number]))
        front = _union([layers[depth] for depth in stage.depths])
        if not len(front):
            raise UserError(f"no network of space {space.name!r} meets the limit {limit:g}")
    acc = (intercept + front.gain * GAIN_UNIT).astype(np.float64)
    cost = (fixed + front.cost * unit).astype(np.float64)
    # Equal costs may differ by the rounding of their parts; of such points the last is the best.
    last = np.r_[cost[1:] > cost[:-1] + _ROUNDING * np.abs(cost[:-1]), True]
    return Front(_trace(space, front)[last], acc[last], cost[last])


def _unit(costs: Sequence[FloatArray], feasible: Sequence[BoolArray]) -> float:
    """A power of two by which the largest sum of costs takes at most :data:`_SUM_BITS` bits."""
    usable = [cost[mask] for cost, mask in zip(costs, feasible, strict=True)]
    largest = sum(float(values.max()) for values in usable if len(values))
    return float(2.0 ** (np.ceil(np.log2(largest)) - _SUM_BITS)) if largest > 0 else 1.0


def _options(
    gain: FloatArray, cost: FloatArray, mask: BoolArray, unit: float
) -> tuple[IntArray, IntArray, IntArray]:
    """The non-dominated configurations of a block: numbers, costs and gains in units."""
    numbers = np.flatnonzero(mask)
    costs = np.rint(cost[numbers] / unit).astype(np.int64)
    gains = np.rint(gain[numbers] / GAIN_UNIT).astype(np.int64)
    kept = _non_dominated(costs, gains)
    return numbers[kept], costs[kept], gains[kept]


def _non_dominated(cost: IntArray, gain: IntArray) -> IntArray:
    """Rows of the non-dominated points, by ascending cost; of equal ones the first."""
    order = np.lexsort((-gain, cost))
    if not len(order):
        return order
    gains = gain[order]
    best = np.maximum.accumulate(gains)
    rises = np.r_[True, gains[1:] > best[:-1]]
    return order[rises]


def _cheapest_rest(
    space: Space, options: Sequence[tuple[IntArray, IntArray, IntArray]]
) -> list[float]:
    """What the stages behind each stage cost at least, in units."""
    least = []
    for stage, blocks in zip(space.spec.stages, space.layout.stage_blocks, strict=True):
        cheapest = [float(cost[0]) if len(cost) else np.inf for _, cost, _ in options[blocks]]
        sums = np.cumsum([0.0, *cheapest])
        least.append(float(min(sums[depth] for depth in stage.depths)))
    return [sum(least[i + 1 :]) for i in range(len(least))]


def _merge(
    front: _Partial, options: tuple[IntArray, IntArray, IntArray], block: int, room: float
) -> _Partial:
    """The non-dominated sums of a front and a block's options that leave room for the rest."""
    numbers, costs, gains = options
    rows, picks = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    cost, gain = rows, rows
    step = max(1, _CHUNK // max(len(front), 1))
    for start in range(0, len(numbers), step):
        part = slice(start, start + step)
        sums = (front.cost[:, None] + costs[part]).ravel()
        values = (front.gain[:, None] + gains[part]).ravel()
        fits = np.flatnonzero(sums <= room)
        n_part = len(costs[part])
        cost, gain = np.r_[cost, sums[fits]], np.r_[gain, values[fits]]
        rows, picks = np.r_[rows, fits // n_part], np.r_[picks, start + fits % n_part]
        kept = _non_dominated(cost, gain)
        cost, gain, rows, picks = cost[kept], gain[kept], rows[kept], picks[kept]
    if len(cost) > MAX_POINTS:
        raise UserError(
            f"the front has more than {MAX_POINTS:,} points by block {block}: limit the cost"
        )
    return _Partial(cost, gain, np.zeros_like(rows), rows, numbers[picks], (front,), block)


def _union(fronts: Sequence[_Partial]) -> _Partial:
    """The non-dominated points of several fronts."""
    cost = np.concatenate([front.cost for front in fronts])
    gain = np.concatenate([front.gain for front in fronts])
    origin = np.repeat(np.arange(len(fronts)), [len(front) for front in fronts])
    parent = np.concatenate([np.arange(len(front)) for front in fronts])
    kept = _non_dominated(cost, gain)
    none = np.full(len(kept), -1)
    return _Partial(cost[kept], gain[kept], origin[kept], parent[kept], none, tuple(fronts), -1)


def _trace(space: Space, front: _Partial) -> IntArray:
    """The networks of a front, as canonical genotypes."""
    chosen = np.tile(space.block_sizes, (len(front), 1))
    everyone = np.arange(len(front))
    stack = [(front, everyone, everyone)]  # points of a part, each of one network
    while stack:
        part, points, networks = stack.pop()
        if part.block >= 0:
            chosen[networks, part.block] = part.choice[points]
        for number, source in enumerate(part.sources):
            rows = np.flatnonzero(part.origin[points] == number)
            if len(rows):
                stack.append((source, part.parent[points[rows]], networks[rows]))
    genotypes: IntArray = space.from_block_index(chosen)
    return genotypes

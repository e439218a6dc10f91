"""Exact optimisation of an additive accuracy, as a pymoo algorithm."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from moocore import is_nondominated
from pymoo.core.algorithm import Algorithm
from pymoo.core.population import Population
from pymoo.util.display.multi import MultiObjectiveOutput
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from apq_moo.algorithms.base import require_apq_problem
from apq_moo.algorithms.exact.front import exact_front
from apq_moo.arrays import FloatArray, IntArray
from apq_moo.errors import UserError

if TYPE_CHECKING:
    from apq_moo.problems import APQProblem


_AUGMENTATION = 1e-6
"""Share of the reachable accuracy by which a network's costs count beside its accuracy."""


class AdditiveAccuracy(Protocol):
    """An accuracy that is a sum over blocks."""

    def block_gains(self) -> tuple[float, list[FloatArray]]:
        """See :meth:`apq_moo.predictors.additive.AdditivePredictor.block_gains`."""


class ExactSearch(Algorithm):  # type: ignore[misc]
    """All best networks of an additive surrogate, handed over for evaluation at once.

    With one cost, as an objective or a limit, the complete front comes from dynamic programming
    (:func:`exact_front`). With several, each network of a grid of limits on them is the optimum of
    an integer program (epsilon-constraint method; Haimes, Lasdon and Wismer, 1971). It is optimal
    for the surrogate; the problem's own predictor then says what the networks are worth.

    Args:
        surrogate: an accuracy that adds up over blocks.
        n_grid: limits on each further cost, with several costs.
        **kwargs: of pymoo's ``Algorithm``.

    Attributes:
        X: the networks, canonical, by ascending cost.

    Raises:
        UserError: at setup, the problem has no accuracy to maximise, or costs that do not add up.
    """

    def __init__(self, surrogate: AdditiveAccuracy, n_grid: int = 8, **kwargs: Any) -> None:
        kwargs.setdefault("output", MultiObjectiveOutput())
        super().__init__(**kwargs)
        self.surrogate = surrogate
        self.n_grid = n_grid

    def _setup(self, problem: APQProblem, **_kwargs: Any) -> None:
        require_apq_problem(problem, "exact")
        if "acc" not in problem.objectives:
            raise UserError("exact maximises acc: add it to the objectives")
        costs = [name for name in problem.objectives if name != "acc"]
        for name in costs:
            if problem.tables[name].combine != "sum":
                raise UserError(f"exact needs costs that add up over layers, which {name} does not")
        limited = [name for name in problem.constraints if name != "acc" and name not in costs]
        sums = [*costs, *(name for name in limited if problem.tables[name].combine == "sum")]
        X = _by_programming(problem, self.surrogate, sums) if len(sums) < 2 else None
        if X is None:
            X = _Program(problem, self.surrogate, sums).front(costs, self.n_grid)
        self.X: IntArray = X[problem.region.contains(X)]
        if not costs:
            self.X = self.X[-1:]

    def _initialize_infill(self) -> Population:
        return Population.new(X=self.X)

    def _initialize_advance(self, infills: Population, **_kwargs: Any) -> None:
        self.pop = infills

    def _infill(self) -> None:
        return None

    def _advance(self, **_kwargs: Any) -> None:
        return None

    def has_next(self) -> bool:
        """Everything is handed over at once."""
        return not self.is_initialized


def _by_programming(problem: APQProblem, surrogate: AdditiveAccuracy, sums: list[str]) -> IntArray:
    """The front of accuracy and at most one cost."""
    intercept, gains = surrogate.block_gains()
    fixed, limit = 0.0, np.inf
    costs: list[FloatArray] = [np.zeros(len(gain)) for gain in gains]
    if sums:
        table = problem.tables[sums[0]]
        fixed, costs = table.fixed, list(table.blocks)
        limit = problem.constraints.get(sums[0], np.inf)
    feasible = problem.region.options.feasible
    return exact_front(problem.space, intercept, gains, fixed, costs, feasible, limit).X


class _Program:
    """The integer program of a network: a configuration for each active block, a depth a stage.

    Args:
        problem: the problem.
        surrogate: the accuracy.
        sums: costs that are limited.
    """

    def __init__(self, problem: APQProblem, surrogate: AdditiveAccuracy, sums: list[str]) -> None:
        self._problem = problem
        self._sums = sums
        tables = [problem.tables[name] for name in sums]
        _, gains = surrogate.block_gains()
        self._fixed = np.array([table.fixed for table in tables])
        rows, parts, owner = [], [], []
        for b, mask in enumerate(problem.region.options.feasible):
            numbers = np.flatnonzero(mask)
            values = np.column_stack([-gains[b], *(table.blocks[b] for table in tables)])[numbers]
            if len(numbers):
                kept = is_nondominated(values, keep_weakly=False)
                numbers, values = numbers[kept], values[kept]
            rows.append(numbers)
            parts.append(values)
            owner.append(np.full(len(numbers), b))
        self._numbers, self._owner = np.concatenate(rows), np.concatenate(owner)
        values = np.concatenate(parts)
        self._gain, self._costs = -values[:, 0], values[:, 1:]
        self._depths = [
            (number, depth)
            for number, stage in enumerate(problem.space.spec.stages)
            for depth in stage.depths
        ]
        self._links = self._link()

    def _link(self) -> LinearConstraint:
        """A block has one configuration iff its stage is deep enough; a stage has one depth."""
        space, n = self._problem.space, len(self._numbers)
        entries = [(int(b), i, 1.0) for i, b in enumerate(self._owner)]
        for place, (number, depth) in enumerate(self._depths, start=n):
            entries.append((space.n_blocks + number, place, 1.0))
            first = space.layout.stage_blocks[number].start
            entries += [(b, place, -1.0) for b in range(first, first + depth)]
        row, column, value = zip(*entries, strict=True)
        shape = (space.n_blocks + len(space.spec.stages), n + len(self._depths))
        right = np.r_[np.zeros(space.n_blocks), np.ones(len(space.spec.stages))]
        return LinearConstraint(
            coo_array((value, (row, column)), shape=shape).tocsr(), right, right
        )

    def solve(self, limits: FloatArray, weights: FloatArray) -> IntArray | None:
        """The best network under limits on the costs, as a genotype; None if there is none.

        Args:
            limits: upper ones, inf where there is none, shape ``(n_costs,)``.
            weights: accuracy that a unit of each cost is worth, shape ``(n_costs,)``.
        """
        n, m = len(self._numbers), len(self._depths)
        scale = np.maximum(self._costs.max(axis=0), 1e-300)
        bound = np.isfinite(limits)
        constraints = [self._links]
        if bound.any():
            matrix = np.hstack([(self._costs / scale).T, np.zeros((len(scale), m))])
            room = (limits - self._fixed) / scale
            constraints.append(LinearConstraint(matrix[bound], -np.inf, room[bound]))
        value = np.r_[-self._gain + self._costs @ weights, np.zeros(m)]
        answer = milp(
            value,
            integrality=np.ones(n + m),
            bounds=Bounds(0, 1),
            constraints=constraints,
            options={"mip_rel_gap": 0.0},
        )
        if answer.x is None:
            return None
        return self._genotype(np.flatnonzero(answer.x[:n] > 0.5))

    def _genotype(self, chosen: IntArray) -> IntArray:
        index = self._problem.space.block_sizes.copy()
        index[self._owner[chosen]] = self._numbers[chosen]
        genotype: IntArray = self._problem.space.from_block_index(index[None])[0]
        return genotype

    def front(self, costs: list[str], n_grid: int) -> IntArray:
        """The networks of a grid of limits on the costs that are objectives."""
        problem = self._problem
        base = np.array([problem.constraints.get(name, np.inf) for name in self._sums])
        least = self._weights(base)
        best = self.solve(base, least)
        if best is None:
            raise UserError(f"no network of space {problem.space.name!r} meets all limits together")
        if not costs:
            return best[None]
        ends = {name: float(problem.tables[name](best[None])[0]) for name in costs}
        levels = [np.linspace(self._smallest(name, base), ends[name], n_grid) for name in costs]
        found = [best]
        for point in product(*levels):
            limits = base.copy()
            for name, value in zip(costs, point, strict=True):
                place = self._sums.index(name)
                limits[place] = min(limits[place], value * (1 + 1e-9))
            row = self.solve(limits, least)
            if row is not None:
                found.append(row)
        return np.unique(np.array(found), axis=0)

    def _weights(self, limits: FloatArray) -> FloatArray:
        """Small prices of the costs, so that of equally accurate networks the cheaper one wins."""
        span = max(float(self._gain.max() - self._gain.min()), 1e-12)
        scale = np.where(np.isfinite(limits), limits, self._fixed + self._costs.max(axis=0))
        return _AUGMENTATION * span / np.maximum(scale, 1e-300)

    def _smallest(self, name: str, base: FloatArray) -> float:
        """The smallest value of a cost under the user's limits."""
        place = self._sums.index(name)
        weights = np.zeros(len(self._sums))
        weights[place] = (
            1e6
            * max(float(np.abs(self._gain).max()), 1e-12)
            / max(float(self._costs[:, place].max()), 1e-300)
        )
        row = self.solve(base, weights)
        assert row is not None
        return float(self._problem.tables[name](row[None])[0])

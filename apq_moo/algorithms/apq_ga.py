"""APQ's evolutionary search (Wang et al., CVPR 2020, Algorithm 1) as a pymoo algorithm."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from pymoo.core.algorithm import Algorithm
from pymoo.core.population import Population
from pymoo.util.display.single import SingleObjectiveOutput

from apq_moo.algorithms.base import require_one_objective, sampled
from apq_moo.algorithms.variation import cross, n_units, resample
from apq_moo.errors import UserError, shown
from apq_moo.space import IntArray

if TYPE_CHECKING:
    from apq_moo.problems import APQProblem

Variation = Callable[[IntArray, int], IntArray]


class ApqGA(Algorithm):  # type: ignore[misc]
    """Keeps the k best networks and fills each round with their crossovers and mutants.

    One objective under limits on costs; every candidate ever evaluated meets them. A child that
    breaks one is drawn again, parents included, ``max_redraws`` times; one that still does is
    repaired (:meth:`FeasibleRegion.repair`), so that a round always ends. A limit on ``acc``, which
    cannot be checked before evaluation, ranks what breaks it behind what meets it.

    A round evaluates ``pop_size`` children, so there are ``pop_size * (rounds + 1)`` evaluations in
    all. Top_k is a set: of equal networks one counts. Ties keep what was evaluated first.

    Args:
        pop_size: N of Algorithm 1, at least 2.
        n_top: its k.
        prob: its mutation probability, of each depth and each block.
        max_redraws: how often children that break a limit are drawn again before repair.
        **kwargs: of pymoo's ``Algorithm``.

    Attributes:
        pop: Top_k, best first.

    Raises:
        UserError: an argument is out of range; at setup, the problem is of another kind or has
            several objectives.
    """

    title = "apq-ga"

    def __init__(
        self,
        pop_size: int = 100,
        n_top: int = 25,
        prob: float = 0.1,
        max_redraws: int = 10,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("output", SingleObjectiveOutput())
        super().__init__(**kwargs)
        for name, value, least in (
            ("pop_size", pop_size, 2),
            ("n_top", n_top, 1),
            ("max_redraws", max_redraws, 0),
        ):
            if value < least:
                raise UserError(f"{name} must be at least {least}, not {shown(value)}")
        if not 0 < prob <= 1:
            raise UserError(f"prob must lie in (0, 1], not {shown(prob)}")
        self.pop_size = pop_size
        self.n_top = n_top
        self.prob = prob
        self.max_redraws = max_redraws

    def _setup(self, problem: APQProblem, **_kwargs: Any) -> None:
        require_one_objective(problem, self.title)

    def _initialize_infill(self) -> Population:
        return sampled(self.problem, self.pop_size, self.random_state)

    def _initialize_advance(self, infills: Population, **_kwargs: Any) -> None:
        self.pop = self._top(infills)

    def _infill(self) -> Population:
        top = self.pop.get("X")
        n_cross = self.pop_size // 2
        crossed = self._feasible(self._crossover, top, n_cross)
        mutated = self._feasible(self._mutation, top, self.pop_size - n_cross)
        return Population.new(X=np.vstack([crossed, mutated]))

    def _advance(self, infills: Population, **_kwargs: Any) -> None:
        self.pop = self._top(Population.merge(self.pop, infills))

    def _feasible(self, vary: Variation, top: IntArray, n: int) -> IntArray:
        """Children that meet the limits on costs, shape ``(n, n_var)``."""
        region = self.problem.region
        X = vary(top, n)
        for _ in range(self.max_redraws):
            broken = np.flatnonzero(~region.contains(X))
            if not len(broken):
                return X
            X[broken] = vary(top, len(broken))
        repaired: IntArray = region.repair(X, self.random_state)
        return repaired

    def _crossover(self, top: IntArray, n: int) -> IntArray:
        """Each depth and each block from either of two parents."""
        rng, k = self.random_state, len(top)
        first = rng.integers(0, k, size=n)
        second = (first + rng.integers(1, max(k, 2), size=n)) % k
        from_second = rng.random((n, n_units(self.problem.space))) < 0.5
        return cross(self.problem.space, top[first], top[second], from_second)

    def _mutation(self, top: IntArray, n: int) -> IntArray:
        """A parent with each depth and each block redrawn with probability ``prob``."""
        rng = self.random_state
        parents = top[rng.integers(0, len(top), size=n)]
        shape = (n, n_units(self.problem.space))
        chosen = rng.random(shape) < self.prob
        return resample(self.problem.region.options, parents, chosen, rng.random(shape))

    def _top(self, candidates: Population) -> Population:
        """The best distinct candidates, at most ``n_top``, best first."""
        X, F, CV = candidates.get("X", "F", "CV")
        order = np.lexsort((F[:, 0], CV[:, 0]))
        first = np.unique(X[order], axis=0, return_index=True)[1]
        return candidates[order[np.sort(first)[: self.n_top]]]

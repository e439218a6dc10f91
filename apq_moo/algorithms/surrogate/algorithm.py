"""Measure, refit, repeat: a search of few, expensive evaluations that is led by a predictor."""

from __future__ import annotations

from typing import Any

import numpy as np
from moocore import pareto_rank
from pymoo.core.algorithm import Algorithm
from pymoo.core.population import Population
from pymoo.util.display.multi import MultiObjectiveOutput

from apq_moo.algorithms.base import require_apq_problem
from apq_moo.algorithms.surrogate.refit import Candidates, Refit
from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.errors import UserError
from apq_moo.hardware import ACC, minimised
from apq_moo.problems import AccuracySource, APQProblem, resolve
from apq_moo.problems.bounds import REFERENCE
from apq_moo.problems.operators import block_index

_MOST_CANDIDATES = 600
"""Whose standard deviations are computed, by their rank on the predicted front."""

_LEAST_STD = 1e-6
"""In percent points; what is predicted without any doubt."""


class MeasuredSearch(Algorithm):  # type: ignore[misc]
    """Fits a predictor to what was measured, searches it, and measures what it expects most of.

    The scheme is that of MSuNAS (Lu et al., NSGANetV2, ECCV 2020) and LINAS (Cummings et al., 2022)
    with a Gaussian process in place of their predictors, and with batches by expected gain in
    hypervolume. ``pop`` holds everything that was measured.

    Args:
        refit: see :class:`Refit`.
        **kwargs: of pymoo's ``Algorithm``.

    Raises:
        UserError: at setup, the problem is of another kind, or accuracy is none of its objectives.
    """

    def __init__(self, refit: Refit, **kwargs: Any) -> None:
        kwargs.setdefault("output", MultiObjectiveOutput())
        super().__init__(**kwargs)
        self.refit = refit
        self._exhausted = False

    def _setup(self, problem: APQProblem, **_kwargs: Any) -> None:
        require_apq_problem(problem, "surrogate")
        if ACC not in problem.objectives:
            raise UserError("surrogate fits accuracies: add acc to the objectives")
        costs = [name for name in problem.objectives if name != ACC]
        self._order = [problem.objectives.index(name) for name in (ACC, *costs)]
        ideal, nadir = problem.ideal_point(), problem.nadir_point()
        self._ideal, self._span = ideal, np.where(nadir > ideal, nadir - ideal, 1.0)
        known = () if self.refit.known is None else self.refit.known
        self._known = {row.tobytes() for row in known}
        self._reference = self._bounded(np.full(len(ideal), REFERENCE))[self._order]

    def _bounded(self, reference: FloatArray) -> FloatArray:
        """A reference point that lies within the limits, since nothing beyond them counts."""
        problem = self.problem
        for i, name in enumerate(problem.objectives):
            if name in problem.constraints:
                limit = minimised([name], [problem.constraints[name]])[0]
                reference[i] = min(reference[i], (limit - self._ideal[i]) / self._span[i])
        return reference

    # -- pymoo's interface -------------------------------------------------------------------------

    def _initialize_infill(self) -> Population:
        if self.refit.adopted is not None and len(self.refit.adopted):
            return Population.new(X=self.refit.adopted)
        if self.refit.samples is not None:
            return self._next(np.empty((0, self.problem.space.n_var), dtype=np.int64), np.empty(0))
        drawn = self.problem.draw(self.refit.first, self.random_state)
        return Population.new(X=drawn)

    def _initialize_advance(self, infills: Population, **_kwargs: Any) -> None:
        self.pop = infills

    def _infill(self) -> Population | None:
        index = block_index(self.problem, self.pop)
        natural = minimised(self.problem.objectives, self.pop.get("F"))
        accuracies = natural[:, self.problem.objectives.index(ACC)]
        return self._next(self.problem.space.from_block_index(index), accuracies)

    def _advance(self, infills: Population, **_kwargs: Any) -> None:
        self.pop = Population.merge(self.pop, infills)

    def has_next(self) -> bool:
        """Whether there is something left to measure."""
        return not self._exhausted and super().has_next()

    # -- a round -----------------------------------------------------------------------------------

    def _next(self, X: IntArray, accuracies: FloatArray) -> Population | None:
        """What to measure after these; None where everything has been."""
        refit, rng = self.refit, self.random_state
        refit.fit(X, accuracies, rng)
        source = resolve(refit.predictor, self.problem.space)
        problem = self.problem.with_accuracy(source)
        seed = int(rng.integers(2**31))
        found = refit.search(problem, self._front(X, accuracies), seed).genotypes
        size = refit.size(len(X))
        fresh = self._unmeasured(found, X)
        if len(fresh) < size:
            drawn = problem.region.sample(len(X) + len(self._known) + size, rng)
            fresh = np.vstack([fresh, self._unmeasured(drawn, np.vstack([X, fresh]))])
        if not len(fresh):
            self._exhausted = True
            return None
        candidates = self._candidates(source, fresh, X, accuracies)
        chosen = refit.rule(candidates, size, rng)
        return Population.new(X=candidates.X[chosen])

    def _unmeasured(self, found: IntArray, X: IntArray) -> IntArray:
        """Distinct networks that meet the limits on costs and are not known, in order."""
        found = found[self.problem.region.contains(found)]
        seen = self._known | {row.tobytes() for row in X}
        fresh: list[bool] = []
        for row in found:
            key = row.tobytes()
            fresh.append(key not in seen)
            seen.add(key)
        kept: BoolArray = np.array(fresh, dtype=bool)
        return found[kept]

    def _candidates(
        self, source: AccuracySource, fresh: IntArray, X: IntArray, accuracies: FloatArray
    ) -> Candidates:
        F = self._objectives(fresh, source.predict(fresh))
        order = np.argsort(pareto_rank(F), kind="stable")[:_MOST_CANDIDATES]
        fresh, F, std = fresh[order], F[order], None
        if self.refit.needs_std:
            _, deviations = self.refit.predictor.predict(fresh, return_std=True)
            std = np.maximum(deviations, _LEAST_STD) / self._span[self._order[0]]
        return Candidates(fresh, F, std, self._objectives(X, accuracies), self._reference)

    def _objectives(self, X: IntArray, accuracies: FloatArray) -> FloatArray:
        """Normalised, accuracy first, shape ``(n, n_obj)``."""
        problem = self.problem
        values = problem.costs(problem.space.block_index(X)) | {ACC: accuracies}
        natural = np.column_stack([values[name] for name in problem.objectives])
        scaled: FloatArray = (minimised(problem.objectives, natural) - self._ideal) / self._span
        return scaled[:, self._order]

    def _front(self, X: IntArray, accuracies: FloatArray) -> IntArray:
        """Non-dominated networks of those measured, to begin the search of the predictor with."""
        if not len(X):
            return X
        front: IntArray = X[pareto_rank(self._objectives(X, accuracies)) == 0]
        return front

"""Single-objective searches beside APQ's: ageing evolution, and local search with restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pymoo.core.algorithm import Algorithm
from pymoo.core.population import Population
from pymoo.util.display.single import SingleObjectiveOutput

from apq_moo.algorithms.base import check_least, require_one_objective, sampled
from apq_moo.arrays import IntArray
from apq_moo.problems.operators import SpaceMutation

if TYPE_CHECKING:
    from apq_moo.problems import APQProblem


class _Single(Algorithm):  # type: ignore[misc]
    """What searches for one objective under limits share.

    Every candidate meets the limits on costs: a mutant that breaks one is repaired. Individuals
    are ranked by their violation (of a limit on ``acc``, which only evaluation shows), then by the
    objective.
    """

    title = ""
    pop_size: int
    opt: Population | None

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("output", SingleObjectiveOutput())
        super().__init__(**kwargs)
        self._mutation = SpaceMutation()

    def _setup(self, problem: APQProblem, **_kwargs: Any) -> None:
        require_one_objective(problem, self.title)

    def _initialize_infill(self) -> Population:
        return sampled(self.problem, self.pop_size, self.random_state)

    def _initialize_advance(self, infills: Population, **_kwargs: Any) -> None:
        self.pop = infills

    def _set_optimum(self) -> None:
        known = self.pop if self.opt is None else Population.merge(self.opt, self.pop)
        order = np.lexsort((known.get("F")[:, 0], known.get("CV")[:, 0]))
        self.opt = known[order[:1]]

    def _mutants(self, X: IntArray) -> IntArray:
        """One mutant of each network, within the limits, different from it where that is easy."""
        rng, region, space = self.random_state, self.problem.region, self.problem.space
        index = space.block_index(X)
        result = index.copy()
        for _ in range(4):
            same = np.flatnonzero((result == index).all(axis=1))
            if not len(same):
                break
            mutants = self._mutation.mutants(self.problem, index[same], rng)
            result[same] = region.repair_blocks(mutants, rng)
        mutated: IntArray = space.from_block_index(result)
        return mutated


def _better(a: Any, b: Any) -> bool:
    """Whether one individual beats another: by violation, then by the objective."""
    return bool((a.CV[0], a.F[0]) < (b.CV[0], b.F[0]))


class RegularizedEvolution(_Single):
    """Ageing evolution: the oldest dies, whatever its worth.

    Each child is a mutant of the best of a random sample of the population. Several children are
    made at a time from the same population.

    Args:
        pop_size: individuals alive, P of the paper.
        sample_size: individuals compared for each parent, S of the paper.
        n_offsprings: children made at a time.
        **kwargs: of pymoo's ``Algorithm``.

    Raises:
        UserError: an argument is out of range; at setup, several objectives.
    """

    title = "regularized-evolution"

    def __init__(
        self, pop_size: int = 100, sample_size: int = 25, n_offsprings: int = 10, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_least(1, pop_size=pop_size, sample_size=sample_size, n_offsprings=n_offsprings)
        self.pop_size, self.sample_size, self.n_offsprings = pop_size, sample_size, n_offsprings

    def _infill(self) -> Population:
        n, size = len(self.pop), min(self.sample_size, len(self.pop))
        keys = self.random_state.random((self.n_offsprings, n))
        samples = np.argpartition(keys, size - 1, axis=1)[:, :size]
        order = np.lexsort((self.pop.get("F")[:, 0], self.pop.get("CV")[:, 0]))
        place = np.empty(n, dtype=np.int64)
        place[order] = np.arange(n)
        parents = samples[np.arange(len(samples)), place[samples].argmin(axis=1)]
        return Population.new(X=self._mutants(self.pop.get("X")[parents]))

    def _advance(self, infills: Population, **_kwargs: Any) -> None:
        self.pop = Population.merge(self.pop, infills)[-self.pop_size :]


class LocalSearch(_Single):
    """Many hill climbs at a time, each restarted where it finds nothing better for a while.

    Each climber tries a mutant of its network and moves there if it is no worse.

    Args:
        pop_size: climbers.
        patience: mutants in a row that are no better, after which a climber starts anew.
        **kwargs: of pymoo's ``Algorithm``.

    Raises:
        UserError: an argument is out of range; at setup, several objectives.
    """

    title = "local-search"

    def __init__(self, pop_size: int = 100, patience: int = 200, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_least(1, pop_size=pop_size, patience=patience)
        self.pop_size, self.patience = pop_size, patience

    def _initialize_advance(self, infills: Population, **_kwargs: Any) -> None:
        super()._initialize_advance(infills)
        self.idle = np.zeros(len(infills), dtype=np.int64)

    def _infill(self) -> Population:
        X = self._mutants(self.pop.get("X"))
        stuck = np.flatnonzero(self.idle >= self.patience)
        if len(stuck):
            X[stuck] = sampled(self.problem, len(stuck), self.random_state).get("X")
        infills = Population.new(X=X)
        infills.set("climber", np.arange(len(X)))
        return infills

    def _advance(self, infills: Population, **_kwargs: Any) -> None:
        for child in infills:
            i = child.get("climber")
            restart = self.idle[i] >= self.patience
            strictly = _better(child, self.pop[i])
            if restart or not _better(self.pop[i], child):
                self.pop[i] = child
            self.idle[i] = 0 if restart or strictly else self.idle[i] + 1

"""APQ's search as its authors released it, for comparison with the algorithm of the paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from pymoo.core.algorithm import Algorithm
from pymoo.core.population import Population
from pymoo.util.display.single import SingleObjectiveOutput

from apq_moo.algorithms.apq.top_k import check_arguments
from apq_moo.algorithms.base import require_one_objective, sampled
from apq_moo.arrays import IntArray, first_occurrences
from apq_moo.errors import UserError
from apq_moo.problems.operators import block_index
from apq_moo.problems.variation import cross, n_units

if TYPE_CHECKING:
    from apq_moo.problems import APQProblem

Variation = Callable[[IntArray, int], IntArray]

MAX_TRIES = 10_000
"""Draws for a child under the limits, after which the search is given up."""


class ReleasedApqGA(Algorithm):  # type: ignore[misc]
    """The released code's behaviour, in which it departs from the paper's Algorithm 1.

    1. Candidates are ranked by the accuracy predicted with every bit-width at its largest, so that
       the search cannot tell bit policies apart.
    2. Of the children that are scored only the first half counts, which are the mutants; crossover
       has no effect, and half of the initial population has none.
    3. Depth never shrinks: mutation leaves it, crossover only makes networks deeper.
    4. Children that break a limit are drawn again, one by one, without end where none meets it.
       Here that ends with an error after :data:`MAX_TRIES` draws.
    5. The depth gene of a stage with one depth does nothing; this encoding has none.

    What counts is what it keeps, the ``n_top`` first ones by that accuracy, of which the released
    code prints the first; a run's front is made of these, not of all that were scored.

    The released code also checks skipped blocks against the forbidden rule; here they have no genes
    to check.

    Args:
        pop_size: N of Algorithm 1, at least 2.
        n_top: its k.
        prob: its mutation probability, of each block.
        **kwargs: of pymoo's ``Algorithm``.

    Attributes:
        pop: what it keeps, best first by the accuracy that it sees.
        opt: the first of these.
    """

    title = "apq-ga-released"

    def __init__(
        self, pop_size: int = 100, n_top: int = 25, prob: float = 0.1, **kwargs: Any
    ) -> None:
        kwargs.setdefault("output", SingleObjectiveOutput())
        super().__init__(**kwargs)
        check_arguments(pop_size, n_top, prob, MAX_TRIES)
        self.pop_size, self.n_top, self.prob = pop_size, n_top, prob

    def _setup(self, problem: APQProblem, **_kwargs: Any) -> None:
        require_one_objective(problem, self.title)

    def _initialize_infill(self) -> Population:
        return self._first_half_counts(sampled(self.problem, self.pop_size, self.random_state))

    def _initialize_advance(self, infills: Population, **_kwargs: Any) -> None:
        self.pop = self._top(infills[infills.get("counts").astype(bool)])

    def _infill(self) -> Population:
        space = self.problem.space
        top = block_index(self.problem, self.pop)
        n_mutants = self.pop_size // 2
        mutants = self._feasible(self._mutation, top, n_mutants)
        crossed = self._feasible(self._crossover, top, self.pop_size - n_mutants)
        X = space.from_block_index(np.vstack([mutants, crossed]))
        return self._first_half_counts(Population.new(X=X))

    def _first_half_counts(self, infills: Population) -> Population:
        infills.set("counts", np.arange(len(infills)) < self.pop_size // 2)
        return infills

    def _advance(self, infills: Population, **_kwargs: Any) -> None:
        kept = infills[infills.get("counts").astype(bool)]
        self.pop = self._top(Population.merge(self.pop, kept))

    def _feasible(self, vary: Variation, top: IntArray, n: int) -> IntArray:
        index = vary(top, n)
        for _ in range(MAX_TRIES):
            broken = np.flatnonzero(~self.problem.region.contains_blocks(index))
            if not len(broken):
                return index
            index[broken] = vary(top, len(broken))
        raise UserError(
            f"{self.title} drew {MAX_TRIES:,} children in a row that break a limit; the released "
            "code would go on forever: raise the limit, or use apq-ga"
        )

    def _crossover(self, top: IntArray, n: int) -> IntArray:
        rng, k = self.random_state, len(top)
        first = rng.integers(0, k, size=n)
        second = (first + rng.integers(1, max(k, 2), size=n)) % k
        A, B = top[first], top[second]
        space, layout = self.problem.space, self.problem.space.layout
        from_second = rng.random((n, n_units(space))) < 0.5
        deeper = (layout.depths(B) > layout.depths(A))[:, list(space.depth_columns)]
        from_second[:, : deeper.shape[1]] &= deeper
        return cross(space, A, B, from_second)

    def _mutation(self, top: IntArray, n: int) -> IntArray:
        rng, options = self.random_state, self.problem.region.options
        parents = top[rng.integers(0, len(top), size=n)]
        space = self.problem.space
        shape, blocks = (n, n_units(space)), slice(len(space.depth_columns), None)
        chosen = (rng.random(shape) < self.prob)[:, blocks] & space.layout.active(parents)
        drawn: IntArray = options.draw(rng.random(shape)[:, blocks])
        return np.where(chosen, drawn, parents)

    def _top(self, candidates: Population) -> Population:
        X, F, CV = candidates.get("X", "F", "CV")
        worth = F[:, 0]
        if self.problem.objectives == ("acc",):
            worth = -self.problem.evaluate_raw(self._widest(X))["acc"]
        order = np.lexsort((worth, CV[:, 0]))
        return candidates[order[first_occurrences(X[order])[: self.n_top]]]

    def _widest(self, X: IntArray) -> IntArray:
        """The same architectures with every bit-width at its largest."""
        space = self.problem.space
        widest: IntArray = X.copy()
        widest[:, space.bit_columns] = space.n_options[space.bit_columns] - 1
        canonical: IntArray = space.canonical(widest)
        return canonical

    def _set_optimum(self) -> None:
        """The first of the kept ones, by the accuracy that the search sees."""
        self.opt = self.pop[:1]

"""Systems as algorithms of pymoo's: ask for networks, tell what they are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pymoo.core.algorithm import Algorithm
from pymoo.core.population import Population
from pymoo.util.display.single import SingleObjectiveOutput

from apq_moo.algorithms.base import check_least, require_one_objective
from apq_moo.algorithms.baselines.system import Asking, System, Target, within
from apq_moo.arrays import IntArray

if TYPE_CHECKING:
    from apq_moo.problems import APQProblem


class SteppedSearch(Algorithm):  # type: ignore[misc]
    """Drives a system under the limits of one problem.

    Args:
        system: the system.
        budget: evaluations that it plans with; it never asks for more.
        **kwargs: of pymoo's ``Algorithm``.

    Attributes:
        pop: the last batch.
        opt: the best network of all, by violation, then accuracy.

    Raises:
        UserError: the budget is out of range; at setup, the problem has several objectives, or the
            system cannot search it.
    """

    opt: Population | None

    def __init__(self, system: System, budget: int = 1000, **kwargs: Any) -> None:
        kwargs.setdefault("output", SingleObjectiveOutput())
        super().__init__(**kwargs)
        check_least(1, budget=budget)
        self.system, self.budget = system, budget
        self._asking: Asking[Any] | None = None
        self._next: IntArray | None = None

    def _setup(self, problem: APQProblem, **_kwargs: Any) -> None:
        require_one_objective(problem, self.system.title)
        self.system.smallest(problem, 1)

    def _initialize_infill(self) -> Population:
        target = Target(self.problem, self.budget, self.random_state)
        self._asking = within(self.system.search([target]), self.budget)
        self._next = next(self._asking, None)
        return self._infill()

    def _initialize_advance(self, infills: Population, **_kwargs: Any) -> None:
        self._advance(infills)

    def _infill(self) -> Population:
        index = np.empty((0, self.problem.space.n_blocks), np.int64)
        if self._next is not None:
            index = self._next
        return Population.new(X=self.problem.space.from_block_index(index))

    def _advance(self, infills: Population, **_kwargs: Any) -> None:
        self.pop = infills
        asked, self._next = self._next, None
        if asked is None or self._asking is None or len(infills) < len(asked):
            return
        try:
            self._next = self._asking.send(-infills.get("F")[:, 0])
        except StopIteration:
            return

    def has_next(self) -> bool:
        """Whether there is something left to evaluate."""
        return not (self.is_initialized and self._next is None) and super().has_next()

    def _set_optimum(self) -> None:
        known = self.pop if self.opt is None else Population.merge(self.opt, self.pop)
        order = np.lexsort((known.get("F")[:, 0], known.get("CV")[:, 0]))
        self.opt = known[order[:1]]

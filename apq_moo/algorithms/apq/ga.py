"""APQ's evolutionary search (Wang et al., CVPR 2020, Algorithm 1) as a pymoo algorithm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymoo.core.algorithm import Algorithm
from pymoo.core.population import Population
from pymoo.util.display.single import SingleObjectiveOutput

from apq_moo.algorithms.apq.top_k import TopK, check_arguments
from apq_moo.algorithms.base import require_one_objective, sampled
from apq_moo.arrays import IntArray
from apq_moo.problems.operators import block_index

if TYPE_CHECKING:
    from apq_moo.problems import APQProblem


class ApqGA(Algorithm):  # type: ignore[misc]
    """Keeps the k best networks and fills each round with their crossovers and mutants.

    One objective under limits on costs; every candidate ever evaluated meets them. Children are
    drawn, parents included, until enough meet the limits; after ``max_redraws`` further attempts
    those still missing are repaired (:meth:`FeasibleRegion.repair`), so that a round always ends.
    A limit on ``acc``, which cannot be checked before evaluation, ranks what breaks it behind what
    meets it. The work is done by :class:`apq_moo.algorithms.apq.top_k.TopK`.

    A round evaluates ``pop_size`` children, so there are ``pop_size * (rounds + 1)`` evaluations in
    all. Top_k is a set: of equal networks one counts. Ties keep what was evaluated first.

    Args:
        pop_size: N of Algorithm 1, at least 2.
        n_top: its k.
        prob: its mutation probability, of each depth and each block.
        max_redraws: further attempts to draw enough children that meet the limits, before repair.
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
        check_arguments(pop_size, n_top, prob, max_redraws)
        self.pop_size = pop_size
        self.n_top = n_top
        self.prob = prob
        self.max_redraws = max_redraws

    def _setup(self, problem: APQProblem, **_kwargs: Any) -> None:
        require_one_objective(problem, self.title)
        self._search = TopK(
            [problem.region],
            [self.random_state],
            pop_size=self.pop_size,
            n_top=self.n_top,
            prob=self.prob,
            max_redraws=self.max_redraws,
        )

    def _initialize_infill(self) -> Population:
        return sampled(self.problem, self.pop_size, self.random_state)

    def _initialize_advance(self, infills: Population, **_kwargs: Any) -> None:
        self.pop = infills[self._tell(infills)]

    def _infill(self) -> Population:
        (index,) = self._search.children([0])
        return Population.new(X=self.problem.space.from_block_index(index))

    def _advance(self, infills: Population, **_kwargs: Any) -> None:
        self.pop = Population.merge(self.pop, infills)[self._tell(infills)]

    def _tell(self, infills: Population) -> IntArray:
        """Which of the earlier best and the new ones are the best now."""
        F, CV = infills.get("F", "CV")
        index = block_index(self.problem, infills)
        return self._search.tell(0, index, CV[:, 0], F[:, 0])

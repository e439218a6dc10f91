"""Random search: the baseline that knows nothing but the limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymoo.core.algorithm import Algorithm
from pymoo.core.population import Population
from pymoo.util.display.multi import MultiObjectiveOutput
from pymoo.util.optimum import filter_optimum

from apq_moo.algorithms.base import check_least, require_apq_problem, sampled

if TYPE_CHECKING:
    from apq_moo.problems import APQProblem


class RandomSearch(Algorithm):  # type: ignore[misc]
    """Draws batches from the feasible region, for any number of objectives.

    They are of all sizes, or uniform, as the problem says; see :meth:`APQProblem.draw`.

    Args:
        pop_size: networks a batch.
        **kwargs: of pymoo's ``Algorithm``.

    Attributes:
        pop: the last batch.
        opt: the best networks of all batches.

    Raises:
        UserError: ``pop_size`` is out of range; at setup, the problem is of another kind.
    """

    opt: Population | None

    def __init__(self, pop_size: int = 100, **kwargs: Any) -> None:
        kwargs.setdefault("output", MultiObjectiveOutput())
        super().__init__(**kwargs)
        check_least(1, pop_size=pop_size)
        self.pop_size = pop_size

    def _setup(self, problem: APQProblem, **_kwargs: Any) -> None:
        require_apq_problem(problem, "random")

    def _initialize_infill(self) -> Population:
        return self._infill()

    def _infill(self) -> Population:
        return sampled(self.problem, self.pop_size, self.random_state)

    def _advance(self, infills: Population, **_kwargs: Any) -> None:
        self.pop = infills

    def _set_optimum(self) -> None:
        known = self.pop if self.opt is None else Population.merge(self.opt, self.pop)
        self.opt = filter_optimum(known, least_infeasible=True)

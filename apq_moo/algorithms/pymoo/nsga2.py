"""pymoo's NSGA-II for large populations: the same course, with less time in Python."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.evaluator import Evaluator
from pymoo.core.population import Population
from pymoo.operators.selection.tournament import TournamentSelection
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding

from apq_moo.algorithms.pymoo.tournaments import by_dominance
from apq_moo.problems.operators import block_index, set_values

if TYPE_CHECKING:
    from apq_moo.problems import APQProblem

_ARRAYS = {name: attrgetter(f"_{name}") for name in ("X", "F", "G")}
"""What reads arrays past pymoo's properties, which take longer than everything else here."""

_DATA = frozenset({"rank", "crowding"})


class QuickPopulation(Population):  # type: ignore[misc]
    """A population that reads the attributes that NSGA-II needs without asking what they are."""

    def get(self, *args: str, to_numpy: bool = True, **kwargs: Any) -> Any:
        """See pymoo's ``Population``."""
        if kwargs or not to_numpy:
            return super().get(*args, to_numpy=to_numpy, **kwargs)
        columns = tuple(self._column(name) for name in args)
        return columns[0] if len(args) == 1 else columns

    def _column(self, name: str) -> NDArray[Any]:
        people = self.tolist()
        if name in {"CV", "FEAS"}:
            known = (person._CV if person._CV is not None else person.CV for person in people)
            violation = np.array([cv[0] for cv in known])[:, None]
            return violation if name == "CV" else violation <= 0
        if name in _ARRAYS:
            rows = [*map(_ARRAYS[name], people)]
            return np.concatenate(rows).reshape(len(rows), -1) if rows else np.array(rows)
        if name in _DATA:
            return np.array([person.data.get(name) for person in people])
        column: NDArray[Any] = super().get(name)
        return column


class QuickEvaluator(Evaluator):  # type: ignore[misc]
    """Evaluates the networks that individuals remember, without making matrices of genotypes."""

    def _eval(self, problem: APQProblem, pop: Population, *_args: Any, **_kwargs: Any) -> None:
        set_values(pop, *problem.evaluate_blocks(block_index(problem, pop)))


class QuickNSGA2(NSGA2):  # type: ignore[misc]
    """NSGA-II whose evaluation, tournaments and survival work on whole columns.

    Args:
        **kwargs: of pymoo's ``NSGA2``.
    """

    pop: Any

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("selection", TournamentSelection(func_comp=by_dominance))
        kwargs.setdefault("survival", RankAndCrowding())
        kwargs.setdefault("evaluator", QuickEvaluator())
        super().__init__(**kwargs)

    def _initialize_advance(self, infills: Population, **kwargs: Any) -> None:
        super()._initialize_advance(infills=infills.view(QuickPopulation), **kwargs)

    def _advance(self, infills: Population | None = None, **kwargs: Any) -> None:
        pop = self.pop if infills is None else Population.merge(self.pop, infills)
        self.pop = self.survival.do(
            self.problem,
            pop.view(QuickPopulation),
            n_survive=self.pop_size,
            algorithm=self,
            random_state=self.random_state,
            **kwargs,
        ).view(QuickPopulation)

"""pymoo's NSGA-II for large populations: the same course, with less time in Python."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.population import Population
from pymoo.operators.selection.tournament import TournamentSelection
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding

from apq_moo.algorithms.tournaments import by_dominance

_PROPERTIES = frozenset({"X", "F", "G"})
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
            violation = np.array([person.CV[0] for person in people])[:, None]
            return violation if name == "CV" else violation <= 0
        if name in _PROPERTIES:
            rows = [getattr(person, name) for person in people]
            return np.concatenate(rows).reshape(len(rows), -1) if rows else np.array(rows)
        if name in _DATA:
            return np.array([person.data.get(name) for person in people])
        column: NDArray[Any] = super().get(name)
        return column


class QuickNSGA2(NSGA2):  # type: ignore[misc]
    """NSGA-II whose tournaments and survival work on whole columns.

    Args:
        **kwargs: of pymoo's ``NSGA2``.
    """

    pop: Any

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("selection", TournamentSelection(func_comp=by_dominance))
        kwargs.setdefault("survival", RankAndCrowding())
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

"""Searching a predicted problem by any strategy."""

from __future__ import annotations

from collections.abc import Callable

from apq_moo.algorithms.strategy import Context, Strategy
from apq_moo.algorithms.surrogate.refit import InnerSearch
from apq_moo.arrays import IntArray
from apq_moo.problems import APQProblem
from apq_moo.problems.evaluated import Evaluated

INNER_BUDGET = 3000
"""Predictions of each search."""


def searched_by(
    make: Callable[[], Strategy],
    *,
    budget: int = INNER_BUDGET,
    pop_size: int = 100,
    split: Callable[[Context], Context] | None = None,
) -> InnerSearch:
    """A search of predicted accuracies.

    Args:
        make: makes the strategy, new each time.
        budget: predictions of each search.
        pop_size: networks a round.
        split: gives a context its parts, for strategies that take these.
    """

    def search(problem: APQProblem, warm: IntArray, seed: int) -> Evaluated:
        context = Context(problem, budget, seed, pop_size, warm if len(warm) else None)
        rounds = make().rounds(context if split is None else split(context))
        return Evaluated.join(list(rounds))

    return search

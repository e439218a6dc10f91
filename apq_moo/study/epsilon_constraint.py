"""The epsilon-constraint method: one objective under each of several limits on the others.

Haimes, Lasdon and Wismer, On a Bicriterion Formulation of the Problems of Integrated System
Identification and System Optimization, IEEE Transactions on Systems, Man and Cybernetics 1, 1971.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import ClassVar

import numpy as np

from apq_moo.algorithms import AlgorithmEntry
from apq_moo.algorithms.strategy import Context, State, Strategy, restoring
from apq_moo.arrays import FloatArray, IntArray
from apq_moo.hardware import ACC
from apq_moo.problems import UNIFORM, APQProblem
from apq_moo.problems.evaluated import Evaluated

_N_SAMPLES = 1000


def main_objective(objectives: tuple[str, ...]) -> str:
    """What a single-objective algorithm optimises: ``acc``, or the first where it is not asked."""
    return ACC if ACC in objectives else objectives[0]


def epsilon_limits(
    problem: APQProblem, others: tuple[str, ...], points: int, seed: int
) -> list[dict[str, float]]:
    """Choose the limits.

    For one cost, the limits are quantiles of its values over networks that a search may begin with
    (:meth:`APQProblem.draw`), equally
    spaced from half a step up to the largest. For several, the quantile levels are a scrambled
    Halton sequence; a combination that no sample meets is raised to the costs of the sample that
    exceeds it least.

    Args:
        problem: the problem with all objectives and the user's constraints.
        others: the costs to be limited.
        points: how many.
        seed: of the samples and the sequence.

    Returns:
        For each point its limits by name; one point without limits if there are no costs.
    """
    if not others:
        return [{}]
    rng = np.random.default_rng([seed, 5])
    X = problem.draw(_N_SAMPLES, rng)
    costs = problem.costs(problem.space.block_index(X))
    values = np.column_stack([costs[name] for name in others])
    levels = _levels(points, len(others), seed)
    limits = []
    for level in levels:
        limit = np.array(
            [np.quantile(values[:, i], u, method="higher") for i, u in enumerate(level)]
        )
        excess = ((values - limit) / values.max(axis=0)).max(axis=1)
        if excess.min() > 0:
            limit = np.maximum(limit, values[excess.argmin()])
        limits.append(dict(zip(others, limit.tolist(), strict=True)))
    return limits


def _levels(points: int, dimensions: int, seed: int) -> FloatArray:
    """Quantile levels in (0, 1], shape ``(points, dimensions)``."""
    if dimensions == 1:
        return np.linspace(min(1.0, 0.5 / points), 1.0, points)[:, None]
    from scipy.stats.qmc import Halton

    levels: FloatArray = 1.0 - Halton(dimensions, scramble=True, rng=seed).random(points)
    return levels


def with_parts(context: Context, points: int) -> Context:
    """A context with a part for each limit; they share its evaluations.

    The loosest limit comes first: its first networks are of all sizes, so that there is a front
    from the beginning. (Uniform ones are not, and keep the order that they always had.)

    Args:
        context: of the whole search.
        points: limits; one part without further limits where there are no other objectives.
    """
    problem, seed = context.problem, context.seed
    main = main_objective(problem.objectives)
    others = tuple(name for name in problem.objectives if name != main)
    limits = epsilon_limits(problem, others, points, seed)
    if problem.start != UNIFORM:
        limits.reverse()
    shares = np.diff(np.linspace(0, context.budget, len(limits) + 1).astype(int))
    seeds = np.random.SeedSequence([seed, 6]).generate_state(len(limits)) >> 1
    parts = tuple(
        replace(
            context,
            problem=problem.with_limits({**problem.constraints, **under}, main),
            of=problem,
            budget=int(share),
            seed=int(own),
        )
        for under, share, own in zip(limits, shares, seeds, strict=True)
    )
    return replace(context, parts=parts)


def strategy_of(entry: AlgorithmEntry) -> Strategy:
    """A new search by an algorithm that yields a front, limit by limit where need be."""
    own = entry.strategy()
    return EpsilonConstraint(entry.strategy) if entry.swept and not own.takes_parts else own


class EpsilonConstraint(Strategy):
    """Carries out the parts of a context one after the other.

    Args:
        make: makes the strategy of a part.
    """

    takes_parts: ClassVar[bool] = True

    def __init__(self, make: Callable[[], Strategy]) -> None:
        self._make = make
        self._part = make()
        self._number = 0
        self._ended: list[IntArray] = []

    def rounds(self, context: Context) -> Iterator[Evaluated]:
        """See :class:`Strategy`."""
        while True:
            yield from self._part.rounds(context.parts[self._number])
            if self._number + 1 == len(context.parts):
                return
            self._ended += self._present()
            self._number, self._part = self._number + 1, self._make()

    def _present(self) -> list[IntArray]:
        held = self._part.population()
        return [] if held is None else [held]

    def population(self) -> IntArray | None:
        """What the strategies of all parts held, but for those that ended before :meth:`load`."""
        held = [*self._ended, *self._present()]
        return np.vstack(held) if held else None

    def dump(self) -> State | None:
        """See :class:`Strategy`."""
        part = self._part.dump()
        return None if part is None else {"number": self._number, "part": part}

    def load(self, state: State) -> None:
        """See :class:`Strategy`."""
        with restoring():
            self._number = int(state["number"])
            self._part.load(state["part"])

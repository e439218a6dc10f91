"""Searches of any kind behind one interface: rounds of evaluated networks.

A strategy asks its context what networks are worth and yields those of each round. What was spent
is counted by whoever records the rounds. A stopped search is run again, with what it had evaluated
answered from the record; a strategy for which that takes long brings :meth:`Strategy.dump` and
:meth:`Strategy.load`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import numpy as np

from apq_moo.algorithms.surrogate.refit import Refit
from apq_moo.arrays import FloatArray, IntArray
from apq_moo.errors import UserError
from apq_moo.hardware import ACC, minimised
from apq_moo.problems import AdditiveSource, APQProblem
from apq_moo.problems.evaluated import Evaluated

State: TypeAlias = dict[str, Any]
"""What a search's further course depends on: values that survive JSON, arrays, and such states."""


class Replay:
    """What an earlier, interrupted run of the same search has evaluated, handed out in order.

    Args:
        known: these networks; None for a search that begins.
    """

    def __init__(self, known: Evaluated | None = None) -> None:
        self._known, self._next = known, 0

    @property
    def rows(self) -> int:
        """How many networks there are in all."""
        return 0 if self._known is None else len(self._known)

    def take(self, problem: APQProblem, index: IntArray) -> FloatArray | None:
        """Accuracies in percent of the next networks, or None where the record has ended.

        Args:
            problem: by which they were recorded; ``acc`` is among its objectives.
            index: block configurations of the networks that the search asks for now.

        Raises:
            UserError: these are not the networks that were recorded.
        """
        if self._known is None or self._next >= len(self._known):
            return None
        rows = slice(self._next, self._next + len(index))
        self._next = rows.stop
        recorded, asked = self._known.X[rows], problem.space.from_block_index(index)
        if not np.array_equal(recorded, asked):
            raise UserError(
                "this search cannot be resumed: run again, it asks for other networks than it has "
                "evaluated; an algorithm must take its randomness only from the generator that it "
                "is given. Begin a new run"
            )
        if ACC not in problem.objectives:
            return None
        natural = minimised(problem.objectives, self._known.F[rows])
        return natural[:, problem.objectives.index(ACC)]


@dataclass(frozen=True)
class Context:
    """What a search is given.

    Attributes:
        problem: what it optimises.
        budget: its evaluations.
        seed: of its randomness.
        pop_size: networks a round.
        warm: networks to begin with, as canonical genotypes; or None.
        surrogate: an accuracy that adds up over blocks, for algorithms that need one.
        refit: what a measuring search predicts by; None for its defaults.
        of: the whole problem, where this is a part of a search; else None.
        parts: where one network is sought under each of several limits, a context for each.
        replay: what was evaluated before the search was interrupted.
    """

    problem: APQProblem
    budget: int
    seed: int
    pop_size: int = 100
    warm: IntArray | None = None
    surrogate: AdditiveSource | None = None
    refit: Refit | None = None
    of: APQProblem | None = None
    parts: tuple[Context, ...] = ()
    replay: Replay = field(default_factory=Replay)

    @property
    def whole(self) -> APQProblem:
        """The problem with all objectives and the user's limits; networks are recorded by it."""
        return self.of or self.problem

    @property
    def generator(self) -> np.random.Generator:
        """A generator of the seed, always in its first state."""
        return np.random.default_rng(self.seed)

    def measure(self, index: IntArray, X: IntArray | None = None) -> dict[str, FloatArray]:
        """All quantities of the whole problem; see :meth:`APQProblem.measure`.

        Args:
            index: block configurations, shape ``(n, n_blocks)``.
            X: the same networks as canonical genotypes, where they are at hand.

        Raises:
            UserError: an accuracy is unusable, or the search cannot be resumed.
        """
        known = self.replay.take(self.whole, index)
        if known is None:
            return self.whole.measure(index, X)
        return self.whole.costs(index) | {ACC: known}

    def evaluated(self, index: IntArray, values: Mapping[str, FloatArray]) -> Evaluated:
        """Networks as a round yields them, judged by the user's limits.

        Args:
            index: block configurations, shape ``(n, n_blocks)``.
            values: what :meth:`measure` said of them.
        """
        F, G = self.whole.judge(values, index)
        X = self.whole.space.from_block_index(index, self.whole.space.gene_type)
        return Evaluated(X, F, np.all(G <= 0, axis=1))


@contextmanager
def restoring() -> Iterator[None]:
    """Says in one line that a stored state is that of something else.

    Raises:
        UserError: it is.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UserError("the stored state of this search does not fit its algorithm") from error


class Strategy(ABC):
    """A search of any kind.

    Attributes:
        takes_parts: whether :meth:`rounds` takes all parts of a context itself, where a front is
            sought limit by limit; else it is called for one part after the other.
    """

    takes_parts: ClassVar[bool] = False

    @abstractmethod
    def rounds(self, context: Context) -> Iterator[Evaluated]:
        """Search, round by round.

        Its course must depend on nothing but the context, all randomness on its seed.

        Args:
            context: see :class:`Context`.

        Yields:
            The networks that a round evaluated, in the order in which the context measured them.
        """

    def smallest(self, problem: APQProblem, points: int) -> int | None:
        """The smallest budget that it can work with; None where that follows from populations.

        Args:
            problem: what it is to search; its accuracies need not be at hand.
            points: limits under which networks are sought.

        Raises:
            UserError: it cannot search this problem.
        """
        del problem, points
        return None

    def population(self) -> IntArray | None:
        """Canonical genotypes that it holds now, if it holds any, shape ``(n, n_var)``."""
        return None

    def dump(self) -> State | None:
        """What the further course depends on, between two rounds.

        None where a stopped search is to be run again from its record.
        """
        return None

    def load(self, state: State) -> None:
        """Go on from what :meth:`dump` returned, before :meth:`rounds` is called.

        Raises:
            UserError: here or by :meth:`rounds`: it is the state of something else; see
                :func:`restoring`.
        """
        raise NotImplementedError


def evenly(n: int, rest: int) -> slice | IntArray:
    """Which of ``n`` children to evaluate if only ``rest`` evaluations are left.

    Evenly spread, since crossover's and mutation's children come one after the other.
    """
    return slice(None) if n <= rest else np.linspace(0, n - 1, rest).astype(np.int64)

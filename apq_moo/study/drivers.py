"""Driving algorithms round by round: ask for networks, evaluate them, tell what they are worth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pymoo.core.algorithm import Algorithm
from pymoo.core.population import Population
from pymoo.core.termination import NoTermination

from apq_moo.algorithms.state import capture, generator_state, restore, set_generator
from apq_moo.algorithms.top_k import TopK
from apq_moo.arrays import FloatArray, IntArray
from apq_moo.problems import APQProblem
from apq_moo.study.archive import Archive
from apq_moo.study.warm_start import begin_with

if TYPE_CHECKING:
    from apq_moo.algorithms import AlgorithmEntry


State = tuple[Any, list[NDArray[Any]]]
"""A tree that survives JSON, and the arrays that it refers to."""


@dataclass(frozen=True)
class Point:
    """One point of a sweep (or the whole of a multi-objective search).

    Attributes:
        problem: what is optimised there.
        budget: its evaluations.
        seed: of the algorithm.
    """

    problem: APQProblem
    budget: int
    seed: int


class Driver(ABC):
    """Carries out some points of a search.

    Args:
        whole: the problem with all objectives and the user's constraints.
        warm: networks to begin with, or None.
    """

    def __init__(self, whole: APQProblem, warm: IntArray | None) -> None:
        self.whole = whole
        self.warm = warm

    @abstractmethod
    def step(self) -> Archive | None:
        """The next round: what it evaluated, or None once there is nothing left to do."""

    @abstractmethod
    def population(self) -> IntArray:
        """Canonical genotypes that the algorithm holds now, those of all points one after another.

        Populations of points that ended before a :meth:`restore` are not among them.
        """

    @abstractmethod
    def state(self) -> State:
        """What the further course depends on, between two rounds."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Go on from a state, in a driver that has done nothing yet."""


class PymooDriver(Driver):
    """Any algorithm of pymoo's, one point after the other.

    Args:
        whole: see :class:`Driver`.
        warm: see :class:`Driver`.
        points: what to do.
        entry: the algorithm.
        pop_size: of it.
        surrogate: for algorithms that need one.
    """

    def __init__(
        self,
        whole: APQProblem,
        warm: IntArray | None,
        points: Sequence[Point],
        entry: AlgorithmEntry,
        pop_size: int,
        surrogate: Any,
    ) -> None:
        super().__init__(whole, warm)
        self._points, self._entry, self._pop_size = points, entry, pop_size
        self._surrogate = surrogate
        self._number = 0
        self._done = 0
        self._algorithm: Algorithm | None = None
        self._ended: list[IntArray] = []

    def _make(self, point: Point) -> Algorithm:
        available = {"budget": point.budget, "surrogate": self._surrogate}
        needed = {name: available[name] for name in self._entry.needs}
        algorithm = self._entry.factory(point.problem, pop_size=self._pop_size, **needed)
        algorithm.setup(point.problem, termination=NoTermination(), seed=point.seed)
        return algorithm

    def step(self) -> Archive | None:
        """One round of the present point, or the first of the next."""
        while self._number < len(self._points):
            part = self._round(self._points[self._number])
            if part is not None:
                return part
            self._ended.append(self._present())
            self._number, self._done, self._algorithm = self._number + 1, 0, None
        return None

    def population(self) -> IntArray:
        """See :class:`Driver`."""
        return np.vstack([*self._ended, self._present()])

    def _present(self) -> IntArray:
        """What the algorithm of the present point holds."""
        members = self._algorithm.pop if self._algorithm is not None else None
        if members is None or len(members) == 0:
            return np.empty((0, self.whole.space.n_var), dtype=np.int64)
        return self.whole.genotypes(np.array([member.X for member in members]))

    def _round(self, point: Point) -> Archive | None:
        if self._algorithm is None:
            self._algorithm = self._make(point)
        algorithm = self._algorithm
        if self._done >= point.budget or not algorithm.has_next():
            return None
        infills = algorithm.ask()
        if infills is None or len(infills) == 0:
            return None
        if self.warm is not None and self._done == 0:
            X = infills.get("X")
            begin_with(X, self.warm, point.problem)
            infills.set("X", X)
        infills = infills[_spread(len(infills), point.budget - self._done)]
        X = point.problem.genotypes(np.array([infill.X for infill in infills]))
        index = point.problem.space.block_index(X)
        F, G = point.problem.evaluate_blocks(index, X)
        violation = np.maximum(G, 0.0).sum(axis=1, keepdims=True)
        _assign(infills, F, G, violation)
        algorithm.evaluator.n_eval += len(infills)
        algorithm.tell(infills=infills)
        self._done += len(infills)
        X = X.astype(self.whole.space.gene_type)
        return Archive(X, self._all(point, index, F), violation[:, 0] <= 0)

    def _all(self, point: Point, index: IntArray, F: FloatArray) -> FloatArray:
        """All objectives, where the algorithm saw only the main one."""
        if point.problem.objectives == self.whole.objectives:
            return F
        costs = self.whole.costs(index)
        (main,) = point.problem.objectives
        return np.column_stack(
            [F[:, 0] if name == main else costs[name] for name in self.whole.objectives]
        )

    def state(self) -> State:
        """The algorithm's, and where the sweep is."""
        tree: Any = None
        arrays: list[NDArray[Any]] = []
        if self._algorithm is not None:
            tree, arrays = capture(self._algorithm)
        return {"number": self._number, "done": self._done, "algorithm": tree}, arrays

    def restore(self, state: State) -> None:
        """See :class:`Driver`."""
        tree, arrays = state
        self._number, self._done = int(tree["number"]), int(tree["done"])
        if tree["algorithm"] is not None:
            self._algorithm = self._make(self._points[self._number])
            restore(self._algorithm, tree["algorithm"], arrays)


class TopKDriver(Driver):
    """APQ's evolution at all points of a sweep side by side, in one batch a round.

    Each point takes the same course as :class:`apq_moo.algorithms.ApqGA` does alone.

    Args:
        whole: see :class:`Driver`.
        warm: see :class:`Driver`.
        points: what to do; all have the same main objective.
        pop_size: children of a round, for each point.
    """

    def __init__(
        self, whole: APQProblem, warm: IntArray | None, points: Sequence[Point], pop_size: int
    ) -> None:
        super().__init__(whole, warm)
        self._points = points
        self._rngs = [np.random.default_rng(point.seed) for point in points]
        regions = [point.problem.region for point in points]
        self._search = TopK(regions, self._rngs, pop_size=pop_size)
        self._main = whole.objectives.index(points[0].problem.objectives[0])
        self._done = np.zeros(len(points), dtype=np.int64)

    def step(self) -> Archive | None:
        """One round of all points that have budget left."""
        live = [i for i, point in enumerate(self._points) if self._done[i] < point.budget]
        if not live:
            return None
        parts = self._search.children(live) if self._done.any() else self._first(live)
        parts = [
            part[_spread(len(part), self._points[i].budget - self._done[i])]
            for i, part in zip(live, parts, strict=True)
        ]
        index = np.concatenate(parts)
        F, G = self.whole.evaluate_blocks(index)
        violation = np.maximum(G, 0.0).sum(axis=1)
        begin = 0
        for i, part in zip(live, parts, strict=True):
            rows = slice(begin, begin + len(part))
            self._search.tell(i, part, violation[rows], F[rows, self._main])
            self._done[i] += len(part)
            begin = rows.stop
        X = self.whole.space.from_block_index(index, self.whole.space.gene_type)
        return Archive(X, F, violation <= 0)

    def _first(self, live: Sequence[int]) -> list[IntArray]:
        parts = []
        for i in live:
            X = self._search.first(i)
            if self.warm is not None:
                begin_with(X, self.warm, self._points[i].problem)
            parts.append(self.whole.space.block_index(X))
        return parts

    def population(self) -> IntArray:
        """See :class:`Driver`."""
        best = np.vstack(self._search.index)
        return self.whole.space.from_block_index(best)

    def state(self) -> State:
        """The best networks of all points, and their generators."""
        state = self._search.state()
        names = sorted(state)
        tree = {
            "names": names,
            "done": self._done.tolist(),
            "rngs": [generator_state(rng) for rng in self._rngs],
        }
        return tree, [state[name] for name in names]

    def restore(self, state: State) -> None:
        """See :class:`Driver`."""
        tree, arrays = state
        self._done[:] = tree["done"]
        for rng, stored in zip(self._rngs, tree["rngs"], strict=True):
            set_generator(rng, stored)
        self._search.restore(dict(zip(tree["names"], arrays, strict=True)))


def _assign(infills: Population, F: FloatArray, G: FloatArray, violation: FloatArray) -> None:
    """What pymoo's ``Evaluator`` does, without its cost for large populations."""
    for infill, f, g, cv in zip(infills, F.copy(), G.copy(), violation, strict=True):
        infill.F, infill.G, infill.CV = f, g, cv
        infill.evaluated.update(("F", "G", "H"))


def _spread(n: int, rest: int) -> slice | IntArray:
    """Which of ``n`` children to evaluate if only ``rest`` evaluations are left.

    Evenly spread, since crossover's and mutation's children come one after the other.
    """
    return slice(None) if n <= rest else np.linspace(0, n - 1, rest).astype(np.int64)

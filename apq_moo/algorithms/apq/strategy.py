"""APQ's evolution under several limits side by side, in one batch a round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from apq_moo.algorithms.apq.top_k import TopK
from apq_moo.algorithms.base import drawn
from apq_moo.algorithms.strategy import Context, State, Strategy, evenly, restoring
from apq_moo.algorithms.warm_start import begin_with
from apq_moo.arrays import IntArray
from apq_moo.problems.evaluated import Evaluated
from apq_moo.space import Space


class ApqStrategy(Strategy):
    """Each part of a sweep takes the course that :class:`apq_moo.algorithms.ApqGA` takes alone."""

    takes_parts: ClassVar[bool] = True

    def __init__(self) -> None:
        self._state: State | None = None
        self._search: TopK | None = None
        self._space: Space | None = None

    def rounds(self, context: Context) -> Iterator[Evaluated]:
        """See :class:`Strategy`."""
        parts = context.parts
        self._space = context.whole.space
        self._rngs = [part.generator for part in parts]
        regions = [part.problem.region for part in parts]
        search = self._search = TopK(regions, self._rngs, pop_size=context.pop_size)
        self._done = np.zeros(len(parts), dtype=np.int64)
        if self._state is not None:
            with restoring():
                self._done[:] = self._state["done"]
                for rng, state in zip(self._rngs, self._state["generators"], strict=True):
                    rng.bit_generator.state = state
                search.restore(self._state["search"])
        while live := [i for i, part in enumerate(parts) if self._done[i] < part.budget]:
            asked = search.children(live) if self._done.any() else self._first(context, live)
            asked = [
                some[evenly(len(some), parts[i].budget - self._done[i])]
                for i, some in zip(live, asked, strict=True)
            ]
            index = np.concatenate(asked)
            values = context.measure(index)
            begin = 0
            for i, some in zip(live, asked, strict=True):
                rows = slice(begin, begin + len(some))
                of = {name: column[rows] for name, column in values.items()}
                F, G = parts[i].problem.judge(of, some)
                search.tell(i, some, np.maximum(G, 0.0).sum(axis=1), F[:, 0])
                self._done[i] += len(some)
                begin = rows.stop
            yield context.evaluated(index, values)

    def _first(self, context: Context, live: Sequence[int]) -> list[IntArray]:
        first = []
        for i in live:
            problem = context.parts[i].problem
            X = drawn(problem, context.pop_size, self._rngs[i])
            if context.warm is not None:
                begin_with(X, context.warm, problem)
            first.append(problem.space.block_index(X))
        return first

    def population(self) -> IntArray | None:
        """The best networks of all parts."""
        if self._search is None or self._space is None:
            return None
        best: IntArray = self._space.from_block_index(np.vstack(self._search.index))
        return best

    def dump(self) -> State | None:
        """See :class:`Strategy`."""
        if self._search is None:
            return None
        return {
            "done": self._done.tolist(),
            "generators": [rng.bit_generator.state for rng in self._rngs],
            "search": self._search.state(),
        }

    def load(self, state: State) -> None:
        """See :class:`Strategy`."""
        self._state = state

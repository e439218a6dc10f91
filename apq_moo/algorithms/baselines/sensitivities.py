"""What each option of each block costs in accuracy, if nothing else changes."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from apq_moo.algorithms.baselines.choice import Choice
from apq_moo.algorithms.baselines.uniform import with_gene
from apq_moo.arrays import FloatArray, IntArray
from apq_moo.space.spec import FIELDS

UNKNOWN = 1.0
"""Points that a gene's farthest option is taken to lose where none of its field is measured."""


class Sensitivities:
    """A sweep over the genes of a network: each option on its own, the others as they are.

    Where not all options can be measured, each gene's farthest from the network's own come first,
    then those farthest from what is measured; between measured options losses are linear. A gene
    of which none is measured is taken to lose what the measured ones of its field do on average.

    Args:
        choice: the network, and what may differ from it.
    """

    def __init__(self, choice: Choice) -> None:
        self._base, self._open = choice.base, choice.open
        self._space = choice.problem.space
        self._blocks = np.flatnonzero(self._space.layout.active(self._base[None])[0]).tolist()
        self._genes = self._space.layout.split(self._space.layout.genes)

    @cached_property
    def _order(self) -> list[tuple[int, int, int]]:
        """Changes in the order in which they are measured: block, field, gene."""
        ranked = []
        for b in self._blocks:
            own = self._genes[b][self._base[b]]
            for f, options in enumerate(self._space.plans[b].shape):
                known = [int(own[f])]
                while len(known) < options:
                    gaps = np.abs(np.arange(options)[:, None] - known).min(axis=1)
                    known.append(int(gaps.argmax()))
                ranked += [(rank, b, f, gene) for rank, gene in enumerate(known[1:])]
        ranked.sort(key=lambda change: change[0])
        return [change for _, *change in ranked if self._is_open(*change)]  # type: ignore[misc]

    def _changed(self, b: int, f: int, gene: int) -> IntArray:
        return with_gene(self._space, self._base, b, FIELDS[f], gene)

    def _is_open(self, b: int, f: int, gene: int) -> bool:
        return bool(self._open[b][self._changed(b, f, gene)[b]])

    def networks(self, most: int) -> IntArray:
        """The network itself and changes of it, in order, shape ``(n, n_blocks)``.

        Args:
            most: how many at most.
        """
        return np.array([self._base, *(self._changed(*change) for change in self._order)])[:most]

    def gains(self, scores: FloatArray) -> list[FloatArray]:
        """What each configuration adds to the accuracy, were all changes independent.

        Args:
            scores: accuracies of the first of :meth:`networks`, shape ``(n,)``.

        Returns:
            For each block, in points, shape ``(block_sizes[b],)``; zeros where it is inactive.
        """
        found: dict[tuple[int, int], dict[int, float]] = {}
        for (b, f, gene), score in zip(self._order, scores[1:], strict=False):
            found.setdefault((b, f), {})[gene] = float(score - scores[0])
        gains = [np.zeros(size) for size in self._space.block_sizes]
        for b, f in sorted({(b, f) for b, f, _ in self._order}):
            options = self._space.plans[b].shape[f]
            own = int(self._genes[b][self._base[b]][f])
            known = {own: 0.0, **found.get((b, f), self._typical(found, f, own, options))}
            steps = sorted(known)
            curve = np.interp(np.arange(options), steps, [known[step] for step in steps])
            gains[b] += curve[self._genes[b][:-1, f]]
        return gains

    @staticmethod
    def _typical(
        found: dict[tuple[int, int], dict[int, float]], field: int, own: int, options: int
    ) -> dict[int, float]:
        """The farthest option of a gene of which none was measured."""
        firsts = [next(iter(curve.values())) for (_, f), curve in found.items() if f == field]
        farthest = 0 if own >= options - 1 - own else options - 1
        return {farthest: float(np.mean(firsts)) if firsts else -UNKNOWN}

"""What a run reports: everything that was evaluated, or only what its algorithm kept."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from apq_moo.algorithms.strategy import Replay
from apq_moo.arrays import IntArray
from apq_moo.problems.evaluated import Evaluated
from apq_moo.study.epsilon_constraint import strategy_of

if TYPE_CHECKING:
    from apq_moo.study.search import Search


@dataclass(frozen=True)
class Kept:
    """Which evaluated networks an algorithm held after each of its rounds.

    Attributes:
        evaluations: after each round, ascending.
        rows: of everything evaluated, by round.
    """

    evaluations: tuple[int, ...]
    rows: tuple[IntArray, ...]

    def after(self, evaluations: int) -> IntArray:
        """What was held when no more than some evaluations were done."""
        rounds = bisect_right(self.evaluations, evaluations)
        return self.rows[rounds - 1] if rounds else np.empty(0, dtype=np.int64)


def kept_by(search: Search, archive: Evaluated) -> Kept | None:
    """What an algorithm held that keeps less than was evaluated; None where everything counts.

    It is run again with its record in place of accuracies, so that a search that was stopped, or
    one of which nothing is left but its archive, gives the same.

    Args:
        search: the search.
        archive: what it has evaluated, in order.

    Raises:
        UserError: it is not what the search evaluates.
    """
    if not search.entry.reports_kept:
        return None
    strategy = strategy_of(search.entry)
    place: dict[bytes, int] = {}
    evaluations: list[int] = []
    rows: list[IntArray] = []
    seen = 0
    for part in strategy.rounds(search.context(Replay(archive))):
        for row, network in enumerate(archive.genotypes[seen : seen + len(part)], seen):
            place.setdefault(network.tobytes(), row)
        seen += len(part)
        held = strategy.population()
        assert held is not None
        found = {place[network.tobytes()] for network in held}
        evaluations.append(seen)
        rows.append(np.array(sorted(found), dtype=np.int64))
        if seen >= len(archive):
            break
    return Kept(tuple(evaluations), tuple(rows))


def what_counts(archive: Evaluated, kept: Kept | None) -> Evaluated:
    """What counts of everything evaluated.

    Args:
        archive: everything evaluated.
        kept: see :func:`kept_by`.
    """
    if kept is None:
        return archive
    rows = kept.after(len(archive))
    return Evaluated(archive.X[rows], archive.F[rows], archive.feasible[rows])

"""How the hypervolume of a search's front grew with evaluations and seconds."""

from __future__ import annotations

import numpy as np
from moocore import is_nondominated

from apq_moo.arrays import IntArray
from apq_moo.hardware import minimised
from apq_moo.problems import APQProblem
from apq_moo.problems.evaluated import Evaluated
from apq_moo.results.hypervolume import volume_of
from apq_moo.study.kept import Kept
from apq_moo.study.record import Trace

_ROWS = 100


def history(
    problem: APQProblem, archive: Evaluated, trace: Trace, kept: Kept | None = None
) -> dict[str, list[float | None]]:
    """Columns of ``history.csv``: at most a hundred moments of a search.

    ``evaluations`` and ``seconds`` say when, ``front`` how many networks were non-dominated then,
    and ``hypervolume`` what they dominate of the box between :meth:`APQProblem.reachable` and
    :data:`~apq_moo.problems.bounds.REFERENCE`; for one objective it is what the best of them
    is from the reference. Each column of the best value so far has the
    name of its objective.

    Args:
        problem: with all objectives.
        archive: everything evaluated, in order.
        trace: evaluations and seconds after each round.
        kept: what the algorithm held, where only that counts; else everything evaluated does.
    """
    best, worst = problem.reachable()
    span = np.where(worst > best, worst - best, 1.0)
    marks = np.unique(np.linspace(0, len(trace.evaluations) - 1, _ROWS).round().astype(int))
    columns: dict[str, list[float | None]] = {"evaluations": [], "seconds": [], "front": []}
    columns |= {"hypervolume": [], **{name: [] for name in problem.objectives}}
    front = np.empty((0, len(best)))
    reached = np.full(len(best), np.inf)
    begin = 0
    for mark in marks if trace.evaluations else ():
        end = trace.evaluations[mark]
        rows: slice | IntArray = slice(begin, end)
        if kept is not None:  # anew, since what was held may have been dropped
            rows, front = kept.after(end), front[:0]
            reached = np.full(len(best), np.inf)
        fresh = archive.F[rows][archive.feasible[rows]]
        if len(fresh):
            reached = np.minimum(reached, fresh.min(axis=0))
            front = np.vstack([front, (fresh - best) / span])
            front = front[is_nondominated(front, keep_weakly=False)]
        begin = end
        columns["evaluations"].append(end)
        columns["seconds"].append(trace.seconds[mark])
        columns["front"].append(len(front))
        columns["hypervolume"].append(volume_of(front))
        natural = minimised(problem.objectives, reached)
        for name, value in zip(problem.objectives, natural.tolist(), strict=True):
            columns[name].append(value if len(front) else None)
    return columns

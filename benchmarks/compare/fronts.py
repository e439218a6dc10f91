"""The front that runs of a problem are compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apq_moo.arrays import FloatArray
from apq_moo.problems import APQProblem
from apq_moo.problems.fronts import nondominated_rows


def nondominated(F: FloatArray) -> FloatArray:
    """The distinct non-dominated rows, ascending by the first objective."""
    return F[nondominated_rows(F)]


def known_front(problem: APQProblem, fronts: Sequence[FloatArray]) -> tuple[FloatArray, str]:
    """The front that runs of a problem are compared with.

    Args:
        problem: what was searched.
        fronts: of all runs, minimised.

    Returns:
        The true front (``true``), else the union of the runs' (``union``), joined with the
        published one if there is one (``shipped``); and that word.
    """
    known = problem.known_front()
    if known is not None and problem.accuracy is not None and problem.accuracy.exact:
        return known.F, "true"
    parts = [np.empty((0, problem.n_obj)), *fronts]
    if known is not None:
        parts.append(known.F)
    return nondominated(np.vstack(parts)), "union" if known is None else "shipped"

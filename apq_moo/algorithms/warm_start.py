"""Beginning a search with given networks instead of random ones."""

from __future__ import annotations

import numpy as np
from moocore import is_nondominated

from apq_moo.arrays import IntArray
from apq_moo.problems import APQProblem

SHARE = 0.5
"""At most this share of an initial population; the rest stays random, for the sake of variety."""


def begin_with(X: IntArray, networks: IntArray, problem: APQProblem) -> None:
    """Replace the first networks of an initial population by given networks, in place.

    Those that meet the problem's limits, evenly spread over the front of the rest of what is known
    of them: for one objective the best, for several those non-dominated, by ascending cost.

    Args:
        X: the population, not evaluated yet, shape ``(n, n_var)``.
        networks: canonical genotypes.
        problem: what is searched.
    """
    inside = networks[problem.region.contains(networks)]
    room = int(SHARE * len(X))
    if not len(inside) or not room:
        return
    F, _ = problem.evaluate_blocks(problem.space.block_index(inside), inside)
    if F.shape[1] == 1:
        rows = np.argsort(F[:, 0], kind="stable")[:room]
    else:
        front = np.flatnonzero(is_nondominated(F, keep_weakly=False))
        front = front[np.argsort(F[front, -1], kind="stable")]
        rows = front[np.unique(np.linspace(0, len(front) - 1, room).astype(int))]
    X[: len(rows)] = inside[rows]

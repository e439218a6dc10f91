"""How searches went: what their runs attained, and hypervolume over evaluations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

from apq_moo.arrays import FloatArray
from apq_moo.benchmarks.compare.scores import Bounds, as_points
from apq_moo.errors import UserError, shown
from apq_moo.problems.evaluated import Evaluated
from apq_moo.results.hypervolume import volume_of
from apq_moo.study.kept import Kept

_FIRST_MARK = 10


def attainment(
    runs: Sequence[ArrayLike], levels: Sequence[float] = (25, 50, 75)
) -> dict[float, FloatArray]:
    """Empirical attainment surfaces of two objectives.

    The surface of a level bounds what at least that share of the runs has dominated weakly (Grunert
    da Fonseca et al. 2001, "Inferential performance assessment of stochastic optimisers and the
    attainment function"). A run without points attains nothing, and counts: a level that fewer runs
    could reach has an empty surface.

    Args:
        runs: one front for each seed, shape ``(n, 2)`` each, minimised, not normalised.
        levels: percent of the runs, above 0 and up to 100; 50 is the median.

    Returns:
        For each level the corners of its surface, shape ``(k, 2)``, ascending by the first
        objective.

    Raises:
        UserError: other than two objectives, malformed points, or a level out of range.

    >>> attainment([[[1.0, 2.0]], [[2.0, 1.0]]], levels=(50, 100))
    {50: array([[1., 2.],
           [2., 1.]]), 100: array([[2., 2.]])}
    """
    for level in levels:
        if not 0 < level <= 100:
            raise UserError(f"a level must be above 0 and at most 100 percent, not {level}")
    fronts = [as_points(run, 2, f"run {i}") for i, run in enumerate(runs)]
    fronts = [front[np.isfinite(front).all(axis=1)] for front in fronts]
    found = [front for front in fronts if len(front)]
    surfaces = {}
    for level in levels:
        # Runs that must attain a point. The level may be a rounded quotient, such as 100 / 3.
        needed = max(1, math.ceil(level * len(fronts) / 100 - 1e-9))
        if needed > len(found):
            surfaces[level] = np.empty((0, 2))
            continue
        sets = np.repeat(np.arange(len(found)), [len(front) for front in found])
        share = 100 * needed / len(found)
        surface = moocore.eaf(np.vstack(found), sets, percentiles=[share])[:, :2]
        surfaces[level] = surface[np.lexsort(surface.T[::-1])]
    return surfaces


def marks(budget: int, n: int = 30) -> NDArray[np.int64]:
    """Evaluation counts at which searches are compared: evenly spaced logarithms from 10 on.

    Args:
        budget: evaluations of a search, the last mark.
        n: how many marks at most; fewer where rounding makes some equal.

    Returns:
        Ascending, distinct. A budget of up to 10 is its only mark.

    Raises:
        UserError: no budget, or fewer than two marks.

    >>> marks(1000, 5)
    array([  10,   32,  100,  316, 1000])
    """
    if budget < 1:
        raise UserError(f"a budget must be at least 1 evaluation, not {budget}")
    if n < 2:
        raise UserError(f"there must be at least 2 marks, not {n}")
    counts = np.geomspace(min(_FIRST_MARK, budget), budget, n)
    return np.unique(counts.round().astype(np.int64))


def curve_of(archive: Evaluated, kept: Kept | None, marks: ArrayLike, bounds: Bounds) -> FloatArray:
    """Hypervolume of what a search reports at each mark.

    Args:
        archive: everything evaluated.
        kept: what its algorithm held after each round, where only that counts.
        marks: evaluation counts.
        bounds: the problem's scale.

    Returns:
        Shape ``(len(marks),)``; it may fall, where what was held was dropped.
    """
    if kept is None:
        return anytime(archive.F, archive.feasible, marks, bounds)
    volumes: list[float] = []
    for mark in np.asarray(marks).tolist():
        rows = kept.after(mark)
        volumes.extend(anytime(archive.F[rows], archive.feasible[rows], [len(rows)], bounds))
    return np.array(volumes, dtype=np.float64)


def anytime(F: ArrayLike, feasible: ArrayLike, marks: ArrayLike, bounds: Bounds) -> FloatArray:
    """Hypervolume of the feasible points among the first ones evaluated.

    Args:
        F: shape ``(n, n_obj)``, minimised, in the order of evaluation.
        feasible: shape ``(n,)``, which of them count; the others may hold any value.
        marks: evaluation counts, ascending; beyond ``n`` they stand for all points.
        bounds: the problem's scale.

    Returns:
        Shape ``(len(marks),)``.

    Raises:
        UserError: malformed points, another number of flags, or marks that descend.
    """
    points, counts = np.asarray(F, dtype=np.float64), np.asarray(marks)
    allowed = np.asarray(feasible, dtype=bool)
    if allowed.shape != points.shape[:1]:
        raise UserError(f"feasible must be of shape {points.shape[:1]}, got {allowed.shape}")
    if counts.ndim != 1 or (np.diff(counts, prepend=0) < 0).any():
        raise UserError(f"marks must be ascending counts of at least 0, got {shown(marks)}")
    front = np.empty((0, len(bounds.objectives)))
    volumes = np.zeros(len(counts))
    begin, volume = 0, 0.0
    for i, end in enumerate(counts.astype(np.int64)):
        rows = slice(begin, end)
        fresh = bounds.normalise(points[rows][allowed[rows]])
        fresh = fresh[(fresh < bounds.reference).all(axis=1)]
        if len(fresh):
            front = np.vstack([front, fresh])
            front = front[moocore.is_nondominated(front)]
            volume = volume_of(front, bounds.reference)
        volumes[i] = volume
        begin = end
    return volumes

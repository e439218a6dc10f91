"""How good a set of points is.

All objectives are minimised, as in ``APQProblem``: accuracy comes with its sign flipped. A set is
compared on the fixed scale of its problem, its :class:`Bounds`, and where an indicator needs it
with a known front.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import moocore
import numpy as np
from numpy.typing import ArrayLike

from apq_moo.arrays import FloatArray
from apq_moo.errors import UserError, shown
from apq_moo.problems.bounds import REFERENCE
from apq_moo.registry import Registry
from apq_moo.results.hypervolume import volume_of


@dataclass(frozen=True)
class Bounds:
    """The scale of a problem's objectives, minimised. It is never taken from a run.

    Attributes:
        objectives: their names.
        ideal: the value of each that is normalised to 0.
        nadir: the value of each that is normalised to 1.
        reference: reference point of the hypervolume in every normalised objective.

    Raises:
        UserError: names that repeat, other lengths, or an ideal that is not below its nadir.

    >>> bounds = Bounds(("acc", "latency"), ideal=(-100.0, 2.0), nadir=(-10.0, 12.0))
    >>> bounds.normalise([[-55.0, 4.5]])
    array([[0.5 , 0.25]])
    """

    objectives: tuple[str, ...]
    ideal: tuple[float, ...]
    nadir: tuple[float, ...]
    reference: float = REFERENCE

    def __post_init__(self) -> None:
        n_obj = len(self.objectives)
        if n_obj == 0 or len(set(self.objectives)) < n_obj:
            raise UserError(
                "objectives of normalisation bounds must be distinct names, got "
                f"{shown(self.objectives)}"
            )
        if not len(self.ideal) == len(self.nadir) == n_obj:
            raise UserError(
                f"normalisation bounds of {n_obj} objectives need as many values of ideal and "
                f"nadir, got {len(self.ideal)} and {len(self.nadir)}"
            )
        for name, low, high in zip(self.objectives, self.ideal, self.nadir, strict=True):
            if not -math.inf < low < high < math.inf:
                raise UserError(
                    f"the ideal of {name} must be below its nadir and both finite, "
                    f"got {low} and {high}"
                )
        if not 0 < self.reference < math.inf:
            raise UserError(
                f"the reference of normalisation bounds must be above 0, not {self.reference}"
            )

    def normalise(self, F: ArrayLike) -> FloatArray:
        """``(F - ideal) / (nadir - ideal)``; infinite values stay so.

        Args:
            F: shape ``(n, n_obj)``.

        Raises:
            UserError: another shape, or values that are NaN or minus infinity.
        """
        points = as_points(F, len(self.objectives), "F")
        ideal = np.array(self.ideal)
        scaled: FloatArray = (points - ideal) / (np.array(self.nadir) - ideal)
        return scaled

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def as_points(F: ArrayLike, n_obj: int, what: str) -> FloatArray:
    """Points as an array of shape ``(n, n_obj)``, named ``what`` in messages.

    Raises:
        UserError: another shape, or values that are NaN or minus infinity.
    """
    points = np.asarray(F, dtype=np.float64)
    if points.shape == (0,):
        return np.empty((0, n_obj))
    if points.ndim != 2 or points.shape[1] != n_obj:
        raise UserError(f"{what} must be of shape (n, {n_obj}), got {points.shape}")
    bad = (np.isnan(points) | (points == -np.inf)).any(axis=1)
    if bad.any():
        row = int(bad.argmax())
        raise UserError(
            f"row {row} of {what} is {points[row].tolist()}; leave out rows with nan or -inf"
        )
    return points


def _known(known: ArrayLike, bounds: Bounds) -> FloatArray:
    front = as_points(known, len(bounds.objectives), "the known front")
    if not len(front):
        raise UserError("the known front is empty; there is nothing to compare with")
    if not np.isfinite(front).all():
        raise UserError("the known front has infinite values; leave such points out")
    return bounds.normalise(front)


def hypervolume(F: ArrayLike, bounds: Bounds) -> float:
    """Volume that the points dominate up to the reference point, in normalised objectives.

    Points that are not below the reference in every objective contribute nothing. Exact for up to
    four objectives; beyond, approximated along fixed directions (Deng and Zhang 2019,
    "Approximating hypervolume and hypervolume contributions using polar coordinate"), so that the
    same points always have the same value.

    Args:
        F: shape ``(n, n_obj)``, minimised.
        bounds: the problem's scale.

    Raises:
        UserError: ``F`` has another shape, or NaN or minus infinity.

    >>> bounds = Bounds(("a", "b"), (0.0, 0.0), (1.0, 1.0))
    >>> round(hypervolume([[0.1, 0.6], [0.6, 0.1]], bounds), 6)
    0.75
    """
    return volume_of(bounds.normalise(F), bounds.reference)


def igd_plus(F: ArrayLike, bounds: Bounds, known: ArrayLike) -> float:
    """Mean distance from the known front to what the points dominate, in normalised objectives.

    Of each known point ``z`` it takes the least ``||max(f - z, 0)||`` over all ``f`` (Ishibuchi et
    al. 2015, "Modified distance calculation in generational distance and inverted generational
    distance").

    Args:
        F: shape ``(n, n_obj)``, minimised; if empty, the value is infinite.
        bounds: the problem's scale.
        known: shape ``(k, n_obj)``, minimised, in the unit of ``F``.

    Raises:
        UserError: malformed points, or no known ones.
    """
    points, front = bounds.normalise(F), _known(known, bounds)
    return float(moocore.igd_plus(points, ref=front)) if len(points) else math.inf


def epsilon(F: ArrayLike, bounds: Bounds, known: ArrayLike) -> float:
    """Least that all points must improve by to dominate the known front weakly.

    The additive indicator of Zitzler et al. 2003, "Performance assessment of multiobjective
    optimizers: an analysis and review", on normalised objectives: the largest over known points of
    the least over points of the largest loss in an objective. Negative where the points are better
    everywhere.

    Args:
        F: shape ``(n, n_obj)``, minimised; if empty, the value is infinite.
        bounds: the problem's scale.
        known: shape ``(k, n_obj)``, minimised, in the unit of ``F``.

    Raises:
        UserError: malformed points, or no known ones.
    """
    points, front = bounds.normalise(F), _known(known, bounds)
    return float(moocore.epsilon_additive(points, ref=front)) if len(points) else math.inf


def regret(F: ArrayLike, bounds: Bounds, known: ArrayLike) -> float:
    """Share of the known front's hypervolume that the points miss: ``1 - HV(F) / HV(known)``.

    Negative where the points have more of it than the known front.

    Args:
        F: shape ``(n, n_obj)``, minimised.
        bounds: the problem's scale.
        known: shape ``(k, n_obj)``, minimised, in the unit of ``F``.

    Raises:
        UserError: malformed points, no known ones, or none of these below the reference point.
    """
    whole = volume_of(_known(known, bounds), bounds.reference)
    if whole == 0:
        raise UserError("no point of the known front is below the reference; widen the bounds")
    return 1.0 - hypervolume(F, bounds) / whole


def coverage(F: ArrayLike, bounds: Bounds, known: ArrayLike, rtol: float = 1e-9) -> float:
    """Share of the known front's distinct objective vectors that are among the points.

    Args:
        F: shape ``(n, n_obj)``, minimised.
        bounds: the problem's scale.
        known: shape ``(k, n_obj)``, minimised, in the unit of ``F``.
        rtol: how far apart equal values may be, as a share of ``nadir - ideal``.

    Raises:
        UserError: malformed points, or no known ones.
    """
    from scipy.spatial import KDTree

    points, front = bounds.normalise(F), np.unique(_known(known, bounds), axis=0)
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return 0.0
    apart, _ = KDTree(points).query(front, p=np.inf)
    return float((apart <= rtol).mean())


@dataclass(frozen=True)
class Indicator:
    """A figure of merit of a set of points.

    Attributes:
        function: from points, bounds and known front to the value; it ignores the known front where
            it needs none.
        summary: one line.
        larger_is_better: whether better sets score higher.
        needs_known: whether it compares with a known front.
    """

    function: Callable[[ArrayLike, Bounds, ArrayLike], float]
    summary: str
    larger_is_better: bool = False
    needs_known: bool = True


def _hypervolume(F: ArrayLike, bounds: Bounds, _known: ArrayLike) -> float:
    return hypervolume(F, bounds)


INDICATORS: Registry[Indicator] = Registry("indicator")

for _name, _indicator in {
    "hv": Indicator(_hypervolume, "hypervolume up to the reference point", True, False),
    "igd+": Indicator(igd_plus, "mean distance from the known front to what the points dominate"),
    "epsilon": Indicator(
        epsilon, "least that all points must improve by to dominate the known front"
    ),
    "regret": Indicator(regret, "share of the known front's hypervolume that is missed"),
    "coverage": Indicator(coverage, "share of the known front's points that were found", True),
}.items():
    INDICATORS.register(_name, _indicator)

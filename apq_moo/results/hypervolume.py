"""The hypervolume of points that are minimised, exact where that is quick."""

from __future__ import annotations

import moocore
import numpy as np

from apq_moo.arrays import FloatArray
from apq_moo.problems.bounds import REFERENCE

_EXACT_UP_TO = 4
"""Objectives; beyond, exact hypervolumes of large fronts take too long."""

_SAMPLES = 2**14
"""Of an approximated hypervolume, whose relative error is then a few thousandths."""


def volume_of(points: FloatArray, reference: float = REFERENCE) -> float:
    """What normalised points, shape ``(n, n_obj)``, dominate of the box below ``reference``.

    Exact for up to four objectives, approximated beyond; see moocore's ``hypervolume`` and
    ``hv_approx`` (method ``DZ2019-HW``).
    """
    inside = points[(points < reference).all(axis=1)]
    if not len(inside):
        return 0.0
    corner = np.full(points.shape[1], reference)
    if len(corner) == 1:
        return float(reference - inside.min())
    if len(corner) <= _EXACT_UP_TO:
        return float(moocore.hypervolume(inside, ref=corner))
    return float(moocore.hv_approx(inside, ref=corner, nsamples=_SAMPLES, method="DZ2019-HW"))

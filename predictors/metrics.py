"""How well predictions rank and estimate accuracies.

Every function takes the true values first. Where a figure is undefined because one side is
constant, it is NaN.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from apq_moo.arrays import FloatArray
from apq_moo.errors import UserError


def _pair(y_true: ArrayLike, y_pred: ArrayLike) -> tuple[FloatArray, FloatArray]:
    true, pred = (np.asarray(y, dtype=np.float64) for y in (y_true, y_pred))
    if true.ndim != 1 or true.shape != pred.shape or len(true) < 2:
        raise UserError(
            "true and predicted values must be two vectors of one length of at least 2, "
            f"got shapes {true.shape} and {pred.shape}"
        )
    if not (np.isfinite(true).all() and np.isfinite(pred).all()):
        raise UserError("true and predicted values must be finite")
    return true, pred


def _differing_pairs(values: FloatArray) -> int:
    _, counts = np.unique(values, return_counts=True)
    n = len(values)
    return n * (n - 1) // 2 - int((counts * (counts - 1) // 2).sum())


def kendall_tau(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Kendall's tau-b, in ``O(n log n)``.

    Raises:
        UserError: not two finite vectors of one length of at least 2.

    >>> round(kendall_tau([1, 2, 3], [10, 30, 20]), 3)
    0.333
    """
    from scipy.stats import kendalltau

    true, pred = _pair(y_true, y_pred)
    return float(kendalltau(true, pred).statistic)


def spearman(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Spearman's rank correlation; ties get their mean rank.

    Raises:
        UserError: not two finite vectors of one length of at least 2.
    """
    from scipy.stats import rankdata

    true, pred = _pair(y_true, y_pred)
    a, b = (ranks - ranks.mean() for ranks in (rankdata(true), rankdata(pred)))
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale else math.nan


def pairwise_accuracy(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Share of the pairs with different true values that the predictions order rightly.

    A pair with equal predictions counts half, as a guess would; so constant predictions score 0.5.
    With ``C`` pairs in the same and ``D`` in the opposite order among ``P`` with different true
    values this is ``1/2 + (C - D) / 2P``, and ``C - D`` follows from tau-b in ``O(n log n)``.

    Raises:
        UserError: not two finite vectors of one length of at least 2.

    >>> round(pairwise_accuracy([1, 2, 3], [10, 30, 20]), 3)
    0.667
    """
    true, pred = _pair(y_true, y_pred)
    pairs, predicted = _differing_pairs(true), _differing_pairs(pred)
    if pairs == 0:
        return math.nan
    if predicted == 0:
        return 0.5
    # The numerator of tau-b is a whole number; rounding takes the division back exactly.
    surplus = round(kendall_tau(true, pred) * math.sqrt(pairs) * math.sqrt(predicted))
    return 0.5 + surplus / (2 * pairs)


def pairwise_ceiling(noise: float, signal: float) -> float:
    """Pairwise accuracy of a perfect predictor against noisy true values.

    Two networks whose accuracies differ by a normal deviate of scale ``signal`` are measured in
    the right order with probability ``1 - arctan(noise / signal) / pi``.

    Args:
        noise: standard deviation of the measurement error.
        signal: standard deviation of the accuracies themselves, without the error:
            ``sqrt(total**2 - noise**2)``.

    Raises:
        UserError: a negative deviation, or both are 0.

    >>> round(pairwise_ceiling(1.0, (3.0**2 - 1.0) ** 0.5), 3)
    0.892
    """
    if not (noise >= 0 and signal >= 0 and noise + signal > 0):
        raise UserError(f"noise and signal must be deviations >= 0, got {noise!r} and {signal!r}")
    return 1.0 - math.atan2(noise, signal) / math.pi


def rmse(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Root mean squared error, in the unit of the values.

    Raises:
        UserError: not two finite vectors of one length of at least 2.
    """
    true, pred = _pair(y_true, y_pred)
    return math.sqrt(float(np.mean((true - pred) ** 2)))


def top_k_regret(y_true: ArrayLike, y_pred: ArrayLike, k: int = 10) -> float:
    """How much better the best value is than the best of the ``k`` predicted to be highest.

    Among equal predictions the lower true values are taken first, so that the figure does not
    depend on the order of the rows and ties never help.

    Args:
        y_true: true values, shape ``(n,)``.
        y_pred: predicted values, shape ``(n,)``.
        k: how many are picked, from 1 to ``n``.

    Raises:
        UserError: not two finite vectors of one length of at least 2, or ``k`` out of range.

    >>> top_k_regret([70.0, 72.0, 71.0], [5.0, 1.0, 3.0], k=2)
    1.0
    """
    true, pred = _pair(y_true, y_pred)
    if not 1 <= k <= len(true):
        raise UserError(f"k must be from 1 to the number of values, {len(true)}, not {k}")
    chosen = np.lexsort((true, -pred))[:k]
    return float(true.max() - true[chosen].max())

"""Whether algorithms differ: summaries, pairwise tests, ranks across problems.

Values may be infinite, as those of a run that found nothing; they take part by their rank. NaN is
refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from apq_moo.arrays import FloatArray
from apq_moo.errors import UserError, shown


def _values(values: ArrayLike, what: str = "values") -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise UserError(f"{what} must be a vector of at least 1 number, got shape {array.shape}")
    if np.isnan(array).any():
        row = int(np.isnan(array).argmax())
        raise UserError(f"{what} must not be nan, as number {row} is; leave out such runs")
    return array


def _level(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise UserError(f"alpha must be between 0 and 1, not {alpha}")


@dataclass(frozen=True)
class Summary:
    """Centre and spread of a sample.

    Attributes:
        median: the middle value, or the mean of the middle two.
        q1: first quartile.
        q3: third quartile.
        n: number of values.
    """

    median: float
    q1: float
    q3: float
    n: int


def summarise(values: ArrayLike) -> Summary:
    """Median and quartiles, interpolated linearly (Hyndman and Fan 1996, definition 7).

    Between a finite and an infinite value lies the infinite one, and NaN between two opposite
    infinite ones.

    Raises:
        UserError: no values, or NaN among them.

    >>> summarise([1.0, 2.0, 3.0, 4.0])
    Summary(median=2.5, q1=1.75, q3=3.25, n=4)
    """
    ordered = np.sort(_values(values))
    q1, median, q3 = (_quantile(ordered, q) for q in (0.25, 0.5, 0.75))
    return Summary(median, q1, q3, len(ordered))


def _quantile(ordered: FloatArray, q: float) -> float:
    part, below = math.modf((len(ordered) - 1) * q)
    low = float(ordered[int(below)])
    high = low if part == 0 else float(ordered[int(below) + 1])
    return low if low == high else (1 - part) * low + part * high


def a12(x: ArrayLike, y: ArrayLike) -> float:
    """Chance that a value of ``x`` is larger than one of ``y``, ties counted half.

    Vargha and Delaney 2000, "A critique and improvement of the CL common language effect size
    statistics of McGraw and Wong": ``P(X > Y) + P(X = Y) / 2``, here from the rank sum of ``x``.

    Raises:
        UserError: no values, or NaN among them.

    >>> a12([3.0, 4.0], [1.0, 3.0])
    0.875
    """
    from scipy.stats import rankdata

    first, second = _values(x, "x"), _values(y, "y")
    n = len(first)
    rank_sum = float(rankdata(np.concatenate([first, second]))[:n].sum())
    return (rank_sum - n * (n + 1) / 2) / (n * len(second))


def holm(p_values: ArrayLike) -> FloatArray:
    """Holm's adjusted p-values, in the order given.

    Holm 1979, "A simple sequentially rejective multiple test procedure": the ``i``-th smallest of
    ``m`` is multiplied by ``m - i + 1``, and none may fall below a smaller one's.

    Raises:
        UserError: none, NaN, or not probabilities.

    >>> holm([0.04, 0.01, 0.03]).round(6)
    array([0.06, 0.03, 0.06])
    """
    p = _values(p_values, "p-values")
    if ((p < 0) | (p > 1)).any():
        raise UserError(f"p-values must be from 0 to 1, got {shown(p.tolist())}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1.0)
    return adjusted


@dataclass(frozen=True)
class Comparison:
    """Two samples compared.

    Attributes:
        a: name of the first.
        b: name of the second.
        p: of the test alone, two-sided.
        p_adjusted: by Holm's method, over all pairs.
        a12: chance that a value of ``a`` is larger than one of ``b``, ties counted half.
        winner: the significantly better one's name, or None.
    """

    a: str
    b: str
    p: float
    p_adjusted: float
    a12: float
    winner: str | None


ALPHA = 0.05
"""The level of significance."""


def least_p(samples: int, values: int, *, paired: bool = True) -> float:
    """The least adjusted p-value that :func:`compare_pairs` can find, whatever the values are.

    Args:
        samples: how many are compared, at least 2.
        values: of each.
        paired: as there.

    >>> least_p(2, 5), least_p(2, 6)
    (0.0625, 0.03125)
    """
    orders = 2**values if paired else math.comb(2 * values, values)
    return min(1.0, 2 * math.comb(samples, 2) / orders)  # all signs, or all ranks, the same way


def compare_pairs(
    samples: Mapping[str, ArrayLike],
    *,
    paired: bool,
    larger_is_better: bool,
    alpha: float = ALPHA,
) -> list[Comparison]:
    """Compare all pairs of samples by Wilcoxon's tests.

    Pairs without a difference are left out of the signed-rank test, as by Wilcoxon himself; if all
    are, or all values of two unpaired samples are one, the p-value is 1.

    Args:
        samples: values by name, at least two.
        paired: whether values of the same place belong together: the signed-rank test, else the
            rank-sum test (Mann-Whitney).
        larger_is_better: what a winner has.
        alpha: largest adjusted p-value that is significant.

    Returns:
        All pairs, in the order of the names.

    Raises:
        UserError: fewer than two samples, no values or NaN in one, other lengths where paired, or
            ``alpha`` not between 0 and 1.
    """
    _level(alpha)
    if len(samples) < 2:
        raise UserError(f"a comparison needs at least 2 samples, got {shown(list(samples))}")
    values = {name: _values(sample, f"values of {name!r}") for name, sample in samples.items()}
    pairs = list(combinations(values, 2))
    if paired:
        for a, b in pairs:
            if len(values[a]) != len(values[b]):
                raise UserError(
                    f"paired samples must be of one length, but {a!r} has {len(values[a])} values "
                    f"and {b!r} {len(values[b])}; drop what has no partner or compare unpaired"
                )
    return _compared(values, pairs, paired, larger_is_better, alpha)


def compare_with(
    name: str,
    sample: ArrayLike,
    others: Mapping[str, ArrayLike],
    *,
    paired: bool,
    larger_is_better: bool,
    alpha: float = ALPHA,
) -> list[Comparison]:
    """Compare one sample with each of others; see :func:`compare_pairs`.

    Args:
        name: of the sample; another one may have it too.
        sample: its values.
        others: values by name.
        paired: whether values of the same place belong together.
        larger_is_better: what a winner has.
        alpha: largest p-value, adjusted over these comparisons, that is significant.

    Returns:
        A comparison for each of the others, whose ``winner`` is ``""`` where that is the sample.
    """
    _level(alpha)
    values = {other: _values(of, f"values of {other!r}") for other, of in others.items()}
    values[""] = _values(sample, f"values of {name!r}")
    pairs = [("", other) for other in others]
    return _compared(values, pairs, paired, larger_is_better, alpha)


def _compared(
    values: Mapping[str, FloatArray],
    pairs: Sequence[tuple[str, str]],
    paired: bool,
    larger_is_better: bool,
    alpha: float,
) -> list[Comparison]:
    test = _signed_rank if paired else _rank_sum
    tests = [test(values[a], values[b]) for a, b in pairs]
    adjusted = holm([p for p, _ in tests])
    found = []
    for (a, b), (p, surplus), p_adjusted in zip(pairs, tests, adjusted.tolist(), strict=True):
        winner = None
        if p_adjusted <= alpha:
            winner = a if (surplus > 0) == larger_is_better else b
        found.append(Comparison(a, b, p, p_adjusted, a12(values[a], values[b]), winner))
    return found


def _rank_sum(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """The p-value, and above 0 if values of ``x`` tend to be larger."""
    from scipy.stats import mannwhitneyu, rankdata

    ranks = rankdata(np.concatenate([x, y]))  # in place of values, which may be infinite
    result = mannwhitneyu(ranks[: len(x)], ranks[len(x) :])
    return float(result.pvalue), float(result.statistic) - len(x) * len(y) / 2


def _signed_rank(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """The p-value, and above 0 if values of ``x`` tend to be larger than their partners."""
    found = signed_rank(x, y)
    return found.p, found.rank_biserial


@dataclass(frozen=True)
class SignedRank:
    """Wilcoxon's signed-rank test of paired values.

    Attributes:
        p: two-sided; 1 where no pair differs.
        rank_biserial: share of the ranks of pairs whose first value is larger, less that of the
            others, from -1 to 1; 0 where no pair differs.
    """

    p: float
    rank_biserial: float


def signed_rank(x: ArrayLike, y: ArrayLike) -> SignedRank:
    """Wilcoxon's signed-rank test with its effect size.

    Pairs that do not differ are left out, as by Wilcoxon himself. The effect size is the
    matched-pairs rank-biserial correlation (Kerby 2014, "The simple difference formula").

    Args:
        x: values, which may be infinite.
        y: their partners.

    Raises:
        UserError: no values, NaN among them, or another number of partners.

    >>> signed_rank([3.0, 5.0, 7.0, 1.0], [1.0, 2.0, 3.0, 2.0])
    SignedRank(p=0.25, rank_biserial=0.8)
    """
    from scipy.stats import rankdata, wilcoxon

    first, second = _values(x, "x"), _values(y, "y")
    if len(first) != len(second):
        raise UserError(f"paired values must be as many: x has {len(first)}, y {len(second)}")
    differ = first != second
    differences = first[differ] - second[differ]
    if not len(differences):
        return SignedRank(1.0, 0.0)
    ranks = rankdata(np.abs(differences))
    signed = np.sign(differences) * ranks
    return SignedRank(float(wilcoxon(signed).pvalue), float(signed.sum() / ranks.sum()))


@dataclass(frozen=True)
class Ranks:
    """Friedman's test of algorithms over problems, with Nemenyi's for each pair.

    Attributes:
        names: the algorithms.
        mean_ranks: of each over the problems; 1 is best.
        problems: how many.
        statistic: Friedman's chi-square, corrected for ties.
        p: its p-value, of all algorithms being alike.
        p_values: Nemenyi's for each pair, shape ``(k, k)``, 1 on the diagonal.
        alpha: level of the critical difference.
        critical_difference: mean ranks at least this far apart differ significantly.
    """

    names: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    problems: int
    statistic: float
    p: float
    p_values: FloatArray
    alpha: float
    critical_difference: float


def critical_difference(algorithms: int, problems: int, alpha: float = 0.05) -> float:
    """Nemenyi's least significant difference of mean ranks.

    ``q sqrt(k (k + 1) / 6N)`` for ``k`` algorithms on ``N`` problems, ``q`` being the upper
    quantile of the studentized range for ``k`` groups and infinite degrees of freedom, divided by
    ``sqrt(2)`` (Demsar 2006, "Statistical comparisons of classifiers over multiple data sets",
    section 3.2.2).

    Raises:
        UserError: fewer than 2 algorithms, no problem, or ``alpha`` not between 0 and 1.

    >>> round(critical_difference(4, 14), 2)
    1.25
    """
    from scipy.stats import studentized_range

    _level(alpha)
    if algorithms < 2 or problems < 1:
        raise UserError(
            "a critical difference needs at least 2 algorithms and 1 problem, "
            f"got {algorithms} and {problems}"
        )
    q = float(studentized_range.ppf(1 - alpha, algorithms, math.inf)) / math.sqrt(2)
    return q * math.sqrt(algorithms * (algorithms + 1) / (6 * problems))


def friedman(
    scores: ArrayLike, names: Sequence[str], *, larger_is_better: bool, alpha: float = 0.05
) -> Ranks:
    """Rank algorithms on every problem and test whether their mean ranks differ.

    Demsar 2006, section 3.2.2; ties share their mean rank.

    Args:
        scores: one value for each problem and algorithm, shape ``(n, k)``.
        names: the algorithms, in the order of the columns.
        larger_is_better: whether the highest score has rank 1.
        alpha: level of the critical difference.

    Raises:
        UserError: fewer than 3 algorithms or 2 problems, as many names as there are columns are
            not given, NaN, or ``alpha`` not between 0 and 1.
    """
    from scikit_posthocs import posthoc_nemenyi_friedman
    from scipy.stats import friedmanchisquare, rankdata

    matrix = np.asarray(scores, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] < 2 or matrix.shape[1] < 3:
        raise UserError(
            "Friedman's test needs at least 2 problems (rows) and 3 algorithms (columns), "
            f"got scores of shape {matrix.shape}"
        )
    n, k = matrix.shape
    if len(names) != k or len(set(names)) < k:
        raise UserError(f"{k} algorithms need as many distinct names, got {shown(list(names))}")
    if np.isnan(matrix).any():
        row, column = np.argwhere(np.isnan(matrix))[0].tolist()
        raise UserError(
            f"the score of {names[column]!r} on problem {row} is nan; leave one of them out"
        )
    ranks = rankdata(-matrix if larger_is_better else matrix, axis=1)
    # All alike on every problem: the correction for ties would divide by zero.
    alike = (np.ptp(ranks, axis=1) == 0).all()
    statistic, p = (0.0, 1.0) if alike else friedmanchisquare(*ranks.T)
    nemenyi = np.asarray(posthoc_nemenyi_friedman(ranks), dtype=np.float64)
    return Ranks(
        names=tuple(names),
        mean_ranks=tuple(ranks.mean(axis=0).tolist()),
        problems=n,
        statistic=float(statistic),
        p=float(p),
        p_values=nemenyi,
        alpha=alpha,
        critical_difference=critical_difference(k, n, alpha),
    )

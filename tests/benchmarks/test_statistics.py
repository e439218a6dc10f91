"""Tests of significance against published examples, enumeration and definitions."""

import doctest
import math
import warnings
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from apq_moo.benchmarks.compare import statistics
from apq_moo.benchmarks.compare.statistics import (
    Summary,
    a12,
    compare_pairs,
    critical_difference,
    friedman,
    holm,
    summarise,
)
from apq_moo.errors import UserError

# Few distinct values make ties common.
numbers = st.one_of(st.integers(-3, 3).map(float), st.sampled_from([math.inf, -math.inf]))
samples = st.lists(numbers, min_size=1, max_size=12)

# Demsar 2006, table 6: AUC of four variants of C4.5 on 14 data sets. Of the last but one, the
# values of the last two columns are printed alike but ranked 2 and 3.
VARIANTS = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
AUC = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)

# Hollander and Wolfe 1973, page 140: seconds to round first base by three ways of 22 players.
ROUNDING = np.array(
    [
        [5.40, 5.50, 5.55],
        [5.85, 5.70, 5.75],
        [5.20, 5.60, 5.50],
        [5.55, 5.50, 5.40],
        [5.90, 5.85, 5.70],
        [5.45, 5.55, 5.60],
        [5.40, 5.40, 5.35],
        [5.45, 5.50, 5.35],
        [5.25, 5.15, 5.00],
        [5.85, 5.80, 5.70],
        [5.25, 5.20, 5.10],
        [5.65, 5.55, 5.45],
        [5.60, 5.35, 5.45],
        [5.05, 5.00, 4.95],
        [5.50, 5.50, 5.40],
        [5.45, 5.55, 5.50],
        [5.55, 5.55, 5.35],
        [5.45, 5.50, 5.55],
        [5.50, 5.45, 5.25],
        [5.65, 5.60, 5.40],
        [5.70, 5.65, 5.55],
        [6.30, 6.30, 6.25],
    ]
)


def one(x, y, *, paired, larger_is_better=True, **alpha):
    (found,) = compare_pairs(
        {"x": x, "y": y}, paired=paired, larger_is_better=larger_is_better, **alpha
    )
    return found


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_summary_is_numpys(values):
    found = summarise(values)
    expected = np.quantile(values, [0.5, 0.25, 0.75])
    assert (found.median, found.q1, found.q3) == pytest.approx(tuple(expected), rel=1e-9, abs=1e-9)
    assert found.n == len(values)


@given(st.floats(-1e6, 1e6), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_summary_of_equal_values_is_exact(value, n):
    assert summarise([value] * n) == Summary(value, value, value, n)


def test_summary_of_infinite_values():
    inf = math.inf
    assert summarise([1, 2, inf]) == Summary(2.0, 1.5, inf, 3)
    assert summarise([inf, 1, 3, 2, 4]) == Summary(3.0, 2.0, 4.0, 5)
    assert summarise([inf, inf, inf, 1]) == Summary(inf, inf, inf, 4)
    assert summarise([-inf, -inf, 0, 8]) == Summary(-inf, -inf, 2.0, 4)
    assert summarise([7]) == Summary(7.0, 7.0, 7.0, 1)
    assert math.isnan(summarise([-inf, inf]).median)


@given(samples, samples)
@settings(max_examples=100, deadline=None)
def test_a12_by_its_definition(x, y):
    score = sum((a > b) + 0.5 * (a == b) for a, b in product(x, y)) / (len(x) * len(y))
    assert a12(x, y) == pytest.approx(score, abs=1e-12)
    assert a12(x, y) + a12(y, x) == pytest.approx(1.0)
    # Any rising transformation changes nothing.
    assert a12(np.arctan(x), np.arctan(y)) == a12(x, y)


def test_holm_of_demsar():
    """Section 3.2.2: of .016, .019 and .607 the first two are rejected, at .017 and .025."""
    np.testing.assert_allclose(holm([0.607, 0.019, 0.016]), [0.607, 0.048, 0.048])


def test_holm_of_benjamini_and_hochberg():
    """Their 15 p-values of 1995; methods that bound the family-wise error reject three."""
    p = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240,
        0.4262, 0.5719, 0.6528, 0.7590, 1.0000,
    ]  # fmt: skip
    adjusted = holm(p)
    np.testing.assert_allclose(adjusted[:5], [0.0015, 0.0056, 0.0247, 0.114, 0.2211])
    assert (adjusted <= 0.05).sum() == 3
    assert (adjusted[9:] == 1.0).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
@settings(max_examples=100, deadline=None)
def test_holm_is_closed_testing(p):
    """Reject a hypothesis if Bonferroni rejects every family that it is in."""
    expected = [
        max(
            min(1.0, len(family) * min(p[j] for j in family))
            for size in range(1, len(p) + 1)
            for family in combinations(range(len(p)), size)
            if i in family
        )
        for i in range(len(p))
    ]
    np.testing.assert_allclose(holm(p), expected, rtol=1e-12)


def test_malformed_p_values():
    for p in ([-0.1], [0.5, 1.5]):
        with pytest.raises(UserError, match="p-values must be from 0 to 1"):
            holm(p)
    with pytest.raises(UserError, match="p-values must not be nan, as number 1 is"):
        holm([0.5, math.nan])


def test_published_rank_sum():
    """The example of scipy's documentation, and Hollander and Wolfe 1973, page 69."""
    found = one([19, 22, 16, 29, 24], [20, 11, 17, 12], paired=False)
    assert found.p == pytest.approx(1 / 9)
    assert found.a12 == 17 / 20
    assert found.winner is None
    at_term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
    early = [1.15, 0.88, 0.90, 0.74, 1.21]
    found = one(at_term, early, paired=False)
    assert found.p == pytest.approx(2 * 0.1272, abs=1e-4)
    assert found.a12 == 35 / 50


def test_published_signed_rank():
    """Darwin's maize, in scipy's documentation, and Hollander and Wolfe 1973, page 29."""
    differences = [6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75]
    found = one(differences, [0] * 15, paired=True)
    assert found.p == pytest.approx(0.041259765625)
    assert found.winner == "x"
    before = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
    after = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
    found = one(before, after, paired=True, larger_is_better=False)
    assert found.p == pytest.approx(2 * 0.01953, abs=1e-5)
    assert found.winner == "y"


@pytest.mark.parametrize(("n", "critical"), [(10, 8), (15, 25), (20, 52), (30, 137)])
def test_critical_values_of_the_signed_rank_sum(n, critical):
    """Printed tables, two-sided at 0.05: significant up to this smaller sum of ranks.

    The smallest differences are positive, and the winner is who has the larger sum of ranks, though
    of 30 pairs it wins fewer.
    """
    for smaller, winner in ((critical, "y"), (critical + 1, None)):
        positive, left = set(), smaller
        for rank in range(1, n + 1):  # distinct ranks of that sum, the smallest ones possible
            if left - rank > rank or left == rank:
                positive.add(rank)
                left -= rank
        assert left == 0
        signed = [float(rank if rank in positive else -rank) for rank in range(1, n + 1)]
        found = one(signed, [0.0] * n, paired=True)
        assert found.winner == winner
        assert len(positive) > n / 2 or n < 30


@pytest.mark.parametrize("seed", range(4))
def test_rank_sum_by_enumeration(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0.8, 1, size=5), rng.normal(size=6)
    ranks = rankdata(np.concatenate([x, y]))
    middle = 5 * 12 / 2
    far = abs(ranks[:5].sum() - middle)
    sums = np.array([sum(chosen) for chosen in combinations(ranks, 5)])
    expected = (np.abs(sums - middle) >= far).mean()
    assert one(x, y, paired=False).p == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_signed_rank_by_enumeration(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0.8, 1, size=10), rng.normal(size=10)
    x[3] = y[3]  # left out
    kept = (x - y)[x != y]
    ranks = rankdata(np.abs(kept))
    signs = np.array(list(product([-1, 1], repeat=9)))
    far = abs((np.sign(kept) * ranks).sum())
    expected = (np.abs(signs @ ranks) >= far).mean()
    assert one(x, y, paired=True).p == pytest.approx(expected)


@pytest.mark.parametrize("paired", [False, True])
def test_identical_samples(paired):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for values in ([2.0, 2.0, 2.0], [math.inf] * 4, [5.0]):
            found = one(values, values, paired=paired)
            assert (found.p, found.p_adjusted, found.a12) == (1.0, 1.0, 0.5)
            assert found.winner is None
        values = [1.0, 2.0, math.inf]
        assert one(values, values, paired=paired).p == 1.0


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("larger_is_better", [False, True])
def test_infinite_values_take_part_by_rank(paired, larger_is_better):
    """A run that found nothing is like one that is worse than any other."""
    rng = np.random.default_rng(1)
    good, poor = rng.normal(0, 1, size=15), rng.normal(2, 1, size=15)
    poor[[2, 7]] = math.inf
    finite = poor.copy()
    finite[[2, 7]] = 1e6
    finite[[2, 7]] += good[[2, 7]]  # equally far from their partners, as infinite ones are
    if not paired:
        finite[[2, 7]] = 1e6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = one(good, poor, paired=paired, larger_is_better=larger_is_better)
    twin = one(good, finite, paired=paired, larger_is_better=larger_is_better)
    assert found == twin
    assert found.p < 0.01
    assert found.winner == ("y" if larger_is_better else "x")


def test_winner_of_pairs_is_who_wins_pairs():
    """One unlucky pair turns A12 the other way, but not the signed-rank test."""
    y = np.arange(12.0)
    x = y + 0.01 * np.arange(1, 13)
    x[0], y[0] = -1.0, 100.0
    found = one(x, y, paired=True)
    assert found.a12 < 0.5
    # All differences but the largest are positive.
    assert found.p == pytest.approx(2 * subsets_of_sum_up_to(12) / 2**12)
    assert found.winner == "x"
    assert one(x, y, paired=True, larger_is_better=False).winner == "y"
    assert one(x, y, paired=True, alpha=0.01).winner is None


def subsets_of_sum_up_to(bound, n=12):
    """Subsets of 1..n with a sum of at most the bound: signs that are as extreme."""
    counts = [1] + [0] * bound
    for rank in range(1, n + 1):
        for total in range(bound, rank - 1, -1):
            counts[total] += counts[total - rank]
    return sum(counts)


@pytest.mark.parametrize("paired", [False, True])
def test_all_pairs_are_corrected_together(paired):
    rng = np.random.default_rng(16)
    means = {"a": 0, "b": 0, "c": 0.7, "d": 3}
    named = {name: rng.normal(mean, 1, size=20) for name, mean in means.items()}
    found = compare_pairs(named, paired=paired, larger_is_better=False)
    assert [(c.a, c.b) for c in found] == list(combinations("abcd", 2))
    alone = [one(named[c.a], named[c.b], paired=paired).p for c in found]
    assert [c.p for c in found] == alone
    np.testing.assert_array_equal([c.p_adjusted for c in found], holm(alone))
    assert [c.a12 for c in found] == [a12(named[c.a], named[c.b]) for c in found]
    winners = {(c.a, c.b): c.winner for c in found}
    assert winners["a", "b"] is None
    assert {winners[name, "d"] for name in "abc"} == {"a", "b", "c"}
    assert all((c.winner is not None) == (c.p_adjusted <= 0.05) for c in found)
    assert any(c.p <= 0.05 < c.p_adjusted for c in found)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=10), st.booleans())
@settings(max_examples=60, deadline=None)
def test_exchanging_samples_mirrors_a_comparison(pairs, paired):
    x, y = (list(column) for column in zip(*pairs, strict=True))
    ahead, back = one(x, y, paired=paired), one(y, x, paired=paired)
    assert ahead.p == pytest.approx(back.p)
    assert 0 < ahead.p <= 1
    assert ahead.a12 == pytest.approx(1 - back.a12)
    mirrored = {"x": "y", "y": "x", None: None}
    assert ahead.winner == mirrored[back.winner]
    # Smaller values win where they are better.
    assert one(x, y, paired=paired, larger_is_better=False).winner == mirrored[ahead.winner]


def test_malformed_samples():
    good = [1.0, 2.0]
    with pytest.raises(UserError, match=r"needs at least 2 samples, got \['a'\]"):
        compare_pairs({"a": good}, paired=False, larger_is_better=True)
    with pytest.raises(UserError, match="values of 'b' must not be nan, as number 1 is"):
        compare_pairs({"a": good, "b": [1, math.nan]}, paired=False, larger_is_better=True)
    with pytest.raises(UserError, match="values of 'b' must be a vector of at least 1 number"):
        compare_pairs({"a": good, "b": []}, paired=False, larger_is_better=True)
    with pytest.raises(UserError, match="'a' has 2 values and 'b' 3; drop what has no partner"):
        compare_pairs({"a": good, "b": [1, 2, 3]}, paired=True, larger_is_better=True)
    for alpha in (0, 1, math.nan):
        with pytest.raises(UserError, match="alpha must be between 0 and 1"):
            one(good, good, paired=True, alpha=alpha)
    for function in (summarise, lambda values: a12(values, good), lambda values: a12(good, values)):
        with pytest.raises(UserError, match=r"a vector of at least 1 number, got shape \(0,\)"):
            function([])
        with pytest.raises(UserError, match=r"a vector of at least 1 number, got shape \(1, 2\)"):
            function([good])
        with pytest.raises(UserError, match="must not be nan, as number 0 is"):
            function([math.nan])


@pytest.mark.parametrize(
    ("alpha", "quantiles"),
    [
        (0.05, [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]),
        (0.10, [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]),
    ],
)
def test_critical_values_of_demsar(alpha, quantiles):
    """Table 5a, for 2 to 10 algorithms."""
    for k, q in enumerate(quantiles, start=2):
        for problems in (1, 14):
            expected = q * math.sqrt(k * (k + 1) / (6 * problems))
            found = critical_difference(k, problems, alpha)
            assert found == pytest.approx(expected, rel=5e-4)


def test_friedman_of_demsar():
    found = friedman(AUC, VARIANTS, larger_is_better=True)
    assert found.names == VARIANTS
    assert found.problems == 14
    assert found.mean_ranks == pytest.approx((3.143, 2.000, 2.893, 1.964), abs=5e-4)
    # The paper does not correct for ties; three of 2 and one of 4 equal values here.
    correction = 1 - (3 * (2**3 - 2) + (4**3 - 4)) / (14 * (4**3 - 4))
    assert found.statistic * correction == pytest.approx(9.28, abs=0.005)
    assert found.p < 0.025
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    # "Not powerful enough": the best and the worst differ by 1.18, significantly at 0.10 only.
    assert found.p_values[0, 3] == found.p_values.min()
    assert 0.05 < found.p_values[0, 3] < 0.10
    assert critical_difference(4, 14, 0.10) == pytest.approx(1.12, abs=0.005)


def test_friedman_of_hollander_and_wolfe():
    found = friedman(ROUNDING, ["out", "narrow", "wide"], larger_is_better=False)
    assert found.statistic == pytest.approx(11.143, abs=5e-4)
    assert found.p == pytest.approx(0.003805, abs=5e-7)
    assert np.argmin(found.mean_ranks) == 2


@pytest.mark.parametrize("seed", range(3))
def test_nemenyi_agrees_with_the_critical_difference(seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(10, 5)) + 0.6 * np.arange(5)
    found = friedman(scores, "abcde", larger_is_better=True, alpha=0.1)
    ranks = np.array(found.mean_ranks)
    apart = np.abs(ranks[:, None] - ranks) >= found.critical_difference
    assert apart.any()
    assert not apart.all()
    np.testing.assert_array_equal(found.p_values <= 0.1, apart)
    np.testing.assert_array_equal(found.p_values, found.p_values.T)
    assert (np.diag(found.p_values) == 1).all()
    assert found.alpha == 0.1


def test_ranks_depend_on_order_alone():
    found = friedman(AUC, VARIANTS, larger_is_better=True)
    for scores, larger in ((-AUC, False), (np.exp(9 * AUC), True)):
        other = friedman(scores, VARIANTS, larger_is_better=larger)
        assert other.mean_ranks == found.mean_ranks
        assert other.statistic == found.statistic
    reversed_ = friedman(AUC, VARIANTS, larger_is_better=False)
    np.testing.assert_allclose(np.add(reversed_.mean_ranks, found.mean_ranks), 5)
    swapped = friedman(AUC[:, ::-1], VARIANTS[::-1], larger_is_better=True)
    assert swapped.mean_ranks == found.mean_ranks[::-1]
    assert swapped.statistic == pytest.approx(found.statistic)
    np.testing.assert_allclose(swapped.p_values, found.p_values[::-1, ::-1], rtol=1e-9)


def test_infinite_scores_are_ranked_last():
    scores = [[0.1, math.inf, 0.2], [math.inf, math.inf, 0.3]]
    found = friedman(scores, "abc", larger_is_better=False)
    assert found.mean_ranks == ((1 + 2.5) / 2, (3 + 2.5) / 2, (2 + 1) / 2)


def test_algorithms_that_are_all_alike():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = friedman(np.full((3, 4), math.inf), "abcd", larger_is_better=False)
    assert (found.statistic, found.p) == (0.0, 1.0)
    assert found.mean_ranks == (2.5,) * 4
    assert (found.p_values == 1).all()


def test_malformed_scores():
    for shape in ((1, 3), (2, 2), (3,), (2, 3, 4)):
        with pytest.raises(UserError, match=r"at least 2 problems .* and 3 algorithms"):
            friedman(np.zeros(shape), "abc", larger_is_better=True)
    for names in ("ab", "abcd", "aba"):
        with pytest.raises(UserError, match="3 algorithms need as many distinct names"):
            friedman(np.zeros((2, 3)), names, larger_is_better=True)
    with pytest.raises(UserError, match="the score of 'b' on problem 1 is nan"):
        friedman([[1, 2, 3], [1, math.nan, 3]], "abc", larger_is_better=True)
    with pytest.raises(UserError, match="alpha must be between 0 and 1, not 2"):
        friedman(np.zeros((2, 3)), "abc", larger_is_better=True, alpha=2)
    for k, n in ((1, 5), (3, 0)):
        with pytest.raises(UserError, match=f"at least 2 algorithms .* got {k} and {n}"):
            critical_difference(k, n)


def test_examples_in_the_documentation():
    results = doctest.testmod(statistics)
    assert results.attempted >= 4
    assert results.failed == 0

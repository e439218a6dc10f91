"""Metrics against scipy, brute force and closed forms."""

import doctest
import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from apq_moo.errors import UserError
from apq_moo.predictors import metrics

# Few distinct values make ties common.
values = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=30).map(
    lambda pairs: tuple(np.array(pairs, dtype=float).T)
)


def brute_force_pairwise(true, pred):
    scores = []
    for i, j in combinations(range(len(true)), 2):
        if true[i] != true[j]:
            agree = np.sign(true[i] - true[j]) * np.sign(pred[i] - pred[j])
            scores.append((agree + 1) / 2)
    return np.mean(scores) if scores else math.nan


@given(values)
@settings(max_examples=100, deadline=None)
def test_pairwise_accuracy_equals_brute_force(pair):
    np.testing.assert_allclose(
        metrics.pairwise_accuracy(*pair), brute_force_pairwise(*pair), rtol=1e-12
    )


def test_pairwise_accuracy_of_many():
    rng = np.random.default_rng(0)
    true = rng.normal(size=1500).round(2)
    pred = (true + rng.normal(size=1500)).round(2)
    difference = np.sign(true[:, None] - true) * np.sign(pred[:, None] - pred)
    expected = ((difference + 1) / 2)[true[:, None] != true].mean()
    assert metrics.pairwise_accuracy(true, pred) == pytest.approx(expected, rel=1e-12)


@given(values)
@settings(max_examples=50, deadline=None)
def test_spearman_is_the_correlation_of_ranks(pair):
    ranks = [stats.rankdata(y) for y in pair]
    if min(np.ptp(rank) for rank in ranks) == 0:
        assert math.isnan(metrics.spearman(*pair))
    else:
        expected = stats.spearmanr(*pair).statistic
        assert metrics.spearman(*pair) == pytest.approx(expected, abs=1e-12)


@given(values)
@settings(max_examples=50, deadline=None)
def test_kendall_tau_b(pair):
    true, pred = pair
    i, j = np.triu_indices(len(true), 1)
    a, b = np.sign(true[i] - true[j]), np.sign(pred[i] - pred[j])
    scale = math.sqrt((a != 0).sum() * (b != 0).sum())
    expected = (a * b).sum() / scale if scale else math.nan
    np.testing.assert_allclose(metrics.kendall_tau(true, pred), expected, atol=1e-12)


def test_examples_in_the_documentation():
    results = doctest.testmod(metrics)
    assert results.attempted == 4
    assert results.failed == 0


def test_hand_worked():
    true, pred = [1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 3.0, 5.0]
    assert metrics.kendall_tau(true, pred) == pytest.approx(4 / 6)
    assert metrics.spearman(true, pred) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert metrics.pairwise_accuracy(true, pred) == pytest.approx(5 / 6)
    assert metrics.rmse(true, pred) == pytest.approx(math.sqrt(3 / 4))
    assert metrics.top_k_regret(true, pred, k=1) == 0.0
    assert metrics.top_k_regret(true, [-p for p in pred], k=1) == 2.0
    assert metrics.top_k_regret(true, [-p for p in pred], k=3) == 1.0
    assert metrics.pairwise_accuracy([1, 2], [5, 5]) == 0.5


def test_ties_never_help_the_regret():
    true = np.array([5.0, 9.0, 7.0])
    for order in ([0, 1, 2], [1, 2, 0], [2, 0, 1]):
        assert metrics.top_k_regret(true[order], [1.0, 1.0, 1.0], k=2) == 2.0


def test_published_ceilings():
    """Total deviation 3 and 5 times the noise."""
    assert metrics.pairwise_ceiling(1, math.sqrt(8)) == pytest.approx(0.892, abs=5e-4)
    assert metrics.pairwise_ceiling(1, math.sqrt(24)) == pytest.approx(0.936, abs=5e-4)
    assert metrics.pairwise_ceiling(0, 2) == 1.0
    assert metrics.pairwise_ceiling(2, 0) == 0.5


@pytest.mark.parametrize("noise", [0.2, 0.5, 1.0])
def test_ceiling_is_what_a_perfect_predictor_scores(noise):
    rng = np.random.default_rng(0)
    signal = rng.normal(scale=1.5, size=20_000)
    measured = signal + rng.normal(scale=noise, size=len(signal))
    score = metrics.pairwise_accuracy(measured, signal)
    assert score == pytest.approx(metrics.pairwise_ceiling(noise, 1.5), abs=0.004)


@pytest.mark.parametrize(
    "function",
    [
        metrics.kendall_tau,
        metrics.spearman,
        metrics.pairwise_accuracy,
        metrics.rmse,
        metrics.top_k_regret,
    ],
)
def test_malformed_values(function):
    for pair in (([1, 2], [1]), ([1], [1]), ([[1, 2]], [[1, 2]])):
        with pytest.raises(UserError, match="two vectors of one length"):
            function(*pair)
    with pytest.raises(UserError, match="finite"):
        function([1, 2], [1, float("nan")])


def test_malformed_settings():
    with pytest.raises(UserError, match="k must be from 1 to the number of values, 2, not 3"):
        metrics.top_k_regret([1, 2], [1, 2], k=3)
    for pair in ((-1, 1), (0, 0), (float("nan"), 1)):
        with pytest.raises(UserError, match="deviations >= 0"):
            metrics.pairwise_ceiling(*pair)

"""Measuring what a predictor promises: expected gains, batches, and the search made of them."""

from dataclasses import replace
from pathlib import Path

import moocore
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from apq_moo.algorithms import ALGORITHMS
from apq_moo.algorithms.strategy import Context
from apq_moo.algorithms.surrogate.algorithm import MeasuredSearch
from apq_moo.algorithms.surrogate.improvement import (
    ExpectedGain,
    batch_by_gain,
    expected_excess,
)
from apq_moo.algorithms.surrogate.inner import searched_by
from apq_moo.algorithms.surrogate.refit import Candidates, Refit, largest_gains
from apq_moo.benchmarks.compare.bounds import bounds_of
from apq_moo.benchmarks.compare.scores import regret
from apq_moo.errors import UserError
from apq_moo.predictors import AdditivePredictor, ScratchGPPredictor
from apq_moo.problems import APQProblem
from apq_moo.problems.evaluated import Evaluated
from apq_moo.space import load_space
from apq_moo.testing import AlgorithmConformance

NSGA2 = ALGORITHMS.get("nsga2")


def cheap(space, predictions=300, **options):
    inner = searched_by(NSGA2.strategy, budget=predictions, pop_size=50)
    return Refit(ScratchGPPredictor(space, steps=2, likelihood_rows=50), inner, **options)


def measured(problem, budget, refit, seed=0):
    context = Context(problem, budget, seed, refit=refit)
    return list(ALGORITHMS.get("surrogate").strategy().rounds(context))


# -- expected gains --------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "mean", "std"), [(1.0, 0.2, 0.3), (-2.0, 0.1, 0.9), (0, 4, 0.5)])
def test_the_expected_excess_is_the_integral_of_the_distribution(level, mean, std):
    expected, _ = quad(lambda u: norm.cdf(u, mean, std), mean - 40 * std, level)
    (((found,),),) = [expected_excess(np.array([level]), np.array([mean]), np.array([std]))]
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)


def drawn_gain(rng, known, reference, mean, std, costs, n=4000):
    """The mean gain over draws of the accuracy, by moocore's hypervolume."""
    before = moocore.hypervolume(known, ref=reference)
    drawn = rng.normal(mean, std, n)
    after = [moocore.hypervolume(np.vstack([known, [a, *costs]]), ref=reference) for a in drawn]
    return np.mean(after) - before, np.std(after) / np.sqrt(n)


@pytest.mark.parametrize("n_costs", [1, 2])
def test_gains_are_those_of_drawn_hypervolumes(n_costs):
    """Exactly so for one cost; over points of the space of costs for two."""
    rng = np.random.default_rng(3)
    known = rng.uniform(0.2, 1.3, (12, 1 + n_costs))  # some beyond the reference, some dominated
    reference = np.full(1 + n_costs, 1.1)
    gain = ExpectedGain(known, reference)
    for mean, std in ((0.3, 0.1), (0.8, 0.3), (1.2, 0.4)):
        costs = rng.uniform(0.1, 0.5, n_costs)
        (found,) = gain.of(np.array([mean]), np.array([std]), costs[None])
        expected, error = drawn_gain(rng, known, reference, mean, std, costs)
        assert abs(found - expected) < 4 * error + (0.01 if n_costs == 2 else 0)


def test_without_costs_it_is_the_expected_improvement_over_the_best():
    """Jones, Schonlau and Welch (1998), equation 15."""
    mean, std, best = np.array([0.4, 0.7]), np.array([0.1, 0.3]), 0.45
    gain = ExpectedGain(np.array([[0.9], [best], [0.6]]), np.array([1.1]))
    z = (best - mean) / std
    expected = (best - mean) * norm.cdf(z) + std * norm.pdf(z)
    np.testing.assert_allclose(gain.of(mean, std, np.empty((2, 0))), expected)


def test_what_is_certain_gains_what_it_adds():
    rng = np.random.default_rng(0)
    known, reference = rng.uniform(0, 1, (9, 2)), np.array([1.1, 1.1])
    gain = ExpectedGain(known, reference)
    before = moocore.hypervolume(known, ref=reference)
    for row in rng.uniform(-0.1, 1.2, (30, 2)):
        (found,) = gain.of(row[:1], np.array([1e-9]), row[None, 1:])
        added = moocore.hypervolume(np.vstack([known, row]), ref=reference) - before
        assert found == pytest.approx(added, abs=1e-8)


def test_nothing_is_gained_beyond_the_reference():
    gain = ExpectedGain(np.empty((0, 2)), np.array([1.0, 1.0]))
    gain.add(0.5, np.array([1.0]))
    found = gain.of(np.array([0.5, 0.5]), np.array([0.1, 0.1]), np.array([[1.0], [0.0]]))
    assert found[0] == 0
    assert found[1] == pytest.approx(0.5, abs=1e-6)


def test_a_batch_takes_what_was_chosen_for_known():
    rng = np.random.default_rng(1)
    known, reference = rng.uniform(0.4, 1, (5, 2)), np.array([1.1, 1.1])
    mean, std, costs = rng.uniform(0, 1, 40), rng.uniform(0.01, 0.1, 40), rng.uniform(0, 1, (40, 1))
    chosen = batch_by_gain(mean, std, costs, known, reference, 8)
    believed = known
    for place in chosen:
        gains = ExpectedGain(believed, reference).of(mean, std, costs)
        gains[chosen[: list(chosen).index(place)]] = -1
        assert place == gains.argmax()
        believed = np.vstack([believed, [mean[place], *costs[place]]])
    assert len(set(chosen)) == 8
    # The same network twice gains nothing, so that its twin is not taken.
    twins = batch_by_gain(
        np.array([0.2, 0.2, 0.6]), np.full(3, 1e-6), np.array([[0.5], [0.5], [0.1]]),
        known[:0], reference, 2,
    )  # fmt: skip
    assert sorted(twins) == [0, 2]


def test_a_batch_is_never_larger_than_what_there_is():
    F = np.array([[0.5, 0.5], [2.0, 2.0]])
    candidates = Candidates(F, F, np.full(2, 0.1), F[:0], np.array([1.1, 1.1]))
    assert list(largest_gains(candidates, 9, np.random.default_rng(0))) == [0, 1]


# -- refitting -------------------------------------------------------------------------------------


def test_a_predictor_without_deviations_is_refused():
    space = load_space("digits")
    inner = searched_by(NSGA2.strategy)
    with pytest.raises(UserError, match=r"'additive' has no standard deviations.*gp-scratch"):
        Refit(AdditivePredictor(space), inner)
    Refit(AdditivePredictor(space), inner, needs_std=False)
    with pytest.raises(UserError, match="batch=1: at least 2"):
        cheap(space, batch=1)


def test_measured_networks_are_learnt_from_before_samples():
    """Of many samples so many are left out that the predictor takes all that was measured."""
    space = load_space("digits")
    rng = np.random.default_rng(0)
    X, y = space.sample(60, rng), rng.uniform(50, 90, 60)
    refit = replace(cheap(space), samples=(X[10:], y[10:]))
    refit.predictor.max_rows = 30
    seen = []
    refit.predictor._fit = lambda X, y: seen.append((X, y))
    refit.fit(X[:10], y[:10], rng)
    ((rows, values),) = seen
    assert len(rows) == 30
    np.testing.assert_array_equal(rows[:10], space.canonical(X[:10]))
    np.testing.assert_array_equal(values[:10], y[:10])
    assert set(values[10:]) <= set(y[10:])
    seen.clear()
    refit.fit(X[8:18], y[8:18], rng)  # some of which are among the samples
    ((rows, _),) = seen
    assert len(rows) == len(np.unique(rows, axis=0)) == 30


def test_batches_grow_with_what_is_known():
    refit = cheap(load_space("digits"))
    assert [refit.size(n) for n in (30, 100, 119, 500)] == [10, 10, 11, 50]


# -- the search ------------------------------------------------------------------------------------


class TestSurrogate(AlgorithmConformance):
    @pytest.fixture
    def algorithm(self):
        def make(problem, pop_size=100):
            return MeasuredSearch(
                cheap(problem.space, 60, first=pop_size, batch=pop_size, growth=0.0)
            )

        return replace(ALGORITHMS.get("surrogate"), factory=make, needs=())


@pytest.fixture(scope="module")
def tiny():
    return APQProblem("tiny", predictor="table")


def test_a_few_measured_networks_make_the_front(tiny):
    """Of 40,960; NSGA-II needs about 800 for a regret of 0.001 (docs/searching.md)."""
    parts = measured(tiny, 80, None)
    found = Evaluated.join(parts)
    assert [len(part) for part in parts] == [30, *[10] * 5]
    assert len(np.unique(found.X, axis=0)) == 80
    assert regret(found.F, bounds_of(tiny), tiny.pareto_front()) < 0.002


def test_each_batch_goes_to_where_something_is_expected(tiny):
    """What is measured after the first batch enlarges the front far more than random networks."""
    scores = {}
    for start in ("uniform", "sizes"):
        problem = APQProblem("tiny", ("acc", "latency"), predictor="table", start=start)
        found = Evaluated.join(measured(problem, 60, cheap(problem.space)))
        context = Context(problem, 60, 0)
        random = Evaluated.join(list(ALGORITHMS.get("random").strategy().rounds(context)))
        scores[start] = [regret(e.F, bounds_of(tiny), tiny.pareto_front()) for e in (found, random)]
    assert scores["uniform"][0] < scores["uniform"][1] / 3
    assert scores["sizes"][0] < scores["sizes"][1]


def test_limits_are_kept(tiny):
    problem = tiny.with_limits({"latency": 0.1, "acc": 90.5})
    parts = measured(problem, 50, cheap(tiny.space))
    assert all((part.F[:, 1] <= 0.1).all() for part in parts)
    # The limit on accuracy is not known before: but what is chosen tends to meet it.
    assert parts[-1].feasible.mean() > max(parts[0].feasible.mean(), 0.8)


def test_three_objectives(tiny):
    problem = tiny.with_limits({}, ("latency", "acc", "size"))
    found = Evaluated.join(measured(problem, 60, cheap(tiny.space)))
    random = Evaluated.join(
        list(ALGORITHMS.get("random").strategy().rounds(Context(problem, 60, 0)))
    )
    corner = problem.nadir_point()
    volumes = [moocore.hypervolume(e.F, ref=corner) for e in (found, random)]
    assert volumes[0] > volumes[1]


def test_one_objective_finds_the_best(tiny):
    problem = tiny.with_limits({"latency": 0.12}, "acc")
    found = Evaluated.join(measured(problem, 60, cheap(tiny.space)))
    _, accuracies = tiny.accuracy.samples()
    X, _ = tiny.accuracy.samples()
    inside = tiny.tables["latency"](X) <= 0.12
    assert -found.F.min() == pytest.approx(accuracies[inside].max(), abs=0.05)


def test_a_space_is_exhausted():
    """Then nothing is left to ask for, and nothing was measured twice."""
    space = load_space(Path(__file__).parents[1] / "problems" / "tiny.toml")
    problem = APQProblem(space, predictor=lambda X: 50 + X.sum(axis=1) / 2, constraints={})
    limit = float(
        np.quantile(problem.tables["latency"](space.sample(500, np.random.default_rng(0))), 0.02)
    )
    problem = problem.with_limits({"latency": limit})
    found = Evaluated.join(measured(problem, 500, cheap(space, batch=20)))
    assert len(found) < 500
    assert len(np.unique(found.X, axis=0)) == len(found)
    drawn = problem.region.sample(5000, np.random.default_rng(1))
    assert len(np.unique(drawn, axis=0)) == len(found)


def test_accuracy_has_to_be_an_objective(tiny):
    with pytest.raises(UserError, match="surrogate fits accuracies: add acc"):
        measured(tiny.with_limits({}, ("latency", "size")), 40, cheap(tiny.space))


def test_it_is_an_algorithm_of_pymoos(tiny):
    from pymoo.optimize import minimize

    algorithm = MeasuredSearch(cheap(tiny.space, first=20))
    result = minimize(tiny, algorithm, ("n_eval", 40), seed=1)
    assert len(result.pop) == 40
    assert len(result.F) > 3

"""The networks that searches begin with: of all sizes, under the limits, distinct, seeded."""

import numpy as np
import pytest

from apq_moo.errors import UserError
from apq_moo.hardware import cost_table, minimum
from apq_moo.problems import STARTS, APQProblem, FeasibleRegion
from apq_moo.space import all_networks, load_space, sample_sizes_and_bits


@pytest.fixture(scope="module")
def free():
    return APQProblem("fashion", ("latency",))


def drawn(problem, n, seed=0):
    X = problem.draw(n, np.random.default_rng(seed))
    return X, problem.evaluate_raw(X)["latency"]


def mean_bits(space, X):
    bits = X[:, space.block_columns[:, 2:]].mean(axis=2)
    active = space.active(X)
    return (bits * active).sum(axis=1) / active.sum(axis=1)


def test_first_networks_reach_both_ends(free):
    """Latencies on a logarithmic scale, between the least and the largest of any network."""
    low, high = (np.log(point[0]) for point in free.reachable())
    share = {}
    for start in STARTS:
        problem = APQProblem("fashion", ("latency",), start=start)
        _, costs = drawn(problem, 100)
        share[start] = np.quantile((np.log(costs) - low) / (high - low), [0.1, 0.9])
    assert share["sizes"][0] < 0.12
    assert share["uniform"][0] > 0.3
    assert share["uniform"][1] < 0.7
    assert share["sizes"][1] > 0.85


def test_sizes_and_bits_lean_apart():
    """Every quarter of the tilts of sizes meets every quarter of those of bits."""
    space = load_space("fashion")
    X = sample_sizes_and_bits(space, 800, np.random.default_rng(1))
    np.testing.assert_array_equal(space.canonical(X), X)
    sizes = X[:, space.block_columns[0, :2]].sum(axis=1) + space.depths(X).sum(axis=1)
    bits = mean_bits(space, X)
    assert abs(np.corrcoef(sizes, bits)[0, 1]) < 0.12
    assert np.quantile(bits, 0.1) < 0.2
    assert np.quantile(bits, 0.9) > bits.max() - 0.2
    again = sample_sizes_and_bits(space, 800, np.random.default_rng(1))
    np.testing.assert_array_equal(again, X)


@pytest.mark.parametrize("share", [1.002, 1.02, 1.5, 6.0])
def test_first_networks_meet_limits_from_loose_to_nearly_the_least(free, share):
    least = free.reachable()[0][0]
    problem = free.with_limits({"latency": share * least})
    X, costs = drawn(problem, 60)
    assert len(np.unique(X, axis=0)) == len(X) == 60
    assert (costs <= share * least).all()
    if share > 2:  # of all sizes there
        level = np.log(costs / least) / np.log(share)
        assert np.histogram(level, 5, (0, 1))[0].min() >= 4


def test_first_networks_meet_several_limits_and_what_a_device_runs():
    free = APQProblem("digits", ("acc",), predictor=len)
    limits = {}
    for name in ("latency", "size", "memory"):
        table = cost_table(free.space, name, device=free.device)
        limits[name] = float(np.quantile(table(free.draw(200, np.random.default_rng(0))), 0.4))
    problem = free.with_limits(limits)
    X = problem.draw(50, np.random.default_rng(3))
    assert problem.feasible_rows(X).all()
    assert len(np.unique(X, axis=0)) == 50


def test_all_networks_of_a_small_region_are_found():
    space = load_space("tiny")
    table = cost_table(space, "latency")
    costs = table(all_networks(space))
    limit = float(np.sort(costs)[29])
    assert limit > minimum(table, APQProblem(space, ("latency",)).feasible)[0]
    problem = APQProblem(space, ("latency",), {"latency": limit})
    X, found = drawn(problem, 200)
    assert len(X) == (costs <= limit).sum() == len(np.unique(X, axis=0))
    assert (found <= limit).all()


def test_uniform_ones_are_those_of_the_region():
    problem = APQProblem("digits", ("latency",), {"latency": 0.01}, start="uniform")
    expected = problem.region.sample(20, np.random.default_rng(4))
    np.testing.assert_array_equal(problem.draw(20, np.random.default_rng(4)), expected)
    np.testing.assert_array_equal(
        problem.with_limits({}).draw(20, np.random.default_rng(4)),
        FeasibleRegion(problem.space, problem.feasible).sample(20, np.random.default_rng(4)),
    )


def test_an_unknown_start_is_refused():
    with pytest.raises(UserError, match="start='large': must be one of sizes, uniform"):
        APQProblem("tiny", ("latency",), start="large")

"""Limits of a sweep, the archive's front, and what a single seed decides."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from pymoo.core.population import Population
from pymoo.core.termination import NoTermination

from apq_moo.algorithms import ALGORITHMS, AlgorithmEntry, ApqGA, RandomSearch
from apq_moo.problems import APQProblem, FeasibleRegion
from apq_moo.problems.evaluated import Evaluated
from apq_moo.study.config import RunConfig
from apq_moo.study.epsilon_constraint import epsilon_limits
from apq_moo.study.search import Search


@pytest.fixture(scope="module")
def problem():
    return APQProblem("digits", ("acc", "latency"), predictor=lambda X: X.sum(axis=1) % 100)


def test_limits_for_one_cost_are_quantiles(problem):
    limits = [point["latency"] for point in epsilon_limits(problem, ("latency",), 8, seed=0)]
    rng = np.random.default_rng([0, 5])
    X = problem.draw(1000, rng)
    costs = APQProblem("digits", ("latency",)).evaluate_raw(X)["latency"]
    assert limits[-1] == costs.max()
    assert all(a < b for a, b in pairwise(limits))
    for limit, level in zip(limits, np.linspace(1 / 16, 1, 8), strict=True):
        assert abs((costs <= limit).mean() - level) < 0.002


def test_a_limit_of_the_user_caps_the_sweep():
    capped = APQProblem("digits", ("acc", "latency"), {"latency": 0.01}, predictor=len)
    limits = [point["latency"] for point in epsilon_limits(capped, ("latency",), 5, seed=0)]
    assert 0.009 < max(limits) <= 0.01


def test_limits_for_several_costs_can_be_met_together():
    problem = APQProblem("digits", ("acc", "latency", "energy", "size"), predictor=len)
    sweep = epsilon_limits(problem, ("latency", "energy", "size"), 16, seed=3)
    assert len({tuple(point.values()) for point in sweep}) == 16
    for point in sweep:
        APQProblem("digits", ("acc",), point, predictor=len)


def test_every_point_keeps_its_limit_and_its_share():
    config = RunConfig(space="digits", predictor="additive", budget=1300, sweep=2)
    search = Search(config)
    parts = search.context().parts
    assert [part.budget for part in parts] == [650, 650]
    assert len({part.seed for part in parts}) == 2
    archive = search.run()
    assert len(archive) == 1300
    # All points take turns: 100 networks each, then half of what is left.
    owner = np.repeat([0, 1] * 7, [100] * 12 + [50] * 2)
    for i, part in enumerate(parts):
        assert (archive.F[owner == i, 1] <= part.problem.constraints["latency"]).all()
    assert (archive.F[owner == 0, 1] > parts[1].problem.constraints["latency"]).any()


def test_the_loosest_limit_comes_first_unless_networks_begin_uniform():
    """Uniform sweeps that were begun by earlier versions go on in their order."""
    for start, sign in (("sizes", -1), ("uniform", 1)):
        config = RunConfig(space="digits", predictor="additive", sweep=4, start=start)
        parts = Search(config).context().parts
        limits = [sign * part.problem.constraints["latency"] for part in parts]
        assert limits == sorted(limits)


@pytest.mark.parametrize(
    ("budget", "limits"), [(599, 1), (600, 1), (1199, 1), (1200, 2), (4799, 7), (20_000, 8)]
)
def test_a_sweep_has_as_many_limits_as_the_budget_suffices_for(budget, limits):
    config = RunConfig(budget=budget)
    assert config.points(swept=True) == limits
    assert config.smallest(swept=True) == limits * 600
    assert config.points(swept=False) == 1
    assert RunConfig(budget=budget, objectives=("acc",)).points(swept=True) == 1
    assert RunConfig(budget=budget, sweep=5).points(swept=True) == 5


def test_a_small_budget_needs_no_option():
    search = Search(RunConfig(space="digits", predictor="additive", budget=1300))
    assert [part.budget for part in search.context().parts] == [650, 650]
    systems = RunConfig("spos", space="digits", predictor="additive", budget=30)
    assert len(Search(systems).context().parts) == 8


def test_one_problem_serves_a_whole_sweep(monkeypatch):
    """Tables, masks and accuracies are shared; a limit costs a region."""
    made, regions = [], []
    for kind, log in ((APQProblem, made), (FeasibleRegion, regions)):
        real = kind.__init__

        def counted(self, *given, _real=real, _log=log, **more):
            _log.append(self)
            _real(self, *given, **more)

        monkeypatch.setattr(kind, "__init__", counted)
    search = Search(RunConfig(space="digits", predictor="additive", sweep=8))
    parts = search.context().parts
    assert len(parts) == 8
    assert len(made) == 1
    assert len(regions) == 1 + 8
    for part in parts:
        assert part.problem.accuracy is search.source
        assert part.problem.tables["latency"] is search.problem.tables["latency"]


def test_a_swept_plug_in_is_judged_by_the_users_limits(monkeypatch):
    """One that does not keep to the limits of a sweep finds networks that the user admits."""

    class Anywhere(RandomSearch):
        def _infill(self):
            space = self.problem.space
            return Population.new(X=space.sample(self.pop_size, self.random_state))

    entry = AlgorithmEntry(
        "anywhere",
        lambda _problem, pop_size=100: Anywhere(pop_size),
        "single-objective-sweep",
        "none",
        "draws without looking at limits",
    )
    monkeypatch.setitem(ALGORITHMS._items, "anywhere", entry)
    search = Search(RunConfig(algo="anywhere", space="digits", predictor="additive", budget=4800))
    archive = search.run()
    np.testing.assert_array_equal(archive.feasible, search.problem.feasible_rows(archive.genotypes))
    limits = [part.problem.constraints["latency"] for part in search.context().parts]
    beyond = archive.F[:, 1] > np.repeat(limits, 600)
    assert archive.feasible[beyond].sum() > 100


def test_a_point_alone_equals_the_algorithm_of_pymoo():
    config = RunConfig(
        space="digits", predictor="additive", objectives=("acc",), limits={"latency": 0.01}
    )
    search = Search(replace(config, budget=950))
    archive = search.run()
    (part,) = search.context().parts
    seen = []
    algorithm = ApqGA(callback=lambda algorithm: seen.append(algorithm.off.get("X")))
    algorithm.setup(part.problem, termination=NoTermination(), seed=part.seed)
    for _ in range(10):
        algorithm.next()
    np.testing.assert_array_equal(archive.X[:900], np.vstack(seen)[:900])
    spread = np.linspace(0, 99, 50).astype(int)
    np.testing.assert_array_equal(archive.X[900:], seen[9][spread])


def test_evolution_beats_its_first_population():
    search = Search(RunConfig(space="digits", predictor="additive", budget=3000, sweep=1))
    accuracies = -search.run().F[:, 0]
    assert accuracies[2000:].max() > accuracies[:100].max() + 1


def test_the_front_of_an_archive():
    F = np.array([[-90, 3.0], [-80, 1.0], [-85, 3.0], [-95, 9.0], [-80, 1.0], [-99, 0.5]])
    feasible = np.array([True, True, True, True, True, False])
    front = Evaluated(np.arange(6)[:, None], F, feasible).front()
    assert front.X[:, 0].tolist() == [1, 0, 3]

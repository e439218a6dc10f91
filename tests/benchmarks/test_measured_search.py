"""The comparison of searches that measure: others' rules, scores, and going on."""

import json

import numpy as np
import pytest

from apq_moo.algorithms.surrogate.refit import Candidates
from apq_moo.benchmarks.compare.bounds import bounds_of
from apq_moo.benchmarks.compare.scores import hypervolume, regret
from apq_moo.benchmarks.experiments.measured_search import (
    METHODS,
    SwitchingPredictor,
    best_of_population,
    closing_gaps,
    first_below,
    main,
    medians,
    scores_of,
    search,
)
from apq_moo.errors import UserError
from apq_moo.predictors.metrics import kendall_tau
from apq_moo.problems import APQProblem

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def tiny():
    return APQProblem("tiny", predictor="table")


def candidates(F, known=((2.0, 2.0),)):
    F = np.array(F)
    return Candidates(F, F, None, np.array(known), np.array([1.1, 1.1]))


def test_the_last_front_is_thinned_by_crowding():
    """Its ends, and of the middle what is loneliest, after whole fronts before it."""
    front = [(0.0, 1.0), (0.05, 0.9), (0.1, 0.85), (0.5, 0.3), (1.0, 0.0)]
    second = [(0.6, 1.2), (1.2, 0.9)]
    chosen = best_of_population(candidates([*second, *front]), 3, RNG)
    assert set(chosen) == {2, 5, 6}
    assert set(best_of_population(candidates([*second, *front]), 6, RNG)) > {2, 3, 4, 5, 6}
    assert len(best_of_population(candidates(front), 9, RNG)) == 5


def test_gaps_along_the_cost_are_closed():
    """The most accurate first; then what is farthest from the measured front and the chosen."""
    front = [(0.0, 1.0), (0.1, 0.8), (0.3, 0.5), (0.4, 0.45), (0.9, 0.1)]
    chosen = closing_gaps(candidates(front, [(0.95, 0.05), (1.0, 1.3)]), 3, RNG)
    assert list(chosen) == [0, 2, 1]  # 0.5 lies 0.45 from 0.05, then 0.8 lies 0.2 from 1.0
    with_second = [*front, (0.8, 0.7)]
    assert sorted(closing_gaps(candidates(with_second), 6, RNG)) == list(range(6))


def test_the_predictor_that_ranks_best_is_taken(tiny):
    X, y = tiny.accuracy.samples()
    rows = RNG.permutation(len(X))
    predictor = SwitchingPredictor(tiny.space).fit(X[rows[:100]], y[rows[:100]])
    taus = []
    for kind in range(4):
        other = SwitchingPredictor(tiny.space)
        other._best = lambda *_args, kind=kind: kind
        other.fit(X[rows[:100]], y[rows[:100]])
        taus.append(kendall_tau(y[rows[150:650]], other.predict(X[rows[150:650]])))
    assert taus[predictor._kind] > max(taus) - 0.05
    assert min(taus) > 0.3
    kind = predictor._kind
    predictor._best = None  # not asked again before a tenth more is known
    assert predictor.fit(X[rows[:110]], y[rows[:110]])._kind == kind


@pytest.mark.parametrize("method", METHODS)
def test_methods_measure_each_network_once(tiny, method):
    found = search(tiny, method, 60, 1, 200)
    assert len(np.unique(found.X, axis=0)) == len(found) == 60
    assert scores_of(tiny, found, [30, 60]) == [
        round(regret(found.F[:n], bounds_of(tiny), tiny.pareto_front()), 6) for n in (30, 60)
    ]


def test_without_a_known_front_the_hypervolume_is_scored():
    problem = APQProblem("digits", predictor="additive")
    found = search(problem, "nsga2", 40, 0, 100)
    assert scores_of(problem, found, [40]) == [round(hypervolume(found.F, bounds_of(problem)), 6)]


def test_medians_and_when_they_fall_below():
    runs = [{"networks": [25, 50], "scores": scores} for scores in ([3, 1], [2, 0], [9, 2])]
    assert medians(runs) == {25: 3.0, 50: 1.0}
    assert first_below({25: 3.0, 50: 1.0, 75: 0.5}, 1.0) == 50
    assert first_below({25: 3.0}, 1.0) is None


def test_an_interrupted_comparison_goes_on(tmp_path, capsys, monkeypatch):
    given = ("--methods", "linas,nsga2", "--budgets", "30,60", "--predictions", "100")
    given = (*given, "--out", str(tmp_path / "m.json"))
    main([*given, "--seeds", "1"])
    before = json.loads((tmp_path / "m.json").read_text())
    calls = []

    def counted(problem, method, budget, seed, predictions):
        calls.append((method, seed))
        return search(problem, method, budget, seed, predictions)

    monkeypatch.setattr("apq_moo.benchmarks.experiments.measured_search.search", counted)
    capsys.readouterr()
    main([*given, "--seeds", "2"])
    assert calls == [("linas", 1), ("nsga2", 1)]
    after = json.loads((tmp_path / "m.json").read_text())
    assert after["runs"]["linas"]["0"] == before["runs"]["linas"]["0"]
    # NSGA-II is looked up for three times as long.
    assert after["runs"]["nsga2"]["1"]["networks"] == [25, 30, 50, 60, 75, 100, 125, 150, 175]
    lines = capsys.readouterr().out.splitlines()
    median = medians(list(after["runs"]["nsga2"].values()))
    assert lines[-1].split()[:3] == ["nsga2", f"{median[30]:.5f}", f"{median[60]:.5f}"]
    with pytest.raises(UserError, match="name another file"):
        main([*given[:-4], "--predictions", "99", *given[-2:]])
    with pytest.raises(UserError, match="unknown method 'sa'; known: surrogate, linas"):
        main(["--methods", "sa", *given[-2:]])

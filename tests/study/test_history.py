"""history.csv: a hypervolume that anyone can recompute."""

import csv
from pathlib import Path

import numpy as np
import pytest

from apq_moo.problems import APQProblem
from apq_moo.problems.evaluated import Evaluated
from apq_moo.results.history import history
from apq_moo.study.config import RunConfig
from apq_moo.study.record import Trace
from apq_moo.study.search import Search


def swept_area(points, reference):
    """Area dominated by two-dimensional points, by a staircase."""
    points = sorted((x, y) for x, y in points if x < reference and y < reference)
    area, lowest = 0.0, reference
    for x, y in points:
        if y < lowest:
            area += (reference - x) * (lowest - y)
            lowest = y
    return area


def test_against_a_staircase():
    search = Search(
        RunConfig(space="digits", algo="nsga2", predictor="additive", budget=700, pop_size=50)
    )
    archive = search.run()
    columns = history(search.problem, archive, search.trace)
    assert columns["evaluations"] == list(range(50, 701, 50))
    assert all(np.diff(columns["seconds"]) > 0)
    table = search.problem.tables["latency"]
    X = search.problem.region.sample(3000, np.random.default_rng(0))
    low, high = search.problem.reachable()
    assert low[0] == -100
    assert high[0] == -10
    assert low[1] <= table(X).min() < table(X).max() <= high[1]
    scaled = (archive.F - low) / (high - low)
    for n, volume, size in zip(
        columns["evaluations"], columns["hypervolume"], columns["front"], strict=True
    ):
        assert volume == pytest.approx(swept_area(scaled[:n], 1.1), rel=1e-12)
        assert size == len(Evaluated(archive.X[:n], archive.F[:n], archive.feasible[:n]).front())
    np.testing.assert_array_equal(columns["latency"][-1], archive.F[:, 1].min())
    np.testing.assert_array_equal(columns["acc"][-1], -archive.F[:, 0].min())


def test_at_most_a_hundred_rows_and_one_objective():
    problem = APQProblem("digits", ("latency",), {"acc": 50.0}, predictor="additive")
    X = problem.region.sample(300, np.random.default_rng(0))
    F, G = problem.evaluate_blocks(problem.space.block_index(X))
    feasible = (G <= 0).all(axis=1)
    feasible[:20] = False
    archive = Evaluated(X, F, feasible)
    trace = Trace(list(range(1, 301)), np.linspace(0, 1, 300).tolist())
    columns = history(problem, archive, trace)
    assert len(columns["evaluations"]) == 100
    assert columns["evaluations"][-1] == 300
    assert columns["hypervolume"][0] == 0
    assert columns["latency"][0] is None
    assert columns["latency"][-1] == F[feasible].min()
    assert all(np.diff(columns["hypervolume"]) >= 0)
    (low,), (high,) = problem.reachable()
    assert columns["hypervolume"][-1] == pytest.approx(
        1.1 - (F[feasible].min() - low) / (high - low)
    )


def test_a_limit_bounds_what_counts():
    free, limited = (APQProblem("digits", ("latency",), limit) for limit in ({}, {"latency": 0.02}))
    assert free.reachable()[0] == limited.reachable()[0]
    assert limited.reachable()[1] == 0.02 < free.reachable()[1]


def test_six_objectives_and_a_limit_on_a_seventh(tmp_path, monkeypatch):
    from apq_moo.cli import main
    from apq_moo.hardware import cost_table
    from apq_moo.results.pick import read_archive
    from apq_moo.space import load_space
    from apq_moo.study.folder import RunFolder

    monkeypatch.chdir(tmp_path)
    names = "acc,latency,energy,bitops,params,size"
    for algo in ("nsga3", "apq-ga"):
        arguments = [
            "run",
            "--space",
            "digits",
            "--algo",
            algo,
            "--objectives",
            names,
            "--max",
            "memory=2",
        ]
        arguments += ["--max", "acc=40", "--predictor", "additive", "--budget", "1200"]
        arguments += ["--sweep", "4", "--pop-size", "50", "--out", algo]
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert not stop.value.code
        with Path(algo, "history.csv").open(newline="") as handle:
            rows = list(csv.DictReader(handle))
        volumes = [float(row["hypervolume"]) for row in rows]
        assert volumes[-1] > volumes[0] > 0
        front = read_archive(RunFolder.open(algo)).front()
        assert front.F.shape[1] == 6
        assert (front.F[:, 0] <= -40).all()
        memory = cost_table(load_space("digits"), "memory")(front.genotypes)
        assert (memory <= 2).all()

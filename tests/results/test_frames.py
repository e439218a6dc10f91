"""Runs and benchmarks as tidy tables: the same numbers as where they come from."""

import json

import numpy as np
import pandas as pd
import pytest

import apq_moo.benchmarks
import apq_moo.results
from apq_moo.benchmarks.compare import bench
from apq_moo.benchmarks.compare.analysis import Analysis
from apq_moo.benchmarks.compare.plan import BenchPlan
from apq_moo.errors import UserError
from apq_moo.problems import APQProblem
from apq_moo.results.run import Listener, execute
from apq_moo.study.config import RunConfig
from apq_moo.study.folder import RunFolder

SMALL = {"predictor": "additive", "space": "digits", "budget": 400, "pop_size": 20}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = RunConfig("nsga2", ("acc", "latency"), limits={"latency": 0.01}, **SMALL)
    folder = RunFolder.create(
        tmp_path_factory.mktemp("run") / "r", config, verify=None, overwrite=False
    )
    execute(folder, Listener())
    return folder.path


@pytest.fixture(scope="module")
def benched(tmp_path_factory):
    plan = BenchPlan(
        spaces=("digits",), algos=("random", "nsga2"), objectives=("acc,latency", "acc,size"),
        seeds=2, budgets=(200,), pop_size=20, predictors=("additive",),
    )  # fmt: skip
    store = bench.begin(tmp_path_factory.mktemp("bench") / "b", plan)
    assert bench.run(store) == (8, 0)
    return store.folder


def genes_of(frame, problem):
    return frame[[gene.name for gene in problem.space.genes]].to_numpy()


@pytest.mark.parametrize("part", ["front", "evaluated"])
def test_networks_of_a_run_are_worth_what_their_rows_say(run, part):
    found = apq_moo.results.load(run, part, genotypes=True)
    problem = APQProblem("digits", ("acc", "latency"), {"latency": 0.01}, predictor="additive")
    F, G = problem.evaluate(genes_of(found, problem), return_values_of=["F", "G"])
    np.testing.assert_allclose(found[["acc", "latency"]].to_numpy(), F * [-1, 1], rtol=1e-6)
    if part == "front":
        assert len(found) == len(pd.read_csv(run / "front.csv"))
        subnets = [json.loads(text) for text in found["subnet"]]
        np.testing.assert_array_equal(problem.space.encode(subnets), genes_of(found, problem))
    else:
        assert len(found) == 400
        np.testing.assert_array_equal(found["feasible"], (G <= 0).all(axis=1))
        assert found["kept"].all()


def test_only_what_an_algorithm_keeps_counts(tmp_path):
    config = RunConfig("apq-ga-released", ("acc", "latency"), sweep=1, **SMALL)
    folder = RunFolder.create(tmp_path / "r", config, verify=None, overwrite=False)
    execute(folder, Listener())
    found = apq_moo.results.load(tmp_path / "r", "evaluated")
    front = apq_moo.results.load(tmp_path / "r")
    assert 0 < found["kept"].sum() < len(found) == 400
    assert front["acc"].max() == found.loc[found["kept"] & found["feasible"], "acc"].max()


def test_the_history_of_a_run(run):
    found = apq_moo.results.load(run, "history")
    assert found["evaluations"].iloc[-1] == 400
    assert found["hypervolume"].is_monotonic_increasing
    assert found["acc"].iloc[-1] == apq_moo.results.load(run)["acc"].max()


def test_scores_are_those_of_the_tables(benched):
    found = apq_moo.benchmarks.load(benched)
    assert len(found) == 8
    assert found.columns[:8].tolist() == [
        "space", "objectives", "limits", "predictor", "device", "budget", "algorithm", "seed"
    ]  # fmt: skip
    for problem in Analysis.read(benched).problems:
        for label in problem.labels:
            rows = found[
                (found["objectives"] == "+".join(problem.objectives))
                & (found["algorithm"] == label)
            ]
            assert rows["seed"].tolist() == [0, 1]
            for name in ("hv", "igd+", "epsilon"):
                np.testing.assert_array_equal(rows[name], problem.values(label, name))
            assert (rows["evaluations"] == 200).all()


def test_fronts_hold_what_was_found(benched):
    found = apq_moo.benchmarks.load(benched, "fronts", genotypes=True)
    for objectives, rows in found.groupby("objectives"):
        cost = objectives.split("+")[1]
        problem = APQProblem("digits", ("acc", cost), predictor="additive")
        F = problem.evaluate(genes_of(rows, problem), return_values_of=["F"])
        np.testing.assert_allclose(rows[["acc", cost]].to_numpy(), F * [-1, 1], rtol=1e-6)
        assert rows["size" if cost == "latency" else "latency"].isna().all()


def test_curves_end_at_the_score(benched):
    curves, scores = (apq_moo.benchmarks.load(benched, part) for part in ("curves", "scores"))
    last = curves.groupby(["objectives", "algorithm", "seed"])["hypervolume"].last()
    expected = scores.set_index(["objectives", "algorithm", "seed"])["hv"]
    pd.testing.assert_series_equal(last.sort_index(), expected.sort_index(), check_names=False)


def test_what_is_not_there_is_named(run, benched, tmp_path):
    for load, folder, part, words in (
        (apq_moo.results.load, run, "scores", "front, evaluated, history for a run; not 'scores'"),
        (apq_moo.benchmarks.load, benched, "front", "scores, fronts, curves for a benchmark"),
        (apq_moo.results.load, tmp_path, "front", "holds no run"),
        (apq_moo.benchmarks.load, tmp_path, "scores", "holds no benchmark"),
    ):
        with pytest.raises(UserError, match=words):
            load(folder, part)
    for load, folder, part in (
        (apq_moo.results.load, run, "history"),
        (apq_moo.benchmarks.load, benched, "curves"),
    ):
        with pytest.raises(UserError, match="has no networks"):
            load(folder, part, genotypes=True)

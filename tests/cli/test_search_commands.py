"""Every algorithm through ``run``, certified gaps, and ``pick``."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from apq_moo.algorithms import ALGORITHMS
from apq_moo.defaults import DEFAULT_PREDICTOR
from apq_moo.hardware import cost_table
from apq_moo.predictors import find_predictor
from apq_moo.results.pick import read_archive
from apq_moo.space import load_space
from apq_moo.study.folder import RunFolder

GENERAL = [
    name for name in ALGORITHMS if name != "surrogate" and ALGORITHMS.get(name).system is None
]  # systems: tests/cli/test_systems.py
SMALL = ("--budget", "1000", "--sweep", "2", "--pop-size", "40")


def front_of(folder):
    with Path(folder, "front.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize("name", GENERAL)
def test_every_algorithm_runs_and_repeats(call, name):
    given = ("--algo", name, "--predictor", "additive", *SMALL)
    assert call("run", *given, "--out", "a").code == 0
    outcome = call("run", *given, "--out", "b")
    assert outcome.code == 0
    assert Path("a/front.csv").read_bytes() == Path("b/front.csv").read_bytes()
    record = json.loads(Path("a/run.json").read_text())
    assert record["evaluations"] <= 1000
    assert len(front_of("a")) > 5
    # The additive predictor's optimum is known, so that the gap to it is.
    gap = record["gap"]
    assert 0 <= gap["mean"] <= gap["worst"]
    assert 0.3 < gap["hypervolume_ratio"] <= 1 + 1e-12
    assert f"{gap['worst']:.3f} points at most" in " ".join(outcome.out.split())
    if name == "exact":
        assert gap["worst"] == 0


def test_an_exact_front_says_what_its_surrogate_thinks(call):
    """1,661 networks are optimal for the surrogate; those that stay so by predictions are shown."""
    assert call("run", "--algo", "exact", "--out", "r").code == 0
    rows = front_of("r")
    assert list(rows[0]) == ["acc", "latency", "acc_surrogate", "subnet"]
    space = load_space("digits")
    X = space.encode([json.loads(row["subnet"]) for row in rows])
    for column, predictor in (("acc", DEFAULT_PREDICTOR), ("acc_surrogate", "additive")):
        expected = find_predictor(space, predictor).predict(X)
        np.testing.assert_allclose([float(row[column]) for row in rows], expected, rtol=1e-12)
    surrogate = [float(row["acc_surrogate"]) for row in rows]
    assert (np.diff(surrogate) > 0).all()
    assert json.loads(Path("r/run.json").read_text())["gap"] is None
    assert json.loads(Path("r/run.json").read_text())["evaluations"] > 1500
    assert call("run", "--resume", "r").code == 0


def test_an_exact_front_within_a_budget(call):
    given = ("--algo", "exact", "--predictor", "additive", "--budget", "50", "--out", "r")
    assert call("run", *given).code == 0
    rows = front_of("r")
    assert len(rows) == 50
    latency = [float(row["latency"]) for row in rows]
    assert max(latency) > 5 * min(latency)


def test_one_objective_is_certified(call):
    given = ("--objectives", "acc", "--max", "latency=0.01", "--predictor", "additive")
    assert call("run", "--algo", "exact", *given, "--out", "best").code == 0
    (best,) = front_of("best")
    outcome = call("run", "--algo", "regularized-evolution", *given, *SMALL, "--out", "r")
    assert outcome.code == 0
    gap = json.loads(Path("r/run.json").read_text())["gap"]
    found = float(front_of("r")[0]["acc"])
    assert gap["worst"] == pytest.approx(float(best["acc"]) - found)
    assert gap["hypervolume_ratio"] is None


def test_too_few_objectives_are_answered_with_what_fits(refused):
    line = refused("run", "--algo", "moead", "--objectives", "acc")
    assert "moead needs at least 2 objectives; with 1 use apq-ga, apq-ga-released, nsga2" in line
    assert "exact maximises acc" in refused("run", "--algo", "exact", "--objectives", "size,macs")
    assert "which memory does not" in refused(
        "run", "--algo", "exact", "--objectives", "acc,memory"
    )


def test_algorithms_are_listed(call):
    lines = call("algorithms").out.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(ALGORITHMS)
    assert all("[" in line and "(" in line for line in lines)


# -- pick ------------------------------------------------------------------------------------------


@pytest.fixture
def run(call):
    assert call("run", "--algo", "nsga2", *SMALL, "--out", "r").code == 0
    return RunFolder.open("r")


def evaluated(run):
    archive = read_archive(run)
    return archive.X[archive.feasible], archive.F[archive.feasible]


def test_the_best_under_a_later_limit(call, run):
    X, F = evaluated(run)
    space = load_space("digits")
    for limit in (0.005, 0.012):
        outcome = call("pick", "r", "--max", f"latency={limit}", "--overwrite")
        assert outcome.code == 0
        best = -F[F[:, 1] <= limit, 0].min()
        assert f"acc {best:.5g} %" in outcome.out
        policy = json.loads(Path("r/policy.json").read_text())
        row = space.encode([policy])
        assert (row == X).all(axis=1).any()
        assert cost_table(space, "latency")(row)[0] <= limit


def test_limits_on_costs_that_were_no_objectives(call, run):
    X, F = evaluated(run)
    space = load_space("digits")
    size, memory = (cost_table(space, name)(X) for name in ("size", "memory"))
    limits = (float(np.median(size)), float(np.median(memory)))
    given = ("--max", f"size={limits[0]}", "--max", f"memory={limits[1]}", "--max", "acc=60")
    outcome = call("pick", "r", *given, "-o", "mine.json")
    assert outcome.code == 0
    inside = (size <= limits[0]) & (memory <= limits[1]) & (-F[:, 0] >= 60)
    assert f"acc {-F[inside, 0].min():.5g} %" in outcome.out
    row = space.encode([json.loads(Path("mine.json").read_text())])
    assert cost_table(space, "size")(row)[0] <= limits[0]
    assert cost_table(space, "memory")(row)[0] <= limits[1]
    assert call("lut", "plot", "--subnet", "mine.json", "-o", "mine.png").code == 0


def test_the_knee_is_where_the_front_bends(call, run):
    """Farthest from the line between the front's extremes, by the distance of points to a line."""
    from moocore import is_nondominated

    _, F = evaluated(run)
    front = F[is_nondominated(F)]
    scaled = (front - front.min(axis=0)) / np.ptp(front, axis=0)
    distance = (1 - scaled.sum(axis=1)) / np.sqrt(2)
    knee = front[distance.argmax()]
    outcome = call("pick", "r", "--knee")
    assert f"acc {-knee[0]:.5g} %, latency {knee[1]:.5g} ms" in outcome.out
    best = call("pick", "r", "--overwrite").out
    assert f"acc {-F[:, 0].min():.5g} %" in best


def test_a_policy_as_the_released_code_reads_it(call, refused, run):
    assert call("pick", "r").code == 0
    policy = json.loads(Path("r/policy.json").read_text())
    outcome = call("pick", "r", "--format", "apq")
    assert outcome.code == 0, outcome
    assert outcome.out.splitlines()[-1] == "r/arch"
    assert "evaluates networks of imagenet only" in outcome.err
    space = load_space("digits")
    pair = json.loads(Path("r/arch").read_text())
    assert (space.encode([pair]) == space.encode([policy])).all()
    assert call("lut", "plot", "--subnet", "r/policy.json", "-o", "a.png").code == 0
    assert "r/arch exists; add --overwrite" in refused("pick", "r", "--format", "apq")
    line = refused("pick", "r", "--format", "apq", "-o", "arch.txt")
    assert line == "error: arch.txt: name a file that ends in .json or no suffix"
    assert "--format onnx: write one of json, apq" in refused("pick", "r", "--format", "onnx")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--max", "latency=1e-9"), "no evaluated network has latency <= 1e-09; the best of each"),
        (("--max", "acc=99.9"), "no evaluated network has acc >= 99.9; the best of each by itself"),
        (("--max", "speed=1"), "--max speed: this run knows acc, latency, energy"),
        (("--max", "latency"), "write NAME=VALUE"),
    ],
)
def test_picks_that_cannot_be(refused, run, arguments, words):
    assert words in refused("pick", "r", *arguments)
    assert not Path("r/policy.json").exists()


def test_a_policy_is_not_replaced_unasked(call, refused, run):
    assert call("pick", "r").code == 0
    best = Path("r/policy.json").read_bytes()
    words = "r/policy.json exists; add --overwrite to replace it or name another file"
    assert words in refused("pick", "r", "--knee")
    assert words in refused("pick", "r", "--knee", "-o", "r/policy.json")
    assert Path("r/policy.json").read_bytes() == best
    assert call("pick", "r", "--knee", "--overwrite").code == 0
    assert Path("r/policy.json").read_bytes() != best
    assert "cannot write r/front.csv/p.json: Not a directory" in refused(
        "pick", "r", "-o", "r/front.csv/p.json"
    )


def test_no_run_to_pick_from(refused):
    assert "holds no run" in refused("pick", "nowhere")


# -- warm starts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["apq-ga", "nsga2", "moead", "ctaea", "local-search"])
def test_searches_begin_with_the_exact_front(call, name):
    given = ("--algo", name, "--predictor", "additive", *SMALL)
    assert call("run", *given, "--out", "cold").code == 0
    assert call("run", *given, "--warm-start", "exact", "--out", "warm").code == 0
    cold, warm = (json.loads(Path(folder, "run.json").read_text()) for folder in ("cold", "warm"))
    assert warm["gap"]["hypervolume_ratio"] > cold["gap"]["hypervolume_ratio"]
    assert warm["gap"]["mean"] < 0.5 * cold["gap"]["mean"]
    assert warm["evaluations"] == cold["evaluations"]
    assert call("run", "--resume", "warm").code == 0


def test_searches_begin_with_another_runs_front(call, refused):
    assert call("run", "--algo", "exact", "--out", "first").code == 0
    given = ("--algo", "nsga2", *SMALL)
    for out, source in (("r1", "first"), ("r2", "first/front.csv")):
        assert call("run", *given, "--warm-start", source, "--out", out).code == 0
    assert Path("r1/front.csv").read_bytes() == Path("r2/front.csv").read_bytes()
    X = read_archive(RunFolder.open("r1")).X
    space = load_space("digits")
    known = space.encode([json.loads(row["subnet"]) for row in front_of("first")])
    begun = [(known == row).all(axis=1).any() for row in X[:40]]
    assert sum(begun) >= 15
    assert not any(begun[20:])
    # A policy is one network.
    assert call("pick", "first", "-o", "p.json").code == 0
    assert call("run", *given, "--warm-start", "p.json", "--out", "third").code == 0
    policy = space.encode([json.loads(Path("p.json").read_text())])
    np.testing.assert_array_equal(read_archive(RunFolder.open("third")).X[0], policy[0])
    for source, words in (
        ("nowhere", "cannot read nowhere: No such file"),
        ("first/run.json", "a subnet: unknown key"),
        ("first/front.png", "is malformed: 'utf-8' codec"),
    ):
        assert words in refused("run", *given, "--warm-start", source)


def test_a_warm_start_that_changed_is_not_resumed_with(call, refused):
    assert call("run", "--algo", "exact", "--out", "first").code == 0
    given = ("--algo", "nsga2", *SMALL, "--warm-start", "first")
    assert call("run", *given, "--out", "r").code == 0
    record = json.loads(Path("r/run.json").read_text())
    Path("r/run.json").write_text(json.dumps(record | {"status": "unfinished"}))
    lines = Path("first/front.csv").read_text().splitlines()
    Path("first/front.csv").write_text("\n".join(lines[:-1]) + "\n")
    assert "changed since; begin a new one" in refused("run", "--resume", "r")

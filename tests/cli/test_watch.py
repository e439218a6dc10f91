"""The command watch: runs and benchmarks that go on, are stopped, or are finished."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from apq_moo.benchmarks.compare.bench import begin
from apq_moo.benchmarks.compare.cells import carry_out
from apq_moo.benchmarks.compare.plan import BenchPlan
from apq_moo.benchmarks.compare.progress import BenchWatcher
from apq_moo.cli import watch_command
from apq_moo.cli.drawing import scatter, sparkline
from apq_moo.results.progress import run_progress
from apq_moo.results.run import execute
from apq_moo.study.config import RunConfig
from apq_moo.study.folder import RunFolder
from apq_moo.study.record import Trace
from apq_moo.study.search import Search

CONFIG = RunConfig(algo="nsga2", space="tiny", predictor="table", budget=200, pop_size=20)
PLAN = BenchPlan(spaces=("tiny",), algos=("nsga2", "random"), seeds=2, budgets=(100,), pop_size=20)


class StoppedError(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture
def stopped(call):
    """A run in the folder ``r`` that ended after 100 of 200 evaluations."""

    def stop(done, _total):
        if done >= 100:
            raise StoppedError

    RunFolder.create("r", CONFIG, verify=None, overwrite=False)
    with pytest.raises(StoppedError):
        Search(CONFIG).run(folder=Path("r"), callback=stop, every_s=0)


def area(front, best, worst):
    """Hypervolume of (accuracy, cost) in natural signs, by columns from the least cost."""
    covered, last = 0.0, 1.1
    span = [abs(w - b) for b, w in zip(best, worst, strict=True)]
    points = [((best[0] - a) / span[0], (c - best[1]) / span[1]) for a, c in front]
    for a, c in sorted(points, key=lambda point: point[1]):
        if a < last and c < 1.1:
            covered += (last - a) * (1.1 - c)
            last = a
    return covered


def test_a_run_that_goes_on(call, stopped):
    before = {path.name: path.read_bytes() for path in Path("r").iterdir()}
    found = json.loads(call("watch", "r", "--json").out)
    assert {path.name: path.read_bytes() for path in Path("r").iterdir()} == before
    assert (found["evaluations"], found["budget"], found["finished"]) == (100, 200, False)
    assert found["marks"] == [20, 40, 60, 80, 100]
    best, worst = Search(CONFIG).problem.reachable()
    natural = np.array([-1.0, 1.0])
    expected = area(found["front"], best * natural, worst * natural)
    assert found["hypervolume"][-1] == pytest.approx(expected, rel=1e-12)
    assert found["best"] == [max(a for a, _ in found["front"]), min(c for _, c in found["front"])]
    shown = call("watch", "r", "--once").out
    assert "nsga2 on tiny, r: searching" in shown
    assert "100 of 200 evaluations" in shown
    assert f"{len(found['front'])} networks on the front" in shown


def test_looking_does_not_disturb_who_writes(call):
    RunFolder.create("r", CONFIG, verify=None, overwrite=False)
    seen = []
    Search(CONFIG).run(
        folder=Path("r"), every_s=0, callback=lambda *_: seen.append(run_progress("r"))
    )
    assert [look.evaluations for look in seen] == list(range(20, 201, 20))
    volumes = [look.hypervolume[-1] for look in seen]
    assert volumes == sorted(volumes)
    assert run_progress("r").searched
    columns = execute(RunFolder.open("r"))
    end = run_progress("r")
    assert end.finished
    assert end.front == tuple(zip(columns["acc"], columns["latency"], strict=True))
    assert {tuple(row) for row in seen[-1].front} == set(end.front)
    assert end.hypervolume[-1] == pytest.approx(seen[-1].hypervolume[-1], rel=1e-12)


def test_the_time_that_is_left():
    """At a second for 10 evaluations at first, and for 5 in the latter half."""
    trace = Trace([10, 20, 25, 30], [1.0, 2.0, 3.0, 4.0])
    from apq_moo.results.progress import _left_s

    assert _left_s(trace, 50) == pytest.approx(20 / 5)
    assert _left_s(Trace([10], [2.0]), 50) == pytest.approx(8.0)
    assert _left_s(Trace([], []), 50) is None
    assert _left_s(trace, 30) is None


def test_looks_go_on_until_the_run_ends(call, stopped, monkeypatch):
    monkeypatch.setattr(watch_command.time, "sleep", lambda _: execute(RunFolder.open("r")))
    done = call("watch", "r")
    assert done.code == 0, done.err
    assert "r: searching" in done.out
    assert "r: finished" in done.out
    monkeypatch.setattr(watch_command.time, "sleep", None)
    again = call("watch", "r")
    assert (again.code, again.out.count("nsga2 on tiny, r: finished")) == (0, 1)


def test_ctrl_c_ends_it(call, stopped, monkeypatch):
    monkeypatch.setattr(watch_command.time, "sleep", lambda _: os.kill(os.getpid(), signal.SIGINT))
    done = call("watch", "r")
    assert (done.code, done.err) == (130, "interrupted\n")


def test_nothing_is_written_down_yet(call):
    RunFolder.create("r", CONFIG, verify=None, overwrite=False)
    done = call("watch", "r", "--once")
    assert "nothing is written down yet" in done.out
    assert json.loads(call("watch", "r", "--json").out)["best"] == [None, None]


def test_a_benchmark_that_goes_on(call):
    store = begin("b", PLAN)
    cells = PLAN.cells()
    first = replace(carry_out(cells[0]), seconds={"load": 1.0, "search": 3.0})
    store.put(first)
    watcher = BenchWatcher("b")
    found = watcher.look()
    assert (found.done, found.failed, found.cells, found.finished) == (1, 0, 4, False)
    assert found.work_s == pytest.approx(3 * 4.0)
    (problem,) = found.problems
    assert [(of.label, of.done, of.seeds) for of in problem.algorithms] == [
        ("nsga2", 1, 2),
        ("random", 0, 2),
    ]
    assert problem.algorithms[0].hypervolume == first.curve[-1]
    store.put(replace(carry_out(cells[1]), seconds={"search": 2.0}))
    store.put(replace(carry_out(cells[2]), status="failed", error="no luck"))
    store.note(plan=replace(PLAN, seeds=3).to_dict())
    found = watcher.look()
    assert (found.done, found.failed, found.cells) == (2, 1, 6)
    assert found.work_s == pytest.approx(2 * 4.0 + 2 * 2.0)
    union = {tuple(row) for row in found.problems[0].front}
    assert union <= {(-a, c) for cell in store.outcomes() for a, c in cell.front.tolist()}
    shown = call("watch", "b", "--once").out
    assert "2 of 6 cells, 1 failed" in shown
    assert "12 s of work left for one process; last written" in shown
    assert "1/3 (1 failed)" in shown
    listed = json.loads(call("watch", "b", "--json").out)
    assert listed["problems"][0]["algorithms"][0]["label"] == "nsga2"


def test_what_is_no_run(refused):
    assert "gone holds neither a run nor a benchmark (there is no such folder)" in refused(
        "watch", "gone"
    )
    Path("empty").mkdir()
    assert "(no run.json, no results.sqlite)" in refused("watch", "empty")
    Path("r").mkdir()
    Path("r/run.json").write_text("{")
    assert "is not valid JSON" in refused("watch", "r")


def test_small_pictures():
    assert sparkline([]) == ""
    assert sparkline([2.0, 2.0]) == "██"
    assert sparkline(range(8)) == "▁▂▃▄▅▆▇█"
    assert len(sparkline(range(1000), width=24)) == 24
    # Dots 1 and 8 of a character lie at its upper left and its lower right (Unicode, U+2800).
    assert scatter([0, 1], [1, 0], width=1, height=1) == [chr(0x2800 + 0x01 + 0x80)]
    assert scatter([0, 1], [0, 1], width=2, height=2) == ["\u2800\u2808", "\u2840\u2800"]
    assert scatter([], [], width=2, height=1) == ["\u2800\u2800"]

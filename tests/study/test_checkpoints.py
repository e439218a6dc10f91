"""Checkpoints: whatever happens to a search, it ends as if nothing had."""

import json
import os
import resource
import shutil
import signal
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import numpy as np
import pytest

from apq_moo.algorithms import ALGORITHMS
from apq_moo.algorithms.strategy import Context, Replay
from apq_moo.cli import main
from apq_moo.errors import UserError
from apq_moo.problems import AccuracySource
from apq_moo.problems.evaluated import Evaluated
from apq_moo.results import run as results
from apq_moo.study.config import RunConfig
from apq_moo.study.folder import LOCK
from apq_moo.study.kept import kept_by
from apq_moo.study.record import Recorder, Trace, evaluated, finished, row_type
from apq_moo.study.search import Search

POP, POINTS, BUDGET = 40, 2, 1000
GENERAL = [
    *(n for n in ALGORITHMS if n != "surrogate" and ALGORITHMS.get(n).system is None),
    "spos",  # for all systems, which are run again from their records
]


def given(name, *more):
    small = ("--pop-size", str(POP), "--sweep", str(POINTS), "--budget", str(BUDGET))
    return ("run", "--space", "digits", "--algo", name, "--predictor", "additive", *small, *more)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))


def in_a_child(arguments, *, pause_s=0.0, every_round=False, file_size=None):
    """Start the command line in a process of its own, which logs every evaluation."""
    child = os.fork()
    if child:
        return child
    code = 99
    with suppress(BaseException), Path(os.devnull).open("w") as nowhere:
        real = AccuracySource.__call__
        log = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

        def slow(self, index, X=None):
            os.write(log, f"{len(index)}\n".encode())
            time.sleep(pause_s)
            return real(self, index, X)

        def found_again(*given):
            """What is kept is found from the record, once the search has ended: no part of it."""
            AccuracySource.__call__ = real
            kept = kept_by(*given)
            AccuracySource.__call__ = slow
            return kept

        AccuracySource.__call__, results.kept_by = slow, found_again
        if every_round:
            Recorder.due = True
        if file_size is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
        with redirect_stdout(nowhere), Path("err").open("w") as err, redirect_stderr(err):
            try:
                main(list(arguments))
            except SystemExit as stop:
                code = int(stop.code or 0)
    os._exit(code)


def exit_code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def logged():
    path = Path("log")
    total = sum(map(int, path.read_text().split())) if path.exists() else 0
    path.unlink(missing_ok=True)
    return total


@pytest.mark.parametrize("name", GENERAL)
def test_killed_at_any_moment(name):
    """Killed thrice at random: the same front, and at most a round repeated for each kill."""
    if name == "age-moea2":  # so that numba does not compile it anew in each child
        with pytest.raises(SystemExit):
            main(list(given(name, "--budget", "80", "--out", "compiled")))
    begun = time.perf_counter()
    assert exit_code(in_a_child(given(name, "--out", "whole"), pause_s=0.01)) == 0
    whole_s, whole = time.perf_counter() - begun, logged()
    seed = int(os.environ.get("APQ_MOO_KILL_SEED", time.time_ns() % 2**32))
    print(f"APQ_MOO_KILL_SEED={seed}")  # noqa: T201  shown where the test fails
    rng = np.random.default_rng(seed)
    arguments, kills = given(name, "--out", "a"), 0
    while kills < 3:
        child = in_a_child(arguments, pause_s=0.01, every_round=True)
        time.sleep(rng.uniform(0.1, 0.6) * whole_s)
        os.kill(child, signal.SIGKILL)
        if exit_code(child) == 0:  # it was quicker: once more from the start
            shutil.rmtree("a")
            logged()
            arguments, kills, whole_s = given(name, "--out", "a"), 0, 0.8 * whole_s
            continue
        kills += 1
        if Path("a/run.json").exists():
            arguments = ("run", "--resume", "a")
    assert exit_code(in_a_child(arguments)) == 0
    assert Path("a/front.csv").read_bytes() == Path("whole/front.csv").read_bytes()
    # A round of the released search also predicts its Top_k anew; the exact one is a single round.
    most = {"exact": whole, "apq-ga-released": 3 * POP}.get(name, POP * POINTS)
    assert whole <= logged() <= whole + kills * most
    # Of a process that was killed at its very end, a lock that nobody holds may stay.
    left = {path.name for path in Path("a").iterdir()} - {LOCK}
    assert left == {"run.json", "front.csv", "front.png", "history.csv", "archive.npz"}


def test_a_second_between_checkpoints():
    """By default at most two seconds of work are lost, also where rounds are quick."""
    arguments = given("apq-ga", "--budget", "40000", "--out", "a")
    child = in_a_child(arguments, pause_s=0.01)
    time.sleep(3.5)
    os.kill(child, signal.SIGKILL)
    assert exit_code(child) == -signal.SIGKILL
    before = logged()
    rows = evaluated(Path("a"), row_type(Search(RunConfig(space="digits")).problem.space, 2))
    assert len(rows) <= before <= len(rows) + 2.0 / 0.01 * POP * POINTS
    assert len(rows) > 0


@pytest.mark.parametrize("limit", [30_000, 100_000, 250_000])
def test_a_disk_that_fills_up(limit):
    arguments = given("nsga2", "--budget", "6000")
    assert exit_code(in_a_child((*arguments, "--out", "whole"))) == 0
    whole = logged()
    child = in_a_child((*arguments, "--out", "a"), every_round=True, file_size=limit)
    assert exit_code(child) == 2
    (line,) = Path("err").read_text().splitlines()
    assert line.startswith("error: cannot write a")
    assert "File too large" in line
    before = logged()
    assert 0 < before < whole
    assert exit_code(in_a_child(("run", "--resume", "a"))) == 0
    assert before + logged() <= whole + 2 * POP
    assert Path("a/front.csv").read_bytes() == Path("whole/front.csv").read_bytes()


def test_a_predictor_that_fails_half_way(capsys, monkeypatch):
    """What was evaluated before stays, and the run can go on once the cause is mended."""
    with pytest.raises(SystemExit):
        main(list(given("nsga2", "--out", "whole")))
    calls = []
    real = AccuracySource.__call__

    def fails(self, index, X=None):
        calls.append(len(index))
        values = real(self, index, X)
        if len(calls) == 6:
            self._of_blocks = lambda _index: 1 / 0
            return real(self, index, X)
        return values

    with monkeypatch.context() as patch:
        patch.setattr(AccuracySource, "__call__", fails)
        patch.setattr(Recorder, "due", True)
        with pytest.raises(SystemExit) as stop:
            main(list(given("nsga2", "--out", "a")))
    assert stop.value.code == 2
    message = "the predictor failed on 40 networks: ZeroDivisionError: division by zero"
    assert message in capsys.readouterr().err
    assert len(Recorder(row_of("a"), Path("a"), key_of("a"))) == 5 * POP
    with pytest.raises(SystemExit) as stop:
        main(["run", "--resume", "a"])
    assert not stop.value.code
    assert Path("a/front.csv").read_bytes() == Path("whole/front.csv").read_bytes()


def row_of(folder):
    return row_type(search_of(folder).problem.space, 2)


def key_of(folder):
    return search_of(folder).key


def search_of(folder):
    return Search(RunConfig.from_dict(json.loads(Path(folder, "run.json").read_text())["config"]))


# -- damage and strangers --------------------------------------------------------------------------


@pytest.fixture
def begun():
    """The folder of a search that was killed."""
    child = in_a_child(given("nsga2", "--out", "a"), pause_s=0.05, every_round=True)
    while not Path("a/checkpoint.npz").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(child, signal.SIGKILL)
    exit_code(child)
    return Path("a")


def refused(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_damaged_checkpoints_are_refused(begun, capsys):
    files = {name: (begun / name).read_bytes() for name in ("checkpoint.npz", "evaluations.part")}
    good = files["checkpoint.npz"]
    for bad in (b"", b"x", good[:200], good[: len(good) // 2], good[:-40]):
        (begun / "checkpoint.npz").write_bytes(bad)
        assert "checkpoint.npz" in refused(capsys, "run", "--resume", "a")
    (begun / "checkpoint.npz").write_bytes(good)
    (begun / "evaluations.part").write_bytes(files["evaluations.part"][:100])
    assert "evaluations.part is truncated" in refused(capsys, "run", "--resume", "a")
    (begun / "evaluations.part").unlink()
    assert "cannot read" in refused(capsys, "run", "--resume", "a")
    # More than the checkpoint counts is what a kill leaves.
    (begun / "evaluations.part").write_bytes(files["evaluations.part"] + b"torn")
    with pytest.raises(SystemExit) as stop:
        main(["run", "--resume", "a"])
    assert not stop.value.code


def test_checkpoints_of_another_configuration_or_version(begun, capsys, monkeypatch):
    record = json.loads((begun / "run.json").read_text())
    words = "another configuration or version"
    (begun / "run.json").write_text(json.dumps(record | {"config": record["config"] | {"seed": 7}}))
    assert words in refused(capsys, "run", "--resume", "a")
    (begun / "run.json").write_text(json.dumps(record))
    with monkeypatch.context() as patch:
        patch.setattr("apq_moo.study.search.__version__", "9.9")
        assert words in refused(capsys, "run", "--resume", "a")
    (begun / "run.json").write_text(json.dumps(record | {"format": "apq-moo run 1"}))
    assert "not a run of this version" in refused(capsys, "run", "--resume", "a")


def test_picking_from_an_unfinished_search(begun, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["pick", "a"])
    assert not stop.value.code
    assert "picked from" in capsys.readouterr().out


def test_two_processes_cannot_carry_out_one_run(begun, capsys):
    child = in_a_child(("run", "--resume", "a"), pause_s=0.5, every_round=True)
    time.sleep(0.7)
    assert "is being carried out by another process" in refused(capsys, "run", "--resume", "a")
    os.kill(child, signal.SIGKILL)
    exit_code(child)
    with pytest.raises(SystemExit) as stop:
        main(["run", "--resume", "a"])
    assert not stop.value.code


def test_a_kill_between_the_archive_and_tidying_up(begun):
    left = {name: (begun / name).read_bytes() for name in ("checkpoint.npz", "evaluations.part")}
    for names in (("evaluations.part",), ("checkpoint.npz", "evaluations.part")):
        with pytest.raises(SystemExit) as stop:
            main(["run", "--resume", "a"])
        assert not stop.value.code
        front = (begun / "front.csv").read_bytes()
        record = json.loads((begun / "run.json").read_text())
        (begun / "run.json").write_text(json.dumps(record | {"status": "unfinished"}))
        for name in names:
            (begun / name).write_bytes(left[name])
        with pytest.raises(SystemExit) as stop:
            main(["run", "--resume", "a"])
        assert not stop.value.code
        assert not any((begun / name).exists() for name in left)
        assert (begun / "front.csv").read_bytes() == front


def test_an_overwritten_run_leaves_nothing_behind(begun):
    arguments = given("random", "--out", "a", "--overwrite")
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert not stop.value.code
    assert not (begun / "checkpoint.npz").exists()
    assert finished(begun)[0].X.shape == (BUDGET, 51)


# -- parts -----------------------------------------------------------------------------------------


def test_what_was_recorded_is_read_again(tmp_path):
    space = Search(RunConfig(space="digits")).problem.space
    row = row_type(space, 2)
    rng = np.random.default_rng(0)
    parts = [
        Evaluated(space.sample(n, rng).astype(np.uint8), rng.random((n, 2)), rng.random(n) < 0.5)
        for n in (3, 1, 7, 2)
    ]
    recorder = Recorder(row, tmp_path, "k", every_s=1e9)
    assert not recorder.due
    for part in parts[:3]:
        recorder.add(part)
    state = {"a": [1, None, "x"], "b": {"c": np.ones((2, 2)), "d": np.uint8(3)}}
    recorder.checkpoint(state)
    recorder.add(parts[3])  # lost
    again = Recorder(row, tmp_path, "k")
    assert len(again) == 11
    assert again.trace.evaluations == [3, 4, 11]
    assert again.trace.seconds == recorder.trace.seconds[:3]
    assert again.state["a"] == [1, None, "x"]
    np.testing.assert_array_equal(again.state["b"]["c"], np.ones((2, 2)))
    assert type(again.state["b"]["d"]) is np.uint8
    again.add(parts[3])
    assert again.trace.seconds[-1] > again.trace.seconds[-2]
    whole = Evaluated.join(parts)
    archive = again.finish()
    stored, trace = finished(tmp_path, "k")
    assert trace.evaluations == [3, 4, 11, 13]
    for found in (archive, stored):
        np.testing.assert_array_equal(found.X, whole.X)
        np.testing.assert_array_equal(found.F, whole.F)
        np.testing.assert_array_equal(found.feasible, whole.feasible)
    with pytest.raises(UserError, match="another configuration"):
        finished(tmp_path, "other")


def test_seconds_go_on_after_a_break():
    trace = Trace([10], [5.0])
    trace.note(20)
    assert 5.0 < trace.seconds[1] < 5.5


def test_a_state_of_another_algorithm_is_refused():
    problem = Search(RunConfig(space="digits", predictor="additive")).problem
    states = {}
    for name in ("nsga2", "spea2"):
        strategy = ALGORITHMS.get(name).strategy()
        next(strategy.rounds(Context(problem, 40, 0, 20)))
        states[name] = strategy.dump()
    strategy = ALGORITHMS.get("spea2").strategy()
    strategy.load(states["nsga2"])
    with pytest.raises(UserError, match="does not fit its algorithm"):
        next(strategy.rounds(Context(problem, 40, 0, 20)))
    with pytest.raises(UserError, match="does not fit its algorithm"):
        strategy.load({})


def test_a_search_that_takes_another_course_says_that_it_cannot_go_on():
    problem = Search(RunConfig(space="digits", predictor="additive")).problem
    first = next(ALGORITHMS.get("nsga2").strategy().rounds(Context(problem, 40, 0, 20)))
    again = Context(problem, 40, 1, 20, replay=Replay(first))
    with pytest.raises(UserError, match="this search cannot be resumed: run again, it asks for"):
        next(ALGORITHMS.get("nsga2").strategy().rounds(again))

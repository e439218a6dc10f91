"""The archive of expensive evaluations: nothing paid twice, whoever dies or competes."""

import errno
import fcntl
import os
import pwd
import signal
import sqlite3
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from apq_moo.cli import main
from apq_moo.data.evaluations import Evaluations
from apq_moo.errors import UserError
from apq_moo.space import load_space
from apq_moo.supernet.scoring import Scorer

ONE = ["validation"]


@pytest.fixture(scope="module")
def space():
    return load_space("digits")


@pytest.fixture
def rows(space):
    return np.unique(space.sample(24, np.random.default_rng(0)), axis=0)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))


def in_a_child(function):
    child = os.fork()
    if child:
        return child
    code = 1
    with suppress(BaseException):
        function()
        code = 0
    os._exit(code)


def exit_code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def log(text):
    handle = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(handle, f"{text}\n".encode())
    os.close(handle)


def logged():
    return Path("log").read_text().split() if Path("log").exists() else []


def test_each_is_evaluated_once(space, rows):
    store = Evaluations(space, "e", "d")
    assert np.isnan(store.known(rows, ONE)).all()
    calls = []
    for _ in range(2):
        for i, row in enumerate(rows):
            found = store.values(row, ONE, lambda _, i=i: calls.append(i) or np.array([0.1 * i]))
            assert found == 0.1 * i
    assert calls == list(range(len(rows)))
    again = Evaluations(space, "e", "d")
    np.testing.assert_array_equal(again.known(rows, ONE)[:, 0], 0.1 * np.arange(len(rows)))


def test_only_what_is_missing_of_a_network_is_evaluated(space, rows):
    store = Evaluations(space, "e", "d")
    asked = []

    def evaluate(names):
        asked.append(names)
        return np.array([float(len(name)) for name in names])

    assert store.values(rows[0], ["aa"], evaluate).tolist() == [2]
    assert store.values(rows[0], ["b", "aa", "ccc"], evaluate).tolist() == [1, 2, 3]
    assert store.values(rows[0], ["ccc", "b"], evaluate).tolist() == [3, 1]
    assert asked == [["aa"], ["b", "ccc"]]
    known = store.known(rows[:2], ["b", "d"])
    np.testing.assert_array_equal(known, [[1, np.nan], [np.nan, np.nan]])


def test_an_archive_of_before_several_values_were_asked_for_together(space, rows):
    """Each value under the evaluator's name and its own."""
    store = Evaluations(space, "e", "d")
    with closing_connection(store.path) as connection:
        connection.execute(
            "INSERT INTO evaluations VALUES (?, ?, ?, ?, ?)",
            (space.digest, rows[0].astype("<u2").tobytes(), "e validation", "d", 91.5),
        )
    assert store.values(rows[0], ONE, None).tolist() == [91.5]


@pytest.mark.parametrize(
    "other", [("imagenet", "e", "d"), ("digits", "f", "d"), ("digits", "e", "")]
)
def test_keys_keep_apart(space, rows, other):
    Evaluations(space, "e", "d").values(rows[0], ONE, lambda _: np.array([5.0]))
    name, evaluator, data = other
    stranger = Evaluations(load_space(name), evaluator, data)
    assert np.isnan(stranger.known(rows[:1], ONE))


def test_an_evaluator_that_fails_leaves_no_trace(space, rows):
    store = Evaluations(space, "e", "d")
    with pytest.raises(ZeroDivisionError):
        store.values(rows[0], ONE, lambda _: 1 / 0)
    assert store.values(rows[0], ONE, lambda _: np.array([2.0])) == 2.0


def test_two_processes_share_the_work(space, rows):
    def work(order):
        store = Evaluations(space, "e", "d")
        for i in order:
            store.values(rows[i], ONE, partial(measured, i))

    def measured(i, _names):
        log(i)
        time.sleep(0.02)
        return np.array([float(i)])

    forward = range(len(rows))
    children = [in_a_child(lambda order=order: work(order)) for order in (forward, forward)]
    assert [exit_code(child) for child in children] == [0, 0]
    assert sorted(map(int, logged())) == list(forward)
    found = Evaluations(space, "e", "d").known(rows, ONE)[:, 0]
    np.testing.assert_array_equal(found, list(forward))


def test_a_killed_process_keeps_nobody_waiting(space, rows):
    def stuck():
        store = Evaluations(space, "e", "d")
        store.values(rows[0], ONE, lambda _: log("x") or time.sleep(60))

    child = in_a_child(stuck)
    while not logged():
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    exit_code(child)
    begun = time.perf_counter()
    store = Evaluations(space, "e", "d")
    assert store.values(rows[0], ONE, lambda _: np.array([3.0])) == 3.0
    assert time.perf_counter() - begun < 5


def test_files_that_are_no_archives(space, rows):
    Path("bad.sqlite").write_bytes(b"not a database, but long enough to look at" * 50)
    with pytest.raises(UserError, match=r"archive of evaluations bad\.sqlite: file is not a data"):
        Evaluations(space, "e", "d", "bad.sqlite")
    with closing_connection("other.sqlite") as connection:
        connection.execute("CREATE TABLE evaluations (a INTEGER)")
    with pytest.raises(UserError, match="its tables are not those of this version"):
        Evaluations(space, "e", "d", "other.sqlite")
    Path("file").write_text("x")
    with pytest.raises(UserError, match="cannot use"):
        Evaluations(space, "e", "d", "file/below.sqlite")


def closing_connection(path):
    return sqlite3.connect(path)


def test_searching_on_the_supernet_repeats_no_measurement():
    """Killed twice in the middle of a generation: every network is measured once."""
    arguments = ("run", "--space", "digits", "--predictor", "supernet", "--algo", "nsga2")
    arguments = (*arguments, "--budget", "60", "--pop-size", "20", "--out")

    def search(*given):
        real = Scorer.accuracies

        def counted(self, subnets, splits, **options):
            values = real(self, subnets, splits, **options)
            log(hash((*subnets, *splits)))
            return values

        Scorer.accuracies = counted
        main(list(given))

    def run(*given):
        def ends():
            with suppress(SystemExit):
                search(*given)

        return in_a_child(ends)

    child, given = run(*arguments, "a"), (*arguments, "a")
    for goal in (8, 33):
        while len(logged()) < goal:
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        assert exit_code(child) == -signal.SIGKILL
        given = ("run", "--resume", "a") if Path("a/run.json").exists() else given
        child = run(*given)
    assert exit_code(child) == 0
    measured = logged()
    # At each kill one more may have been measured, but not stored yet.
    assert 60 - 5 <= len(set(measured)) <= len(measured) <= len(set(measured)) + 2
    assert exit_code(run(*arguments, "b")) == 0
    assert logged() == measured
    assert Path("a/front.csv").read_bytes() == Path("b/front.csv").read_bytes()


def test_a_cache_that_cannot_be_locked_or_written_is_found_out_at_once(space, monkeypatch):
    mend = "; set APQ_MOO_CACHE to another folder$"
    Evaluations(space, "e", "d")
    path = Path(os.environ["APQ_MOO_CACHE"]) / "evaluations.sqlite"

    def refuse(*_args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "lockf", refuse)
        with pytest.raises(UserError, match=f"evaluations.sqlite: No locks available{mend}"):
            Evaluations(space, "e", "d")
    real = sqlite3.connect
    with monkeypatch.context() as patch:
        patch.setattr(
            sqlite3,
            "connect",
            lambda name, **given: real(f"file:{name}?mode=ro", uri=True, **given),
        )
        with pytest.raises(UserError, match=f"attempt to write a readonly database{mend}"):
            Evaluations(space, "e", "d")
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=f"unable to open database file{mend}"):
        Evaluations(space, "e", "d")


def test_without_a_home_only_measuring_needs_a_cache(monkeypatch, capsys):
    """No HOME, and no entry of passwd."""

    def unknown(_number):
        raise KeyError

    for name in ("HOME", "APQ_MOO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    quick = ["run", "--algo", "random", "--space", "digits", "--budget", "100", "--out", "a"]
    cause = "there is no home folder for a cache; set APQ_MOO_CACHE to a folder of yours\n"
    for more, begins in (
        (["--verify", "2"], "error: --verify K measures networks on a supernet, but "),
        (["--predictor", "supernet"], "error: "),
    ):
        with pytest.raises(SystemExit):
            main([*quick, *more])
        assert capsys.readouterr().err == begins + cause
        assert not Path("a").exists()
    with pytest.raises(SystemExit) as stop:
        main(quick)
    assert not stop.value.code

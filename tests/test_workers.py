"""Workers end with the process that began them, and one that is killed is told in one line."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from apq_moo.workers import WorkerLostError, in_workers

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")

SLEEP = """
import time
from apq_moo.workers import in_workers
list(in_workers(time.sleep, [(600,), (600,)], 2))
"""


def group(number):
    """The other living processes of a process group."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, of = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if of == str(number) and state != "Z" and folder.name != of:
            found.append(int(folder.name))
    return found


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_no_worker_outlives_its_parent():
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", SLEEP], start_new_session=True, stderr=subprocess.DEVNULL
    ) as process:
        assert wait_for(lambda: len(group(process.pid)) >= 3, 30)  # two, and loky's tracker
        process.kill()
        process.wait()
        assert wait_for(lambda: not group(process.pid), 5)


def test_results_in_order_and_as_they_come():
    with closing(in_workers(divmod, [(7, 2), (9, 4)], 2, ordered=True)) as found:
        assert list(found) == [(3, 1), (2, 1)]
    assert sorted(in_workers(pow, [(2, 3), (3, 2)], 1)) == [8, 9]


def test_a_killed_worker():
    with pytest.raises(
        WorkerLostError,
        match="a worker process was killed, perhaps for want of memory: lower jobs=2",
    ):
        list(in_workers(signal.raise_signal, [(signal.SIGKILL,)], 2))


def test_results_that_nobody_waits_for_end_the_workers():
    begun = time.monotonic()
    with closing(in_workers(time.sleep, [(0,), (600,), (600,)], 2)) as found:
        next(found)
    assert time.monotonic() - begun < 30


def test_workers_stand_where_their_caller_does(tmp_path, monkeypatch):
    """They are used again, after a program has gone to another folder."""
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        assert set(in_workers(os.getcwd, [()] * 4, 2)) == {str(folder)}

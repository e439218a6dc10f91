"""A process of a training that is killed, stopped or fails ends the others too."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from threading import Event

import pytest
import torch
from torch import distributed
from torch.distributed import HashStore

from apq_moo.supernet import watching
from apq_moo.supernet.distributed import ALONE, Group
from apq_moo.supernet.watching import _Watch, watched
from apq_moo.workers import WorkerLostError


class Ended(list):
    """Exit codes, in place of ends."""

    def wait(self):
        for _ in range(2000):
            if self:
                return
            time.sleep(0.005)
        raise AssertionError("it goes on")


@pytest.fixture
def ended(monkeypatch):
    found = Ended()
    monkeypatch.setattr(watching.os, "_exit", found.append)
    monkeypatch.setattr(watching, "BEAT_S", 0.01)
    return found


@pytest.fixture
def pair():
    store = HashStore()
    return [_Watch(Group(rank, 2), store) for rank in (0, 1)]


def test_nothing_is_said_where_both_end(ended, pair, capsys):
    for watch in pair:
        watch.start()
    time.sleep(0.3)
    pair[0].end()
    time.sleep(0.3)  # the other may take its time
    assert pair[1].is_alive()
    pair[1].end()
    for watch in pair:
        watch.join(5)
        assert not watch.is_alive()
    assert ended == []
    assert capsys.readouterr().err == ""


def test_silence_is_told_after_eight_looks(ended, pair, capsys):
    pair[0].start()
    ended.wait()
    assert ended == [2]
    assert capsys.readouterr().err == (
        "error: process 1 of 2 has not been heard of for 0 s; repeat the command to go on from the "
        "last checkpoint\n"
    )


def test_a_failure_is_told_to_the_others(ended, pair, capsys):
    for watch in pair:
        watch.start()
    pair[1].end(failed=True)
    ended.wait()
    assert ended == [2]
    assert capsys.readouterr().err == (
        "error: process 1 of 2 ended; see what it said; repeat the command to go on from the last "
        "checkpoint\n"
    )


def test_who_ends_by_itself_is_not_ended(ended, pair, monkeypatch, capsys):
    monkeypatch.setattr(watching, "_GRACE", 1000)
    for watch in pair:
        watch.start()
    pair[1].end(failed=True)
    time.sleep(0.2)
    pair[0].end(failed=True)
    assert ended == []
    assert capsys.readouterr().err == ""


def test_a_store_that_never_answers_is_told(ended, capsys):
    class Deaf:
        def add(self, name, times):
            Event().wait(60)

    _Watch(Group(0, 2), Deaf()).start()
    ended.wait()
    assert ended == [2]
    assert "the process that keeps their store does not answer; repeat" in capsys.readouterr().err


def test_one_process_is_not_watched(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with watched(ALONE, torch.device("cpu")):
        pass


def test_a_broken_connection_is_one_line(monkeypatch):
    def broken(_):
        raise RuntimeError("[pair.cc:547] Connection closed by peer [127.0.0.1]:4711")

    monkeypatch.setattr(distributed, "all_reduce", broken)
    with pytest.raises(WorkerLostError, match="another process ended, or cannot be reached; see"):
        Group(0, 2).mean(torch.zeros(1))


def test_torchs_own_log_does_not_hide_the_line(monkeypatch):
    from apq_moo.cli import main

    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "")
    monkeypatch.delenv("TORCH_CPP_LOG_LEVEL")
    for processes, level in ((None, None), ("2", "ERROR")):
        if processes:
            monkeypatch.setenv("WORLD_SIZE", processes)
        with pytest.raises(SystemExit):
            main(["--version"])
        assert os.environ.get("TORCH_CPP_LOG_LEVEL") == level


SCRIPT = """
import sys
from pathlib import Path
from apq_moo.cli import main
from apq_moo.supernet import watching
from apq_moo.supernet.training import Trainer

watching.BEAT_S = float(sys.argv[1])
keep = Trainer._keep_average

def noted(trainer):
    keep(trainer)
    Path(f"begun.{trainer.group.rank}").touch()

Trainer._keep_average = noted
command = "supernet train --space digits --steps 100000 --warmup-steps 100000 --batch-size 8"
main([*command.split(), "-o", "two.safetensors"])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "victim", "beat_s", "line"),
    [
        (signal.SIGKILL, 1, 2.0, "error: another process ended, or cannot be reached; "),
        (signal.SIGKILL, 0, 2.0, "error: another process ended, or cannot be reached; "),
        (signal.SIGSTOP, 1, 0.5, "error: process 1 of 2 has not been heard of for 4 s; "),
        (signal.SIGSTOP, 0, 0.5, "error: the process that keeps their store does not answer; "),
    ],
)
def test_the_other_ends_in_time_with_one_line(tmp_path, how, victim, beat_s, line):
    (tmp_path / "script.py").write_text(SCRIPT)
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    about = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    about |= {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    both = [
        subprocess.Popen(  # noqa: S603
            [sys.executable, "script.py", str(beat_s)], cwd=tmp_path, stderr=subprocess.PIPE,
            text=True,
            env=os.environ | about | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        for _ in range(1200):
            if all((tmp_path / f"begun.{rank}").exists() for rank in (0, 1)):
                break
            time.sleep(0.1)
        both[victim].send_signal(how)
        other = both[1 - victim]
        _, said = other.communicate(timeout=30)
    finally:
        for process in both:
            process.kill()
    lines = said.strip().splitlines()
    assert other.returncode == 2
    assert len(lines) == 1, said
    assert lines[0].startswith(line)
    assert len(lines[0]) <= 300

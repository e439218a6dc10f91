"""Commands that are stopped, or find another process at their work, say so in one line."""

import os
import re
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from apq_moo.algorithms.strategy import Context
from apq_moo.cli.stopping import Stopped, going_on, stoppable
from apq_moo.data.samples import load_samples
from apq_moo.files import growing
from apq_moo.space import load_space
from apq_moo.study.folder import RunFolder, alone
from apq_moo.supernet import measuring
from apq_moo.supernet.training import Trainer

RUN = ("run", "--algo", "random", "--space", "digits", "--budget", "600", "--out", "a b")
TRAIN = ("supernet", "train", "--steps", "9", "-o", "n.safetensors")
COLLECT = (
    *("samples", "collect", "--fp", "40", "--mp", "0", "--held-out", "0", "--jobs", "1"),
    *("--on", "cpu", "-o", "s.npz"),
)
BENCH = (
    *("bench", "--space", "tiny", "--algos", "random", "--seeds", "2", "--budget", "200"),
    *("--out", "b"),
)


def stopping(monkeypatch, owner, name, number, *, at):
    """A signal comes when a function is called for the ``at``-th time."""
    real, calls = getattr(owner, name), []

    def stop(*given, **options):
        calls.append(None)
        if len(calls) == at:
            os.kill(os.getpid(), number)
        return real(*given, **options)

    monkeypatch.setattr(owner, name, stop)


def test_a_second_signal_does_not_disturb_what_is_said():
    def kept():
        os.kill(os.getpid(), signal.SIGTERM)
        return "all is kept"

    with pytest.raises(Stopped) as told, stoppable(), going_on(kept):
        raise Stopped(signal.SIGTERM)
    assert told.value.__notes__ == ["all is kept"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run(call, monkeypatch, number, code):
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        stopping(patch, Context, "measure", number, at=3)
        stopped = call(*RUN)
    assert stopped.code == code
    assert re.fullmatch(
        r"interrupted; \d+ of 600 evaluations are kept: go on with apq-moo run --resume 'a b'\n",
        stopped.err,
    )
    assert signal.getsignal(number) == before
    assert call("run", "--resume", "a b").code == 0


def test_a_training(call, monkeypatch):
    stopping(monkeypatch, Trainer, "_update", signal.SIGTERM, at=5)
    stopped = call(*TRAIN)
    assert (stopped.code, stopped.err) == (143, "interrupted; nothing is kept yet\n")
    real = Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda self, **given: real(self, every_s=0.0, **given))
    stopping(monkeypatch, Trainer, "_update", signal.SIGINT, at=5)
    assert call(*TRAIN).err == (
        "interrupted; 4 of 9 steps are kept in n.training: repeat the command to go on\n"
    )
    assert {path.name for path in Path().iterdir()} == {"n.training"}


def test_a_collection(call, monkeypatch):
    stopping(monkeypatch, measuring, "_count", signal.SIGINT, at=3)
    stopped = call(*COLLECT)
    assert (stopped.code, stopped.err) == (
        130, "interrupted; 32 of 40 networks are kept in s.npz: repeat the command to go on\n"
    )  # fmt: skip
    table = load_samples(Path("s.npz"), load_space("digits"))
    assert len(table.unmeasured()) == 8
    assert {path.name for path in Path().iterdir()} == {"s.npz"}


def test_a_pipeline(call, monkeypatch):
    command = ("pipeline", "--out", "made", "--steps", "9", "--fp", "12", "--jobs", "1")
    with monkeypatch.context() as patch:
        stopping(patch, Trainer, "_update", signal.SIGTERM, at=5)
        assert call(*command).err.endswith("\ninterrupted; nothing is kept yet\n")
    stopping(monkeypatch, measuring, "_count", signal.SIGTERM, at=1)
    assert call(*command).err.endswith(
        "\ninterrupted; finished stages, samples and evaluations are kept in made: repeat the "
        "command to go on\n"
    )


def test_a_benchmark(call, monkeypatch):
    stopping(monkeypatch, Context, "measure", signal.SIGTERM, at=1)
    stopped = call(*BENCH)
    assert (stopped.code, stopped.err) == (
        143, "interrupted; 0 of 2 cells are kept: go on with apq-moo bench --resume b\n"
    )  # fmt: skip


def test_a_comparison_of_predictors(call, monkeypatch):
    module = import_module("apq_moo.predictors.compare")
    stopping(monkeypatch, module, "_curve", signal.SIGINT, at=1)
    stopped = call("predictor", "compare", "--names", "additive", "--sizes", "100")
    assert (stopped.code, stopped.err) == (130, "interrupted; nothing is kept\n")


def test_before_anything_is_imported():
    """The first seconds of a command go to imports."""
    code = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(name, path, target=None):\n"
        "        if name == 'typer': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder)\n"
        "from apq_moo.cli import main\n"
        "main(['algorithms'])"
    )
    found = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "interrupted\n")


def test_any_other_command(call, monkeypatch):
    stopping(monkeypatch, RunFolder, "open", signal.SIGTERM, at=1)
    stopped = call("pick", "a")
    assert (stopped.code, stopped.err) == (143, "interrupted\n")


def test_a_killed_worker(call, monkeypatch):
    monkeypatch.setattr("apq_moo.benchmarks.compare.bench.carry_out", _killed)
    stopped = call(*BENCH, "--jobs", "2")
    assert (stopped.code, stopped.err) == (
        2,
        "error: a worker process was killed, perhaps for want of memory: lower --jobs 2; 0 of 2 "
        "cells are kept: go on with apq-moo bench --resume b\n",
    )


def _killed(_cell, _own, _deadline):
    signal.raise_signal(signal.SIGKILL)


def test_ctrl_c_reaches_workers_too(tmp_path):
    """A terminal sends it to all of them. No traceback of theirs is seen."""
    command = (*COLLECT, "--space", "digits", "--jobs", "2")
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "apq_moo", *command], cwd=tmp_path, stderr=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"APQ_MOO_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        end = time.monotonic() + 60
        while len(children.read_text().split()) < 3 and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""
    assert re.fullmatch(
        r"interrupted; \d+ of 40 networks are kept in s.npz: repeat the command to go on\n", err
    )


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (COLLECT, "s.npz"),
        (TRAIN, "n.safetensors"),
        (("lut", "measure", "-o", "l.npz"), "l.npz"),
    ],
)
def test_a_file_that_another_process_writes(refused, tmp_path, command, path):
    with growing(tmp_path / path):
        assert refused(*command) == (
            f"error: another process writes {path}; wait for its end, or name another file"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_pipeline_in_two_processes(refused):
    Path("made").mkdir()
    with alone(Path("made")):
        assert refused("pipeline", "--out", "made") == (
            "error: another process carries out the pipeline in made; wait for its end, or name "
            "another folder"
        )
    assert list(Path("made").iterdir()) == []

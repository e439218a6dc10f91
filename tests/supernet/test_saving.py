"""Checkpoints that are written while a training goes on."""

import os
import signal
from pathlib import Path
from threading import Event, Lock, Semaphore

import pytest
import torch

from apq_moo.errors import UserError
from apq_moo.supernet import checkpoint, saving
from apq_moo.supernet.checkpoint import load_tensors, save_tensors
from apq_moo.supernet.saving import Saving
from apq_moo.supernet.training import FORMAT, TrainConfig, Trainer

HEADER = {"format": "some"}


@pytest.fixture
def slow(monkeypatch):
    """Writing waits to be let; whoever writes beside another is noticed."""
    free, writes = Semaphore(0), Lock()

    def write(*arguments):
        assert writes.acquire(blocking=False), "two files at once"
        assert free.acquire(timeout=60)
        save_tensors(*arguments)
        writes.release()

    monkeypatch.setattr(saving, "save_tensors", write)
    return free


def test_what_is_written_is_a_copy(slow, tmp_path):
    path, values = tmp_path / "a.training", torch.arange(4.0)
    with Saving() as files:
        files.begin(path, {"a": values}, HEADER)
        assert files.busy
        values += 1
        slow.release()
        files.finish()
        assert not files.busy
        assert load_tensors(path, "some")[0]["a"].tolist() == [0, 1, 2, 3]
        files.begin(path, {"a": values}, HEADER)
        slow.release()
    assert load_tensors(path, "some")[0]["a"].tolist() == [1, 2, 3, 4]


def test_a_training_goes_on_meanwhile(slow, digits, image_set, tmp_path):
    """The first checkpoint takes three steps, so that of six due ones not all are written."""
    path = tmp_path / "a.training"
    config = TrainConfig(steps=6, warmup_steps=5, batch_size=32)
    found = []

    def look(progress):
        if progress.step == 3:
            found.append(path.exists())
            slow.release()
        if progress.step == 5:
            found.append(load_tensors(path, FORMAT)[1]["step"])
            slow.release(2)

    Trainer(digits, image_set, config).run(checkpoint=path, every_s=0.0, callback=look)
    assert found == [False, 1]
    assert load_tensors(path, FORMAT)[1]["step"] == 6


def test_what_could_not_be_written_is_said_once(tmp_path):
    (tmp_path / "file").touch()
    files = Saving()
    files.begin(tmp_path / "file" / "a.training", {"a": torch.zeros(1)}, HEADER)
    with pytest.raises(UserError, match=r"cannot write .*a\.training: "):
        files.begin(tmp_path / "b.training", {"a": torch.zeros(1)}, HEADER)
    files.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_could_not_be_read_again_is_not_written(tmp_path, monkeypatch):
    path, value = tmp_path / "a.training", torch.zeros(100)
    monkeypatch.setattr(checkpoint, "_MAX_BYTES", 399)
    with pytest.raises(UserError, match="it would have 400 bytes, and more than 399 are not read"):
        save_tensors(path, {"a": value}, HEADER)
    assert not list(tmp_path.iterdir())
    save_tensors(path, {"a": value[1:]}, HEADER)


def test_what_ends_a_training_matters_more(tmp_path):
    (tmp_path / "file").touch()
    bad = tmp_path / "file" / "a.training"
    with pytest.raises(ZeroDivisionError), Saving() as files:  # noqa: PT012 (two statements)
        files.begin(bad, {"a": torch.zeros(1)}, HEADER)
        raise ZeroDivisionError
    with pytest.raises(UserError, match="cannot write"), Saving() as files:
        files.begin(bad, {"a": torch.zeros(1)}, HEADER)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_leaves_the_file_before(tmp_path, monkeypatch):
    path = tmp_path / "a.training"
    with Saving() as files:
        files.begin(path, {"a": torch.zeros(1000)}, HEADER)
    child = os.fork()
    if child == 0:
        half = Event()

        def write_half(to, content):
            with to.open("wb") as handle:
                handle.write(content[: len(content) // 2])
            half.set()
            Event().wait()

        monkeypatch.setattr(Path, "write_bytes", write_half)
        Saving().begin(path, {"a": torch.ones(1000)}, HEADER)
        half.wait(60)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2  # half of the other one lies beside it
    assert load_tensors(path, "some")[0]["a"].sum() == 0

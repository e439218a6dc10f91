"""The lock of a run's folder."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from apq_moo.errors import UserError
from apq_moo.study.config import RunConfig
from apq_moo.study.folder import LOCK, RunFolder, alone, is_empty

HOLD = """
import sys, time
from pathlib import Path
from apq_moo.study.folder import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def entered(path):
    with alone(path):
        return True


def test_one_process_at_a_time(tmp_path):
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError) as caught:
            entered(tmp_path)
        process.kill()
    assert str(caught.value) == (
        f"the run or benchmark in {tmp_path} is being carried out by another process"
    )
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]  # a killed process leaves it
    assert is_empty(tmp_path)
    assert entered(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_gone_however_the_work_ends(tmp_path):
    def interrupted():
        with alone(tmp_path):
            assert [path.name for path in tmp_path.iterdir()] == [LOCK]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_stops_nothing(tmp_path, monkeypatch, code):
    def refuse(*_args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert entered(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {LOCK}
    with alone(tmp_path):
        assert entered(tmp_path)


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    real = os.open

    def refuse(path, flags, *args, **options):
        if str(path).endswith(LOCK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    assert entered(tmp_path)


def test_half_written_files_are_tidied_up_and_others_are_not(tmp_path):
    (tmp_path / f".{'0' * 16}.npz").write_text("half")
    (tmp_path / ".mine").write_text("mine")
    assert entered(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".mine"]


def test_what_a_killed_process_locked_is_still_empty(tmp_path):
    (tmp_path / LOCK).touch()
    RunFolder.create(tmp_path, RunConfig(), verify=None, overwrite=False)
    with pytest.raises(UserError, match="holds a run; add overwrite=True to replace it"):
        RunFolder.create(tmp_path, RunConfig(), verify=None, overwrite=False)
    assert is_empty(tmp_path / "none")
    assert not is_empty(tmp_path)

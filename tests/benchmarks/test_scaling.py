import re
import subprocess
import sys

import pytest
import torch

from apq_moo.benchmarks.speed import scaling
from apq_moo.supernet.training import Trainer

SMALL = ("--space", "digits", "--batch", "16", "--on", "cpu")


def test_steps_are_counted_after_the_warm_up(monkeypatch, capsys):
    """A clock that the first steps move on by 100 seconds each, and the others by one."""
    seconds = iter((100.0, 100.0, 1.0, 1.0, 1.0))
    now = [0.0]
    update = Trainer._update

    def timed(self, x, y, first):
        now[0] += next(seconds)
        return update(self, x, y, first)

    monkeypatch.setattr(Trainer, "_update", timed)
    monkeypatch.setattr(scaling.time, "perf_counter", lambda: now[0])
    scaling.main([*SMALL, "--warmup", "2", "--steps", "3"])
    shown = capsys.readouterr().out
    assert re.search(r"1 x a CPU, batch 16: 16 images/s, 1000.0 ms a step", shown)


def test_a_warm_up_is_needed(capsys):
    with pytest.raises(SystemExit) as stopped:
        scaling.main([*SMALL, "--warmup", "0"])
    assert stopped.value.code == 2
    assert "--warmup and --steps must be at least 1" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU that is not there")
def test_a_script_s_mistake_is_one_line():
    command = [sys.executable, "-m", "apq_moo.benchmarks.speed.scaling", "--on", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 2
    assert done.stderr.startswith("error: no device 'cuda' here")
    assert len(done.stderr.splitlines()) == 1

import re

from apq_moo.benchmarks import scaling
from apq_moo.supernet.training import Trainer


def test_steps_are_counted_after_the_warm_up(monkeypatch, capsys):
    """A clock that each step moves on by a second."""
    now = [0.0]
    update = Trainer._update

    def timed(self, x, y, first):
        now[0] += 1.0
        return update(self, x, y, first)

    monkeypatch.setattr(Trainer, "_update", timed)
    monkeypatch.setattr(scaling.time, "perf_counter", lambda: now[0])
    small = ["--space", "digits", "--batch", "16", "--on", "cpu"]
    scaling.main([*small, "--warmup", "2", "--steps", "3"])
    shown = capsys.readouterr().out
    assert re.search(r"1 x a CPU, batch 16: 16 images/s, 1000.0 ms a step", shown)

"""The benchmark of the host's work counts what is launched, one by one or repeated."""

import pytest

pytest.importorskip("triton")

import torch

from apq_moo.benchmarks.speed import host_time
from apq_moo.space import load_space
from apq_moo.supernet.gpu import launching


def test_as_many_kernels_are_repeated_as_are_found_anew(monkeypatch):
    monkeypatch.setattr(launching, "shared_memory", lambda _: 227 * 1024)
    found = {
        name: (us, kernels) for name, us, kernels in host_time.host_times(load_space("tiny"), 2)
    }
    assert len(found) == 4
    for what in ("evaluation", "training"):
        anew, repeated = (found[f"{what}, launches {how}"] for how in ("found anew", "repeated"))
        assert min(anew[0], repeated[0]) > 0
        assert repeated[1] == anew[1] > 20


def test_repeated_kernels_are_started_together():
    with host_time.without_gpu() as counter:
        launcher = launching.Launcher(torch.device("cpu"))
        x = torch.zeros(4)
        for _ in range(4):
            launcher.do("key", [x], lambda: [launcher.launch(counter, 1, (x, 2), ()) for _ in "ab"])
        launcher.flush()
    assert (counter.alone, counter.together) == (4, 4)

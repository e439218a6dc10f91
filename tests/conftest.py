"""Shared by all tests."""

import os
from pathlib import Path

# Triton interprets its kernels where there is no GPU; it must know before it is imported.
if not Path("/dev/nvidia0").exists():
    os.environ["TRITON_INTERPRET"] = "1"

import pytest
import torch

from apq_moo.data import load_images
from apq_moo.space import load_space


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Each worker begins with a part in one piece, so that what tests share is made once.

    One that is done takes over half of what another has left.
    """
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(scope="session")
def digits():
    return load_space("digits")


@pytest.fixture(scope="session")
def image_set():
    return load_images("digits")


@pytest.fixture
def hurried(monkeypatch):
    """Layers and networks are timed twice for a moment each; how well is tested elsewhere."""
    from apq_moo.hardware.measuring import layers, networks
    from apq_moo.hardware.measuring.campaign import Campaign
    from apq_moo.hardware.measuring.timing import Rule

    monkeypatch.setattr(Rule.__init__, "__defaults__", (0.2, 6, 0.005, 0.0, 0.05))
    monkeypatch.setattr(Campaign, "settled", lambda *_: True)
    for module in (layers, networks):
        monkeypatch.setattr(module, "ROUNDS", 2)


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

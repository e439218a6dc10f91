"""Shared by all tests."""

import ast
import os
import re
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

# Triton interprets its kernels where there is no GPU; it must know before it is imported.
if not Path("/dev/nvidia0").exists():
    os.environ["TRITON_INTERPRET"] = "1"

import pytest

from apq_moo.data import load_images
from apq_moo.errors import UserError
from apq_moo.space import load_space

_PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
_EXTRAS = _PROJECT["optional-dependencies"]
_LINES = [
    "triton",
    *(line for name in _EXTRAS.keys() - {"dev", "docs", "libraries"} for line in _EXTRAS[name]),
]
_OPTIONAL = {re.split(r"[\[><=]", line)[0].replace("-", "_") for line in _LINES} - {
    "apq_moo",
    "pytest_xdist",
}
LACKING = {name for name in _OPTIONAL if find_spec(name) is None}
"""Libraries of extras that are not installed here; what needs them is left out, and said to be."""

_LEFT_OUT = pytest.StashKey[dict[str, str]]()


def pytest_configure(config):
    config.stash[_LEFT_OUT] = {}


def pytest_ignore_collect(collection_path, config):
    """Leave out a file, or a folder by its conftest.py, that imports what is not installed."""
    path = collection_path / "conftest.py" if collection_path.is_dir() else collection_path
    if not LACKING or path.suffix != ".py" or not path.is_file():
        return None
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            try:
                import_module(name)
            except ImportError as error:
                if why := _lacking(error):
                    config.stash[_LEFT_OUT][str(collection_path)] = why
                    return True
    return None


def pytest_report_collectionfinish(config):
    return [f"left out, needs {why}: {path}" for path, why in config.stash[_LEFT_OUT].items()]


def _lacking(error):
    """The library or extra for want of which something stopped; None if it is not that."""
    if not LACKING:
        return None
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] in LACKING:
        return error.name
    mend = re.search(r"pip install '(apq-moo\[\w+\])'", str(error))
    return mend and mend[1]


def _skipping():
    """Skip a test that stopped for want of a library that is not installed here."""
    try:
        return (yield)
    except (ImportError, UserError) as error:
        if why := _lacking(error):
            pytest.skip(f"needs {why}")
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    return (yield from _skipping())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    return (yield from _skipping())


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
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

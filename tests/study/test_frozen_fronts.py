"""Every algorithm still writes the ``front.csv`` that was frozen, to nine digits."""

import importlib.util
import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from apq_moo.cli import main

_spec = importlib.util.spec_from_file_location(
    "front_cases", Path(__file__).with_name("front_cases.py")
)
front_cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(front_cases)

FROZEN = json.loads(front_cases.FILE.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("fronts")
    front_cases.write_published(path)
    return path


def test_every_case_is_frozen():
    assert list(FROZEN) == [f"{kind}/{algo}" for kind, algo in front_cases.cases()]


SLOW = (("fashion-three", "exact"),)


@pytest.mark.parametrize(
    ("kind", "algo"),
    [
        pytest.param(*case, marks=pytest.mark.slow if case in SLOW else ())
        for case in front_cases.cases()
    ],
)
def test_fronts_are_those_that_were_frozen(kind, algo, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("APQ_MOO_CACHE", str(folder / "cache"))
    monkeypatch.setattr(Figure, "savefig", lambda *_args, **_options: None)  # takes half the time
    name = f"{kind}/{algo}"
    with pytest.raises(SystemExit) as stop:
        main([*front_cases.arguments(kind, algo), "--out", name])
    assert not stop.value.code
    found = front_cases.summary(folder / name / "front.csv")
    assert found["ends"] == FROZEN[name]["ends"]
    assert found == FROZEN[name]

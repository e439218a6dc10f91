"""What options say, and messages of the library, which know no options."""

import ast
import json
import os
import re
from pathlib import Path

import pytest
import torch

import apq_moo
from apq_moo import benchmarks, hardware, predictors, problems
from apq_moo.cli.options import as_options, measuring_device, numbers, parse_limits
from apq_moo.errors import UserError
from apq_moo.hardware.measuring.backends import BACKENDS
from apq_moo.study.config import RunConfig
from apq_moo.study.folder import RunFolder

SOURCES = [
    file
    for package in (apq_moo, benchmarks, hardware, predictors, problems)
    for file in Path(package.__file__).parent.rglob("*.py")
    if file.parent.name != "cli"
]


def test_limits_are_read():
    assert parse_limits(["latency=0.2", "acc=80"]) == {"latency": 0.2, "acc": 80.0}
    for bad in ("latency", "=1", "latency=", "latency=inf"):
        with pytest.raises(UserError, match="NAME=VALUE"):
            parse_limits([bad])


def test_lists_are_read():
    assert numbers("4, 8", "--sweep") == (4, 8)
    with pytest.raises(UserError, match="--sweep '4,x': write whole numbers by commas"):
        numbers("4,x", "--sweep")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("budget=20 is too small; the smallest that works is 24", "--budget 20 is too small; the "),
        ("pop_size=3: at least 4 is needed", "--pop-size 3: at least 4 is needed"),
        ("limits=speed: this run knows acc", "--max speed: this run knows acc"),
        ("on='cuda:7': torch sees 1 GPUs", "--on cuda:7: torch sees 1 GPUs"),
        ("leave them out with missing='infeasible'", "leave them out with --missing infeasible"),
        ("add overwrite=True to replace it", "add --overwrite to replace it"),
        ("continue it with RunFolder.open('a b')", "continue it with --resume 'a b'"),
        ("go on with it by Store.open('runs/b')", "go on with it by --resume runs/b"),
        ("such as latency=0.2, W4A4=3", "such as latency=0.2, W4A4=3"),
    ],
)
def test_arguments_become_options(message, shown):
    assert as_options(message).startswith(shown)


def text_of(node):
    """The texts of an expression, in their order, with ``X`` for values."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.FormattedValue):
        return "X"
    return "".join(map(text_of, ast.iter_child_nodes(node)))


def messages(file):
    """What each ``UserError`` of a file says."""
    for node in ast.walk(ast.parse(file.read_text())):
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if called and node.func.id == "UserError":
            yield text_of(node)


def test_messages_of_the_library_name_no_options():
    """Commands to type stand in backquotes, with their options."""
    found = [text for file in SOURCES for text in messages(file)]
    assert len(found) > 250
    assert [text for text in found if re.search(r"--[a-z]", re.sub("`[^`]*`", "", text))] == []


@pytest.mark.parametrize(
    ("command", "line", "see"),
    [
        ("pik r", "no such command 'pik'", "apq-moo"),
        ("pick", "missing argument 'RUN' (", "apq-moo pick"),
        ("run --bugdet 9", "no such option: --bugdet", "apq-moo run"),
        ("run --budget x", "invalid value for '--budget': ", "apq-moo run"),
        ("run --resume locked", "invalid value for '--resume': ", "apq-moo run"),
        ("lut measure", "missing option '--out' / '-o' (", "apq-moo lut measure"),
    ],
)
def test_wrong_usage_is_one_line(refused, monkeypatch, command, line, see):
    Path("locked").mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    told = refused(*command.split())
    assert told.startswith(f"error: {line}")
    assert told.endswith(f" (see {see} --help)")


@pytest.mark.parametrize(
    ("command", "value"),
    [("run --budget x1", "'x1'"), ("supernet train -o a.safetensors --average-decay 1.5", "1.5")],
)
def test_a_value_that_is_refused_is_named(refused, command, value):
    assert value in refused(*command.split())


def test_mistakes_of_callers_are_told_in_arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RunFolder.create(tmp_path / "r", RunConfig(), verify=None, overwrite=False)
    (tmp_path / "file").touch()
    for call, message in (
        (lambda: RunConfig(budget=0), "budget=0: at least 1 is needed"),
        (lambda: RunConfig(pop_size=3), "pop_size=3: at least 4 is needed"),
        (lambda: BACKENDS.get("torch")(1, "tpu"), "on='tpu': use cpu, cuda or cuda:0"),
        (
            lambda: BACKENDS.get("onnxruntime")(1, "cuda"),
            "onnxruntime measures processors; on='cuda' needs torch",
        ),
        (
            lambda: RunFolder.create("r", RunConfig(), verify=None, overwrite=False),
            "r holds a run; add overwrite=True to replace it, or continue it with "
            "RunFolder.open('r')",
        ),
        (
            lambda: RunFolder.create("file", RunConfig(), verify=None, overwrite=False),
            "file is a file; name a folder",
        ),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert str(caught.value) == message


def test_a_gpu_that_is_there_measures_and_is_named(monkeypatch, capsys):
    chosen = []

    def chosen_device(on):
        chosen.append(on)
        return torch.device(on or "cuda")

    monkeypatch.setattr("apq_moo.supernet.devices.chosen_device", chosen_device)
    assert measuring_device(None) == "cuda"
    assert capsys.readouterr().err == "measuring on cuda; --on cpu does not\n"
    assert measuring_device("cpu") == "cpu"
    assert not capsys.readouterr().err
    assert chosen == [None, "cpu"]


def test_a_device_that_is_not_there_is_refused_before_there_is_a_folder(call, refused):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    line = refused("run", "--predictor", "supernet", "--on", "cuda", "--out", "a")
    assert "torch finds 0 GPUs; use cpu" in line
    line = refused("run", "--predictor", "mlp", "--verify", "2", "--on", "cuda", "--out", "a")
    assert "torch finds 0 GPUs; use cpu" in line
    assert not Path("a").exists()
    search = ("run", "--predictor", "mlp", "--budget", "4800", "--out", "b")
    assert call(*search, "--on", "cpu", "--verify", "2").code == 0
    assert json.loads(Path("b/run.json").read_text())["config"]["on"] == "cpu"

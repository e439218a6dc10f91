"""The plug-ins of docs/extending.md work, installed as a package would install them."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from apq_moo.cli import main
from apq_moo.data.assets import SAMPLES, find_assets
from apq_moo.data.samples import load_samples
from apq_moo.files import read_csv
from apq_moo.space import load_space

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"


def blocks(language, section):
    parts = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (chosen,) = [part for part in parts if part.startswith(f"{section}\n")]
    return re.findall(rf"```{language}\n(.*?)```", chosen, flags=re.DOTALL)


@pytest.fixture(scope="module")
def project():
    (text,) = blocks("toml", "Entry points")
    return tomllib.loads(text)


@pytest.fixture(scope="module")
def site(tmp_path_factory, project):
    """A folder as pip leaves it: the module, and the metadata with the entry points."""
    folder = tmp_path_factory.mktemp("site")
    (module,) = project["tool"]["setuptools"]["py-modules"]
    code = [blocks("python", section) for section in ("A predictor", "A device", "An algorithm")]
    assert all(len(found) == 1 for found in code)
    (folder / f"{module}.py").write_text("\n\n".join(text for (text,) in code))
    name, version = project["project"]["name"], project["project"]["version"]
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, points in project["project"]["entry-points"].items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in points.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture
def python(site, tmp_path):
    """Runs Python in an empty folder, with the plug-ins installed."""

    def run(*arguments):
        return subprocess.run(  # noqa: S603 - runs this interpreter
            [sys.executable, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(site),
                "APQ_MOO_CACHE": str(tmp_path / "cache"),
                "COLUMNS": "200",
            },
        )

    return run


def test_a_run_with_all_three_by_name(python, tmp_path):
    (command,) = blocks("sh", "Entry points")
    program, *arguments = shlex.split(command)
    assert program == "apq-moo"
    result = python("-m", "apq_moo", *arguments)
    assert result.returncode == 0, result.stderr
    with (tmp_path / "runs" / "mine" / "front.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) > 3
    space = load_space("digits")
    X = space.encode([json.loads(row["subnet"]) for row in rows])
    for subnet, row in zip(space.decode(X), rows, strict=True):
        work = sum(layer.macs * layer.w_bits * layer.a_bits for layer in space.layers(subnet))
        assert float(row["latency"]) == pytest.approx(work / 64e9, rel=1e-9)
    _, accuracies = load_samples(find_assets(space).path(SAMPLES), space).rows("mp")
    assert np.isin([float(row["acc"]) for row in rows], accuracies).all()
    again = python("-m", "apq_moo", "run", "--resume", "runs/mine")
    assert again.returncode == 0, again.stderr


def test_an_algorithm_in_one_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))
    (code,) = blocks("python", "An algorithm in one file")
    assert len(code.splitlines()) <= 25
    Path("half.py").write_text(code)
    (commands,) = blocks("sh", "An algorithm in one file")
    for command in commands.splitlines():
        with pytest.raises(SystemExit) as stop:
            main(shlex.split(command)[1:])
        assert not stop.value.code, capsys.readouterr().err
    assert re.search(r"^ *half .* 2 *$", capsys.readouterr().out, flags=re.MULTILINE)
    front = read_csv(tmp_path / "runs" / "one" / "front.csv")
    assert len(front["acc"]) > 5


def test_a_predictor_in_a_file(python, tmp_path):
    samples = find_assets(load_space("digits")).path(SAMPLES)
    file = tmp_path / "nearest.safetensors"
    given = ("--space", "digits", "--samples", samples)
    fit = python("-m", "apq_moo", "predictor", "fit", "nearest", *given, "-o", file)
    assert fit.returncode == 0, fit.stderr
    run = ("-m", "apq_moo", "run", "--space", "digits", "--algo", "random", "--budget", "200")
    result = python(*run, "--predictor", file, "--out", "a")
    assert result.returncode == 0, result.stderr


def test_predictors_in_scikit_learn(python):
    (code,) = blocks("python", "Predictors in scikit-learn")
    result = python("-c", code)
    assert result.returncode == 0, result.stderr
    best, stacked, alone = result.stdout.splitlines()
    assert best == "{'max_depth': 2}"
    assert 0.9 < float(alone) < float(stacked) < 1


def test_plugins_are_listed_and_named(python):
    listed = python("-m", "apq_moo", "algorithms").stdout
    assert "walk: mutants of the best networks so far [a front] (none)" in listed
    for option, known in (("--algo", "walk"), ("--device", "ideal"), ("--predictor", "nearest")):
        result = python("-m", "apq_moo", "run", option, "no-such-thing")
        assert result.returncode == 2
        assert known in result.stderr.split("known: ")[1]


def test_the_conformance_suites(python, tmp_path):
    (code,) = blocks("python", "Conformance suites")
    (tmp_path / "test_my_plugins.py").write_text(code)
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist")
    result = python("-m", "pytest", *options, "test_my_plugins.py")
    assert result.returncode == 0, result.stdout
    passed = int(re.search(r"([0-9]+) passed", result.stdout)[1])
    assert passed == 12 + 7 + 9, result.stdout


def test_no_code_is_left_out():
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^```(\w+)$", text, flags=re.MULTILINE) == [
        *("python", "python", "python", "python", "python", "sh", "toml", "sh", "python")
    ]


def test_what_the_page_names_exists():
    text = PAGE.read_text(encoding="utf-8")
    scripts = re.findall(r"`(own_\w+\.py)`", text)
    assert len(scripts) == 3
    assert all((PAGE.parent.parent / "examples" / name).is_file() for name in scripts)

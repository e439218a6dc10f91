"""Searching what ships needs no torch: it is refused to a process that runs the first commands."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from apq_moo.cli import main
from apq_moo.extras import EXTRAS, MissingLibraryError, is_installed, require

ROOT = Path(__file__).parent.parent

SCRIPT = """
import contextlib, io, json, sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "triton"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refused())
from apq_moo.cli import main

ends = []
for arguments in json.loads(sys.argv[1]):
    told = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
        try:
            main(arguments)
        except SystemExit as stop:
            ends.append([stop.code or 0, told.getvalue()])
assert "torch" not in sys.modules
print(json.dumps(ends))
"""


@pytest.fixture
def without_torch(tmp_path, monkeypatch):
    """Runs commands in one process without torch; returns each one's exit code and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(*lines):
        given = json.dumps([line.split() for line in lines])
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", SCRIPT, given],
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert not done.returncode, done.stderr
        return [tuple(end) for end in json.loads(done.stdout)]

    return run


def test_shipped_spaces_are_searched_without_torch(without_torch, tmp_path):
    mlp = "run --space digits --predictor mlp --budget 600"
    ends = without_torch(
        "run --algo apq-ga --objectives acc,latency --budget 800 --out first",
        f"{mlp} --out mlp",
        "pick first --knee",
        "table first -o first.csv",
        "bench --space tiny --algos apq-ga,nsga2 --seeds 1 --budget 600 --jobs 1 --out bench",
        "plot bench -o bench.png",
        "spaces",
        "algorithms",
    )
    assert [code for code, _ in ends] == [0] * 8, ends
    assert len((tmp_path / "first" / "front.csv").read_text().splitlines()) > 20
    assert (tmp_path / "bench.png").stat().st_size > 5000
    with pytest.raises(SystemExit):  # here torch computes what numpy computed there
        main([*mlp.split(), "--out", "torch"])
    fronts = [(tmp_path / run / "front.csv").read_bytes() for run in ("mlp", "torch")]
    assert fronts[0] == fronts[1]


def test_what_needs_torch_says_in_a_line_what_to_install(without_torch, tmp_path):
    verified = "run --space digits --predictor additive --verify --budget 800"
    needs = {
        "supernet train --space digits -o net.safetensors": "this command needs torch",
        f"{verified} --out runs": "the supernet needs torch",
        "run --space digits --predictor mlp-scratch --out runs": "fitting a network needs torch",
        "run --algo amc --space tiny --predictor table --out runs": "amc:agent=ddpg needs torch",
        "pipeline --space digits --out runs": "the supernet needs torch",
        "data download cifar10 --folder runs": "this command needs torchvision",
    }
    ends = without_torch(*needs)
    mend = ": pip install 'apq-moo[train]'\n"
    assert ends == [(2, f"error: {what}{mend}") for what in needs.values()]
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []


def test_extras_are_those_of_the_distribution(monkeypatch):
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for library, extra in EXTRAS.items():
        assert any(
            line.startswith(f"{library}>") for line in declared["optional-dependencies"][extra]
        )
        assert is_installed(library)
        require(library, "nothing")
    monkeypatch.setitem(EXTRAS, "no_such_library", "train")
    with pytest.raises(MissingLibraryError, match=r"^all needs no_such_library: pip install '"):
        require("no_such_library", "all")
    assert issubclass(MissingLibraryError, ImportError)

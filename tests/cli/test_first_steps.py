"""What the command line shows whoever begins, what may follow a run, and listings as JSON."""

import json
import shlex
import subprocess
import sys

import pandas as pd
import pytest

from apq_moo.cli import main
from apq_moo.cli.app import FIRST_COMMANDS
from apq_moo.space import load_space, presets


def test_no_command_shows_first_ones(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([])
    assert not stop.value.code
    shown = capsys.readouterr().out
    assert len(FIRST_COMMANDS) == 5
    for command in FIRST_COMMANDS:
        assert command in shown
        with pytest.raises(SystemExit) as stop:  # a misspelt option is refused, also beside --help
            main([*shlex.split(command)[1:], "--no-such-option"])
        assert "--no-such-option" in capsys.readouterr().err


def test_algorithms_are_compared_without_an_option_more(call):
    (command,) = [command for command in FIRST_COMMANDS if " bench " in command]
    assert call(*shlex.split(command)[1:]).code == 0


def test_what_follows_a_run_works(call):
    ended = call("run", "--predictor", "additive", "--budget", "600", "--out", "my run")
    assert ended.code == 0
    lines = ended.out[ended.out.index("next:") :].splitlines()[1:]
    words = [shlex.split(line.split("   ")[0].strip().partition("  ")[0]) for line in lines]
    assert [line[1] for line in words] == ["pick", "deploy", "report"]
    limit = float(words[0][-1].removeprefix("latency="))
    picked = call(*words[0][1:])
    assert picked.code == 0
    assert float(picked.out.split("latency ")[1].split()[0]) <= limit
    assert words[1][-2:] == ["-o", "net"]
    assert call(*words[1][1:], "--finetune-steps", "0").code == 0
    assert call(*words[2][1:]).code == 0


def test_nothing_is_deployed_without_a_supernet(call):
    given = ("--space", "imagenet", "--objectives", "latency,energy", "--algo", "nsga2")
    ended = call("run", *given, "--budget", "100", "--out", "a")
    assert ended.code == 0
    assert "apq-moo pick a --max latency=" in ended.out
    assert "apq-moo deploy" not in ended.out


@pytest.mark.parametrize(
    ("listing", "name", "entry"),
    [
        (("algorithms",), "nsga2", {"kind": "multi-objective", "least_objectives": 1}),
        (("spaces",), "tiny", {"genes": 31, "networks": 40960}),
        (("device", "list"), "bitfusion", {"units": {"latency": "ms", "energy": "mJ"}}),
        (("data", "list"), "digits", {"download": False, "found": None}),
    ],
)
def test_listings_as_json(call, listing, name, entry):
    (found,) = [item for item in json.loads(call(*listing, "--json").out) if item["name"] == name]
    assert entry.items() <= found.items()


def test_spaces_are_counted_exactly(call):
    found = {item["name"]: item["networks"] for item in json.loads(call("spaces", "--json").out)}
    assert found == {name: load_space(name).count() for name in presets()}


def test_tables(call, refused):
    assert call("run", "--predictor", "additive", "--budget", "600", "--out", "a").code == 0
    assert call("table", "a", "-o", "front.csv").code == 0
    assert call("table", "a", "-o", "all.parquet", "--part", "evaluated", "--genotypes").code == 0
    front, everything = pd.read_csv("front.csv"), pd.read_parquet("all.parquet")
    assert everything.shape == (600, 4 + load_space("digits").n_var)
    assert set(front["acc"]) <= set(everything["acc"])
    assert "front.csv exists; add --overwrite" in refused("table", "a", "-o", "front.csv")
    assert "--part" not in refused("table", "none", "-o", "b.csv")
    line = refused("table", "a", "-o", "b.csv", "--part", "history", "--genotypes")
    assert "leave out --genotypes" in line
    assert "front, evaluated, history" in refused("table", "a", "-o", "b.csv", "--part", "x")
    assert ".csv or .parquet" in refused("table", "a", "-o", "b.xlsx")


def test_tables_need_pyarrow_only_as_parquet(call, refused, monkeypatch):
    assert call("run", "--predictor", "additive", "--budget", "600", "--out", "a").code == 0
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert "pip install 'apq-moo[parquet]'" in refused("table", "a", "-o", "a.parquet")
    assert call("table", "a", "-o", "a.csv").code == 0


def test_shells_complete_options(tmp_path):
    given = {"_APQ_MOO_COMPLETE": "complete_bash", "COMP_WORDS": "apq-moo run --pre"}
    done = subprocess.run(
        [sys.executable, "-m", "apq_moo"], cwd=tmp_path, env=given | {"COMP_CWORD": "2"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["--predictor"], done

"""The commands bench and audit; report and plot have tests with what they draw."""

import json
import sys
from pathlib import Path

import pytest

from apq_moo import predictors

SMALL = (
    *("--space", "digits", "--algos", "nsga2,random", "--seeds", "2", "--budget", "200"),
    *("--pop-size", "20", "--predictor", "additive"),
)


def test_bench_prints_scores_and_goes_on(call, tmp_path):
    done = call("bench", *SMALL, "--out", "b", "--jobs", "1")
    assert done.code == 0, done.err
    assert "nsga2" in done.out
    assert "4 cells done" in done.out
    assert "next: apq-moo report b" in done.out
    again = call("bench", "--resume", "b")
    assert again.code == 0
    assert "4 cells done" in again.out


def test_a_benchmark_grows(call):
    assert call("bench", *SMALL, "--out", "b").code == 0
    grown = call("bench", "--resume", "b", "--algos", "spea2,random", "--seeds", "3")
    assert grown.code == 0, grown.err
    assert "9 cells done" in grown.out
    ranged = call("bench", "--resume", "b", "--seeds", "3-4")
    assert "15 cells done" in ranged.out
    for arguments, words in (
        (
            ("--seeds", "9-12"),
            "--seeds 9-12: they do not continue the benchmark's, which are 0 to 4",
        ),
        (("--pop-size", "30"), "--pop-size 30: the benchmark was begun with 20; leave it out"),
        (("--sweep", "4"), "the benchmark leaves sweeps open"),
        (("--algos", "nsga9"), "unknown algorithm 'nsga9'"),
        (("--out", "c"), "leave out --plan and --out"),
    ):
        refused = call("bench", "--resume", "b", *arguments)
        assert (refused.code, words in refused.err) == (2, True), refused.err
    assert "15 cells done" in call("bench", "--resume", "b").out


def test_flags_replace_a_plan_s_entries(call, tmp_path):
    (tmp_path / "plan.toml").write_text(
        'spaces = ["digits"]\nalgos = ["random"]\nseeds = 5\nbudgets = [150]\npop_size = 20\n'
        'predictors = ["additive"]\n'
    )
    done = call("bench", "--plan", "plan.toml", "--seeds", "1", "--out", "b")
    assert done.code == 0, done.err
    assert "1 cells done" in done.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--algos", "nsga9"), "unknown algorithm 'nsga9'"),
        (("--budget", "1e4"), "--budget '1e4': write whole numbers by commas"),
        (("--budget", ""), "budgets is empty"),
        (("--backend", "mpi"), "unknown back end 'mpi'"),
        (
            ("--scheduler", "tcp://a:1"),
            "--scheduler tcp://a:1 needs --backend dask or",
        ),
        (("--plan", "gone.toml"), "cannot read gone.toml"),
        (("--resume", "gone"), "gone holds no benchmark"),
        (("--seeds", "3,5"), "--seeds '3,5': write how many, or which, such as 31-60"),
        (("--seeds", "9-3"), "--seeds 9-3: the last is before the first"),
        (("--space", "none"), "unknown space 'none'"),
        (("--space", "imagenet"), "predictor"),
    ],
)
def test_mistakes(call, arguments, words):
    done = call("bench", *SMALL, *arguments)
    assert done.code == 2
    assert words in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_what_cannot_be_written_or_started_is_found_out_first(call, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    line = refused("bench", *SMALL, "--backend", "dask", "--out", "b")
    assert "--backend dask needs dask's distributed: pip install 'apq-moo[dask]'" in line
    assert not Path("b").exists()
    Path("file").write_text("x")
    assert call("run", "--algo", "random", "--budget", "200", "--out", "r").code == 0
    Path("page.html").mkdir()
    line = refused("report", "r", "-o", "page.html", "--overwrite")
    assert "cannot write page.html: Is a directory" in line
    compare = ("predictor", "compare", "--names", "additive", "--space", "digits")
    monkeypatch.setattr(predictors, "compare", None)
    assert "cannot write file/c.csv" in refused(*compare, "-o", "file/c.csv")


def test_other_mistakes(call, tmp_path):
    for arguments, words in (
        (("bench", "--resume", "gone"), "gone holds no benchmark"),
        (("audit", "gone"), "gone holds neither a run (run.json) nor a benchmark"),
        (("report", "gone"), "gone holds neither a run (run.json) nor a benchmark"),
    ):
        done = call(*arguments)
        assert done.code == 2, done.out
        assert words in done.err


def test_audit_of_a_run(call, tmp_path):
    call("run", "--algo", "random", "--predictor", "additive", "--budget", "200", "--out", "r")
    done = call("audit", "r", "--most", "3", "--choose")
    assert done.code == 0, done.err
    assert "supernet measure" in done.out
    done = call("supernet", "measure", "r/audit-digits.npz", "--space", "digits")
    assert done.code == 0, done.err
    assert "3 networks" in done.out
    done = call("audit", "r", "--most", "3")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "r" / "audit.json").read_text())
    assert found["networks"] == 3
    assert done.out.count("random") == 1


def test_audit_has_a_table_for_each_problem(call):
    plan = (
        "--space",
        "digits",
        "--predictor",
        "additive",
        "--algos",
        "random,regularized-evolution",
    )
    objectives = ("--objectives", "acc,latency", "--objectives", "acc,energy")
    size = ("--seeds", "1", "--budget", "200", "--pop-size", "10", "--sweep", "2", "--out", "b")
    assert call("bench", *plan, *objectives, *size).code == 0
    done = call("audit", "b", "--most", "9")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("digits ")] == [
        "acc+latency", "acc+energy",
    ]  # fmt: skip
    assert done.out.count("regularized-evolution") == 2
    assert max(map(len, lines)) <= 80

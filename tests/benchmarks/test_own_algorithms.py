"""Algorithms in files of the user's, and as objects: in runs, benchmarks and worker processes."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from apq_moo.algorithms import ALGORITHMS, AlgorithmEntry
from apq_moo.algorithms.baselines.random_search import RandomSearch
from apq_moo.benchmarks import bench, load
from apq_moo.benchmarks.compare.analysis import Analysis
from apq_moo.benchmarks.compare.plan import BenchPlan
from apq_moo.benchmarks.compare.store import Store
from apq_moo.benchmarks.report.pictures import draw_fronts
from apq_moo.cli import main
from apq_moo.errors import UserError
from apq_moo.study.config import AlgorithmFile, RunConfig
from apq_moo.study.folder import RunFolder

CODE = """
from apq_moo.algorithms import AlgorithmEntry
from apq_moo.algorithms.baselines.random_search import RandomSearch

def make(problem, pop_size=100, **options):
    return RandomSearch(pop_size=pop_size, **options)

FRONT = AlgorithmEntry("own", make, "multi-objective", "none", "random draws")
SWEPT = AlgorithmEntry("own-swept", make, "single-objective-sweep", "none", "under limits")
TAKEN = AlgorithmEntry("nsga2", make, "multi-objective", "none", "a name that is taken")
ODD = AlgorithmEntry("a,b", make, "multi-objective", "none", "no name")
KEPT = AlgorithmEntry("k", make, "multi-objective", "none", "kept", reports_kept=True)
"""
PLAN = BenchPlan(
    spaces=("tiny",), algos=("own.py:FRONT", "random"), seeds=2, budgets=(300,), pop_size=20
)


RUN = ("--space", "tiny", "--predictor", "table", "--budget", "300", "--pop-size", "20")


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))
    Path("own.py").write_text(CODE)
    return Path("own.py")


@pytest.fixture
def call(capsys):
    def run(*arguments, code=0):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        printed = capsys.readouterr()
        assert (stop.value.code or 0) == code, printed.err
        return printed

    return run


def fronts(folder):
    return {
        (o.cell.label, o.cell.config.seed): (o.genotypes.tolist(), o.front.tolist())
        for o in Store.open(folder).outcomes()
        if o.ok
    }


def test_workers_find_what_this_process_finds():
    entry = AlgorithmEntry(
        "mine",
        lambda _problem, pop_size: RandomSearch(pop_size=pop_size),
        "multi-objective",
        "",
        "",
    )
    given = {"algos": ("own.py:FRONT", "own.py:SWEPT/2", "random", entry)}
    bench("one", PLAN, **given)
    bench("two", PLAN, jobs=2, **given)
    found = fronts("one")
    assert sorted(found) == sorted(
        (label, seed) for label in ("own", "own-swept/2", "random", "mine") for seed in (0, 1)
    )
    assert found == fronts("two")
    for seed in (0, 1):  # they are one algorithm, under three names
        assert found["own", seed] == found["random", seed] == found["mine", seed]
    assert "own" not in ALGORITHMS
    assert "mine" not in ALGORITHMS


def test_tables_pictures_and_what_is_stored(own):
    bench("b", PLAN)
    own.unlink()  # reading results does not run it
    table = load("b")
    assert list(table.algorithm) == ["own", "own", "random", "random"]
    assert list(table.seed) == [0, 1, 0, 1]
    draw_fronts("fronts.svg", Analysis.read("b").problems[0])
    (cell, *_) = Store.open("b").plan.cells()
    checksum = hashlib.sha256(CODE.encode()).hexdigest()
    assert cell.config.algo_file == AlgorithmFile("own.py", "FRONT", checksum, "own")
    assert BenchPlan.from_dict(Store.open("b").plan.to_dict()) == Store.open("b").plan
    moved, changed = (
        replace(cell, config=replace(cell.config, algo_file=replace(cell.config.algo_file, **to)))
        for to in ({"path": "x.py"}, {"sha256": "0"})
    )
    assert moved.key == cell.key != changed.key


def test_a_benchmark_goes_on_with_the_same_file_only(own):
    bench("b", PLAN)
    bench("b", seeds=3)
    assert len(fronts("b")) == 6
    own.write_text(CODE + "\n")
    bench("b", seeds=3)  # nothing is left to do
    with pytest.raises(UserError, match=r"own.py has changed since 'own' was begun: undo"):
        bench("b", seeds=4)
    with pytest.raises(UserError, match=r"is 'own', and so is own.py:FRONT, which is another"):
        bench("b", algos=("own.py:FRONT",), seeds=4)
    own.unlink()
    with pytest.raises(UserError, match=r"cannot read own.py: .*; put it back, or name it as FOLD"):
        bench("b", seeds=4)
    Path("elsewhere").mkdir()
    Path("elsewhere/own.py").write_text(CODE)
    bench("b", algos=("elsewhere/own.py:FRONT",), seeds=4)
    assert len(fronts("b")) == 8
    assert Store.open("b").plan.files["own"].path == "elsewhere/own.py"


def test_a_run_keeps_and_checks_its_file(own, call):
    call("run", *RUN, "--algo", "own.py:FRONT", "--out", "r")
    stored = json.loads(Path("r/run.json").read_text())["config"]
    assert stored["algo"] == "own"
    assert stored["algo_file"]["sha256"] == hashlib.sha256(CODE.encode()).hexdigest()
    call("run", *RUN, "--algo", "random", "--out", "known")
    assert Path("r/front.csv").read_text() == Path("known/front.csv").read_text()
    own.write_text("raise SystemExit")
    for command in (("pick", "r"), ("run", "--resume", "r"), ("report", "r", "-o", "r.html")):
        call(*command)
    shutil.copytree("r", "s")
    record = json.loads(Path("s/run.json").read_text())
    Path("s/run.json").write_text(json.dumps(record | {"status": "unfinished"}))
    for name in ("archive.npz", "front.csv"):
        (Path("s") / name).unlink()
    assert "own.py has changed since 'own' was begun" in call("run", "--resume", "s", code=2).err
    own.rename("new.py").write_text(CODE)
    own.write_text(CODE + "#")
    resume = ("run", "--resume", "s", "--algo")
    assert "is not what the run in s was begun with" in call(*resume, "own.py:FRONT", code=2).err
    call(*resume, "new.py:FRONT")
    assert Path("s/front.csv").read_text() == Path("r/front.csv").read_text()


def test_a_stored_file_is_not_run_silently(call):
    Path("other.py").write_text(CODE.replace('"own"', '"other"') + 'print("it runs")\n')
    checksum = hashlib.sha256(Path("other.py").read_bytes()).hexdigest()
    config = RunConfig(
        algo="other", space="tiny", predictor="table", budget=100, pop_size=20,
        algo_file=AlgorithmFile("other.py", "FRONT", checksum, "other"),
    )  # fmt: skip
    RunFolder.create("r", config, verify=None, overwrite=False)
    done = call("run", "--resume", "r")
    assert "warning: the run in r names the algorithm file other.py, which is run" in done.err
    assert "it runs" in done.out


@pytest.mark.parametrize(
    ("reference", "text", "words"),
    [
        ("gone.py:FRONT", None, "cannot read gone.py: No such file or directory"),
        ("own.py", None, "own.py: write FILE.py:ENTRY, the name of an AlgorithmEntry in it"),
        ("own.py:", None, "own.py:: write FILE.py:ENTRY"),
        ("own.py:NONE", None, "'NONE' is not in it; AlgorithmEntry objects in it: FRONT, SWEPT, T"),
        ("own.py:make", None, "'make' is no AlgorithmEntry; AlgorithmEntry objects in it: FRONT"),
        ("own.py:TAKEN", None, "the name of algorithm 'nsga2' is taken: give yours another one"),
        ("own.py:ODD", None, "its name is 'a,b'; use letters, digits"),
        ("own.py:KEPT", None, "with reports_kept=True whoever reads results would run the file"),
        ("bad.py:A", "1 / 0", "bad.py cannot be loaded: ZeroDivisionError: division by zero; rep"),
        ("bad.py:A", "x = (\n", "bad.py cannot be loaded: SyntaxError: '(' was never closed, line"),
        ("bad.py:A", "raise SystemExit(3)", "bad.py cannot be loaded: SystemExit: 3; repair it"),
        ("bad.py:A", "import no_such_thing", "No module named 'no_such_thing'; repair it"),
        ("bad.py:A", "a\0b", "bad.py cannot be loaded: "),
        ("bad.py:A", "", "'A' is not in it; AlgorithmEntry objects in it: none"),
    ],
)
def test_what_is_no_algorithm_is_refused_before_there_is_a_folder(call, reference, text, words):
    if text is not None:
        Path("bad.py").write_text(text)
    for command in (("run", *RUN, "--algo"), ("bench", "--space", "tiny", "--algos")):
        error = call(*command, reference, "--out", "r", code=2).err
        assert words in error
        assert len(error.splitlines()) == 1
        assert not Path("r").exists()


def test_two_files_of_one_name_are_refused():
    shutil.copy("own.py", "same.py")
    Path("other.py").write_text(CODE + "#")
    with pytest.raises(UserError, match=r"other.py:FRONT is 'own', and so is own.py:FRONT"):
        BenchPlan(algos=("own.py:FRONT", "other.py:FRONT")).loaded()
    with pytest.raises(UserError, match="algos names 'own' twice"):
        BenchPlan(algos=("own.py:FRONT", "same.py:FRONT")).loaded()
    with pytest.raises(UserError, match="only swept ones take a number of limits"):
        BenchPlan(algos=("own.py:FRONT/4",)).loaded().cells()
    swept = BenchPlan(algos=("own.py:SWEPT", "own.py:SWEPT/3"), seeds=1, sweeps=(2, 4)).loaded()
    assert [cell.label for cell in swept.cells()] == ["own-swept/2", "own-swept/4", "own-swept/3"]
    assert np.unique([cell.config.algo for cell in swept.cells()]).tolist() == ["own-swept"]

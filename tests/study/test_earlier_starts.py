"""Runs and benchmarks of versions that knew no start but the uniform one."""

import json
from dataclasses import replace

import pytest

from apq_moo.algorithms.strategy import Context
from apq_moo.benchmarks.compare.plan import BenchPlan, Cell
from apq_moo.benchmarks.compare.store import Store
from apq_moo.cli import main
from apq_moo.files import digest_of
from apq_moo.results.run import Listener, execute
from apq_moo.space import load_space
from apq_moo.study.config import RunConfig
from apq_moo.study.folder import RunFolder

CONFIG = RunConfig(
    "nsga2", space="tiny", predictor="table", budget=200, pop_size=20, start="uniform"
)


def without_start(config):
    return {name: value for name, value in config.to_dict().items() if name != "start"}


def test_what_says_no_start_is_uniform_and_keeps_its_key():
    assert RunConfig.from_dict(without_start(RunConfig())).start == "uniform"
    entries = without_start(CONFIG)
    del entries["on"]
    expected = {"config": entries, "label": "nsga2", "space": load_space("tiny").digest}
    assert Cell(CONFIG, "nsga2").key == digest_of(expected)
    assert Cell(replace(CONFIG, start="sizes"), "nsga2").key != digest_of(expected)


def test_a_stopped_run_goes_on_uniform_and_says_so(tmp_path, monkeypatch, capsys):
    execute(RunFolder.create(tmp_path / "whole", CONFIG, verify=None, overwrite=False))
    folder = RunFolder.create(tmp_path / "a", CONFIG, verify=None, overwrite=False)
    real, rounds = Context.measure, []

    def stops(self, *given):
        rounds.append(0)
        if len(rounds) == 4:
            raise KeyboardInterrupt
        return real(self, *given)

    monkeypatch.setattr(Context, "measure", stops)
    with pytest.raises(KeyboardInterrupt):
        execute(folder)
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    del record["config"]["start"]
    (tmp_path / "a" / "run.json").write_text(json.dumps(record))
    with pytest.raises(SystemExit) as stop:
        main(["run", "--resume", str(tmp_path / "a"), "--start", "sizes"])
    assert stop.value.code == 2
    assert "start was 'uniform', is 'sizes'" in " ".join(capsys.readouterr().err.split())
    lines = []
    execute(RunFolder.open(tmp_path / "a"), Listener(say=lines.append))
    assert lines == ["begun before first networks were of all sizes: it goes on with uniform ones"]
    fronts = [(tmp_path / name / "front.csv").read_bytes() for name in ("a", "whole")]
    assert fronts[0] == fronts[1]


def test_an_earlier_benchmark_goes_on_uniform(tmp_path):
    plan = BenchPlan(("tiny",), ("random",), predictors=("table",), start="uniform")
    entries = plan.to_dict()
    del entries["start"]
    store = Store.create(tmp_path / "b", plan, {})
    store.note(plan=entries)
    assert Store.open(tmp_path / "b").plan == plan
    assert BenchPlan.from_dict(entries).start == "sizes"  # a plan that is written today


@pytest.mark.parametrize("command", ["run", "bench"])
def test_an_unknown_start_is_refused(command, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--space", "tiny", "--start", "large", "--out", str(tmp_path / "a")])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "--start large: must be one of sizes, uniform" in line
    assert not (tmp_path / "a").exists()

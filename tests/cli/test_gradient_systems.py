"""Systems that descend by gradients, through ``run``."""

import json
from pathlib import Path

import numpy as np
import pytest

SMALL = ("--space", "digits", "--objectives", "acc", "--max", "latency=0.02", "--budget", "24")
QUICK = "batch_size=16:trials=2:steps_per_evaluation=0.5"


@pytest.mark.parametrize(
    "name",
    [f"proxylessnas:levels=2:{QUICK}", "proxylessnas+dnas", "proxylessnas:estimator=reinforce"],
)
def test_they_run_and_say_how_many_steps_they_took(call, name):
    if "+" in name:
        quick = QUICK.split(":")
        stages = [f"{stage}__{given}" for stage in ("proxylessnas", "dnas") for given in quick]
        name = ":".join([name, "stages=1", *stages])
    outcome = call("run", "--algo", name, *SMALL, "--predictor", "additive", "--out", "a")
    assert outcome.code == 0
    record = json.loads(Path("a/run.json").read_text())
    paid = 2 * record.get("gradient_steps", 0)
    assert record.get("gradient_evaluations", 0) == paid
    assert record["evaluations"] + paid <= 24
    assert (paid > 0) == ("reinforce" not in name)
    header, row, *_ = Path("a/front.csv").read_text().splitlines()
    assert "subnet" in header
    assert row
    again = call("run", "--resume", "a")
    assert again.code == 0
    if paid:
        assert f"{record['gradient_steps']} gradient steps" in " ".join(again.out.split())


def test_killed_and_resumed_it_ends_the_same(call, monkeypatch):
    """Stopped after its second round, as a kill would: the record is all that is left."""
    from apq_moo.study.config import RunConfig
    from apq_moo.study.search import Search

    config = RunConfig(
        algo=f"proxylessnas:levels=2:{QUICK}",
        objectives=("acc",),
        space="digits",
        predictor="additive",
        limits={"latency": 0.02},
        budget=24,
    )
    whole = Search(config).run()
    folder = Path("stopped")
    folder.mkdir()

    class KilledError(Exception):
        pass

    def kill(done, _total):
        if done:
            raise KilledError

    with pytest.raises(KilledError):
        Search(config).run(folder=folder, callback=kill, every_s=0)
    resumed = Search(config)
    found = resumed.run(folder=folder)
    np.testing.assert_array_equal(found.X, whole.X)
    np.testing.assert_array_equal(found.F, whole.F)
    assert resumed.gradient_steps == 6  # each counted once


def test_what_is_missing_is_one_line(refused, tmp_path):
    toy = Path(__file__).parents[1] / "problems" / "tiny.toml"
    line = refused("run", "--algo", "dnas", "--space", str(toy), "--budget", "20")
    assert "dnas needs the supernet of space 'tiny'" in line
    assert "estimator must be one of full, two, reinforce, not 'x'" in refused(
        "run", "--algo", "proxylessnas:estimator=x", *SMALL
    )
    assert "that dnas can choose has latency <= 0.003 ms; the smallest reachable" in refused(
        "run", "--algo", "dnas", *SMALL[:4], "--max", "latency=0.003", "--budget", "20"
    )

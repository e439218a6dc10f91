"""Systems that APQ is compared with, through ``run`` and ``bench``."""

import json
from pathlib import Path

import pytest

SMALL = ("--space", "tiny", "--predictor", "table", "--budget", "120", "--sweep", "3")


@pytest.mark.parametrize(
    "name",
    [
        "uniform-width",
        "spos:size=10:top=3:mutants=5:crossovers=5",
        "amc+haq:stages=1/1.5:amc__agent=random:haq__hidden=8:haq__episodes=4",
    ],
)
def test_systems_run(call, name):
    assert call("run", "--algo", name, *SMALL, "--out", "a").code == 0
    record = json.loads(Path("a/run.json").read_text())
    assert 0 < record["evaluations"] <= 120
    assert record["config"]["algo"] == name
    assert call("run", "--resume", "a").code == 0


def test_a_new_folder_takes_a_name_with_parameters(call):
    assert call("run", "--algo", "spos:size=60", *SMALL).code == 0
    (folder,) = Path("runs").iterdir()
    assert folder.name.endswith("spos-size=60")


def test_what_a_system_cannot_do_is_one_line(refused):
    line = refused("run", "--algo", "uniform-bits", "--max", "latency=0.08", *SMALL)
    assert "that uniform-bits can choose has latency <= 0.08 ms; the smallest reachable" in line
    assert not Path("runs").exists()
    assert "chooses bits" in refused("run", "--algo", "uniform-bits", "--space", "mobilenet")
    assert "is too small for spos at 3 limits" in refused(
        "run", "--algo", "spos", *SMALL[:4], "--budget", "2", "--sweep", "3"
    )
    assert "no slip 'x' is known" in refused("run", "--algo", "spos:faithful=x", *SMALL)


def test_systems_in_a_benchmark(call):
    spos = "spos:size=10:top=3:mutants=5:crossovers=5"
    algos = f"uniform-bits,uniform-width+milp:milp__chooses=bits,{spos},random"
    given = ("bench", *SMALL[:4], "--algos", algos, "--seeds", "1", "--budget", "300")
    outcome = call(*given, "--sweep", "2", "--pop-size", "20", "--out", "b")
    assert outcome.code == 0
    assert all(name in outcome.out for name in algos.split(","))

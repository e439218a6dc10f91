"""Networks trained alone against those that inherit their weights."""

import json

import numpy as np
import pytest
import torch

from apq_moo.benchmarks.experiments import fidelity
from apq_moo.errors import UserError
from apq_moo.predictors.metrics import kendall_tau
from apq_moo.space import load_space
from apq_moo.supernet.checkpoint import save_supernet
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.range_fitting import fit_ranges


@pytest.fixture
def supernet(tmp_path):
    torch.manual_seed(0)
    net = Supernet(load_space("digits"))
    fit_ranges(net, torch.rand(32, 1, 8, 8), subnets=4)
    save_supernet(tmp_path / "net.safetensors", net)
    return tmp_path / "net.safetensors"


def test_chosen_networks_are_equally_far_apart_in_rank():
    inherited = [{"validation": v} for v in (99.0, 5.0, 1.0, 4.0, 2.0, 3.0)]
    assert fidelity.spread(inherited, 4) == [0, 2, 5, 1]


def test_networks_spread_by_size_reach_from_the_largest_to_the_smallest():
    space = load_space("fashion")
    rows = fidelity.by_size(space, 9, np.random.default_rng(0), pool=2000)
    macs = [sum(layer.macs for layer in space.layers(s)) for s in space.decode(rows)]
    ends = space.decode(np.vstack([space.largest(), space.smallest()]))
    assert [macs[0], macs[-1]] == [sum(x.macs for x in space.layers(s)) for s in ends]
    factors = np.array(macs[:-1]) / macs[1:]
    assert factors == pytest.approx(np.full(8, (macs[0] / macs[-1]) ** (1 / 8)), rel=0.1)
    assert len({tuple(row) for row in rows}) == 9


def test_an_interrupted_run_goes_on(tmp_path, supernet, monkeypatch, capsys):
    out = tmp_path / "fidelity.json"
    arguments = ["--space", "digits", "--supernet", str(supernet), "--out", str(out)]
    arguments += ["--networks", "3", "--pool", "4", "--steps", "2", "--batch", "16"]
    arguments += ["--picture", str(tmp_path / "fidelity.svg")]
    fidelity.main(arguments)
    whole = json.loads(out.read_text())
    assert "tau" in capsys.readouterr().out
    assert len(whole["networks"]) == 3
    pairs = [(n["inherited"]["test"], n["alone"]["test"]) for n in whole["networks"]]
    tau = kendall_tau(*zip(*pairs, strict=True))
    assert whole["tau"]["inherited and alone, test"] == pytest.approx(tau, nan_ok=True)
    assert (tmp_path / "fidelity.svg").read_text().startswith("<?xml")
    assert not list(tmp_path.glob("*.training"))

    cut = json.loads(out.read_text())
    del cut["networks"][1]["alone"], cut["tau"]
    out.write_text(json.dumps(cut))
    fidelity.main(arguments)
    again = json.loads(out.read_text())
    for network in (*whole["networks"], *again["networks"]):
        del network["alone"]["seconds"]
    assert again["networks"] == whole["networks"]
    with pytest.raises(UserError, match="other settings"):
        fidelity.main([*arguments, "--seed", "1"])

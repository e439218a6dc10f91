"""The benchmarks of the pages run, agree before they time, and print what the pages quote."""

import json
import re
import sys

import numpy as np
import pytest
import torch

from apq_moo.benchmarks.speed import cost_speed, search_speed, supernet_speed
from apq_moo.space import load_space
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.range_fitting import fit_ranges


def lines_of(module, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    module.main()
    return capsys.readouterr().out.splitlines()


def test_searches(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small = ("--rounds", "5", "--repeats", "1", "--large", "300", "--generations", "2")
    head, search, sweep, large = lines_of(search_speed, monkeypatch, capsys, *small)
    assert "630,801 weights" in head
    for line, n, batch in ((search, "600", "100"), (sweep, "12,000", "2,000")):
        assert f"{n} evaluations in" in line
        assert f"6 dense forward passes of {batch} in" in line
        assert 0.01 < float(re.search(r"ratio ([\d.]+)", line)[1]) < 1000
    seconds, memory = re.search(r"([\d.]+) s a generation.* memory (\d+) MiB", large).groups()
    assert 0 < float(seconds) < 60
    assert 0 < int(memory) < 512


def test_searches_refuse_a_predictor_that_is_wrong(monkeypatch, tmp_path):
    from apq_moo.predictors.mlp import MLPPredictor

    real = MLPPredictor._predict
    monkeypatch.setattr(MLPPredictor, "_predict", lambda self, X: real(self, X) + 0.01)
    with pytest.raises(AssertionError, match="differs from torch"):
        search_speed._prepare(str(tmp_path / "p.safetensors"), 1)


def test_costs_agree_with_plain_sums():
    space = cost_speed.load_space("imagenet")
    plain = cost_speed.PlainSum(space)
    X = space.sample(5, np.random.default_rng(0))
    tables = [cost_speed.cost_table(space, name) for name in ("latency", "energy")]
    for row, subnet in zip(X, space.decode(X), strict=True):
        active = np.flatnonzero(space.active(row[None])[0])
        blocks = [(space.plans[b], block) for b, block in zip(active, subnet.blocks, strict=True)]
        np.testing.assert_allclose(
            plain(blocks), [table(row[None])[0] for table in tables], rtol=1e-12
        )


def test_supernets(capsys, tmp_path):
    supernet_speed.main(
        [
            *("--on", "cpu", "--subnets", "2", "--naive", "1", "--images", "60", "--batch", "20"),
            *("--steps", "1", "--random", "1", "--out", str(tmp_path / "s.json")),
        ]
    )
    text = capsys.readouterr().out
    assert text.count("kernels: 0.000 points, logits 0.0e+00 from the sliced subnets") == 2
    assert re.search(r"naive [\d.]+ ms, kernels [\d.]+ ms a subnet; floor [\d.]+ ms", text)
    assert "gradients differ by 0.000 of their norm" in text
    ratio = re.search(r"autograd (\d+), kernels (\d+) images/s", text)
    assert min(map(int, ratio.groups())) > 0
    written = json.loads((tmp_path / "s.json").read_text())
    assert written["random bits"]["floor"] > 0


def test_the_floor_of_a_subnet():
    """A 3x3 stem of 8 channels, one block: by hand."""
    space = load_space("digits")
    images = torch.zeros(7, 1, 8, 8)
    speed = supernet_speed.Speed(Supernet(space), images, images, torch.zeros(7).long())
    (subnet,) = space.decode(space.smallest())
    stem = 64 + 8 * 64
    first = 8 * 64 + 8 * 64 + 8 * 64 + 8 * 16 + 8 * 16 + 8 * 16
    second = 8 * 16 + 8 * 16 + 8 * 16 + 8 * 4 + 8 * 4 + 12 * 4
    third = 12 * 4 + 16 * 4 + 16 * 4 + 16 * 4 + 16 * 4 + 16 * 4
    assert speed.floor_bytes(subnet) == 2 * 7 * (stem + first + second + third)


def test_supernets_that_disagree_are_not_timed(monkeypatch):
    space = load_space("digits")
    torch.manual_seed(0)
    images = torch.rand(20, 1, 8, 8)
    net = Supernet(space)
    fit_ranges(net, images[:5], subnets=4)
    speed = supernet_speed.Speed(net, images[:5], images, torch.arange(20) % 10)
    subnets = space.decode(space.sample(1, np.random.default_rng(0)))
    wrong = speed.naive.logits(subnets[0], images, quantised=True) + 1e-3
    points, logits = speed.check(subnets, lambda _: wrong, quantised=True)
    assert points <= 0.1 < 1e5 * logits
    monkeypatch.setattr(speed.kernels, "logits", lambda *_, **__: wrong)
    with pytest.raises(SystemExit, match="no agreement"):
        speed.evaluation(subnets, quantised=True, n_naive=1)

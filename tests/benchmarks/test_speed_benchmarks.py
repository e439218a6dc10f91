"""The benchmarks of the pages run, agree before they time, and print what the pages quote."""

import json
import re
import sys

import numpy as np
import pytest
import torch

from apq_moo.benchmarks.speed import (
    agreement,
    cost_speed,
    search_speed,
    supernet_speed,
    traffic,
)
from apq_moo.space import load_space
from apq_moo.space.layers import Layer
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
            *("--steps", "1", "--random", "1", "--before", "1", "--out", str(tmp_path / "s.json")),
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
    assert written["random bits"]["others"] > 0 < written["training"]["one_by_one"]


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


MICRO = """
name = "micro"
images = ""
input_size = 9
input_channels = 1
classes = 3
channel_step = 4
[bits]
w_pw = [4, 8]
a_pw = [8]
w_dw = [8]
a_dw = [8]
fixed = 8
between = 16
[stem]
channels = 4
kernel = 3
stride = 1
[[stages]]
width = 4
stride = 1
depths = [1]
kernels = [3]
expand = [1, 2]
"""


def test_traffic_of_a_block():
    """A stem 1 -> 4 and a block 4 -> 8 -> 4 with a shortcut on 9 x 9 pixels: by hand."""
    bits = {"w_bits": 8, "a_bits": 8}
    layers = [
        Layer("stem", 1, 4, 9, 3, 1, 1, **bits, between_bits=16),
        Layer("block", 4, 8, 9, 1, 1, 1, **bits, block=0, place="expand", opens_shortcut=True),
        Layer("block", 8, 8, 9, 3, 1, 8, **bits, block=0, place="depthwise"),
        Layer(
            *("block", 8, 4, 9, 1, 1, 1), **bits, block=0, place="project", activation=None,
            closes_shortcut=True, between_bits=16,
        ),
        Layer("classifier", 4, 3, 1, 1, 1, 1, **bits, bias=True),
    ]  # fmt: skip
    assert traffic.floor(layers) == {9: 81 * 2 * (5 + 12 + 16 + 12)}
    stem, expand, depthwise = 2 * 1 + 2 * 4, 2 * 4 + 8, 8 + 8
    assert traffic.inference(layers) == {9: 81 * (stem + expand + depthwise + 8 + 2 * 4 + 2 * 4)}
    stem, expand, depthwise = 2 + 16 + 16 + 8, 2 * 4 + 4 * 8, 4 * 8 + 4 * 8
    project = 4 * 8 + 4 * 4 + 4 * 4 + 2 * 4 + 2 * 4
    assert traffic.calibration(layers) == {9: 81 * (stem + expand + depthwise + project)}
    stem = (1 + 4) + 2 * 4 + (2 * 4 + 1)
    expand = (4 + 8) + (2 * 8 + 4) + (2 * 8 + 3 * 4)
    depthwise = (8 + 8) + (2 * 8 + 8) + (2 * 8 + 2 * 8)
    project = (8 + 4) + 3 * 4 + (2 * 4 + 8) + (2 * 4 + 2 * 8)
    assert traffic.training(layers) == {9: 2 * 81 * (stem + expand + depthwise + project)}


@pytest.fixture
def micro(tmp_path):
    pytest.importorskip("triton")
    path = tmp_path / "micro.toml"
    path.write_text(MICRO)
    return str(path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_kernels_agree_on_random_images(micro, capsys, monkeypatch):
    options = ["--space", micro, "--images", "2", "--subnets", "0", "--on", "cpu"]
    agreement.main(options)
    out = capsys.readouterr().out
    assert out.count("bits 0.0e+00") == 2
    assert "block0.depthwise 8->8 k3 s1 9px: output" in out
    assert out.endswith("\n0 are further off than they may be\n")
    real = agreement.distance
    monkeypatch.setattr(agreement, "distance", lambda found, wanted: real(1.1 * found, wanted))
    with pytest.raises(SystemExit):
        agreement.main(options)
    assert "WRONG block0.depthwise" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_random_images_of_a_space_that_has_none(micro, capsys, tmp_path):
    supernet_speed.main(
        [
            *("--space", micro, "--on", "cpu", "--images", "4", "--calibration", "3"),
            *("--sliced", "2", "--batch", "2", "--subnets", "2", "--steps", "1"),
            *("--seconds", "1000", "--out", str(tmp_path / "s.json")),
        ]
    )
    out = capsys.readouterr().out
    assert out.count("logits differ by 0.0e+00") == 3
    assert "failed" not in out
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["evaluation largest"]["calibration_ms"] > 0
    assert found["training, kernels"] > 0 < found["training, torch"]
    launched = {one["what"] for one in found["layers, training"]}
    assert {"convolve_raw", "input_gradient", "weight_gradient", "settle"} <= launched
    depthwise = next(
        one
        for one in found["layers, evaluation"]
        if one["what"] == "convolve" and one["layer"] == "block0.depthwise"
    )
    # Two images of 8 channels, 88 bytes a plane, rows of 256: read and written as bytes.
    assert depthwise["moved"] == 2 * 8 * 256
    assert depthwise["count"] == 1

"""Quantised evaluation means integers: the same bits whatever computes them."""

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from apq_moo.data.assets import SUPERNET, find_assets
from apq_moo.space import Space, SpaceSpec
from apq_moo.supernet.checkpoint import load_supernet, tensors_of
from apq_moo.supernet.evaluation import Evaluator
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.range_fitting import fit_ranges
from apq_moo.supernet.scoring import Scorer

PLAIN = str(Path(__file__).parents[2] / "docs" / "plain_subnet.py")

BITS = {role: [2, 4, 8] for role in ("w_pw", "a_pw", "w_dw", "a_dw")}
STAGES = [
    {"width": 8, "stride": 2, "depths": [1, 2], "kernels": [3, 5], "expand": [0.5, 3]},
    {"width": 12, "stride": 1, "depths": [1], "kernels": [3], "expand": [1, 2]},
]


ENDS = {"first_block": {"channels": 8, "kernel": 3}, "feature_mix": {"channels": 20}}


def space_of(between=32, fixed=8, **more):
    data = {
        "name": "exact",
        "input_size": 8,
        "input_channels": 3,
        "classes": 4,
        "channel_step": 4,
        "bits": BITS | {"fixed": fixed, "between": between},
        "stem": {"channels": 8, "kernel": 3},
        "stages": STAGES,
    }
    return Space(SpaceSpec.from_dict(data | more))


def network(space, seed=0):
    torch.manual_seed(seed)
    supernet = Supernet(space)
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if "norm" in name or "transforms" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return supernet


def plain(supernet, subnet, calibration, images):
    """Logits by what docs/plain_subnet.py makes of the supernet's file."""
    tensors = {name: value.detach().numpy() for name, value in tensors_of(supernet).items()}
    logits_of = runpy.run_path(PLAIN)["logits_of"]
    return logits_of(supernet.space, tensors, subnet, calibration.numpy(), images.numpy())


@pytest.mark.parametrize("between", [8, 32])
def test_all_classes_of_the_shipped_supernet_are_those_of_the_page(digits, image_set, between):
    """As it is; and its weights with floats between blocks."""
    supernet, _ = load_supernet(find_assets(digits).path(SUPERNET), digits)
    splits = image_set.calibration, image_set.validation
    calibration, images = (torch.from_numpy(split.images) for split in splits)
    if between == 32:
        weights = supernet.state_dict()
        supernet = Supernet(Space(replace(digits.spec, between_bits=32)))
        supernet.load_state_dict(weights)
        fit_ranges(supernet, calibration, subnets=8)
    evaluator = Evaluator(supernet, calibration)
    for subnet in digits.decode(digits.sample(3, np.random.default_rng(int(between == 8)))):
        found = evaluator.logits(subnet, images, quantised=True).numpy()
        wanted = plain(supernet, subnet, calibration, images)
        assert np.array_equal(found.argmax(1), wanted.argmax(1))
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize(
    ("between", "more"),
    [(8, {}), (8, ENDS), (16, {}), (16, ENDS), (32, ENDS), (32, {"fixed": 4})],
)
@pytest.mark.parametrize("seed", range(3))
def test_logits_are_those_of_the_page(between, more, seed):
    space = space_of(between, **more)
    supernet = network(space, seed)
    images = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) - 0.2
    fit_ranges(supernet, images[:12], subnets=4)
    (subnet,) = space.decode(space.sample(1, np.random.default_rng(seed)))
    found = Evaluator(supernet, images[:12]).logits(subnet, images, quantised=True)
    assert np.array_equal(found.numpy(), plain(supernet, subnet, images[:12], images))


def test_the_page_s_script_is_short_and_prints_accuracies(digits, image_set, monkeypatch, capsys):
    supernet, _ = load_supernet(find_assets(digits).path(SUPERNET), digits)
    row = digits.smallest()
    (subnet,) = digits.decode(row)
    accuracy = Scorer(supernet, image_set).accuracies([subnet], ["validation"], quantised=True)
    for network in (row.tolist(), subnet.to_dict()):
        monkeypatch.setattr(sys, "argv", [PLAIN, "digits", json.dumps(network)])
        runpy.run_path(PLAIN, run_name="__main__")
        assert capsys.readouterr().out == f"{accuracy[0, 0]:.2f} % right\n"
    assert len(Path(PLAIN).read_text(encoding="utf-8").splitlines()) <= 100


def test_nothing_depends_on_how_the_images_are_grouped_or_ordered():
    space = space_of()
    supernet = network(space)
    images = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    fit_ranges(supernet, images[:20], subnets=4)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    for subnet in space.decode(space.sample(5, np.random.default_rng(2))):
        wanted = Evaluator(supernet, images[:20]).logits(subnet, images, quantised=True)
        shuffled = Evaluator(supernet, images[:20][order], batch_size=7)
        assert torch.equal(shuffled.logits(subnet, images, quantised=True), wanted)


def test_sums_beyond_single_precision_stay_exact(monkeypatch):
    """With the limit lowered, the double-precision way gives the same bits."""
    space = space_of()
    supernet = network(space)
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    fit_ranges(supernet, images, subnets=4)
    (subnet,) = space.decode(space.largest())
    wanted = Evaluator(supernet, images).logits(subnet, images, quantised=True)
    monkeypatch.setattr("apq_moo.supernet.evaluation._EXACT", 1)
    assert torch.equal(Evaluator(supernet, images).logits(subnet, images, quantised=True), wanted)

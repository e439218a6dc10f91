"""Ranges of least squared error, stored with the supernet."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apq_moo.data import load_images
from apq_moo.errors import UserError
from apq_moo.space import Space, SpaceSpec, load_space
from apq_moo.supernet.checkpoint import load_supernet, load_tensors, save_supernet, save_tensors
from apq_moo.supernet.evaluation import Evaluator
from apq_moo.supernet.gradients import Student, TorchGradients
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.plain import cut_out
from apq_moo.supernet.quantisers import activation_levels
from apq_moo.supernet.range_fitting import fit_ranges
from apq_moo.supernet.ranges import Ranges, histogram, least_error
from apq_moo.supernet.sampling import SampleConfig, collect
from apq_moo.supernet.scoring import Scorer
from apq_moo.supernet.training import TrainConfig, Trainer


def error_of(top, values, bits, *, signed):
    """Squared error of rounding, number by number."""
    lowest, highest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    step = top / highest
    return sum((min(max(round(v / step), lowest), highest) * step - v) ** 2 for v in values)


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("signed", [False, True])
def test_no_other_range_has_a_smaller_error(bits, signed):
    values = np.random.default_rng(bits).normal(0.4, 1.0, 300)
    values = values if signed else values.clip(0, 6)
    found = least_error(values, np.ones(len(values)), bits, signed=signed)
    best = error_of(found, values, bits, signed=signed)
    others = np.abs(values).max() * np.geomspace(1 / 32, 1.4, 150)
    assert best <= 1.02 * min(error_of(top, values, bits, signed=signed) for top in others)
    at_most = error_of(np.abs(values).max(), values, bits, signed=signed)
    assert best < 0.95 * at_most or bits == 8


def test_two_values_by_hand():
    """With 3 bits, 0 and 7 are exact at a step of 1; a rare 70 is clipped rather than followed."""
    values = np.array([0.0, 1, 2, 3, 4, 5, 6, 7])
    assert least_error(values, np.ones(8), 3, signed=False) == pytest.approx(7, rel=0.02)
    outlier = np.append(values, 70.0)
    weights = np.append(np.full(8, 10_000.0), 0.1)
    assert least_error(outlier, weights, 3, signed=False) == pytest.approx(7, rel=0.05)
    assert least_error(np.zeros(3), np.ones(3), 4, signed=True) == 1.0


@given(high=st.floats(2**-10, 1024, width=32), bits=st.sampled_from([2, 3, 4, 6, 8, 16]))
@settings(max_examples=100, deadline=None)
def test_levels_are_those_of_two_s_complement(high, bits):
    data = {
        "name": "one", "input_size": 8, "input_channels": 1, "classes": 2, "channel_step": 4,
        "bits": {role: [bits] for role in ("w_pw", "a_pw", "w_dw", "a_dw")} | {"fixed": bits},
        "stem": {"channels": 4},
        "stages": [{"width": 4, "stride": 1, "depths": [2], "kernels": [3], "expand": [1, 1]}],
    }  # fmt: skip
    ranges = Ranges(Space(SpaceSpec.from_dict(data)))
    ranges.load(torch.full((len(ranges.places), 1), high))
    x = torch.tensor([-1e6, -high, 0.0, high, 1e6])
    levels, step = activation_levels(x, *ranges.of("block1.expand", bits), bits)
    top = 2 ** (bits - 1) - 1
    assert levels.tolist() == [-top - 1, -top, 0, top, top]
    assert step == pytest.approx(high / top, rel=1e-6)
    levels, step = activation_levels(x, *ranges.of("block0.expand", bits), bits)
    assert levels.tolist() == [0, 0, 0, 2**bits - 1, 2**bits - 1]
    assert ranges.of("block0.expand", 32) is None


def test_histograms_count_half_precision_numbers():
    x = torch.tensor([[0.0, -0.0, 1.0, 1.0002, 1.0002, -2.5]])
    counts = histogram(x).numpy()
    assert counts.sum() == 6
    keys = {value: np.float16(value).view(np.uint16) for value in (1.0, -2.5)}
    assert counts[keys[1.0]] == 3
    assert counts[keys[-2.5]] == 1


@pytest.mark.parametrize(
    ("name", "unsigned"),
    [
        ("fashion", {"stem", "stem.output", "block0.expand"}),
        ("imagenet", {"stem", "first_block.depthwise", "first_block.project", "classifier"}),
    ],
)
def test_places_with_both_signs_are_those_behind_a_projection(name, unsigned):
    places = Ranges(load_space(name)).places
    within = {p for p in places if p.endswith(("depthwise", "project"))}
    assert {p for p, signed in places.items() if not signed} == unsigned | within
    assert places["block1.expand"]


def small(between=16):
    return Space(replace(load_space("digits").spec, name="small", between_bits=between))


@pytest.fixture(scope="module")
def calibration():
    return torch.from_numpy(load_images("digits").calibration.images[:64])


def fitted(space, calibration, **options):
    torch.manual_seed(0)
    net = Supernet(space)
    fit_ranges(net, calibration, subnets=4, **options)
    return net


def test_files_hold_them(tmp_path, calibration):
    net = fitted(small(8), calibration)
    path = tmp_path / "net.safetensors"
    save_supernet(path, net)
    again, _ = load_supernet(path, net.space)
    assert np.array_equal(again.ranges.high, net.ranges.high)
    assert again.ranges.known
    tensors, header = load_tensors(path, "apq-moo supernet 1")
    high = tensors["ranges"]
    for bad in (-high, high[:3], high.double(), high.bfloat16(), high * 1e-44, high * 1e37):
        save_tensors(path, tensors | {"ranges": bad}, header)
        with pytest.raises(UserError, match="is damaged: ranges"):
            load_supernet(path, net.space)


@pytest.mark.parametrize("between", [8, 16])
def test_without_them_networks_run_in_full_precision_only(tmp_path, calibration, between):
    net, path = Supernet(small(between)), tmp_path / "net.safetensors"
    save_supernet(path, net)
    net, _ = load_supernet(path, net.space)
    assert not net.ranges.known
    (subnet,) = net.space.decode(net.space.smallest())
    images = load_images("digits")
    labels = torch.arange(len(calibration)) % 10
    evaluator, gradients = Evaluator(net, calibration), TorchGradients(net)
    for run in (
        lambda quantised: evaluator.logits(subnet, calibration, quantised=quantised),
        lambda quantised: cut_out(net, subnet, calibration, quantised=quantised)(calibration),
        lambda quantised: gradients.predict(calibration, Student(subnet, quantised)),
        lambda quantised: gradients.step(calibration, labels, [Student(subnet, quantised)]),
        lambda quantised: Scorer(net, images).accuracies([subnet], ["test"], quantised=quantised),
    ):
        assert np.isfinite(run(False).tolist()).all()
        with pytest.raises(
            UserError, match="no ranges, so that its networks run in full precision only"
        ) as stop:
            run(True)
        assert len(str(stop.value)) <= 300
    fit_ranges(net, calibration, subnets=2)  # as the line says
    assert evaluator.logits(subnet, calibration, quantised=True).isfinite().all()


def test_without_them_nothing_is_measured_at_bits(tmp_path):
    space, path, out = load_space("digits"), tmp_path / "net.safetensors", tmp_path / "s.npz"
    save_supernet(path, Supernet(space))
    with pytest.raises(UserError, match="no ranges"):
        collect(space, path, "digits", SampleConfig(3, 1, 0, 0), out)
    assert not out.exists()
    assert len(collect(space, path, "digits", SampleConfig(3, 0, 0, 0), out).unmeasured()) == 0


def test_floats_need_none(tmp_path, calibration):
    spec = small().spec
    bits = dict.fromkeys(spec.bits, (32,))
    net = Supernet(Space(replace(spec, bits=bits, fixed_bits=32)))
    save_supernet(tmp_path / "net.safetensors", net)
    net, _ = load_supernet(tmp_path / "net.safetensors", net.space)
    (subnet,) = net.space.decode(net.space.smallest())
    found = [
        Evaluator(net, calibration).logits(subnet, calibration, quantised=quantised)
        for quantised in (False, True)
    ]
    torch.testing.assert_close(*found, atol=1e-3, rtol=1e-3)


def test_few_bits_gain_most():
    """On a supernet that was trained a little: the logits' error at 3 bits, against extremes."""
    images = load_images("digits")
    calibration = torch.from_numpy(images.calibration.images[:200])
    trained = Trainer(small(), images, TrainConfig(steps=40, batch_size=64)).run()
    x = torch.from_numpy(images.validation.images[:100])
    (subnet,) = trained.space.decode(trained.space.smallest())
    assert trained.ranges.known

    def error():
        evaluator = Evaluator(trained, calibration)
        exact = evaluator.logits(subnet, x, quantised=False)
        return float((evaluator.logits(subnet, x, quantised=True) - exact).square().mean())

    least, extremes = error(), {}

    def observe(place, activations):
        extremes[place] = float(activations.abs().max())

    Evaluator(trained, calibration).observe(subnet, observe)
    tops = torch.tensor([[extremes.get(place, 1.0)] for place in trained.ranges.places])
    trained.ranges.load(tops.expand(trained.ranges.high.shape))
    assert least < 0.9 * error()


def test_a_training_fits_them_before_bits_are_trained_and_at_its_end():
    images, space = load_images("digits"), load_space("digits")
    config = TrainConfig(steps=3, warmup_steps=1, batch_size=16, quantised_steps=1)
    trainer = Trainer(space, images, config)
    seen = []
    trainer.run(callback=lambda progress: seen.append(trainer.supernet.ranges.high.copy()))
    assert [bool(high.any()) for high in seen] == [False, False, True]
    assert not np.array_equal(seen[-1], trainer.supernet.ranges.high)

"""Quantised evaluation means integers: the same bits whatever computes them."""

import numpy as np
import pytest
import torch

from apq_moo.space import Space, SpaceSpec
from apq_moo.supernet.evaluation import Evaluator, calibrate, fold, infer
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.range_fitting import fit_ranges

BITS = {role: [2, 4, 8] for role in ("w_pw", "a_pw", "w_dw", "a_dw")}
STAGES = [
    {"width": 8, "stride": 2, "depths": [1, 2], "kernels": [3, 5], "expand": [0.5, 3]},
    {"width": 12, "stride": 1, "depths": [1], "kernels": [3], "expand": [1, 2]},
]


def space_of(between=32):
    data = {
        "name": "exact",
        "input_size": 8,
        "input_channels": 3,
        "classes": 4,
        "channel_step": 4,
        "bits": BITS | {"fixed": 8, "between": between},
        "stem": {"channels": 8, "kernel": 3},
        "stages": STAGES,
    }
    return Space(SpaceSpec.from_dict(data))


def network(space, seed=0):
    torch.manual_seed(seed)
    supernet = Supernet(space)
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return supernet


def integers(x, low, high):
    """What integers of 8 bits between blocks stand for."""
    step = np.float32((high - low) / 255)
    first = 0 if low == 0 else -128
    levels = np.clip(np.rint(x * (np.float32(1) / step)), first, first + 255)
    return levels.astype(np.float32) * step


def twin(layers, recorded, images):
    """Slowly, with Python's integers and loops over taps in NumPy, by the definition alone."""
    x = kept = images.numpy().astype(np.float32)
    for item, known in zip(layers, recorded, strict=True):
        layer = item.layer
        if layer.opens_shortcut:
            kept = x
        if item.scale is None:
            x = x.astype(np.float64).mean(axis=(2, 3), keepdims=True).astype(np.float32)
        wide = max(known.high - known.low, 1e-8) / (2**layer.a_bits - 1)
        zero = round(-known.low / wide)
        step = np.float32(wide)
        levels = np.clip(np.rint(x * (np.float32(1) / step)), -zero, 2**layer.a_bits - 1 - zero)
        levels = levels.astype(np.int64)
        top = 2 ** (layer.w_bits - 1) - 1
        w = item.weight.detach().numpy()
        size = np.abs(w).reshape(len(w), -1).max(1).clip(1e-8) / np.float32(top)
        taps = np.rint(w * (np.float32(1) / size)[:, None, None, None]).clip(-top, top)
        taps = taps.astype(np.int64)
        pad = layer.padding
        padded = np.pad(levels, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        n, out = len(x), layer.size_out
        sums = np.zeros((n, layer.c_out, out, out), dtype=np.int64)
        for i in range(layer.kernel):
            for j in range(layer.kernel):
                end = layer.stride * (out - 1) + 1
                part = padded[:, :, i : i + end : layer.stride, j : j + end : layer.stride]
                if layer.groups > 1:
                    sums += part * taps[None, :, 0, i, j, None, None]
                else:
                    sums += np.einsum("nchw,kc->nkhw", part, taps[:, :, i, j])
        unit = size.astype(np.float64) * np.float64(step)
        bias = item.bias.detach().numpy().astype(np.float64)
        gain = np.ones_like(unit)
        if item.scale is not None:
            gain = item.scale.detach().numpy().astype(np.float64)
            gain = gain / np.sqrt(known.var.numpy().astype(np.float64) + 1e-5)
            bias = bias - known.mean.numpy().astype(np.float64) * gain
        gain = (gain * unit).astype(np.float32)[:, None, None]
        x = sums.astype(np.float32) * gain + bias.astype(np.float32)[:, None, None]
        x = leaving(item, x, kept)
    return x[:, :, 0, 0]


def leaving(item, x, kept):
    layer = item.layer
    if layer.activation is not None:
        x = np.clip(x, 0, 6)
    if layer.between_bits == 8:
        x = integers(x, *item.ranges.output)
    if layer.closes_shortcut:
        x = x + kept
        if layer.between_bits == 8:
            x = integers(x, *item.ranges.total)
    return x.astype(np.float16).astype(np.float32) if layer.between_bits == 16 else x


@pytest.mark.parametrize(("between", "known"), [(8, True), (16, True), (16, False), (32, False)])
@pytest.mark.parametrize("seed", range(3))
def test_logits_are_those_of_integer_arithmetic(between, known, seed):
    space = space_of(between)
    supernet = network(space, seed)
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) - 0.2
    if known:
        fit_ranges(supernet, images[:3], subnets=4)
    (subnet,) = space.decode(space.sample(1, np.random.default_rng(seed)))
    layers = supernet.slice(subnet)
    recorded = calibrate(layers, images[:3], quantised=True)
    found = infer(fold(layers, recorded, quantised=True), images, quantised=True)
    assert np.array_equal(found.numpy(), twin(layers, recorded, images))


def test_nothing_depends_on_how_the_images_are_grouped_or_ordered():
    space = space_of()
    supernet = network(space)
    images = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
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
    (subnet,) = space.decode(space.largest())
    wanted = Evaluator(supernet, images).logits(subnet, images, quantised=True)
    monkeypatch.setattr("apq_moo.supernet.evaluation._EXACT", 1)
    assert torch.equal(Evaluator(supernet, images).logits(subnet, images, quantised=True), wanted)

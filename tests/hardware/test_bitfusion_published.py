"""The BitFusion model against values of the published hardware table."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from apq_moo.errors import UserError
from apq_moo.hardware import DEVICES, cost_table, write_table
from apq_moo.hardware.layer_table import build
from apq_moo.space import Layer, load_space

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden_apq.json").read_text())["items"]

# Key, cycles, mJ. Latency in ms is cycles / 500,000.
SPOTS = [
    ("(16, 96, 112, 1, 1, 0, 1)-W8A6", 407_744, 1.37633194724646),
    ("(24, 136, 56, 1, 1, 0, 1)-W8A4", 143_870, 0.48720220764776),
    ("(40, 160, 28, 1, 1, 0, 1)-W4A4", 42_601, 0.143825057750864),
    ("(96, 456, 14, 1, 1, 0, 1)-W4A4", 31_096, 0.106881974030912),
    ("(96, 520, 14, 1, 1, 0, 1)-W4A4", 37_022, 0.127085145968),
    ("(96, 448, 14, 1, 1, 0, 1)-W6A6", 34_730, 0.124698447792144),
    ("(208, 40, 28, 1, 1, 0, 1)-W4A8", 17_422, 0.063996744530288),
    ("(192, 816, 7, 1, 1, 0, 1)-W8A6", 20_540, 0.077044374278568),
    ("(1072, 320, 7, 1, 1, 0, 1)-W8A8", 41_408, 0.156851798711392),
    ("(488, 488, 14, 3, 1, 1, 488)-W4A4", 44_896, 0.165641973019648),
    ("(80, 80, 112, 3, 2, 1, 80)-W6A6", 283_060, 0.6182438017332),
    ("(120, 120, 56, 5, 1, 2, 120)-W8A8", 1_179_375, 2.59246845494208),
    ("(200, 200, 28, 7, 2, 3, 200)-W4A6", 129_558, 0.349387388331176),
    ("(480, 480, 14, 5, 2, 2, 480)-W6A4", 52_350, 0.11711038967628),
    ("(960, 960, 7, 7, 1, 3, 960)-W8A8", 326_400, 0.39321612518064),
    ("(960, 960, 7, 3, 1, 1, 960)-W4A8", 48_300, 0.09745635643584),
    ("head", 147_952, 0.506184484186264),
    ("tail", 40_804, 0.151807563097696),
]
NAMED = {
    "head": Layer("stem", 3, 32, 224, 3, 2, 1, 8, 8),
    "tail": Layer("feature_mix", 320, 1280, 7, 1, 1, 1, 8, 8),
}


def layer_of(key):
    if key in NAMED:
        return NAMED[key]
    c_in, c_out, size, kernel, stride, padding, groups, w, a = map(int, re.findall(r"\d+", key))
    layer = Layer("block", c_in, c_out, size, kernel, stride, groups, w, a)
    assert (layer.key, layer.padding) == (key, padding)
    return layer


@pytest.fixture(scope="module")
def device():
    return DEVICES.get("bitfusion")()


@pytest.mark.parametrize(("key", "cycles", "energy_mj"), SPOTS, ids=[spot[0] for spot in SPOTS])
def test_published_layer(device, key, cycles, energy_mj):
    costs = device.layer_costs([layer_of(key)])
    assert costs["latency"] == pytest.approx([cycles / 5e5], rel=1e-9)
    assert costs["energy"] == pytest.approx([energy_mj], rel=1e-9)


def test_the_written_table_is_the_published_one(device, tmp_path):
    write_table(tmp_path / "t.json", build(load_space("imagenet"), device, {}))
    data = json.loads((tmp_path / "t.json").read_text())
    assert len(data) == 6569
    for key, cycles, energy_mj in SPOTS:
        assert data[key] == pytest.approx({"latency": cycles / 5e5, "energy": energy_mj}, rel=1e-9)


def test_a_layer_costs_the_same_among_others(device):
    """Layers that repeat, cannot run or run in another mode leave their neighbours alone."""
    keys = [key for key, _, _ in SPOTS]
    wide = Layer("block", 8, 8, 4, 1, 1, 1, 16, 8)
    layers = [wide, *map(layer_of, keys + keys[::-1]), wide]
    expected = np.array([(cycles / 5e5, energy) for _, cycles, energy in SPOTS])
    expected = np.vstack([[np.inf] * 2, expected, expected[::-1], [np.inf] * 2])
    costs = device.layer_costs(layers)
    found = np.stack([costs["latency"], costs["energy"]], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("number", range(len(GOLDEN)))
def test_golden_network(number):
    space = load_space("imagenet")
    X = space.encode([GOLDEN[number]["spec"]])
    for name, key in (("latency", "latency_ms"), ("energy", "energy_mj")):
        assert cost_table(space, name)(X) == pytest.approx([GOLDEN[number][key]], rel=1e-9)


def test_there_are_24_golden_networks():
    assert len(GOLDEN) == 24
    assert len({item["latency_ms"] for item in GOLDEN}) == 24


@pytest.mark.parametrize("w", [4, 6, 8])
@pytest.mark.parametrize("size", [7, 14, 112])
def test_7x7_depthwise_needs_wide_activations(device, w, size):
    layers = [Layer("block", 96, 96, size, 7, 1, 96, w, a) for a in (4, 6, 8)]
    for costs in device.layer_costs(layers).values():
        np.testing.assert_array_equal(np.isfinite(costs), [False, True, True])


def test_operands_wider_than_8_bits_do_not_run(device):
    layers = [Layer("block", 8, 8, 4, 1, 1, 1, w, a) for w, a in ((9, 8), (8, 16), (8, 8))]
    for costs in device.layer_costs(layers).values():
        np.testing.assert_array_equal(np.isfinite(costs), [False, False, True])


def test_no_layers_no_costs(device):
    costs = device.layer_costs([])
    assert {name: values.shape for name, values in costs.items()} == {
        "latency": (0,),
        "energy": (0,),
    }


def test_grouped_layers_are_refused(device):
    grouped = Layer("block", 8, 8, 4, 3, 1, 2, 8, 8, block=3, place="depthwise")
    with pytest.raises(UserError, match=r"block3\.depthwise has 2 groups; use 1") as caught:
        device.layer_costs([grouped])
    assert len(str(caught.value).splitlines()) == 1

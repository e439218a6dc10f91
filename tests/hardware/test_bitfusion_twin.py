"""The BitFusion model against a slow twin: every tile, all 120 loop orders, plain integers."""

import random
import tomllib
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import permutations, product
from math import ceil

import numpy as np
import pytest

from apq_moo.hardware import DEVICES, ArrayDevice, load_accelerator
from apq_moo.hardware import tiling as fast
from apq_moo.hardware.accelerator import shipped_accelerator
from apq_moo.space import Layer


@dataclass(frozen=True)
class Machine:
    """A machine as the twin knows it; capacities in bits, energies in nJ."""

    rows: int
    columns: int
    widths: tuple
    dram: int
    acc: int
    kilohertz: float
    capacity: dict
    nj: dict

    def on_chip(self, bits):
        return next(width for width in self.widths if width >= bits)

    def parallel(self, w, a):
        widest = self.widths[-1]
        return (widest // self.on_chip(w)) * (widest // self.on_chip(a))

    def lanes(self, w, a):
        return self.rows * self.parallel(w, a)


DEPENDS = {"act": "BWHI", "wgt": "IO", "out": "BWHO"}
BITFUSION = Machine(
    *(16, 32, (2, 4, 8), 192, 32, 500_000),
    {"act": 131_072, "wgt": 262_144, "out": 65_536},
    {
        "core": 0.4766518,
        "static": 0.433014704,
        "dram": 0.015,
        "weight read": 2.136565625e-5,
        "weight write": 2.891615625e-5,
        "activation read": 5.9474375e-5,
        "activation write": 1.137040625e-4,
        "output": 9.250146875e-5,
    },
)


def up(a, b):
    return -(-a // b)


def sizes(extent, unit=1):
    exponents = range((up(extent, unit) - 1).bit_length() + 1)
    return sorted({min(unit * 2**j, extent) for j in exponents})


def examine(conv, tile, order, m=BITFUSION):
    """All quantities of one tile under one loop order (outermost loop first); None if too big."""
    k, out, stride, c_in, c_out, w, a, im2col = conv
    o, ic, oc = tile
    n, nj = m.lanes(w, a), m.nj
    pixels, window, go = o * o, (o - 1) * stride + k, up(oc, m.columns)
    passes = up(k * k * ic, n) if im2col else k * k * up(ic, n)
    if im2col:
        inputs, padded = pixels * k * k * ic, pixels * up(k * k * ic, n) * n
    else:
        inputs, padded = window**2 * ic, window**2 * up(ic, n) * n
    u = {"act": inputs * a, "wgt": k * k * ic * oc * w, "out": pixels * oc * m.acc}
    v = {
        "act": padded * m.on_chip(a),
        "wgt": passes * n * go * m.columns * m.on_chip(w),
        "out": pixels * go * m.columns * m.acc,
    }
    if any(v[x] > m.capacity[x] for x in v):
        return None
    trips = {"B": 1, "W": up(out, o), "H": up(out, o), "I": up(c_in, ic), "O": up(c_out, oc)}
    total = trips["W"] * trips["H"] * trips["I"] * trips["O"]
    moved, peak = {}, {}
    for x, useful in u.items():
        traffic, held, peak[x], resident = useful, v[x], useful, True
        for loop in reversed(order):
            if loop in DEPENDS[x]:
                traffic, held = traffic * trips[loop], held * trips[loop]
                if resident and held <= m.capacity[x]:
                    peak[x] = traffic
                else:
                    resident = False
            elif not resident:
                traffic *= trips[loop]
        moved[x] = traffic
    compute = total * pixels * go * passes
    rd, wr = sum(moved.values()), moved["out"]
    edge = up(sum(peak.values()), m.dram) + up(peak["out"], m.dram)
    cycles = edge + max(compute, up(rd, m.dram) + up(wr, m.dram) - edge)
    macs = total * pixels * k * k * ic * oc
    rw = macs * w * nj["weight read"]
    ra = total * pixels * k * k * ic * go * a * nj["activation read"]
    oo = total * pixels * oc * m.acc * nj["output"]
    output_stationary = rw + ra + oo
    weight_stationary = rw / pixels + ra + oo * passes
    energy = (
        compute * nj["core"]
        + cycles * nj["static"]
        + (rd + wr) * nj["dram"]
        + moved["act"] * nj["activation write"]
        + moved["wgt"] * nj["weight write"]
        + moved["out"] * nj["output"]
        + min(output_stationary, weight_stationary)
    )
    return {
        "u": tuple(u.values()),
        "v": tuple(v.values()),
        "moved": tuple(moved.values()),
        "peak": tuple(peak.values()),
        "passes": passes,
        "compute": compute,
        "edge": edge,
        "cycles": cycles,
        "OS": output_stationary,
        "WS": weight_stationary,
        "energy": energy,
    }


def search(conv, m=BITFUSION):
    """Fewest cycles, then least nanojoules; inf if no tile fits."""
    _, out, _, c_in, c_out, _, _, im2col = conv
    best = (float("inf"), float("inf"))
    for tile in product(sizes(out), sizes(c_in), sizes(c_out, 1 if im2col else m.columns)):
        for order in permutations("BWHIO"):
            found = examine(conv, tile, order, m)
            if found is None:
                break
            best = min(best, (found["cycles"], found["energy"]))
    return best


def layer_by_twin(layer, m=BITFUSION):
    """ms and mJ."""
    w, a = layer.w_bits, layer.a_bits
    c_in, c_out, repeats = layer.c_in, layer.c_out, 1
    if layer.groups > 1:
        c_in = c_out = max(m.rows // 2, 1) * m.parallel(w, a)
        repeats = ceil(layer.groups / c_in)
    out = (layer.size + 2 * (layer.kernel // 2) - layer.kernel) // layer.stride + 1
    im2col = layer.component == "stem"
    cycles, energy = search((layer.kernel, out, layer.stride, c_in, c_out, w, a, im2col), m)
    return repeats * cycles / m.kilohertz, repeats * energy * 1e-6


PAIRS = [(w, a) for w in (2, 3, 5, 7) for a in (2, 3, 5, 7)] + [(4, 6), (8, 4), (6, 8), (1, 8)]


def drawn_layers(pairs=PAIRS):
    """Layers of all three kinds at all bits, ordinary and odd shapes alike."""
    rng = random.Random(20)  # noqa: S311
    layers = []
    for number, (w, a) in enumerate(pairs):
        size, stride, kernel = rng.randint(1, 24), rng.choice([1, 1, 2, 3]), rng.choice([3, 5, 7])
        kind = ("pointwise", "depthwise", "dense", "stem")[number % 4]
        c_in, c_out, groups = rng.randint(1, 200), rng.randint(1, 300), 1
        if kind == "pointwise":
            kernel = stride = 1
        elif kind == "depthwise":
            groups = c_out = c_in = rng.randint(2, 200)
        elif kind == "stem":
            c_in, c_out = rng.randint(1, 4), rng.randint(1, 48)
        component = "stem" if kind == "stem" else "block"
        layers.append(Layer(component, c_in, c_out, size, kernel, stride, groups, w, a, place=kind))
    for kernel, w, a in ((3, 2, 7), (5, 3, 2), (7, 5, 3), (7, 2, 2), (3, 7, 5)):
        channels = rng.randint(2, 200)
        size, stride = rng.randint(1, 20), rng.choice([1, 2])
        shape = (channels, channels, size, kernel, stride, channels)
        layers.append(Layer("block", *shape, w, a, place="depthwise"))
    return layers


PICKED = [
    # Loop orders of the best tile tie in cycles and differ in energy.
    Layer("block", 76, 2, 13, 7, 1, 1, 6, 5),
    Layer("block", 160, 2, 17, 7, 2, 1, 4, 8),
    # The padding of the folded reduction decides what the activation SRAM keeps.
    Layer("stem", 1, 1, 5, 7, 1, 1, 3, 2),
    Layer("stem", 3, 2, 4, 7, 2, 1, 4, 8),
    Layer("stem", 1, 1, 20, 5, 2, 1, 5, 6),
]
LAYERS = drawn_layers() + PICKED


@pytest.mark.parametrize("layer", LAYERS, ids=[f"{layer.name} {layer.key}" for layer in LAYERS])
def test_layer_equals_twin(layer):
    costs = DEVICES.get("bitfusion")().layer_costs([layer])
    expected = layer_by_twin(layer)
    assert (costs["latency"][0], costs["energy"][0]) == pytest.approx(expected, rel=1e-12)


def test_drawn_layers_cover_what_they_should():
    assert {layer.w_bits for layer in LAYERS} >= {2, 3, 5, 7}
    assert {layer.a_bits for layer in LAYERS} >= {2, 3, 5, 7}
    finite = np.isfinite(DEVICES.get("bitfusion")().layer_costs(LAYERS)["latency"])
    assert 0 < finite.sum() < len(LAYERS)


# -- other machines --------------------------------------------------------------------------------

ODD = """
name = "odd"
rows = 3
columns = 5
precisions = [4, 8]
accumulator_bits = 24
clock_mhz = 12.5
[memory]
activation_kib = 3.25
weight_kib = 20
output_kib = 0.75
dram_bits_per_cycle = 7
[energy_nj]
core_cycle = 0.5
static_cycle = 0
dram_bit = 0.25
weight_read_bit = 0.125
weight_write_bit = 3
activation_read_bit = 0.0625
activation_write_bit = 2
output_bit = 0.03125
"""


def machine_of(text):
    """The twin's view of an accelerator's file."""
    data = tomllib.loads(text)
    kib, nj = data["memory"], data["energy_nj"]
    usable = {
        x: kib[f"{name}_kib"] * 1024 * 8 / 2
        for x, name in (("act", "activation"), ("wgt", "weight"), ("out", "output"))
    }
    names = {"core": "core_cycle", "static": "static_cycle", "dram": "dram_bit"}
    names |= {f"{x} {do}": f"{x}_{do}_bit" for x in ("weight", "activation") for do in ("read",
              "write")}  # fmt: skip
    return Machine(
        *(data["rows"], data["columns"], tuple(data["precisions"])),
        *(kib["dram_bits_per_cycle"], data["accumulator_bits"], data["clock_mhz"] * 1000),
        usable,
        {key: nj[name] for key, name in names.items()} | {"output": nj["output_bit"]},
    )


SHIPPED = files("apq_moo.hardware") / "machines"
FILES = {
    "bitfusion": (SHIPPED / "bitfusion.toml").read_text(),
    "bitfusion-edge": (SHIPPED / "bitfusion-edge.toml").read_text(),
    "bitfusion-large": (SHIPPED / "bitfusion-large.toml").read_text(),
    "odd": ODD,
}


def test_the_published_machine_is_the_published_machine():
    found = machine_of(FILES["bitfusion"])
    assert replace(found, nj={}) == replace(BITFUSION, nj={})
    assert found.nj == pytest.approx(BITFUSION.nj, rel=1e-15)


@pytest.mark.parametrize("name", ["bitfusion-edge", "bitfusion-large", "odd"])
def test_other_machines_equal_their_twins(name, tmp_path):
    path = tmp_path / f"{name}.toml"
    path.write_text(FILES[name])
    machine = machine_of(FILES[name])
    wide = [(16, 16), (12, 4), (3, 9), (8, 16), (16, 2), (10, 10), (4, 16)]
    narrow = [(2, 2), (4, 4), (8, 8), (3, 7), (5, 2), (4, 8), (8, 2), (6, 6), (7, 4), (1, 8)]
    layers = drawn_layers(narrow[:5] + wide * (name == "bitfusion-large") + narrow[5:])
    costs = ArrayDevice(load_accelerator(path)).layer_costs(layers)
    expected = np.array([layer_by_twin(layer, machine) for layer in layers])
    np.testing.assert_allclose(costs["latency"], expected[:, 0], rtol=1e-12)
    np.testing.assert_allclose(costs["energy"], expected[:, 1], rtol=1e-12)
    can_run = zip(layers, expected, strict=True)
    kinds = {layer.place for layer, costs in can_run if costs[0] < np.inf}
    assert kinds == {"pointwise", "depthwise", "dense", "stem"}
    too_wide = [replace(layers[0], w_bits=b, a_bits=4) for b in (machine.widths[-1] + 1, 32)]
    costs = ArrayDevice(load_accelerator(path)).layer_costs(too_wide)
    assert np.isinf(costs["latency"]).all()
    assert np.isinf(costs["energy"]).all()


# The worked examples: convolution, tile (o, ic, oc), loop order from the outermost, quantities of
# it, then cycles and nanojoules, which no other tile or order betters.
POINTWISE = (1, 14, 1, 96, 456, 4, 4, False)
DEPTHWISE_GROUP = (3, 14, 1, 32, 32, 4, 4, False)
HEAD = (3, 112, 2, 3, 32, 8, 8, True)
TAIL = (1, 7, 1, 320, 1280, 8, 8, False)
WORKED = {
    "pointwise": (
        POINTWISE,
        (2, 96, 456),
        "BWHIO",
        {
            "u": (1_536, 175_104, 58_368),
            "v": (2_048, 245_760, 61_440),
            "moved": (75_264, 175_104, 2_860_032),
            "peak": (75_264, 175_104, 58_368),
            "passes": 2,
            "compute": 5_880,
            "edge": 1_912,
            "OS": 1_064.978877984,
            "WS": 779.577893472,
        },
        (31_096, 106_881.974030912),
    ),
    "depthwise group": (
        DEPTHWISE_GROUP,
        (2, 32, 32),
        "BWHIO",
        {
            "u": (2_048, 36_864, 4_096),
            "v": (4_096, 73_728, 4_096),
            "moved": (100_352, 36_864, 200_704),
            "peak": (14_336, 36_864, 28_672),
            "passes": 9,
            "compute": 1_764,
            "edge": 566,
            "OS": 186.368469056,
            "WS": 219.111125184,
        },
        (2_806, 10_352.623313728),
    ),
    "head": (
        HEAD,
        (8, 3, 32),
        "BWHIO",
        {
            "v": (16_384, 8_192, 65_536),
            "moved": (2_709_504, 6_912, 12_845_056),
            "passes": 2,
            "compute": 25_088,
            "edge": 792,
            "WS": 2_566.464314848,
        },
        (147_952, 506_184.484186264),
    ),
    "tail": (
        TAIL,
        (1, 320, 32),
        "BIOWH",
        {
            "moved": (125_440, 3_276_800, 2_007_040),
            "peak": (125_440, 81_920, 50_176),
            "compute": 39_200,
            "edge": 1_604,
            "OS": 3_914.61090944,
        },
        (40_804, 151_807.563097696),
    ),
}


@pytest.mark.parametrize(
    ("conv", "tile", "order", "quantities", "costs"), WORKED.values(), ids=WORKED
)
def test_worked_example(conv, tile, order, quantities, costs):
    found = examine(conv, tile, order)
    for name, value in quantities.items():
        assert found[name] == pytest.approx(value, rel=1e-9), name
    assert (found["cycles"], found["energy"]) == pytest.approx(costs, rel=1e-9)
    columns = (np.array([value]) for value in conv)
    cycles, energy = fast.convolution_costs(
        shipped_accelerator("bitfusion"), fast.Convolutions(*columns)
    )
    assert (cycles[0], energy[0]) == pytest.approx(costs, rel=1e-9)


def test_a_shape_that_cannot_hold_its_padded_weights_is_tiled():
    """520 channels pad to 544, whose 4-bit weights pass the SRAM; 17 tiles of 32 are charged."""
    conv = (1, 14, 1, 96, 520, 4, 4, False)
    assert examine(conv, (2, 96, 520), "BWHIO") is None
    assert search(conv)[0] == 37_022


def test_the_bound_on_memory_changes_nothing(monkeypatch):
    whole = DEVICES.get("bitfusion")().layer_costs(LAYERS)
    for chunk in (1, 300):
        monkeypatch.setattr(fast, "_CHUNK", chunk)
        parts = DEVICES.get("bitfusion")().layer_costs(LAYERS)
        for name, costs in parts.items():
            np.testing.assert_array_equal(costs, whole[name])

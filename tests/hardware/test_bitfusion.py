"""The accelerator model against published figures, a slow twin, and brute force."""

import json
from itertools import permutations, product
from math import ceil, log2
from pathlib import Path

import numpy as np
import pytest

from apq_moo.errors import UserError
from apq_moo.hardware import (
    BITFUSION,
    DEVICES,
    cost_table,
    feasible_options,
    maximum,
    minimum,
)
from apq_moo.hardware.tiling import Convolutions, convolution_costs
from apq_moo.space import Layer, Space, SpaceSpec, load_space

DATA = Path(__file__).parent.parent / "data"

# Layer, bits, cycles, latency in ms and energy in mJ of the published table.
SPOTS = [
    ((16, 96, 112, 1, 1, 1), 8, 6, 0.815488, 1.37633194724646),
    ((24, 136, 56, 1, 1, 1), 8, 4, 0.287740, 0.48720220764776),
    ((40, 160, 28, 1, 1, 1), 4, 4, 0.085202, 0.143825057750864),
    ((96, 456, 14, 1, 1, 1), 4, 4, 0.062192, 0.106881974030912),
    ((96, 520, 14, 1, 1, 1), 4, 4, 0.074044, 0.127085145968),
    ((96, 448, 14, 1, 1, 1), 6, 6, 0.069460, 0.124698447792144),
    ((208, 40, 28, 1, 1, 1), 4, 8, 0.034844, 0.063996744530288),
    ((192, 816, 7, 1, 1, 1), 8, 6, 0.041080, 0.077044374278568),
    ((1072, 320, 7, 1, 1, 1), 8, 8, 0.082816, 0.156851798711392),
    ((488, 488, 14, 3, 1, 488), 4, 4, 0.089792, 0.165641973019648),
    ((80, 80, 112, 3, 2, 80), 6, 6, 0.566120, 0.6182438017332),
    ((120, 120, 56, 5, 1, 120), 8, 8, 2.358750, 2.59246845494208),
    ((200, 200, 28, 7, 2, 200), 4, 6, 0.259116, 0.349387388331176),
    ((480, 480, 14, 5, 2, 480), 6, 4, 0.104700, 0.11711038967628),
    ((960, 960, 7, 7, 1, 960), 8, 8, 0.652800, 0.39321612518064),
    ((960, 960, 7, 3, 1, 960), 4, 8, 0.096600, 0.09745635643584),
]


def layer(shape, w, a, component="block"):
    return Layer("x", component, *shape, w, a)


def costs(layers):
    return DEVICES.get("bitfusion")().layer_costs(layers)


@pytest.fixture(scope="module")
def imagenet():
    return load_space("imagenet")


@pytest.fixture(scope="module")
def golden():
    return json.loads((DATA / "golden_apq.json").read_text())["items"]


def test_published_layers():
    latency, energy = costs([layer(shape, w, a) for shape, w, a, _, _ in SPOTS])
    np.testing.assert_allclose(latency, [spot[3] for spot in SPOTS], rtol=1e-9)
    np.testing.assert_allclose(energy, [spot[4] for spot in SPOTS], rtol=1e-9)


def test_published_head_and_tail(imagenet):
    stem = next(item for item in imagenet.fixed_layers() if item.component == "stem")
    mix = next(item for item in imagenet.fixed_layers() if item.component == "feature_mix")
    latency, energy = costs([stem, mix])
    np.testing.assert_allclose(latency, [0.295904, 0.081608], rtol=1e-9)
    np.testing.assert_allclose(energy, [0.506184484186264, 0.151807563097696], rtol=1e-9)


def test_published_networks(imagenet, golden):
    X = imagenet.encode([item["spec"] for item in golden])
    for name, key in (("latency", "latency_ms"), ("energy", "energy_mj")):
        expected = [item[key] for item in golden]
        np.testing.assert_allclose(cost_table(imagenet, name)(X), expected, rtol=1e-9)


def test_worked_examples():
    """Cycles and nanojoules worked by hand for a pointwise layer and one depthwise group."""
    convs = Convolutions(
        *(np.array(values) for values in
          ([1, 3], [14, 14], [1, 1], [96, 32], [456, 32], [4, 4], [4, 4], [False, False]))
    )  # fmt: skip
    cycles, energy = convolution_costs(BITFUSION, convs)
    assert cycles.tolist() == [31096, 2806]
    np.testing.assert_allclose(energy, [106881.974030912, 10352.623313728], rtol=1e-12)


@pytest.mark.parametrize("w", [4, 6, 8])
def test_large_kernels_need_wide_activations(w):
    for a, runs in ((3, False), (4, False), (6, True), (8, True)):
        latency, energy = costs([layer((96, 96, 14, 7, 1, 96), w, a)])
        assert np.isfinite(latency[0]) == np.isfinite(energy[0]) == runs


def test_operands_wider_than_the_array_do_not_run():
    assert costs([layer((16, 96, 14, 1, 1, 1), 16, 8)])[0].tolist() == [np.inf]


def test_grouped_convolutions_are_refused():
    with pytest.raises(UserError, match="4 groups"):
        costs([layer((16, 96, 14, 1, 1, 4), 8, 8)])


def twin(kernel, out, stride, c_in, c_out, w, a, im2col):
    """Cycles and nanojoules by plain loops over every tile and all 120 loop orders."""
    m = BITFUSION

    def width(p):
        return 2 if p <= 2 else 4 if p <= 4 else 8

    lanes = m.rows * (8 // width(w)) * (8 // width(a))

    def sizes(extent, unit=1):
        steps = ceil(log2(ceil(extent / unit))) if extent > unit else 0
        return sorted({min(unit * 2**j, extent) for j in range(steps + 1)})

    best = (np.inf, np.inf)
    for o, ic, oc in product(sizes(out), sizes(c_in), sizes(c_out, 1 if im2col else m.columns)):
        pixels, window, go = o * o, (o - 1) * stride + kernel, ceil(oc / m.columns)
        area = kernel * kernel
        passes = ceil(area * ic / lanes) if im2col else area * ceil(ic / lanes)
        if im2col:
            moved_act = pixels * area * ic * a
            held_act = pixels * ceil(area * ic / lanes) * lanes * width(a)
        else:
            moved_act = window**2 * ic * a
            held_act = window**2 * ceil(ic / lanes) * lanes * width(a)
        moved = (moved_act, area * ic * oc * w, pixels * oc * 32)
        held = (held_act, passes * lanes * go * m.columns * width(w), pixels * go * m.columns * 32)
        caps = (m.activation_bits, m.weight_bits, m.output_bits)
        if any(h > c for h, c in zip(held, caps, strict=True)):
            continue
        trips = {"B": 1, "W": ceil(out / o), "H": ceil(out / o), "I": ceil(c_in / ic),
                 "O": ceil(c_out / oc)}  # fmt: skip
        total = trips["W"] * trips["H"] * trips["I"] * trips["O"]
        compute = total * pixels * go * passes
        reads = total * pixels * area * ic * oc * w
        inputs = total * pixels * area * ic * go * a
        outputs = total * pixels * oc * 32
        sram = min(
            reads * m.weight_read_nj + inputs * m.activation_read_nj + outputs * m.output_nj,
            reads / pixels * m.weight_read_nj
            + inputs * m.activation_read_nj
            + outputs * passes * m.output_nj,
        )
        for order in permutations("BWHIO"):
            traffic, peaks = [], []
            for x, depends in enumerate(("BWHI", "IO", "BWHO")):
                X, Y, peak, resident = moved[x], held[x], moved[x], True
                for loop in reversed(order):
                    if loop in depends:
                        X, Y = X * trips[loop], Y * trips[loop]
                        if resident and caps[x] >= Y:
                            peak = X
                        else:
                            resident = False
                    elif not resident:
                        X *= trips[loop]
                traffic.append(X)
                peaks.append(peak)
            read, written = sum(traffic), traffic[2]
            edge = ceil(sum(peaks) / 192) + ceil(peaks[2] / 192)
            cycles = edge + max(compute, ceil(read / 192) + ceil(written / 192) - edge)
            energy = (
                compute * m.core_nj + cycles * m.static_nj + (read + written) * m.dram_nj
                + traffic[0] * m.activation_write_nj + traffic[1] * m.weight_write_nj
                + traffic[2] * m.output_nj + sram
            )  # fmt: skip
            best = min(best, (cycles, energy))
    return best


@pytest.mark.parametrize(
    "shape",
    [
        (1, 14, 1, 96, 456, 4, 4, False),
        (1, 7, 1, 72, 40, 3, 5, False),
        (1, 9, 1, 200, 100, 2, 7, False),
        (3, 7, 2, 32, 32, 4, 4, False),
        (5, 6, 1, 16, 16, 8, 2, False),
        (7, 5, 1, 8, 8, 6, 8, False),
        (3, 20, 2, 3, 32, 8, 8, True),
        (1, 1, 1, 64, 10, 8, 8, False),
        (7, 4, 1, 32, 32, 4, 4, False),
    ],
)
def test_against_a_slow_twin(shape):
    convs = Convolutions(*(np.array([value]) for value in shape))
    cycles, energy = convolution_costs(BITFUSION, convs)
    np.testing.assert_allclose((cycles[0], energy[0]), twin(*shape), rtol=1e-12)


def test_many_convolutions_are_those_one_by_one(monkeypatch):
    """Chunks change nothing."""
    rng = np.random.default_rng(0)
    n = 60
    convs = Convolutions(
        rng.choice([1, 3, 5], n), rng.integers(1, 30, n), rng.integers(1, 3, n),
        rng.integers(1, 200, n), rng.integers(1, 200, n), rng.integers(2, 9, n),
        rng.integers(2, 9, n), rng.random(n) < 0.2,
    )  # fmt: skip
    together = convolution_costs(BITFUSION, convs)
    monkeypatch.setattr("apq_moo.hardware.tiling._CHUNK", 50)
    apart = convolution_costs(BITFUSION, convs)
    np.testing.assert_array_equal(together, apart)


def test_reachable_range(imagenet):
    for name, low, high in (("latency", 2.959, 46.79), ("energy", 5.107, 41.60)):
        table = cost_table(imagenet, name)
        feasible = feasible_options(imagenet, [table])
        for found, expected in (
            (minimum(table, feasible), low),
            (maximum(table, feasible), high),
        ):
            assert float(f"{found[0]:.4g}") == expected
            assert table(found[1][None])[0] == found[0]
            assert imagenet.valid(found[1][None]).all()


def test_share_of_uniform_draws_under_limits(imagenet):
    """Published shares count draws that break the 7x7 rule as not meeting the limit."""
    n = 200_000
    X = imagenet.sample(n, np.random.default_rng(0), valid=False)
    latency = cost_table(imagenet, "latency")(X)
    for limit, share in ((12.8, 0.080), (8.4, 0.0090), (6.11, 0.00025)):
        tolerance = 4 * np.sqrt(share / n) + 0.05 * share
        assert abs((latency <= limit).mean() - share) < tolerance
    assert np.array_equal(np.isfinite(latency), imagenet.valid(X))


@pytest.mark.parametrize("name", ["latency", "energy", "bitops", "params", "size"])
@pytest.mark.parametrize("preset", ["imagenet", "digits"])
def test_tables_are_sums_over_layers(name, preset):
    space = load_space(preset)
    X = space.sample(12, np.random.default_rng(1))
    expected = []
    for subnet in space.decode(X):
        layers = space.layers(subnet)
        if name in {"latency", "energy"}:
            kept = [item for item in layers if item.component not in space.spec.table_omits]
            expected.append(costs(kept)[name == "energy"].sum())
            continue
        beside = [item.c_out * (1 if item.bias else 2) for item in layers]
        each = {
            "bitops": [item.macs * item.w_bits * item.a_bits / 1e9 for item in layers],
            "params": [(item.weights + n) / 1e6 for item, n in zip(layers, beside, strict=True)],
            "size": [(item.weights * item.w_bits + 32 * n) / 8 / 1024
                     for item, n in zip(layers, beside, strict=True)],
        }  # fmt: skip
        expected.append(sum(each[name]))
    np.testing.assert_allclose(cost_table(space, name)(X), expected, rtol=1e-12)


def small(**changes):
    bits = {role: [4, 8] for role in ("w_pw", "a_pw", "w_dw", "a_dw")}
    data = {
        "name": "small", "input_size": 8, "input_channels": 1, "classes": 3, "kernels": [3, 7],
        "expand": [1, 2], "bits": bits, "stem": {"channels": 8},
        "stages": [{"width": 8, "stride": 2, "depths": [1, 2]}],
    }  # fmt: skip
    return Space(SpaceSpec.from_dict({**data, **changes}))


@pytest.mark.parametrize("rules", [[], [{"kernel": 3, "w_dw": 4}]])
@pytest.mark.parametrize("name", ["latency", "size"])
def test_extremes_against_brute_force(rules, name):
    space = small(forbidden=rules)
    rows = np.array(list(product(*(range(n) for n in space.n_options[:7]))))
    table = cost_table(space, name)
    feasible = feasible_options(space, [cost_table(space, "latency")])
    first = np.array([i for i, good in enumerate(feasible[0]) if good])
    second = np.array([i for i, good in enumerate(feasible[1]) if good])
    a, b = table.blocks[0][first], table.blocks[1][second]
    sums = np.concatenate([a, (a[:, None] + b).ravel()]) + table.fixed
    assert len(rows) == 2 * space.block_sizes[0]
    assert minimum(table, feasible)[0] == pytest.approx(sums.min(), rel=1e-12)
    assert maximum(table, feasible)[0] == pytest.approx(sums.max(), rel=1e-12)


def test_size_hand_worked():
    """Stem 8 channels, one block 8-8-8 with kernel 3 at 4 bits, classifier of 3."""
    space = small()
    row = space.smallest()
    weights = 9 * 8 * 8 + (8 * 8 + 9 * 8 + 8 * 8) * 4 + 8 * 3 * 8
    beside = 32 * (4 * 2 * 8 + 3)
    assert cost_table(space, "size")(row[None])[0] == (weights + beside) / 8192
    macs8 = 9 * 8 * 64 + 8 * 3
    macs4 = 8 * 8 * 64 + 9 * 8 * 16 + 8 * 8 * 16
    bitops = (macs8 * 64 + macs4 * 16) / 1e9
    assert cost_table(space, "bitops")(row[None])[0] == pytest.approx(bitops, rel=1e-12)


def test_mobilenet_v2():
    """Published: 0.3 G multiply-accumulates, 19.2 G BitOps at 8 bits, 3,504,872 parameters."""
    widths, depths = (24, 32, 64, 96, 160, 320), (2, 3, 4, 3, 3, 1)
    strides = (2, 2, 2, 1, 2, 1)
    space = Space(
        SpaceSpec.from_dict(
            {
                "name": "mobilenet_v2", "input_size": 224, "input_channels": 3, "classes": 1000,
                "kernels": [3], "expand": [6, 6],
                "bits": {role: [8] for role in ("w_pw", "a_pw", "w_dw", "a_dw")},
                "stem": {"channels": 32, "stride": 2}, "first_block": {"channels": 16},
                "stages": [
                    {"width": w, "depths": [d], "stride": s}
                    for w, d, s in zip(widths, depths, strides, strict=True)
                ],
                "feature_mix": {"channels": 1280},
            }
        )
    )  # fmt: skip
    row = space.smallest()[None]
    assert cost_table(space, "params")(row)[0] == pytest.approx(3.504872, abs=1e-9)
    assert cost_table(space, "bitops")(row)[0] == pytest.approx(19.2, abs=0.1)


def test_unknown_names():
    space = load_space("digits")
    with pytest.raises(UserError, match="unknown cost 'speed'; known: latency, energy"):
        cost_table(space, "speed")
    with pytest.raises(UserError, match="unknown device 'abacus'; known: bitfusion"):
        cost_table(space, "latency", device="abacus")

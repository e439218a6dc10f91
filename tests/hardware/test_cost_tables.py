"""Cost tables against plain sums, and their extremes and distribution against brute force."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve

from apq_moo.errors import UserError
from apq_moo.hardware import (
    DEVICES,
    QUANTITIES,
    CostTable,
    cost_names,
    cost_table,
    feasible_options,
    maximum,
    minimum,
)
from apq_moo.space import Block, Space, SpaceSpec, Subnet, load_space

ROLES = ("w_pw", "a_pw", "w_dw", "a_dw")


def build(stages, **changes):
    data = {
        "name": "small",
        "input_size": 8,
        "input_channels": 1,
        "classes": 2,
        "channel_step": 8,
        "bits": {role: [8] for role in ROLES},
        "stem": {"channels": 8},
        "stages": stages,
    }
    return Space(SpaceSpec.from_dict(data | changes))


# -- sums over layers ------------------------------------------------------------------------------


def plain_sum(space, name, layers):
    if name in ("latency", "energy"):
        omitted = space.spec.table_omits
        costs = [
            DEVICES.get("bitfusion")().layer_costs([layer])[name][0]
            for layer in layers
            if layer.component not in omitted
        ]
        return sum(costs)
    total = 0
    for layer in layers:
        per_output = layer.kernel**2 * layer.c_in // layer.groups
        weights = per_output * layer.c_out
        beside = layer.c_out if layer.component == "classifier" else 2 * layer.c_out
        positions = layer.size_out**2
        total += {
            "bitops": weights * positions * layer.w_bits * layer.a_bits / 1e9,
            "params": (weights + beside) / 1e6,
            "size": (weights * layer.w_bits + 2 * layer.c_out * 32) / 8 / 1024,
        }[name]
    return total


@pytest.mark.parametrize("name", ["latency", "energy", "bitops", "params", "size"])
@pytest.mark.parametrize("preset", ["imagenet", "digits"])
def test_table_equals_plain_sum(preset, name):
    space = load_space(preset)
    X = space.sample(12, np.random.default_rng(7))
    expected = [plain_sum(space, name, space.layers(subnet)) for subnet in space.decode(X)]
    assert len(set(expected)) > 1
    table = cost_table(space, name)
    np.testing.assert_allclose(table(X), expected, rtol=1e-12)
    np.testing.assert_array_equal(table.gather(space.block_index(X)), table(X))
    assert (table.name, table.unit, table.space) == (name, QUANTITIES.get(name).unit, space)
    assert [costs.shape for costs in table.blocks] == [(size,) for size in space.block_sizes]


def test_units():
    units = {name: QUANTITIES.get(name).unit for name in cost_names()}
    assert units == {
        "latency": "ms",
        "energy": "mJ",
        "bitops": "G",
        "params": "M",
        "size": "KiB",
        "macs": "M",
        "memory": "KiB",
    }


def test_costs_depend_on_the_canonical_form_alone():
    space = load_space("imagenet")
    rng = np.random.default_rng(3)
    X = rng.integers(0, space.n_options, size=(200, space.n_var))
    assert (space.canonical(X) != X).any(axis=1).sum() > 100
    for name in cost_names():
        table = cost_table(space, name)
        np.testing.assert_array_equal(table(X), table(space.canonical(X)))


def test_tables_are_compiled_once():
    space = load_space("digits")
    for name in cost_names():
        assert cost_table(space, name) is cost_table(space, name, device="bitfusion")


def test_device_costs_leave_out_what_the_space_omits():
    """The published table has a head (147,952 cycles) and a tail (40,804), and nothing else."""
    space = load_space("imagenet")
    assert cost_table(space, "latency").fixed == pytest.approx(188_756 / 5e5, rel=1e-12)
    assert cost_table(space, "energy").fixed == pytest.approx(
        0.506184484186264 + 0.151807563097696, rel=1e-12
    )


# Stem 1->4 at 4x4; first block 4->4; block 4->8->8 to 2x2; mix 8->16; classifier 16->2.
HAND_SPACE = build(
    [{"width": 8, "stride": 2, "depths": [1], "kernels": [3], "expand": [2, 2]}],
    input_size=4,
    bits={"w_pw": [4, 8], "a_pw": [6, 8], "w_dw": [2, 8], "a_dw": [8]},
    stem={"channels": 4},
    first_block={"channels": 4},
    feature_mix={"channels": 16},
)
HAND_SUBNET = Subnet("small", (Block(0, 3, 8, 4, 6, 2, 8),))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        # MACs at W8A8: 36*16 + (36 + 16)*16 + 128*4 + 32 = 1952; W4A6: 32*16 + 64*4 = 768;
        # W2A8: 72*4 = 288.
        ("bitops", (1952 * 64 + 768 * 24 + 288 * 16) / 1e9),
        # 416 weights, 2 biases, batch norms of 4 + 4 + 4 + 8 + 8 + 8 + 16 = 52 channels.
        ("params", (416 + 2 + 2 * 52) / 1e6),
        # 248 weights of 8 bits, 96 of 4, 72 of 2, and 108 values of 32: 5968 bits are 746 bytes.
        ("size", 746 / 1024),
    ],
)
def test_hand_worked(name, value):
    X = HAND_SPACE.encode([HAND_SUBNET])
    assert cost_table(HAND_SPACE, name)(X) == pytest.approx([value], rel=1e-12)


def test_mobilenet_v2():
    """torchvision's mobilenet_v2 has 3,504,872 parameters; 19.2 G BitOps are published."""
    shape = zip((24, 32, 64, 96, 160, 320), (2, 3, 4, 3, 3, 1), (2, 2, 2, 1, 2, 1), strict=True)
    stages = [
        {"width": width, "depths": [depth], "stride": stride} for width, depth, stride in shape
    ]
    space = build(
        stages,
        input_size=224,
        input_channels=3,
        classes=1000,
        kernels=[3],
        expand=[6, 6],
        stem={"channels": 32, "stride": 2},
        first_block={"channels": 16},
        feature_mix={"channels": 1280},
    )
    X = space.sample(1, np.random.default_rng(0))
    assert space.count() == 1
    assert round(cost_table(space, "params")(X)[0] * 1e6) == 3_504_872
    giga = cost_table(space, "bitops")(X)[0]
    assert round(giga, 1) == 19.2
    assert round(giga / 64, 2) == 0.30


# -- feasibility -----------------------------------------------------------------------------------


def test_the_imagenet_rule_forbids_exactly_what_the_device_cannot_run():
    space = load_space("imagenet")
    tables = [cost_table(space, name) for name in ("latency", "energy")]
    for b, mask in enumerate(feasible_options(space, tables)):
        allowed = np.zeros(space.block_sizes[b], dtype=bool)
        allowed[space.allowed(b)] = True
        np.testing.assert_array_equal(mask, allowed)
        for table in tables:
            np.testing.assert_array_equal(np.isfinite(table.blocks[b]), allowed)


def test_feasible_options_need_every_table_and_the_rules():
    stage = {"width": 8, "depths": [1], "kernels": [3, 5], "expand": [1, 2]}
    space = build([stage], forbidden=[{"kernel": 5, "channels": 8}])
    assert space.block_sizes.tolist() == [4]  # (3, 8), (3, 16), (5, 8), (5, 16)
    inf = np.inf
    tables = [
        CostTable("x", "", space, 0.0, (np.array(costs),))
        for costs in ([1.0, inf, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0])
    ]
    expected = {0: [1, 1, 0, 1], 1: [1, 0, 0, 1], 2: [1, 0, 0, 1]}
    for n, mask in expected.items():
        np.testing.assert_array_equal(feasible_options(space, tables[:n]), [np.array(mask, bool)])


def test_an_infeasible_block_counts_only_while_it_is_active():
    space = load_space("imagenet")
    X = space.largest()[None].copy()
    stage, block = 1, 7  # last block of the second stage
    X[0, space.block_columns[block]] = [2, 0, 0, 0, 0, 0]  # kernel 7, 4 bits everywhere
    shallow = X.copy()
    shallow[0, space.depth_columns[stage]] = 0
    for name in ("latency", "energy"):
        costs = cost_table(space, name)(np.concatenate([X, shallow]))
        np.testing.assert_array_equal(np.isfinite(costs), [False, True])


# -- extremes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "low", "high"), [("latency", "2.959", "46.79"), ("energy", "5.107", "41.60")]
)
def test_reachable_range_on_imagenet(name, low, high):
    space = load_space("imagenet")
    table = cost_table(space, name)
    feasible = feasible_options(space, [table])
    for find, text in ((minimum, low), (maximum, high)):
        value, row = find(table, feasible)
        assert f"{value:#.4g}" == text
        assert table(row[None])[0] == value
        assert space.valid(row[None])[0]


STAGES = [
    {"width": 8, "stride": 2, "depths": [1, 3], "kernels": [3, 7], "expand": [1, 1]},
    {"width": 16, "depths": [1, 2], "kernels": [3], "expand": [1, 1]},
]
BITS = {"w_pw": [8], "a_pw": [8], "w_dw": [4], "a_dw": [4, 8]}
RULES = ([], [{"kernel": 7, "a_dw": 4}], [{"kernel": 3, "a_dw": 8}, {"kernel": 7, "a_dw": 4}])
SMALL = [build(STAGES, bits=BITS, forbidden=rules) for rules in RULES]
small = pytest.mark.parametrize("space", SMALL, ids=["no rule", "one rule", "two rules"])


def every_network(space):
    X = np.array(list(product(*(range(n) for n in space.n_options))))
    return X[space.valid(X)]


@small
@pytest.mark.parametrize("name", ["latency", "energy", "bitops", "params", "size"])
def test_extremes_equal_brute_force(space, name):
    table, latency = cost_table(space, name), cost_table(space, "latency")
    X = every_network(space)
    costs = table(X[np.isfinite(latency(X))])
    feasible = feasible_options(space, [table, latency])
    assert minimum(table, feasible)[0] == pytest.approx(costs.min(), rel=1e-12)
    assert maximum(table, feasible)[0] == pytest.approx(costs.max(), rel=1e-12)


@given(which=st.integers(0, len(SMALL) - 1), seed=st.integers(0, 2**32), gaps=st.floats(0, 0.8))
@settings(deadline=None, max_examples=60)
def test_extremes_of_any_table_equal_brute_force(which, seed, gaps):
    """Tables with negative costs and blocks that cannot run make every depth the best at times."""
    space = SMALL[which]
    rng = np.random.default_rng(seed)
    blocks = tuple(
        np.where(rng.random(size) < gaps, np.inf, rng.normal(size=size))
        for size in space.block_sizes
    )
    table = CostTable("x", "", space, 1.5, blocks)
    feasible = feasible_options(space, [table])
    costs = table(NETWORKS[which])
    costs = costs[np.isfinite(costs)]
    if not len(costs):
        for find in (minimum, maximum):
            with pytest.raises(UserError, match="no network of space 'small' can run"):
                find(table, feasible)
        return
    for find, expected in ((minimum, costs.min()), (maximum, costs.max())):
        value, row = find(table, feasible)
        assert value == pytest.approx(expected, rel=1e-12, abs=1e-12)
        assert table(row[None])[0] == value
        np.testing.assert_array_equal(space.canonical(row[None])[0], row)
        assert space.valid(row[None])[0]


NETWORKS = [every_network(space) for space in SMALL]


def test_fixed_layers_that_cannot_run_leave_no_network():
    space = build(STAGES, bits=BITS | {"fixed": 16})
    table = cost_table(space, "latency")
    assert np.isinf(table(space.smallest()[None]))[0]
    for find in (minimum, maximum):
        with pytest.raises(UserError, match=r"its fixed layers cannot; lower bits\.fixed"):
            find(table, feasible_options(space, [table]))


# -- distribution ----------------------------------------------------------------------------------

BIN = 50
"""Cycles to a bin of the exact distribution."""


def exact_share(space, table, limits_ms):
    """Share of uniform draws within each limit, by convolving the costs of independent blocks.

    Draws that break a rule or cannot run meet no limit.
    """
    n_bins = int(max(limits_ms) * 5e5 / BIN) + 1

    def distribution(costs):
        numbers = np.round(costs[np.isfinite(costs)] * 5e5 / BIN).astype(np.int64)
        kept = numbers[numbers < n_bins]
        return np.bincount(kept, minlength=n_bins) / len(costs)

    total = np.zeros(n_bins)
    total[round(table.fixed * 5e5 / BIN)] = 1.0
    block = 0
    for stage in space.spec.stages:
        ahead, mixture = total, np.zeros(n_bins)
        for depth in range(1, max(stage.depths) + 1):
            ahead = fftconvolve(ahead, distribution(table.blocks[block]))[:n_bins]
            block += 1
            if depth in stage.depths:
                mixture += ahead / len(stage.depths)
        total = mixture
    return [total[: int(limit * 5e5 / BIN) + 1].sum() for limit in limits_ms]


def test_share_of_uniform_draws_within_a_limit():
    """A draw over all options, of which 84.4% break the 7x7 rule and so meet no limit.

    The published shares, 8.0% at 12.8 ms and 0.90% at 8.4 ms, are estimates from draws: the exact
    ones are 7.92% and 0.863%.
    """
    space = load_space("imagenet")
    table = cost_table(space, "latency")
    limits = (12.8, 8.4)
    exact = exact_share(space, table, limits)
    assert exact == pytest.approx([0.080, 0.0090], rel=0.05)
    n, rng = 200_000, np.random.default_rng(2024)
    everything = [np.ones(size, dtype=bool) for size in space.block_sizes]
    parts = [space.sample(n // 10, rng, usable=everything) for _ in range(10)]
    latency = np.concatenate([table(X) for X in parts])
    valid = np.concatenate([space.valid(X) for X in parts])
    np.testing.assert_array_equal(np.isfinite(latency), valid)
    assert f"{100 * (1 - valid.mean()):.1f}" in ("84.3", "84.4", "84.5")
    for limit, share in zip(limits, exact, strict=True):
        deviation = np.sqrt(share * (1 - share) / n)
        assert (latency <= limit).mean() == pytest.approx(share, abs=4 * deviation)


# -- names -----------------------------------------------------------------------------------------


def refused(*args, **kwargs):
    with pytest.raises(UserError) as caught:
        cost_table(*args, **kwargs)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_unknown_names_are_answered_with_the_known():
    space = load_space("digits")
    assert (
        refused(space, "speed")
        == "unknown cost 'speed'; known: latency, energy, macs, bitops, params, size, memory"
    )
    for name in cost_names():
        message = refused(space, name, device="abacus")
        assert message.startswith("unknown device 'abacus'; known: bitfusion")

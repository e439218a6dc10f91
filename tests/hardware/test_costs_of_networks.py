"""Costs that need no device, against torch's flop counter and networks cut out of a supernet."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from apq_moo.errors import UserError
from apq_moo.hardware import (
    CostBatch,
    cost_table,
    feasible_options,
    maximum,
    minimum,
)
from apq_moo.hardware.breakdown import breakdown
from apq_moo.problems import APQProblem
from apq_moo.space import Space, SpaceSpec, load_space
from apq_moo.space.spec import ROLES
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.plain import FakeQuantise, PlainConv, cut_out
from apq_moo.supernet.range_fitting import fit_ranges

FULL = {
    "name": "full",
    "input_size": 12,
    "input_channels": 3,
    "classes": 7,
    "kernels": [3, 5, 7],
    "expand": [1, 4],
    "bits": {role: [2, 4, 8] for role in ROLES},
    "stem": {"channels": 8, "kernel": 3, "stride": 1},
    "first_block": {"channels": 8, "kernel": 3},
    "stages": [
        {"width": 8, "stride": 1, "depths": [1, 2]},
        {"width": 16, "stride": 2, "depths": [1, 2, 3]},
    ],
    "feature_mix": {"channels": 24},
}
BARE = {
    **{key: value for key, value in FULL.items() if key not in ("first_block", "feature_mix")},
    "name": "bare",
    "input_size": 7,
    "stages": [{"width": 24, "stride": 1, "depths": [1]}, *FULL["stages"]],
}
SPACES = {
    "digits": load_space("digits"),
    "full": Space(SpaceSpec.from_dict(FULL)),
    "bare": Space(SpaceSpec.from_dict(BARE)),
}


def networks(space, n, seed=0):
    rows = [space.smallest(), space.largest(), *space.sample(n, np.random.default_rng(seed))]
    return np.array(rows)


def pictures(space, n=2):
    spec = space.spec
    shape = (n, spec.input_channels, spec.input_size, spec.input_size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=SPACES)
def cut(request):
    """A space, genotypes of it, and the networks cut out of a supernet."""
    space = SPACES[request.param]
    net = Supernet(space)
    X = networks(space, 6)
    x = pictures(space)
    fit_ranges(net, x, subnets=2)
    return space, X, [cut_out(net, subnet, x, quantised=True) for subnet in space.decode(X)]


def test_macs_are_half_of_torchs_flops(cut):
    space, X, plains = cut
    counted = []
    for plain in plains:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            plain(pictures(space, 1))
        counted.append(counter.get_total_flops() / 2 / 1e6)
    np.testing.assert_allclose(cost_table(space, "macs")(X), counted, rtol=1e-12)


def test_parameters_and_sizes_are_the_cut_out_networks(cut):
    space, X, plains = cut
    params, sizes = [], []
    for plain, subnet in zip(plains, space.decode(X), strict=True):
        params.append(sum(value.numel() for value in plain.parameters()) / 1e6)
        convs = [part for part in plain.modules() if isinstance(part, nn.Conv2d)]
        bits = sum(
            conv.weight.numel() * layer.w_bits
            for conv, layer in zip(convs, space.layers(subnet), strict=True)
        )
        rest = sum(value.numel() for value in plain.parameters() if value.ndim == 1)
        rest += space.spec.classes  # what the classifier's integers are multiplied by
        sizes.append((bits + 32 * rest) / 8 / 1024)
    np.testing.assert_allclose(cost_table(space, "params")(X), params, rtol=1e-12)
    np.testing.assert_allclose(cost_table(space, "size")(X), sizes, rtol=1e-12)


# -- peak activation memory ------------------------------------------------------------------------


def watched_peak(plain, space):
    """The peak in KiB, from the tensors that a cut-out network's layers really read and write."""
    between = space.spec.between_bits
    peaks, record = [], []

    def watch(module, inputs, output):
        quantiser = next(part for part in module if isinstance(part, FakeQuantise))
        record.append((inputs[0][0].numel(), output[0].numel(), quantiser.bits))

    handles = [
        part.register_forward_hook(watch) for part in plain.modules() if isinstance(part, PlainConv)
    ]
    with torch.no_grad():
        plain(pictures(space, 1))
    for handle in handles:
        handle.remove()
    steps = iter(record)
    for number, part in enumerate(plain.features):
        group = [next(steps) for module in part.modules() if isinstance(module, PlainConv)]
        # Bits of the tensors: the group's input, between its layers, and its output.
        bits = [between if number else 8, *(entry[2] for entry in group[1:]), between]
        held = group[0][0] * between if getattr(part, "shortcut", False) else 0
        for i, (n_in, n_out, _) in enumerate(group):
            last = i == len(group) - 1  # whose output takes the place of what is held
            peaks.append(n_in * bits[i] + n_out * bits[i + 1])
            peaks[-1] += held if i and not last else 0
    peaks.append(record[-2][1] * between + next(steps)[1] * 32)
    return max(peaks) / 8 / 1024


def test_memory_is_the_peak_of_the_cut_out_network(cut):
    space, X, plains = cut
    expected = [watched_peak(plain, space) for plain in plains]
    np.testing.assert_allclose(cost_table(space, "memory")(X), expected, rtol=1e-12)
    assert len(set(expected)) > 2


BY_HAND = {
    **{key: FULL[key] for key in ("name", "input_channels", "input_size", "classes", "stem")},
    "bits": {"w_pw": [8], "a_pw": [2], "w_dw": [8], "a_dw": [4]},
}


def test_memory_by_hand():
    """One block 8 -> 16 on 12x12, stride 1, no shortcut: 16 bits between, 4 and 2 within."""
    stage = {"width": 16, "stride": 1, "depths": [1], "kernels": [3], "expand": [4, 4]}
    bits = BY_HAND["bits"] | {"between": 16}
    space = Space(SpaceSpec.from_dict(BY_HAND | {"bits": bits, "stages": [stage]}))
    area = 12 * 12
    expand = 8 * area * 16 + 32 * area * 4
    depthwise = 32 * area * 4 + 32 * area * 2
    project = 32 * area * 2 + 16 * area * 16
    expected = max(expand, depthwise, project) / 8192
    assert cost_table(space, "memory")(space.smallest()[None]) == pytest.approx([expected])


def test_memory_by_hand_of_a_shortcut_and_of_a_picture():
    """A block 8 -> 8 that adds in place; then a picture larger than all that follows."""
    stage = {"width": 8, "stride": 1, "depths": [1], "kernels": [3], "expand": [1, 1]}
    bits = BY_HAND["bits"] | {"between": 8}
    data = BY_HAND | {"bits": bits, "stages": [stage]}
    space, area = Space(SpaceSpec.from_dict(data)), 12 * 12
    depthwise = 8 * area * (8 + 4 + 2)  # what is kept, what enters, what leaves
    assert cost_table(space, "memory")(space.smallest()[None]) == depthwise / 8192
    space = Space(SpaceSpec.from_dict(data | {"stem": {"channels": 8, "kernel": 3, "stride": 4}}))
    assert cost_table(space, "memory")(space.smallest()[None]) == (3 * area + 8 * 9) * 8 / 8192


def test_memory_extremes_by_brute_force():
    space = load_space("digits")
    table = cost_table(space, "memory")
    feasible = feasible_options(space, [table])
    X = space.sample(20_000, np.random.default_rng(0))
    costs = table(X)
    low, row = minimum(table, feasible)
    high, top = maximum(table, feasible)
    assert low <= costs.min()
    assert costs.max() <= high
    assert table(row[None]) == [low]
    assert table(top[None]) == [high]
    # Every stage at its smallest depth and cheapest block; the most expensive block alone.
    stages = np.cumsum([0, *(max(stage.depths) for stage in space.spec.stages)])[:-1]
    assert low == max(table.fixed, *(table.blocks[b].min() for b in stages))
    assert high == max(table.fixed, *(costs.max() for costs in table.blocks))


def test_a_limit_on_memory_binds_searches():
    free = APQProblem("digits", ("memory", "macs"))
    low = minimum(cost_table(free.space, "memory"), free.feasible)[0]
    limit = 1.3 * low
    problem = APQProblem("digits", ("macs",), {"memory": limit})
    X = problem.region.sample(200, np.random.default_rng(0))
    assert len(X) == 200
    memory = cost_table(free.space, "memory")(X)
    assert (memory <= limit).all()
    assert memory.max() > 0.95 * limit
    random = free.space.sample(2000, np.random.default_rng(1))
    inside = cost_table(free.space, "memory")(random) <= limit
    np.testing.assert_array_equal(problem.region.contains(random), inside)
    assert 0 < inside.sum() < 2000
    G = problem.evaluate(random, return_values_of=["G"])
    np.testing.assert_array_equal((G <= 0).all(axis=1), inside)
    repaired = problem.region.repair(random, np.random.default_rng(2))
    assert problem.region.contains(repaired).all()
    np.testing.assert_array_equal(repaired[inside], random[inside])
    with pytest.raises(UserError, match=r"has memory <= .* the smallest reachable memory is"):
        APQProblem("digits", ("macs",), {"memory": 0.9 * low})


def test_limits_on_memory_and_sums_hold_together():
    free = APQProblem("digits", ("memory", "latency"))
    sample = free.evaluate_raw(free.space.sample(1000, np.random.default_rng(3)))
    limits = {name: float(np.quantile(values, 0.2)) for name, values in sample.items()}
    problem = APQProblem("digits", ("macs",), limits)
    X = problem.region.sample(100, np.random.default_rng(0))
    for name, limit in limits.items():
        assert (cost_table(free.space, name)(X) <= limit).all()


# -- gathering -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["imagenet", "digits", "mobilenet"])
def test_a_batch_equals_its_tables(name):
    """Over more rows than are gathered at a time, and with repeated and mixed kinds of cost."""
    space = load_space(name)
    device = "bitfusion-large"
    names = ("latency", "memory", "macs", "size")
    tables = [cost_table(space, cost, device) for cost in names]
    X = space.sample(9001, np.random.default_rng(0))
    values = CostBatch(tables)(X)
    for column, table in zip(values.T, tables, strict=True):
        np.testing.assert_array_equal(column, table(X))
        plain = [
            [costs[i] for costs, i in zip(table.blocks, row, strict=True) if i < len(costs)]
            for row in space.block_index(X[-50:]).tolist()
        ]
        total = max if table.combine == "max" else sum
        expected = [total([table.fixed, *row]) for row in plain]
        np.testing.assert_allclose(column[-50:], expected, rtol=1e-12)
    assert CostBatch(tables)(X[:0]).shape == (0, len(tables))
    assert CostBatch([])(X).shape == (9001, 0)


@pytest.mark.parametrize("name", ["imagenet", "digits", "mobilenet"])
def test_block_index_by_a_slow_twin(name):
    space = load_space(name)
    X = np.vstack([networks(space, 4200), space.n_options - 1])
    index = space.block_index(X)
    active = space.active(X)
    for row in [0, 1, 2, 2047, 2048, 2049, 4095, 4096, len(X) - 1]:
        for b, plan in enumerate(space.plans):
            number = 0
            for column, n in zip(space.block_columns[b], plan.shape, strict=True):
                number = number * n + int(X[row, column])
            assert index[row, b] == (number if active[row, b] else plan.n_configurations)


def test_block_index_stays_exact_in_the_largest_spaces():
    """Just under 2^24 configurations of one block, the limit of what a space may have."""
    bits = list(range(2, 17))
    space = Space(
        SpaceSpec.from_dict(
            {
                "name": "wide",
                "input_size": 8,
                "input_channels": 1,
                "classes": 2,
                "channel_step": 1,
                "bits": {"w_pw": bits, "a_pw": bits, "w_dw": bits, "a_dw": bits},
                "stem": {"channels": 165},
                "stages": [
                    {"width": 8, "depths": [1], "kernels": [3], "expand": [1, 2.99]},
                ],
            }
        )
    )
    size = int(space.block_sizes[0])
    assert 2**24 - 2**18 < size <= 2**24
    last = np.arange(size - 5000, size)
    X = np.zeros((5000, space.n_var), dtype=np.int64)
    X[:, space.block_columns[0]] = space.block_genes(0, last)
    np.testing.assert_array_equal(space.block_index(X)[:, 0], last)


# -- breakdowns ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["latency", "energy", "macs", "params", "size", "bitops"])
@pytest.mark.parametrize("preset", ["imagenet", "digits"])
def test_breakdowns_add_up(preset, name):
    space = load_space(preset)
    X = space.sample(3, np.random.default_rng(0))
    for subnet, total in zip(space.decode(X), cost_table(space, name)(X), strict=True):
        found = breakdown(space, subnet, name)
        assert sum(found.values()) == pytest.approx(total, rel=1e-12)
        order = [layer.name for layer in space.layers(subnet) if layer.name in found]
        assert list(found) == order


def test_memory_cannot_be_broken_down():
    space = load_space("digits")
    with pytest.raises(UserError, match="memory does not add up over layers"):
        breakdown(space, space.decode(space.smallest())[0], "memory")


def floating(bits=(32,)):
    """The mobilenet space in floating point, or in a choice of bits."""
    return Space(
        SpaceSpec(**load_space("mobilenet").spec.__dict__ | {"bits": dict.fromkeys(ROLES, bits)})
    )


def test_float_layers_count_32_bits():
    space = floating((8, 32))
    net = space.decode(space.largest())[0]
    layers = [layer for layer in space.layers(net) if layer.component == "block"]
    assert {(layer.w_bits, layer.a_bits) for layer in layers} == {(32, 32)}
    fixed = sum(layer.macs for layer in space.fixed_layers()) * 8 * 8
    expected = (fixed + sum(layer.macs for layer in layers) * 32 * 32) / 1e9
    assert cost_table(space, "bitops")(space.largest()[None]) == pytest.approx([expected])


def test_an_array_runs_no_floating_point():
    with pytest.raises(UserError, match="no network of space 'mobilenet' can run"):
        APQProblem(floating(), ("latency",))

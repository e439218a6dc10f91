"""Sampling under the published budgets, checked against costs of single layers.

Nothing here reads cost tables: networks are decoded, and what their layers cost is added up.
"""

from functools import cache
from itertools import accumulate, product

import numpy as np
import pytest

from apq_moo.hardware import find_device
from apq_moo.problems import APQProblem
from apq_moo.space import Block, load_space

# The last of each is 1.02 times the least that is reachable.
LIMITS = [
    ("latency", 12.80),
    ("latency", 8.40),
    ("latency", 6.11),
    ("latency", 3.02),
    ("energy", 9.14),
    ("energy", 5.21),
]

# Where only some depths fit, or only with cheap blocks in the other stages.
BETWEEN = [("latency", 3.3), ("latency", 4.0), ("energy", 5.6), ("energy", 6.0)]


@pytest.fixture(scope="module")
def space():
    return load_space("imagenet")


@pytest.fixture(scope="module")
def device():
    return find_device("bitfusion")


@cache
def region(name, limit):
    return APQProblem("imagenet", (name,), {name: limit}).region


def fixed_cost(device, space, name):
    return sum(part[name] for part in device.fixed_parts(space).values())


def costs_by_layer(device, space, X, name):
    """Costs of networks, added up layer by layer; inf where the device cannot run one."""
    networks = [
        [layer for layer in space.layers(subnet) if layer.component == "block"]
        for subnet in space.decode(X)
    ]
    costs = device.layer_costs([layer for layers in networks for layer in layers])[name]
    pieces = np.split(costs, np.cumsum([len(layers) for layers in networks])[:-1])
    return fixed_cost(device, space, name) + np.array([sum(piece) for piece in pieces])


@pytest.fixture(scope="module")
def least_by_depth(space, device):
    """For both costs, the least cost of each stage at each of its depths.

    A block's pointwise and depthwise bits are chosen on their own, for each number of channels.
    """
    bits = list(product((4, 6, 8), repeat=2))
    cheapest = {"latency": [], "energy": []}
    for plan in space.plans:
        channels, kernels = plan.options["channels"], plan.options["kernel"]
        layers = [
            layer
            for mid, kernel, (w, a) in product(channels, kernels, bits)
            for layer in plan.layers(Block(plan.stage, kernel, mid, w, a, w, a))
        ]
        costs = device.layer_costs(layers)
        for name, found in cheapest.items():
            expand, depthwise, project = (
                costs[name].reshape(len(channels), len(kernels), len(bits), 3).transpose(3, 0, 1, 2)
            )
            pointwise = (expand + project)[:, 0].min(axis=1)
            found.append((pointwise + depthwise.min(axis=(1, 2))).min())
    result = {}
    for name, found in cheapest.items():
        stages = [[] for _ in space.spec.stages]
        for plan, cost in zip(space.plans, found, strict=True):
            stages[plan.stage].append(cost)
        result[name] = [
            {depth: sums[depth - 1] for depth in stage.depths}
            for stage, sums in zip(
                space.spec.stages, map(list, map(accumulate, stages)), strict=True
            )
        ]
    return result


@pytest.fixture(scope="module")
def allowed(space, device, least_by_depth):
    """The depths of each stage that fit under a limit, with the least everywhere else."""

    def find(name, limit):
        stages = least_by_depth[name]
        least = fixed_cost(device, space, name) + sum(min(costs.values()) for costs in stages)
        return [
            {depth for depth, cost in costs.items() if least - min(costs.values()) + cost <= limit}
            for costs in stages
        ]

    return find


def depths_of(space, X):
    """Depths of each stage that occur among networks, counted in decoded ones."""
    stages = [set() for _ in space.spec.stages]
    for subnet in space.decode(X):
        counts = np.bincount([block.stage for block in subnet.blocks], minlength=len(stages))
        for found, count in zip(stages, counts.tolist(), strict=True):
            found.add(count)
    return stages


def check_feasible(device, space, X, name, limit):
    assert len({tuple(row) for row in X.tolist()}) == len(X)
    costs = costs_by_layer(device, space, X, name)
    assert (costs <= limit).all()
    for subnet in space.decode(X):
        assert not any(block.kernel == 7 and block.a_dw == 4 for block in subnet.blocks)
    return costs


@pytest.mark.parametrize(("name", "least"), [("latency", 2.959), ("energy", 5.107)])
def test_the_tightest_limits_are_just_above_the_least_cost(
    space, device, least_by_depth, name, least
):
    stages = least_by_depth[name]
    found = fixed_cost(device, space, name) + sum(min(costs.values()) for costs in stages)
    assert found == pytest.approx(least, abs=5e-4)
    tightest = min(limit for cost, limit in LIMITS if cost == name)
    assert tightest / found == pytest.approx(1.02, abs=2e-3)


@pytest.mark.parametrize(("name", "limit"), LIMITS)
def test_a_hundred_networks_are_distinct_and_feasible_and_have_every_depth(
    space, device, allowed, name, limit
):
    """Every stage's depths fit on their own at these limits, so that they are equally likely.

    A hundred networks then lack one of 15 depths with a probability of 15 (2/3)^100 = 4e-17.
    """
    expected = allowed(name, limit)
    assert sum(map(len, expected)) == (6 if limit in {3.02, 5.21} else 16)
    for seed in range(5):
        X = region(name, limit).sample(100, np.random.default_rng(seed))
        assert X.shape == (100, space.n_var)
        check_feasible(device, space, X, name, limit)
        assert depths_of(space, X) == expected


@pytest.mark.parametrize(("name", "limit"), BETWEEN)
def test_depths_that_fit_only_with_cheap_blocks_elsewhere_are_drawn(
    space, device, allowed, name, limit
):
    """The rarest of them has a share of 6 %: a thousand networks hold it, a hundred mostly do."""
    expected = allowed(name, limit)
    assert 6 < sum(map(len, expected)) <= 16
    X = region(name, limit).sample(1000, np.random.default_rng(0))
    assert len(X) == 1000
    check_feasible(device, space, X, name, limit)
    assert depths_of(space, X) == expected


@pytest.mark.parametrize(("name", "limit"), [("latency", 6.11), ("energy", 9.14)])
def test_sampling_uses_what_the_limit_leaves(space, device, name, limit):
    """Networks are not crowded at the cheapest one: half of them use 90 % of the budget."""
    X = region(name, limit).sample(200, np.random.default_rng(0))
    assert np.median(check_feasible(device, space, X, name, limit)) > 0.9 * limit

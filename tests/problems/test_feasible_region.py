"""Sampling and repair under limits, against enumeration and exact solving."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from apq_moo.errors import UserError
from apq_moo.hardware import cost_table, feasible_options
from apq_moo.problems import BlockOptions, FeasibleRegion
from apq_moo.space import Space, load_space


def random_tables(space, table_of, rng, names=("latency", "energy")):
    return [
        table_of(space, [rng.integers(1, 30, size=n) for n in space.block_sizes], 5.0, name, "u")
        for name in names
    ]


def slow_costs(table, networks):
    """Sums over active blocks, one network at a time."""
    space = table.space
    totals = []
    for row, active in zip(networks, space.active(networks), strict=True):
        total = table.fixed
        for b in np.flatnonzero(active):
            genes = tuple(row[space.block_columns[b]])
            total += table.blocks[b].reshape(space.plans[b].shape)[genes]
        totals.append(total)
    return np.array(totals)


def slow_members(space, networks, feasible, limits):
    inside = np.array(
        [
            all(
                feasible[b].reshape(space.plans[b].shape)[tuple(row[space.block_columns[b]])]
                for b in np.flatnonzero(active)
            )
            for row, active in zip(networks, space.active(networks), strict=True)
        ]
    )
    for table, limit in limits:
        inside &= slow_costs(table, networks) <= limit
    return inside


def as_set(X):
    return {tuple(row) for row in X.tolist()}


# -- the tiny space, enumerated --------------------------------------------------------------------


@pytest.fixture
def limited(tiny, tiny_networks, table_of):
    """Two limits that leave about a tenth of the tiny space, and all networks within them."""
    tables = random_tables(tiny, table_of, np.random.default_rng(8))
    tables[0].blocks[1][7] = np.inf
    feasible = feasible_options(tiny, tables)
    limits = [(table, np.quantile(slow_costs(table, tiny_networks), 0.3)) for table in tables]
    members = tiny_networks[slow_members(tiny, tiny_networks, feasible, limits)]
    assert 50 < len(members) < 400
    return FeasibleRegion(tiny, feasible, limits), members


def test_membership_equals_enumeration(limited, tiny_networks):
    region, members = limited
    assert as_set(tiny_networks[region.contains(tiny_networks)]) == as_set(members)


def test_sampling_reaches_every_member_and_nothing_else(limited):
    region, members = limited
    rng = np.random.default_rng(0)
    found = np.vstack([region.sample(40, rng) for _ in range(60)])
    assert as_set(found) == as_set(members)


def test_asking_for_more_than_there_are_gives_all(limited):
    region, members = limited
    found = region.sample(3000, np.random.default_rng(0))
    assert len(found) == len(members)
    assert as_set(found) == as_set(members)


@pytest.mark.parametrize("n_limits", [0, 1])
def test_members_of_equal_depths_are_equally_likely(tiny, tiny_networks, table_of, n_limits):
    tables = random_tables(tiny, table_of, np.random.default_rng(1))[:n_limits]
    feasible = feasible_options(tiny, tables)
    limits = [(table, np.quantile(slow_costs(table, tiny_networks), 0.25)) for table in tables]
    members = tiny_networks[slow_members(tiny, tiny_networks, feasible, limits)]
    region = FeasibleRegion(tiny, feasible, limits)
    rng = np.random.default_rng(2)
    # Rows of one small sample are almost independent; far fewer than there are members.
    found = np.vstack([region.sample(4, rng) for _ in range(1500)])
    for depth in (0, 1):
        kind, counts = np.unique(found[found[:, 0] == depth], axis=0, return_counts=True)
        n_members = (members[:, 0] == depth).sum()
        assert n_members > 4
        counts = np.append(counts, np.zeros(n_members - len(kind), dtype=int))
        assert chisquare(counts).pvalue > 1e-3
    share = (found[:, 0] == 1).mean()
    assert 0.4 < share < 0.6


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), quantile=st.floats(0.001, 0.6))
def test_repair_brings_everything_in_and_leaves_members_alone(seed, quantile):
    space = load_space("digits")
    tables = [cost_table(space, name) for name in ("latency", "size")]
    rng = np.random.default_rng(seed)
    probe = space.sample(300, rng)
    limits = [(table, float(np.quantile(table(probe), quantile)) * 1.2) for table in tables]
    feasible = feasible_options(space, tables)
    region = FeasibleRegion(space, feasible, limits)
    X = rng.integers(0, space.n_options, size=(50, space.n_var))
    repaired = region.repair(X, rng)
    assert slow_members(space, repaired, feasible, limits).all()
    np.testing.assert_array_equal(repaired, space.canonical(repaired))
    members = region.sample(20, rng)
    np.testing.assert_array_equal(region.repair(members, rng), members)
    again = region.repair(X, np.random.default_rng(1))
    np.testing.assert_array_equal(again, region.repair(X, np.random.default_rng(1)))


def test_repair_keeps_what_fits(tiny, table_of):
    """One block is too dear; the other, and the depth, are kept."""
    costs = [np.arange(16.0), np.zeros(16), np.arange(8.0)]
    table = table_of(tiny, costs)
    region = FeasibleRegion(tiny, feasible_options(tiny, [table]), [(table, 9.0)])
    X = np.zeros((200, tiny.n_var), dtype=int)
    X[:, 0] = 1
    X[:, tiny.block_columns[0]] = tiny.block_genes(0, 7)
    X[:, tiny.block_columns[1]] = tiny.block_genes(1, 7)
    X[:, tiny.block_columns[2]] = tiny.block_genes(2, 5)
    index = tiny.block_index(region.repair(X, np.random.default_rng(0)))
    np.testing.assert_array_equal(index[:, 1], 7)
    kept = (index == [7, 7, 5]).sum(axis=1)
    np.testing.assert_array_equal(kept, 2)
    # Which of the two dear blocks is given up is random; the other one leaves it 2 or 4.
    first_kept = index[:, 0] == 7
    assert set(index[first_kept, 2]) == {0, 1, 2}
    assert set(index[~first_kept, 0]) == {0, 1, 2, 3, 4}


# -- what limits allow, exactly --------------------------------------------------------------------


def brute_force_minimum(table, feasible, others=()):
    """Least cost over the networks of smallest depths under other limits."""
    space = table.space
    active = np.flatnonzero(space.active(space.smallest()[None])[0])
    best = np.inf
    for chosen in product(*(np.flatnonzero(feasible[b]) for b in active)):
        if all(
            t.fixed + sum(t.blocks[b][i] for b, i in zip(active, chosen, strict=True)) <= limit
            for t, limit in others
        ):
            cost = table.fixed + sum(
                table.blocks[b][i] for b, i in zip(active, chosen, strict=True)
            )
            best = min(best, cost)
    return best


@pytest.mark.parametrize("seed", range(12))
def test_two_limits_are_possible_exactly_where_enumeration_says(tiny, table_of, seed):
    rng = np.random.default_rng(seed)
    first, second = random_tables(tiny, table_of, rng)
    feasible = feasible_options(tiny, [first, second])
    least = brute_force_minimum(first, feasible)
    limit = least + int(rng.integers(0, 12))
    best = brute_force_minimum(second, feasible, [(first, limit)])
    region = FeasibleRegion(tiny, feasible, [(first, limit), (second, best)])
    found = region.sample(5, rng)
    assert len(found) >= 1
    assert (slow_costs(first, found) <= limit).all()
    assert (slow_costs(second, found) <= best).all()
    with pytest.raises(
        UserError,
        match=rf"energy <= {best - 1:g} u with latency <= {limit:g} u; the smallest reachable "
        rf"energy is {best:g} u: raise the limit",
    ):
        FeasibleRegion(tiny, feasible, [(first, limit), (second, best - 1)])
    with pytest.raises(UserError, match=rf"the smallest reachable latency is {least:g} u"):
        FeasibleRegion(tiny, feasible, [(first, least - 1), (second, 1e9)])


def test_a_limit_missed_by_less_than_the_solver_sees_is_still_respected(tiny, table_of):
    """The best choice breaks a limit by 1e-8 of it, within the integer solver's tolerance."""
    latency, energy = np.full((2, 16), 100.0)
    latency[:3], energy[:3] = (10.0000001, 9.0, 1.0), (1.0, 2.9, 10.0)
    others = [np.zeros(16), np.zeros(8)]
    tables = [
        table_of(tiny, [latency, *others], name="latency"),
        table_of(tiny, [energy, *others], name="energy"),
    ]
    limits = list(zip(tables, (10.0, 3.0), strict=True))
    region = FeasibleRegion(tiny, feasible_options(tiny, tables), limits)
    X = region.sample(5, np.random.default_rng(0))
    assert len(X) == 5
    assert set(tiny.block_index(X)[:, 0]) == {1}


def test_no_configuration_at_all_closes_deeper_stages(tiny, table_of):
    blocks = [np.ones(n) for n in tiny.block_sizes]
    blocks[1][:] = np.inf
    table = table_of(tiny, blocks)
    feasible = feasible_options(tiny, [table])
    for limits in ([], [(table, 2.0)]):
        region = FeasibleRegion(tiny, feasible, limits)
        X = region.sample(20, np.random.default_rng(0))
        assert len(X) == 20
        assert (X[:, 0] == 0).all()
        index = tiny.block_index(tiny.largest()[None])
        for repaired in (
            tiny.from_block_index(region.options.repair(index)),
            region.repair(tiny.largest()[None], np.random.default_rng(0)),
        ):
            assert repaired[0, 0] == 0
            assert region.contains(repaired).all()


def test_a_device_that_runs_nothing_is_named(tiny):
    feasible = [np.ones(n, dtype=bool) for n in tiny.block_sizes]
    feasible[2][:] = False
    with pytest.raises(UserError, match="supports no configuration of block 2"):
        BlockOptions(tiny, tuple(feasible))


# -- nearest feasible configurations ---------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.02, 0.95))
def test_repair_takes_the_fewest_steps(seed, share):
    space = load_space("digits")
    rng = np.random.default_rng(seed)
    feasible = [rng.random(n) < share for n in space.block_sizes]
    for mask in feasible:
        mask[rng.integers(len(mask))] = True
    options = BlockOptions(space, tuple(feasible))
    X = rng.integers(0, space.n_options, size=(10, space.n_var))
    index = options.repair(space.block_index(X))
    np.testing.assert_array_equal(index, options.repair(index))
    repaired = space.from_block_index(index)
    np.testing.assert_array_equal(space.active(repaired), space.active(X))
    assert options.feasible_blocks(index).all()
    for row, before, active in zip(repaired, X, space.active(X), strict=True):
        for b in np.flatnonzero(active):
            columns = space.block_columns[b]
            candidates = space.block_genes(b, np.flatnonzero(feasible[b]))
            steps = np.abs(candidates - before[columns]).sum(axis=1).min()
            assert np.abs(row[columns] - before[columns]).sum() == steps


# -- the ImageNet space on the accelerator ---------------------------------------------------------


@pytest.fixture(scope="module")
def imagenet():
    space = load_space("imagenet")
    tables = {name: cost_table(space, name) for name in ("latency", "energy")}
    return space, tables, feasible_options(space, list(tables.values()))


def possible_depths(table, feasible, limit):
    """For each stage, the depths that the cheapest blocks elsewhere allow."""
    space = table.space
    cheapest = np.array(
        [costs[mask].min() for costs, mask in zip(table.blocks, feasible, strict=True)]
    )
    stage_of = np.array([plan.stage for plan in space.plans])
    position = np.array([plan.position for plan in space.plans])
    shallow = [min(stage.depths) for stage in space.spec.stages]
    possible = []
    for number, stage in enumerate(space.spec.stages):
        depths = np.array(shallow)
        allowed = set()
        for depth in stage.depths:
            depths[number] = depth
            total = table.fixed + cheapest[position < depths[stage_of]].sum()
            if total <= limit:
                allowed.add(depth)
        possible.append(allowed)
    return possible


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("latency", 12.80),
        ("latency", 8.40),
        ("latency", 6.11),
        ("latency", 3.02),
        ("energy", 9.14),
        ("energy", 5.21),
    ],
)
def test_tight_limits_on_imagenet_are_sampled(imagenet, name, limit):
    space, tables, feasible = imagenet
    region = FeasibleRegion(space, feasible, [(tables[name], limit)])
    X = region.sample(100, np.random.default_rng(0))
    assert len(as_set(X)) == 100
    assert slow_members(space, X, feasible, [(tables[name], limit)]).all()
    np.testing.assert_array_equal(X, space.canonical(X))
    more = space.depths(region.sample(1000, np.random.default_rng(1)))
    seen = [set(column) for column in more.T.tolist()]
    assert seen == possible_depths(tables[name], feasible, limit)


def test_both_limits_of_a_deployment_are_sampled_together(imagenet):
    space, tables, feasible = imagenet
    limits = [(tables["latency"], 6.11), (tables["energy"], 9.14)]
    X = FeasibleRegion(space, feasible, limits).sample(100, np.random.default_rng(0))
    assert len(as_set(X)) == 100
    assert slow_members(space, X, feasible, limits).all()


def test_sampling_under_a_limit_equals_rejection(imagenet):
    """Depths fixed, so that both draw from the uniform distribution over the same networks."""
    space, _, _ = imagenet
    stages = tuple(replace(stage, depths=(max(stage.depths),)) for stage in space.spec.stages)
    deep = Space(replace(space.spec, stages=stages))
    table = cost_table(deep, "latency")
    feasible = feasible_options(deep, [table])
    rng = np.random.default_rng(0)
    X = np.vstack([deep.sample(20_000, rng) for _ in range(5)])
    costs = table(X)
    limit = float(np.quantile(costs, 0.02))
    rejected = X[costs <= limit]
    sampled = FeasibleRegion(deep, feasible, [(table, limit)]).sample(2000, rng)
    low, high = table(sampled) / limit, costs[costs <= limit] / limit
    assert abs(low.mean() - high.mean()) < 0.005
    assert abs(low.std() - high.std()) < 0.005
    columns = deep.block_columns
    difference = sampled[:, columns].mean(axis=0) - rejected[:, columns].mean(axis=0)
    deviation = rejected[:, columns].std(axis=0)
    assert (np.abs(difference) < 0.16 * deviation + 1e-9).all()  # 5 standard errors

"""Block tables against loops over blocks, and the topology of layers worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apq_moo.space import FIELDS, Space, SpaceSpec, load_space

NAMES = ("tiny", "digits", "fashion", "imagenet", "mobilenet")
twins = settings(deadline=None, max_examples=25)
anywhere = given(name=st.sampled_from(NAMES), seed=st.integers(0, 2**32 - 1))


def networks(space, seed, n=20):
    X = space.sample(n, np.random.default_rng(seed))
    return X, space.block_index(X)


@twins
@anywhere
def test_a_block_table_has_an_entry_for_each_configuration_and_one_more(name, seed):
    space, rng = load_space(name), np.random.default_rng(seed)
    layout = space.layout
    parts = [rng.integers(0, 100, size=(size, 2)) for size in space.block_sizes]
    table = layout.table(parts, inactive=-1)
    assert table.shape == (layout.length, 2)
    assert layout.length == sum(plan.n_configurations + 1 for plan in space.plans)
    for part, piece in zip(parts, layout.split(table), strict=True):
        np.testing.assert_array_equal(piece, [*part, [-1, -1]])
    _, index = networks(space, seed)
    found = layout.gather(table, index)
    for row, entries in zip(index, found, strict=True):
        for b, number in enumerate(row):
            wanted = [-1, -1] if number == len(parts[b]) else parts[b][number]
            np.testing.assert_array_equal(entries[b], wanted)


def test_an_entry_of_each_inactive_block():
    space = load_space("tiny")
    layout = space.layout
    table = layout.table([np.zeros(n, np.int64) for n in layout.sizes], inactive=layout.sizes)
    inactive = layout.gather(table, layout.sizes[None])
    np.testing.assert_array_equal(inactive, layout.sizes[None])
    assert table.sum() == layout.sizes.sum()


@pytest.mark.parametrize("name", NAMES)
def test_stages_have_their_blocks(name):
    space = load_space(name)
    layout = space.layout
    numbers = list(range(space.n_blocks))
    for stage, blocks in enumerate(layout.stage_blocks):
        assert numbers[blocks] == [b for b, plan in enumerate(space.plans) if plan.stage == stage]
        depths = space.spec.stages[stage].depths
        assert layout.depth_options[stage][: len(depths)].tolist() == list(depths)
        assert (layout.depth_options[stage][len(depths) :] == depths[-1]).all()
    assert [plan.block for plan in space.plans] == numbers
    assert layout.stage_of.tolist() == [plan.stage for plan in space.plans]
    assert layout.position.tolist() == [plan.position for plan in space.plans]


@twins
@anywhere
def test_depths_and_activity_by_counting(name, seed):
    space = load_space(name)
    layout = space.layout
    X, index = networks(space, seed)
    np.testing.assert_array_equal(layout.active(index), space.active(X))
    np.testing.assert_array_equal(layout.depths(index), space.depths(X))
    for row, genotype, depths, genes in zip(
        index, X, layout.depths(index), layout.depth_genes(index), strict=True
    ):
        for stage, offered in enumerate(space.spec.stages):
            blocks = [b for b, plan in enumerate(space.plans) if plan.stage == stage]
            depth = sum(row[b] < space.block_sizes[b] for b in blocks)
            assert depths[stage] == depth
            assert offered.depths[genes[stage]] == depth
            column = space.depth_columns.get(stage)
            assert genes[stage] == (0 if column is None else genotype[column])


@twins
@anywhere
def test_cutting_leaves_the_first_blocks_of_each_stage(name, seed):
    space = load_space(name)
    _, index = networks(space, seed)
    depths = np.random.default_rng(seed).integers(0, 5, size=(len(index), len(space.spec.stages)))
    cut = space.layout.cut(index, depths)
    for row, before, depth in zip(cut, index, depths, strict=True):
        for b, plan in enumerate(space.plans):
            kept = plan.position < depth[plan.stage]
            assert row[b] == (before[b] if kept else space.block_sizes[b])


@pytest.mark.parametrize("name", ["tiny", "digits", "mobilenet"])
def test_genes_count_up_like_an_odometer(name):
    space = load_space(name)
    layout = space.layout
    for plan, genes in zip(space.plans, layout.split(layout.genes), strict=True):
        wanted = [[0] * len(FIELDS)]
        while len(wanted) < plan.n_configurations:
            gene, f = list(wanted[-1]), len(FIELDS) - 1
            while gene[f] == plan.shape[f] - 1:
                gene[f], f = 0, f - 1
            gene[f] += 1
            wanted.append(gene)
        np.testing.assert_array_equal(genes, [*wanted, [0] * len(FIELDS)])
        np.testing.assert_array_equal(
            np.array(wanted) @ layout.strides[plan.block], np.arange(plan.n_configurations)
        )


@twins
@anywhere
def test_numbering_inverts_the_genes(name, seed):
    space = load_space(name)
    rng = np.random.default_rng(seed)
    index = rng.integers(0, space.block_sizes, size=(9, space.n_blocks))
    genes = space.layout.gather(space.layout.genes, index)
    np.testing.assert_array_equal(space.layout.number(genes.reshape(9, -1)), index)


@twins
@anywhere
def test_a_subnet_finds_its_blocks_by_its_stages(name, seed):
    space = load_space(name)
    X, _ = networks(space, seed, 5)
    for subnet, active in zip(space.decode(X), space.active(X), strict=True):
        layers = space.layers(subnet)
        blocks = [layer.block for layer in layers if layer.block is not None]
        assert blocks == np.flatnonzero(active).repeat(3).tolist()
    np.testing.assert_array_equal(space.encode(space.decode(X)), X)


# -- topology --------------------------------------------------------------------------------------


def topology(layer):
    return (
        *(layer.name, layer.part, layer.block, layer.place, layer.activation),
        *(layer.opens_shortcut, layer.closes_shortcut, layer.between_bits),
    )


def test_topology_worked_by_hand(description):
    """Stem, first block 4 -> 8, block 8 -> 8 of stride 2, block 8 -> 8, block 8 -> 12, the tail."""
    space = Space(SpaceSpec.from_dict(description))
    layers = space.layers(space.decode(space.largest())[0])
    relu = "relu6"
    assert [topology(layer) for layer in layers] == [
        ("stem", "stem", None, "", relu, False, False, 32),
        ("first_block.depthwise", "first_block", None, "depthwise", relu, False, False, None),
        ("first_block.project", "first_block", None, "project", None, False, False, 32),
        ("block0.expand", "block0", 0, "expand", relu, False, False, None),
        ("block0.depthwise", "block0", 0, "depthwise", relu, False, False, None),
        ("block0.project", "block0", 0, "project", None, False, False, 32),
        ("block1.expand", "block1", 1, "expand", relu, True, False, None),
        ("block1.depthwise", "block1", 1, "depthwise", relu, False, False, None),
        ("block1.project", "block1", 1, "project", None, False, True, 32),
        ("block2.expand", "block2", 2, "expand", relu, False, False, None),
        ("block2.depthwise", "block2", 2, "depthwise", relu, False, False, None),
        ("block2.project", "block2", 2, "project", None, False, False, 32),
        ("feature_mix", "feature_mix", None, "", relu, False, False, 32),
        ("classifier", "classifier", None, "", None, False, False, None),
    ]
    assert [layer.leaves_block for layer in layers] == [
        layer.between_bits is not None for layer in layers
    ]


def test_a_first_block_of_equal_width_has_a_shortcut(description):
    description["first_block"] = {"channels": 4, "kernel": 3, "stride": 1}
    description["bits"]["between"] = 16
    space = Space(SpaceSpec.from_dict(description))
    _, depthwise, project, *_ = space.fixed_layers()
    assert (depthwise.opens_shortcut, depthwise.closes_shortcut) == (True, False)
    assert (project.opens_shortcut, project.closes_shortcut) == (False, True)
    assert (depthwise.between_bits, project.between_bits) == (None, 16)
    halved = Space(replace(space.spec, first_block=(4, 3, 2))).fixed_layers()
    assert not any(layer.opens_shortcut or layer.closes_shortcut for layer in halved)


@pytest.mark.parametrize("name", NAMES)
def test_shortcuts_open_and_close_in_turn_between_equal_shapes(name):
    space = load_space(name)
    opened = None
    for layer in space.layers(space.decode(space.largest())[0]):
        if layer.opens_shortcut:
            assert opened is None
            opened = layer
        if layer.closes_shortcut:
            assert opened.part == layer.part
            assert (opened.c_in, opened.size) == (layer.c_out, layer.size_out)
            opened = None
    assert opened is None

"""Which subnets a step trains."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from apq_moo.errors import UserError
from apq_moo.space import Space, SpaceSpec, load_space
from apq_moo.supernet.drawing import Drawing, macs, macs_tables, with_fewest_bits, with_widest_bits
from apq_moo.supernet.recipe import TrainConfig

BITS = {role: [2, 4, 8] for role in ("w_pw", "a_pw", "w_dw", "a_dw")}


def space_of(*rules, bits=BITS):
    stage = {"width": 8, "depths": [1, 2], "kernels": [3, 5, 7], "expand": [1, 3]}
    return Space(
        SpaceSpec.from_dict(
            {
                "name": "drawn",
                "input_size": 8,
                "input_channels": 1,
                "classes": 4,
                "channel_step": 4,
                "bits": bits | {"fixed": 8},
                "stem": {"channels": 8, "kernel": 3},
                "stages": [stage],
                "forbidden": list(rules),
            }
        )
    )


def test_widest_bits_are_uniform_and_nothing_else_changes():
    space = space_of(bits=BITS | {"a_dw": [4, 8]})
    X = space.sample(20_000, np.random.default_rng(0))
    found = with_widest_bits(space, X, 2, np.random.default_rng(1))
    assert np.array_equal(space.architecture(found), space.architecture(X))
    assert np.array_equal(space.canonical(found), found)
    bits = [tuple(b[3:]) for s in space.decode(found) for b in map(astuple_of, s.blocks)]
    counts = Counter(bits)
    assert len(counts) == 2**4
    assert {w for four in counts for w in four} == {4, 8}
    assert chisquare(list(counts.values())).pvalue > 0.01


def test_the_ends_are_trained_at_their_fewest_bits_too():
    space = load_space("digits")
    config = TrainConfig(steps=10, warmup_steps=0, quantised_steps=5, bit_sandwich=True)
    drawing = Drawing(space, config)
    plain = Drawing(space, replace(config, bit_sandwich=False))
    assert drawing.students(4) == plain.students(4)
    ends = [s for s in drawing.students(5) if s not in plain.students(5)]
    largest, smallest = space.decode(np.vstack([space.largest(), space.smallest()]))
    assert all(student.quantised for student in ends)
    for student, whole in zip(ends, (largest, smallest), strict=True):
        shape, expected = (
            [(b.stage, b.kernel, b.channels) for b in subnet.blocks]
            for subnet in (student.subnet, whole)
        )
        assert shape == expected
        assert {b for block in student.subnet.blocks for b in astuple_of(block)[3:]} == {3}


def test_fewest_bits_obey_the_rules():
    space = space_of({"kernel": [5, 7], "w_pw": 2})
    found = with_fewest_bits(space, np.vstack([space.largest(), space.smallest()]))
    large, small = space.decode(found)
    assert {block.w_pw for block in large.blocks} == {8}
    assert {block.w_pw for block in small.blocks} == {2}


def astuple_of(block):
    return (
        *(block.stage, block.kernel, block.channels),
        *(block.w_pw, block.a_pw, block.w_dw, block.a_dw),
    )


def test_widest_bits_obey_the_rules():
    space = space_of({"kernel": [5, 7], "w_pw": 8}, {"a_dw": 4, "w_dw": 8})
    X = space.sample(500, np.random.default_rng(0))
    found = with_widest_bits(space, X, 2, np.random.default_rng(1))
    assert space.valid(found).all()
    same = (space.block_index(found) == space.block_index(X)).all(axis=1)
    assert 0.05 < same.mean() < 0.95


def test_bits_widen_in_equal_parts(full):
    config = TrainConfig(steps=12, warmup_steps=0, quantised_steps=9, bit_phases=True)
    drawing = Drawing(full, replace(config, random_subnets=40))
    seen = []
    for step in range(2, 12):
        blocks = [b for s in drawing.students(step) if s.quantised for b in s.subnet.blocks]
        seen.append({w for block in blocks for w in (block.w_pw, block.a_dw)})
    assert seen == [set()] + [{8}] * 3 + [{4, 8}] * 3 + [{2, 4, 8}] * 3
    with pytest.raises(UserError, match="bit_phases is of the quantised phase"):
        replace(config, quantised_steps=0)


@pytest.mark.parametrize("name", ["digits", "fashion"])
def test_sizes_are_the_layers(name):
    space = load_space(name)
    X = space.sample(20, np.random.default_rng(0))
    wanted = [
        sum(layer.macs for layer in space.layers(s) if layer.block is not None)
        for s in space.decode(X)
    ]
    assert macs(space, macs_tables(space), X).tolist() == wanted


def test_running_means_are_of_the_students_with_an_option(full):
    config = TrainConfig(
        steps=9, warmup_steps=0, random_subnets=1, quantised_steps=9, sampling="best-up"
    )
    drawing = Drawing(full, config)
    _, floats, quantised = (full.encode([s.subnet])[0] for s in drawing.students(3))
    drawing.learn([1.0, 9.0, 3.0, 5.0])
    of_floats = full.active_genes(floats[None])[0]
    of_floats[full.bit_columns] = False
    genes = np.arange(full.n_var)
    for kind, row, counted, excess in (
        (0, floats, of_floats, 2.0),
        (1, quantised, full.active_genes(quantised[None])[0], 4.0),
    ):
        means = drawing.excess[kind]
        assert means[genes, row] == pytest.approx(np.where(counted, 0.05 * excess, 0.0))
        assert np.count_nonzero(means) == counted.sum()
    known = drawing.excess[0] != 0
    drawing.students(4)
    drawing.learn([1.0, 9.0, 3.0, 5.0])
    # Options that both students have move on by a share of what is missing.
    assert set(np.round(drawing.excess[0][known], 6)) == {0.1, 0.195}


@pytest.mark.parametrize(("sampling", "sign"), [("best-up", 1), ("worst-up", -1)])
@pytest.mark.parametrize("draw", ["uniform", "sizes"])
def test_candidates_of_like_size_are_chosen_by_their_losses(sampling, sign, draw):
    space = load_space("fashion")
    config = TrainConfig(steps=400, warmup_steps=0, random_subnets=4, draw=draw)
    plain, chosen = (Drawing(space, replace(config, sampling=s)) for s in ("random", sampling))
    kernels = [i for i, gene in enumerate(space.genes) if gene.kind == "kernel"]
    chosen.excess[:, kernels, 0] = 1.0  # the smallest kernels have lost most
    rows = [
        np.vstack([space.encode([s.subnet for s in d.students(t)[1:]]) for t in range(30)])
        for d in (plain, chosen)
    ]
    sizes = [np.log(macs(space, macs_tables(space), X)) for X in rows]
    assert np.abs(sizes[0] - sizes[1]).max() < 0.25
    assert np.abs(sizes[0] - sizes[1]).mean() < 0.03
    small = [np.mean((X[:, kernels] == 0)[space.active(X)]) for X in rows]
    assert sign * (small[0] - small[1]) > 0.04

"""The integer encoding against brute force on small spaces."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from apq_moo.errors import UserError
from apq_moo.space import FIELDS, ROLES, Block, Space, SpaceSpec, Subnet

ONE = {"w_pw": [4], "a_pw": [4], "w_dw": [8], "a_dw": [8]}
GAP = {"width": 8, "depths": [1, 3], "kernels": [3, 5], "expand": [1, 2]}
LAST = {"width": 16, "depths": [1], "kernels": [3], "expand": [1, 2]}


def build(stages, bits=None, forbidden=()):
    return Space(
        SpaceSpec.from_dict(
            {
                "name": "small",
                "input_size": 8,
                "input_channels": 1,
                "classes": 2,
                "channel_step": 8,
                "bits": ONE | (bits or {}),
                "stem": {"channels": 8},
                "stages": list(stages),
                "forbidden": list(forbidden),
            }
        )
    )


RULES = (
    {"kernel": 5, "a_dw": 4},
    {"channels": [16, 24], "w_pw": [4], "kernel": [3]},
)
# Each with its number of valid networks, worked by hand: options per block, then
# (sum over depths of options^depth) per stage.
SPACES = {
    "one block": (build([LAST]), 2),  # 8 or 16 channels
    "fixed depths": (build([GAP | {"depths": [2]}, LAST]), 4**2 * 2),
    "gap": (build([GAP, LAST], {"a_dw": [4, 8]}), (8 + 8**3) * 4),
    # Of 2 kernels x 2 channel numbers x 2 a_dw, kernel 5 with 4 bits is out: 6 of 8 are left.
    "rule": (build([GAP, LAST], {"a_dw": [4, 8]}, RULES[:1]), (6 + 6**3) * 4),
    # Kernel 3 with 16 channels falls as well (w_pw is always 4): 4 of 8, and 2 of 4, are left.
    "two rules": (build([GAP, LAST], {"a_dw": [4, 8]}, RULES), (4 + 4**3) * 2),
    # Rules that touch no option change nothing.
    "idle rule": (build([GAP], forbidden=[{"kernel": 7}, {"w_pw": 2, "kernel": 3}]), 4 + 4**3),
    "two depths": (
        build([GAP | {"depths": [1, 2]}, LAST | {"depths": [2, 3], "expand": [1, 1]}]),
        (4 + 4**2) * 2,  # first block of the last stage has 8 channels, its others 16
    ),
}
small = pytest.mark.parametrize(("space", "count"), SPACES.values(), ids=SPACES)


def all_rows(space):
    return np.array(list(itertools.product(*map(range, space.n_options))), dtype=np.int64)


def slow_decode(space, row):
    """One network read off the genes by name."""
    value = {g.name: g.options[i] for g, i in zip(space.genes, row, strict=True)}
    blocks, b = [], 0
    for number, stage in enumerate(space.spec.stages):
        depth = value.get(f"stage{number}.depth", stage.depths[0])
        for position in range(max(stage.depths)):
            if position < depth:
                fields = {name: value[f"block{b}.{name}"] for name in FIELDS}
                blocks.append(Block(stage=number, **fields))
            b += 1
    return Subnet(space.name, tuple(blocks))


def breaks_a_rule(space, subnet):
    return any(
        all(getattr(block, name) in values for name, values in rule.items())
        for rule in space.spec.forbidden
        for block in subnet.blocks
    )


@st.composite
def spaces(draw):
    """Small spaces of any build."""

    def subset(*options, largest=2):
        chosen = st.lists(st.sampled_from(options), min_size=1, max_size=largest, unique=True)
        return sorted(draw(chosen))

    stages = [
        {
            "width": draw(st.sampled_from([8, 16, 24])),
            "stride": draw(st.integers(1, 2)),
            "depths": subset(1, 2, 3, 4, largest=3),
            "kernels": subset(3, 5, 7),
            "expand": [1, draw(st.sampled_from([1, 1.5, 3]))],
        }
        for _ in range(draw(st.integers(1, 3)))
    ]
    bits = {role: subset(2, 4, 8, largest=3) for role in ROLES}
    rules = [{"kernel": 7, "a_dw": 2}, {"w_pw": [4, 8], "channels": [24]}]
    try:
        return build(stages, bits, rules[: draw(st.integers(0, 2))])
    except UserError:  # the rules may leave a block nothing
        return build(stages, bits)


def raw(space, n, seed):
    return np.random.default_rng(seed).integers(0, space.n_options, (n, space.n_var))


anywhere = given(space=spaces(), seed=st.integers(0, 2**32 - 1))


@small
def test_count_is_the_number_of_distinct_networks(space, count):
    rows = all_rows(space)
    networks = set(space.decode(rows))
    valid = {network for network in networks if not breaks_a_rule(space, network)}
    assert len(valid) == count
    assert space.count() == count
    canonical = np.unique(space.canonical(rows), axis=0)
    assert len(canonical) == len(networks)
    assert space.valid(canonical).sum() == count


@small
def test_architectures_are_counted(space, count):
    shapes = {
        tuple((block.stage, block.kernel, block.channels) for block in network.blocks)
        for network in space.decode(all_rows(space))
    }
    assert space.count_architectures() == len(shapes)
    assert len(np.unique(space.architecture(all_rows(space)), axis=0)) == len(shapes)


@settings(deadline=None, max_examples=60)
@anywhere
def test_decode_reads_the_genes(space, seed):
    X = raw(space, 8, seed)
    networks = space.decode(X)
    assert networks == [slow_decode(space, row) for row in X]
    assert space.valid(X).tolist() == [not breaks_a_rule(space, n) for n in networks]
    depths = [[sum(b.stage == s for b in n.blocks) for s in range(len(space.spec.stages))]
              for n in networks]  # fmt: skip
    assert space.depths(X).tolist() == depths
    assert space.active(X).sum(axis=1).tolist() == [len(n.blocks) for n in networks]


@settings(deadline=None, max_examples=60)
@anywhere
def test_canonical_form(space, seed):
    X = raw(space, 16, seed)
    canonical = space.canonical(X)
    assert np.array_equal(space.canonical(canonical), canonical)
    assert space.decode(canonical) == space.decode(X)
    active = space.active_genes(X)
    assert not canonical[~active].any()
    assert np.array_equal(canonical[active], X[active])


@settings(deadline=None, max_examples=60)
@anywhere
def test_equal_canonical_rows_are_equal_networks(space, seed):
    rng = np.random.default_rng(seed)
    X = raw(space, 12, seed)
    # Neighbours in one gene, active or not, make both answers common.
    Y = X.copy()
    column = rng.integers(0, space.n_var, len(X))
    Y[np.arange(len(X)), column] = rng.integers(0, space.n_options[column])
    rows = np.vstack([X, Y])
    same_row = (space.canonical(rows)[:, None] == space.canonical(rows)).all(axis=2)
    networks = space.decode(rows)
    assert same_row.tolist() == [[a == b for b in networks] for a in networks]


@settings(deadline=None, max_examples=60)
@anywhere
def test_networks_survive_a_round_trip(space, seed):
    X = space.canonical(raw(space, 8, seed))
    networks = space.decode(X)
    assert np.array_equal(space.encode(networks), X)
    texts = [json.dumps(network.to_dict()) for network in networks]
    assert np.array_equal(space.encode([json.loads(text) for text in texts]), X)
    assert [Subnet.from_dict(json.loads(text)) for text in texts] == networks


@settings(deadline=None, max_examples=60)
@anywhere
def test_block_index_enumerates_configurations(space, seed):
    X = raw(space, 16, seed)
    index = space.block_index(X)
    active = space.active(X)
    for b, plan in enumerate(space.plans):
        size = math.prod(len(plan.options[name]) for name in FIELDS)
        assert space.block_sizes[b] == size
        everything = space.block_genes(b, np.arange(size))
        in_order = itertools.product(*(range(len(plan.options[name])) for name in FIELDS))
        assert everything.tolist() == [list(genes) for genes in in_order]
        assert (index[~active[:, b], b] == size).all()
        here = active[:, b]
        genes = X[here][:, space.block_columns[b]]
        assert np.array_equal(everything[index[here, b]], genes)


@settings(deadline=None, max_examples=40)
@anywhere
def test_allowed_lists_what_no_rule_forbids(space, seed):
    for b, plan in enumerate(space.plans):
        genes = space.block_genes(b, np.arange(space.block_sizes[b]))
        free = []
        for i, row in enumerate(genes):
            chosen = {name: plan.options[name][g] for name, g in zip(FIELDS, row, strict=True)}
            network = Subnet(space.name, (Block(stage=plan.stage, **chosen),))
            if not breaks_a_rule(space, network):
                free.append(i)
        assert space.allowed(b).tolist() == free


@settings(deadline=None, max_examples=60)
@anywhere
def test_one_hot_layout(space, seed):
    X = raw(space, 6, seed)
    ones = [
        (name, b, option)
        for name in FIELDS
        for b, plan in enumerate(space.plans)
        for option in plan.options[name]
    ]
    assert space.n_inputs == len(ones)
    assert space.n_architecture_inputs == sum(name in FIELDS[:2] for name, _, _ in ones)
    rows = space.one_hot(X)
    index = space.one_hot_index(X)
    active = space.active(X)
    for i, network in enumerate(space.decode(X)):
        numbered = dict(zip(np.flatnonzero(active[i]), network.blocks, strict=True))
        wanted = [
            float(b in numbered and getattr(numbered[b], name) == option)
            for name, b, option in ones
        ]
        assert rows[i].tolist() == wanted
        assert sorted(index[i][active[i]].ravel()) == np.flatnonzero(wanted).tolist()
        assert (index[i][~active[i]] == -1).all()


@settings(deadline=None, max_examples=40)
@anywhere
def test_architecture_forgets_only_bits(space, seed):
    X = raw(space, 16, seed)
    architecture = space.architecture(X)
    for before, after in zip(space.decode(X), space.decode(architecture), strict=True):
        assert [(b.stage, b.kernel, b.channels) for b in before.blocks] == [
            (b.stage, b.kernel, b.channels) for b in after.blocks
        ]
        lowest = tuple(space.spec.bits[role][0] for role in ROLES)
        assert {tuple(getattr(b, role) for role in ROLES) for b in after.blocks} == {lowest}
    shuffled = X.copy()
    shuffled[:, space.bit_columns] = raw(space, 16, seed + 1)[:, space.bit_columns]
    assert np.array_equal(space.architecture(shuffled), architecture)


def test_smallest_and_largest_are_corners(imagenet):
    small, large = imagenet.decode(np.stack([imagenet.smallest(), imagenet.largest()]))
    assert (len(small.blocks), len(large.blocks)) == (11, 21)
    assert (small.mean_bits, large.mean_bits) == (4, 8)
    assert small.blocks[0] == Block(0, 3, 64, 4, 4, 4, 4)
    assert large.blocks[-1] == Block(5, 7, 1152, 8, 8, 8, 8)


def test_reals_are_decoded_as_the_nearest_options(imagenet):
    X = imagenet.sample(5, np.random.default_rng(0))
    near = X + np.random.default_rng(1).uniform(-0.49, 0.49, size=X.shape)
    assert imagenet.decode(near) == imagenet.decode(X)
    for value in (np.nan, np.inf):
        with pytest.raises(
            UserError, match=r"X must hold integers \(option indices\), got float64"
        ):
            imagenet.decode(np.full(X.shape, value))
    with pytest.raises(UserError, match="is out of range"):
        imagenet.decode(X - 0.6 - X)
    with pytest.raises(UserError, match="X must hold integers"):
        imagenet.check(near)


# -- sampling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("usable", ["valid", "all", "some"])
def test_sample_is_uniform(name, usable):
    space, _ = SPACES[name]
    rng = np.random.default_rng(7)
    masks = None
    if usable != "valid":
        masks = [(usable == "all") | (np.arange(n) % 3 == 0) for n in space.block_sizes]
    X = space.sample(20_000, rng, usable=masks)
    active = space.active(X)
    p_values = []
    for column in space.depth_columns.values():
        counts = np.bincount(X[:, column], minlength=space.n_options[column])
        p_values.append(chisquare(counts).pvalue)
    for b in range(space.n_blocks):
        members = space.allowed(b) if masks is None else np.flatnonzero(masks[b])
        index = space.block_index(X)[active[:, b], b]
        counts = np.bincount(index, minlength=space.block_sizes[b])
        assert counts.sum() == counts[members].sum()
        if len(members) > 1:
            p_values.append(chisquare(counts[members]).pvalue)
    assert min(p_values, default=1.0) * max(len(p_values), 1) > 0.01  # Bonferroni


@settings(deadline=None, max_examples=40)
@anywhere
def test_sample_is_valid_canonical_and_reproducible(space, seed):
    X = space.sample(50, np.random.default_rng(seed))
    assert X.dtype == np.int64
    assert space.valid(X).all()
    assert np.array_equal(space.canonical(X), X)
    assert np.array_equal(space.check(X), X)
    assert np.array_equal(space.sample(50, np.random.default_rng(seed)), X)


def test_invalid_rows_are_drawn_when_asked_for():
    space, _ = SPACES["rule"]
    everything = [np.ones(n, dtype=bool) for n in space.block_sizes]
    assert not space.valid(space.sample(100, np.random.default_rng(0), usable=everything)).all()


def test_empty_population(imagenet):
    X = imagenet.sample(0, np.random.default_rng(0))
    assert X.shape == (0, 131)
    assert imagenet.one_hot(X).shape == (0, 772)
    assert imagenet.block_index(X).shape == (0, 21)
    assert imagenet.valid(X).shape == (0,)
    assert imagenet.decode(X) == []
    assert imagenet.encode([]).shape == (0, 131)


# -- check -----------------------------------------------------------------------------------------


def test_check_accepts_rows_and_other_integer_types(imagenet):
    row = imagenet.largest()
    assert imagenet.check(row).shape == (1, 131)
    assert imagenet.check(row.tolist()).dtype == np.int64
    checked = imagenet.check(np.stack([row, row]).astype(np.uint8))
    assert checked.dtype == np.int64
    assert np.array_equal(checked[1], row)


def spoilt(value, column=0):
    X = np.zeros((3, 131), dtype=np.int64)
    X[1, column] = value
    return X


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (np.zeros((2, 130), dtype=int), "shape (n, 131), got (2, 130)"),
        (np.zeros((2, 2, 131), dtype=int), "got (2, 2, 131)"),
        ([], "got (1, 0)"),
        (3, "got (1, 1)"),
        (np.zeros((2, 131)), "integers (option indices), got float64"),
        (np.zeros((2, 131), dtype=bool), "got bool"),
        ([["a"] * 131], "got <U1"),
        ([[None] * 131], "got object"),
        ([[10**30] * 131], "got object"),
        ([[0] * 131, [0] * 130], "differ in length"),
        (spoilt(3), "X[1, 0] = 3 is out of range: gene stage0.depth has 3 options"),
        (spoilt(-1, 5), "X[1, 5] = -1 is out of range: gene block0.kernel has 3 options"),
        (spoilt(49, -5), "X[1, 126] = 49 is out of range: gene block20.channels has 49 options"),
        (np.full((1, 131), 2**64 - 1, dtype=np.uint64), "X[0, 0] = 18446744073709551615"),
    ],
)
def test_check_refuses(imagenet, X, words):
    with pytest.raises(UserError) as caught:
        imagenet.check(X)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)

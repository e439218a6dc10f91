"""The ImageNet space against published figures and networks in the released code's format."""

import math

import numpy as np
import pytest

from apq_moo.space import FIELDS, load_space

N_DRAWS = 20_000


def draws(space):
    """Uniform genotypes with whatever stands in inactive genes, as the released search draws."""
    return np.random.default_rng(1).integers(0, space.n_options, (N_DRAWS, space.n_var))


def assert_rate(hits, rate):
    deviation = math.sqrt(rate * (1 - rate) / len(hits))
    assert hits.mean() == pytest.approx(rate, abs=4 * deviation)


def test_size_of_the_space(imagenet):
    assert imagenet.count() == (
        813899129219671210290956636862720862650049426479328176372777150421401600000
    )
    assert math.log10(imagenet.count_architectures()) == pytest.approx(math.log10(9e35), abs=0.03)
    assert (imagenet.n_var, imagenet.n_blocks) == (131, 21)
    assert (imagenet.n_inputs, imagenet.n_architecture_inputs) == (772, 520)


def test_options_of_each_block(imagenet):
    widths = [16] + 4 * [24] + 4 * [40] + 4 * [80] + 4 * [96] + 4 * [192]
    assert [plan.c_in for plan in imagenet.plans] == widths
    counts = [5] + 4 * [7] + 4 * [11] + 4 * [21] + 4 * [25] + 4 * [49]
    assert [len(plan.options["channels"]) for plan in imagenet.plans] == counts
    for plan in imagenet.plans:
        channels = plan.options["channels"]
        assert (channels[0], channels[-1]) == (4 * plan.c_in, 6 * plan.c_in)
        assert set(np.diff(channels)) == {8}
        assert plan.options["kernel"] == (3, 5, 7)
        assert {plan.options[role] for role in FIELDS[2:]} == {(4, 6, 8)}


def test_shape_of_each_block(imagenet):
    strides = [2, 1, 1, 1] * 3 + [1, 1, 1, 1] + [2, 1, 1, 1] + [1]
    assert [plan.stride for plan in imagenet.plans] == strides
    sizes = [112, 56, 56, 56, 56, 28, 28, 28, 28, 14, 14, 14] + 5 * [14] + 4 * [7]
    assert [plan.size for plan in imagenet.plans] == sizes
    assert [plan.stage for plan in imagenet.plans] == [b // 4 for b in range(21)]
    assert [plan.position for plan in imagenet.plans] == [b % 4 for b in range(21)]


def test_share_of_draws_that_break_the_rule_in_any_block(imagenet):
    genes = draws(imagenet)[:, imagenet.block_columns]
    broken = (genes[:, :, 0] == 2) & (genes[:, :, FIELDS.index("a_dw")] == 0)
    assert_rate(broken.any(axis=1), 0.916)
    assert_rate(broken.any(axis=1), 1 - (8 / 9) ** 21)


def test_share_of_draws_that_break_the_rule_in_an_active_block(imagenet):
    hits = ~imagenet.valid(draws(imagenet))
    assert_rate(hits, 0.844)
    stage = sum((8 / 9) ** depth for depth in (2, 3, 4)) / 3
    assert_rate(hits, 1 - stage**5 * (8 / 9))


def test_golden_one_hot(imagenet, golden):
    X = imagenet.encode([item["spec"] for item in golden])
    assert len(X) == 24
    index = imagenet.one_hot_index(X)
    rows = imagenet.one_hot(X)
    assert rows.shape == (24, 772)
    assert rows.dtype == np.float32
    for i, item in enumerate(golden):
        assert np.flatnonzero(rows[i]).tolist() == item["one_hot"]
        assert set(rows[i]) == {0.0, 1.0}
        assert sorted(index[i][index[i] >= 0]) == item["one_hot"]


def test_golden_networks_survive_a_round_trip(imagenet, golden):
    X = imagenet.encode([item["spec"] for item in golden])
    assert imagenet.valid(X).all()
    assert np.array_equal(imagenet.canonical(X), X)
    assert np.array_equal(imagenet.encode(imagenet.decode(X)), X)
    for subnet, item in zip(imagenet.decode(X), golden, strict=True):
        spec = item["spec"]
        depths = [*spec["d"][:5], 1]
        active = [b for b in range(21) if b % 4 < depths[b // 4]]
        assert [block.stage for block in subnet.blocks] == [b // 4 for b in active]
        assert [block.kernel for block in subnet.blocks] == [spec["ks"][b] for b in active]
        ratios = [
            block.channels / imagenet.plans[b].c_in
            for b, block in zip(active, subnet.blocks, strict=True)
        ]
        assert ratios == pytest.approx([spec["e"][b] for b in active])
        for role, key in (("w_pw", "pw_w"), ("a_pw", "pw_a"), ("w_dw", "dw_w"), ("a_dw", "dw_a")):
            bits = [spec[f"{key}_bits_setting"][b] for b in active]
            assert [getattr(block, role) for block in subnet.blocks] == bits


def test_presets_are_shared():
    assert load_space("imagenet") is load_space("imagenet")
    assert load_space(load_space("digits")) is load_space("digits")

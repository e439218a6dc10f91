"""Subspaces, and lists of every network."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from apq_moo.errors import UserError
from apq_moo.space import Space, SpaceSpec, all_networks, embed, load_space, superspace

TINY = load_space("tiny")
SMALL = {
    "name": "small",
    "input_size": 7,
    "input_channels": 1,
    "classes": 3,
    "channel_step": 4,
    "bits": {"w_pw": [3, 8], "a_pw": [4, 8], "w_dw": [6], "a_dw": [6]},
    "stem": {"channels": 8, "kernel": 3},
    "stages": [
        {"width": 8, "stride": 1, "depths": [1, 2], "kernels": [3], "expand": [1, 1.5]},
        {"width": 8, "stride": 1, "depths": [1], "kernels": [3, 5], "expand": [1, 1]},
    ],
    "forbidden": [{"w_pw": 3, "a_pw": 8}],
}


def small(**change):
    return Space(SpaceSpec.from_dict({**SMALL, **change}))


def test_every_network_once_in_order():
    space = small()
    X = all_networks(space)
    assert len(X) == space.count()
    # By brute force: all genotypes, canonical, without those that a rule forbids.
    every = np.array(list(product(*(range(n) for n in space.n_options))))
    wanted = np.unique(space.canonical(every), axis=0)
    wanted = wanted[space.valid(wanted)]
    np.testing.assert_array_equal(X, wanted)


def test_the_number_of_networks_of_tiny_is_published():
    assert 20_000 <= TINY.count() <= 60_000
    X = all_networks(TINY)
    assert len(np.unique(X, axis=0)) == TINY.count() == 40_960


def test_a_part_s_networks_are_networks_of_the_whole():
    fashion = load_space("fashion")
    assert superspace(TINY) is fashion
    assert superspace(fashion) is fashion
    X = all_networks(TINY)[::997]
    inside = embed(TINY, X)
    assert inside.shape == (len(X), fashion.n_var)
    for ours, theirs in zip(TINY.decode(X), fashion.decode(inside), strict=True):
        assert ours.blocks == theirs.blocks
        same = zip(TINY.layers(ours), fashion.layers(theirs), strict=True)
        # Block numbers differ, since the whole has deeper stages.
        assert all(replace(a, block=None) == replace(b, block=None) for a, b in same)
    assert embed(fashion, inside) is inside


def test_what_is_no_part_is_refused():
    space = small(part_of="fashion")
    with pytest.raises(UserError, match="space 'small' is no subspace of 'fashion'"):
        embed(space, space.smallest()[None])


def test_a_space_that_is_too_large_is_not_listed():
    with pytest.raises(UserError, match=r"1.82e\+51 networks; at most 1,048,576"):
        all_networks(load_space("fashion"))


def test_part_of_belongs_to_the_digest_only_where_it_is_given():
    assert small().digest == small(part_of="").digest
    assert small(part_of="fashion").digest != small().digest
    with pytest.raises(
        UserError, match="part_of must be the name of a space or a TOML file, not 3"
    ):
        small(part_of=3)

"""Networks in the format of the code released with APQ, written and read."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apq_moo.errors import UserError
from apq_moo.space import load_space
from apq_moo.space.released import in_two_parts

BITS = ("pw_w_bits_setting", "pw_a_bits_setting", "dw_w_bits_setting", "dw_a_bits_setting")
WIDTHS = (16, 24, 40, 80, 96, 192)


def active(d):
    """Blocks that the released code runs: the i-th of a stage where i is below its depth."""
    return [b for b in range(21) if b % 4 < d[b // 4]]


def ones(released):
    """The inputs of the released predictor that are 1, worked out from its layout alone."""
    c_in = [WIDTHS[b // 4 + (b % 4 > 0)] for b in range(21)]
    options = [[k / c for k in range(4 * c, 6 * c + 8, 8)] for c in c_in]
    starts = np.cumsum([63, *map(len, options)])
    found = []
    for b in active(released["d"]):
        found.append(3 * b + [3, 5, 7].index(released["ks"][b]))
        found.append(int(starts[b]) + options[b].index(released["e"][b]))
        for part, key in enumerate(BITS):
            found.append(520 + 63 * part + 3 * b + [4, 6, 8].index(released[key][b]))
    return sorted(found)


def test_golden_networks_are_written_as_they_came(imagenet, golden):
    specs = [item["spec"] for item in golden]
    written = imagenet.released(imagenet.encode(specs))
    for spec, found, item in zip(specs, written, golden, strict=True):
        assert list(found) == ["wid", "ks", "e", "d", *BITS]
        assert found["wid"] is None
        assert found["d"] == [*spec["d"][:5], 1]
        for key in ("ks", "e", *BITS):
            assert [found[key][b] for b in active(found["d"])] == [
                spec[key][b] for b in active(found["d"])
            ]
        assert ones(found) == item["one_hot"]


def test_skipped_blocks_are_what_the_released_code_makes_them(imagenet):
    (found,) = imagenet.released(imagenet.smallest())
    skipped = sorted(set(range(21)) - set(active(found["d"])))
    assert skipped == [2, 3, 6, 7, 10, 11, 14, 15, 18, 19]
    for b in skipped:
        assert (found["ks"][b], found["e"][b]) == (3, 4)
        assert [found[key][b] for key in BITS] == [8, 8, 8, 8]


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(["imagenet", "digits", "mobilenet", "tiny"]), st.integers(0, 2**32 - 1))
def test_round_trip(name, seed):
    space = load_space(name)
    X = np.random.default_rng(seed).integers(0, space.n_options, (3, space.n_var))
    read = json.loads(json.dumps(space.released(X)))
    expected = space.canonical(X)
    assert (space.encode(read) == expected).all()
    assert (space.encode([in_two_parts(one) for one in read]) == expected).all()


@pytest.mark.parametrize("item", [[{"ks": [3]}, {}], [{"ks": [3]}, 3], [{}, {"ks": [3]}]])
def test_malformed_pairs_are_refused(imagenet, item):
    with pytest.raises(UserError):
        imagenet.encode([item])

"""Random networks of all sizes."""

import numpy as np
import pytest
from scipy.stats import chisquare

from apq_moo.errors import UserError
from apq_moo.space import (
    DISTRIBUTIONS,
    Space,
    SpaceSpec,
    find_distribution,
    load_space,
    sample_sizes,
)
from apq_moo.space.distributions import STEEPEST

BITS = {role: [3, 4, 8] for role in ("w_pw", "a_pw", "w_dw", "a_dw")}


def space_of(*rules):
    stage = {"width": 8, "depths": [1, 2, 4], "kernels": [3, 5, 7], "expand": [1, 3]}
    return Space(
        SpaceSpec.from_dict(
            {
                "name": "drawn",
                "input_size": 8,
                "input_channels": 1,
                "classes": 4,
                "channel_step": 4,
                "bits": BITS | {"fixed": 8},
                "stem": {"channels": 8, "kernel": 3},
                "stages": [stage],
                "forbidden": list(rules),
            }
        )
    )


def mean_over_tilts(rank, weight):
    """Probabilities proportional to weight * exp(t rank), averaged over t, by quadrature."""
    t = np.linspace(-STEEPEST, STEEPEST, 4001)[:, None]
    odds = weight * np.exp(t * rank)
    each = odds / odds.sum(axis=1, keepdims=True)
    return np.trapezoid(each, t, axis=0) / (2 * STEEPEST)


@pytest.mark.parametrize(
    "rules", [(), ({"kernel": 7, "a_dw": 3}, {"channels": [8, 12], "kernel": 3})]
)
def test_each_block_follows_its_probabilities(rules):
    space = space_of(*rules)
    n = 40_000
    X = sample_sizes(space, n, np.random.default_rng(1))
    (column,) = space.depth_columns.values()
    counts = np.bincount(X[:, column], minlength=3)
    p_values = [chisquare(counts, n * mean_over_tilts(np.array([0, 0.5, 1]), 1)).pvalue]
    # The first block is always there; others are there more often with a large tilt.
    kernels, channels = space.plans[0].shape[:2]
    members = space.allowed(0)
    genes = space.block_genes(0, members)
    rank = genes[:, 0] / (kernels - 1) + genes[:, 1] / (channels - 1)
    counts = np.bincount(space.block_index(X)[:, 0], minlength=space.block_sizes[0])
    assert counts.sum() == counts[members].sum() == n
    p_values.append(chisquare(counts[members], n * mean_over_tilts(rank, 1)).pvalue)
    assert min(p_values) * len(p_values) > 0.01


def test_networks_are_valid_canonical_and_reproducible():
    space = space_of({"kernel": [5, 7], "channels": [16, 20, 24]})
    X = sample_sizes(space, 500, np.random.default_rng(2))
    assert X.dtype == np.int64
    assert space.valid(X).all()
    assert np.array_equal(space.canonical(X), X)
    assert np.array_equal(space.check(X), X)
    assert np.array_equal(sample_sizes(space, 500, np.random.default_rng(2)), X)
    assert sample_sizes(space, 0, np.random.default_rng(2)).shape == (0, space.n_var)


def test_they_reach_sizes_that_uniform_draws_do_not():
    space = load_space("fashion")

    def sizes(draw):
        rows = draw(space, 1000, np.random.default_rng(3))
        return [sum(layer.macs for layer in space.layers(s)) for s in space.decode(rows)]

    ends = space.decode(np.vstack([space.smallest(), space.largest()]))
    low, high = (sum(layer.macs for layer in space.layers(s)) for s in ends)
    edges = np.geomspace(low, high, 11)
    edges[0], edges[-1] = 0, np.inf
    shares = {
        name: np.histogram(sizes(draw), edges)[0] / 1000 for name, draw in DISTRIBUTIONS.items()
    }
    assert shares["sizes"].min() > 0.01
    assert shares["uniform"][:4].sum() < 0.01


def test_a_way_that_is_not_known():
    with pytest.raises(UserError, match="draw must be one of uniform, sizes; not 'size'"):
        find_distribution("size")

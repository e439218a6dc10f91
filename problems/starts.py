"""The networks that searches begin with, all of them under the limits on costs.

Networks whose genes are drawn uniformly are all of about one size and one mean of bits, so that a
search begins at one point of the front and has to grow towards both ends.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import numpy as np

from apq_moo.arrays import FloatArray, IntArray, distinct
from apq_moo.errors import UserError, shown
from apq_moo.problems.region import FeasibleRegion
from apq_moo.space import sample_sizes_and_bits

Start = Callable[[FeasibleRegion, int, np.random.Generator], IntArray]

_ROUNDS = 6
_MOST = 32
"""Networks drawn a round, for each that is wanted, at most."""


def of_all_sizes(region: FeasibleRegion, n: int, rng: np.random.Generator) -> IntArray:
    """Draw distinct networks of a region, from the smallest to the largest, of few and many bits.

    They are those of :func:`apq_moo.space.sample_sizes_and_bits`, with infeasible configurations
    replaced by the nearest feasible ones, that meet the limits. Where too few do, those that exceed
    the limits least are repaired (:meth:`FeasibleRegion.repair`); and where that makes too few
    distinct ones, the rest comes from :meth:`FeasibleRegion.sample`.

    Args:
        region: the networks to draw from.
        n: how many.
        rng: source of randomness.

    Returns:
        Canonical genotypes, shape ``(n, n_var)``; fewer rows where no more were found.
    """
    space = region.space
    found = outside = np.empty((0, space.n_blocks), dtype=np.int64)
    wanted = n
    for _ in range(_ROUNDS):
        X = sample_sizes_and_bits(space, wanted, rng)
        drawn = region.options.repair(space.block_index(X))
        inside = region.contains_blocks(drawn)
        found = distinct(np.vstack([found, drawn[inside]]))[:n]
        outside = np.vstack([outside, drawn[~inside]])
        if len(found) == n:
            break
        share = max(float(inside.mean()), 1 / _MOST)
        wanted = min(int((n - len(found)) / share) + 1, _MOST * n)
    if len(found) < n:
        nearest = outside[np.argsort(_excess(region, outside), kind="stable")[: n - len(found)]]
        found = distinct(np.vstack([found, region.repair_blocks(nearest, rng)]))
    if len(found) < n:
        others = space.block_index(region.sample(n, rng))
        found = distinct(np.vstack([found, others]))[:n]
    return space.from_block_index(found)


def _excess(region: FeasibleRegion, index: IntArray) -> FloatArray:
    """The largest cost over its limit, relative, shape ``(n,)``."""
    excess: FloatArray = np.zeros(len(index))
    for table, limit in region.limits:
        np.maximum(excess, table.gather(index) / max(limit, np.finfo(float).tiny), out=excess)
    return excess


UNIFORM = "uniform"
"""The start that draws every gene uniformly, as the paper does."""

STARTS: MappingProxyType[str, Start] = MappingProxyType(
    {"sizes": of_all_sizes, UNIFORM: FeasibleRegion.sample}
)
"""Ways to draw the networks that a search begins with: of all sizes, or uniformly."""


def find_start(name: str) -> Start:
    """The way of drawing that has a name.

    Raises:
        UserError: there is none.
    """
    if name not in STARTS:
        raise UserError(f"start={shown(name)}: must be one of {', '.join(STARTS)}")
    return STARTS[name]

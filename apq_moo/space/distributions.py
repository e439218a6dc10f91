"""Random networks of all sizes.

Networks whose genes are drawn uniformly are all of about one size, since the sum of many
independent widths hardly varies: the small networks that a search under a tight limit looks for are
never among them. Here a whole network leans to small or to large options, and its bits, where they
lean too, to few or to many.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.errors import UserError
from apq_moo.space.space import Space

STEEPEST = 8.0
"""Largest tilt: the last option of a gene is then e^8 times as likely as the first."""


def sample_sizes(space: Space, n: int, rng: np.random.Generator) -> IntArray:
    """Draw random valid networks from the smallest to the largest, shape ``(n, n_var)``.

    Each network draws one tilt t, uniform between -8 and 8. Option k of m of its depths, kernels
    and channels then has probability proportional to exp(t k / (m - 1)); bits are uniform. Rules
    that forbid combinations condition each block's draw.

    Args:
        space: the space.
        n: how many networks.
        rng: the source of randomness.

    Returns:
        Genotypes in canonical form.
    """
    tilt = rng.uniform(-STEEPEST, STEEPEST, size=(n, 1))
    X = _leaning(space, tilt, 0.0, rng)
    if space.spec.forbidden:
        for b, (first, count, rank) in enumerate(_allowed_shapes(space)):
            # A shape has one weight for all its bits.
            upto = np.cumsum(count * np.exp(tilt * rank), axis=1)
            at = (upto < rng.random((n, 1)) * upto[:, -1:]).sum(axis=1)
            chosen = space.allowed(b)[first[at] + rng.integers(0, count[at])]
            X[:, space.block_columns[b]] = space.block_genes(b, chosen)
    return space.canonical(X)


def sample_sizes_and_bits(space: Space, n: int, rng: np.random.Generator) -> IntArray:
    """Draw random networks of all sizes with few bits and with many, shape ``(n, n_var)``.

    As :func:`sample_sizes`, but the bits have a tilt of their own, and rules that forbid
    combinations are not minded. Both tilts are spread evenly, each over ``n`` equal parts of its
    range (McKay, Beckman and Conover, A Comparison of Three Methods for Selecting Values of Input
    Variables, Technometrics 21, 1979), so that few networks already are of all kinds.

    Args:
        space: the space.
        n: how many networks.
        rng: the source of randomness.

    Returns:
        Genotypes in canonical form.
    """
    sizes, bits = (_evenly(n, rng) for _ in range(2))
    return space.canonical(_leaning(space, sizes, bits, rng))


def _evenly(n: int, rng: np.random.Generator) -> FloatArray:
    """A tilt in each of ``n`` equal parts of their range, in random order, shape ``(n, 1)``."""
    share = (rng.permutation(n) + rng.random(n)) / max(n, 1)
    tilts: FloatArray = STEEPEST * (2 * share[:, None] - 1)
    return tilts


def _leaning(
    space: Space, sizes: FloatArray, bits: FloatArray | float, rng: np.random.Generator
) -> IntArray:
    """Genotypes, not canonical, whose genes lean by two tilts, of shape ``(n, 1)`` each."""
    of_bits = np.zeros(space.n_var, dtype=bool)
    of_bits[space.bit_columns] = True
    slope = np.where(of_bits, bits, sizes) / np.maximum(space.n_options - 1, 1)
    return _truncated_geometric(slope, space.n_options, rng)


SamplingDistribution = Callable[[Space, int, np.random.Generator], IntArray]
"""Draws so many genotypes of a space, shape ``(n, n_var)``."""

DISTRIBUTIONS: MappingProxyType[str, SamplingDistribution] = MappingProxyType(
    {"uniform": Space.sample, "sizes": sample_sizes}
)
"""Ways to draw random networks: uniformly over each active gene, or of all sizes."""


def find_distribution(name: str) -> SamplingDistribution:
    """The way of drawing that has a name.

    Raises:
        UserError: there is none.
    """
    if name not in DISTRIBUTIONS:
        raise UserError(f"draw must be one of {', '.join(DISTRIBUTIONS)}; not {name!r}")
    return DISTRIBUTIONS[name]


def _truncated_geometric(
    slope: FloatArray, n_options: IntArray, rng: np.random.Generator
) -> IntArray:
    """Integers k in ``[0, n_options)`` with probabilities proportional to exp(slope * k)."""
    u = rng.random(slope.shape)
    flat = np.abs(slope) < 1e-9
    steep = np.where(flat, 1.0, slope)
    inverse = np.log1p(u * np.expm1(steep * n_options)) / steep
    k = np.floor(np.where(flat, u * n_options, inverse)).astype(np.int64)
    return np.clip(k, 0, n_options - 1)


@lru_cache(maxsize=8)
def _allowed_shapes(space: Space) -> list[tuple[IntArray, IntArray, FloatArray]]:
    """Kernels and channels of each block that go with some bits.

    Returns:
        For each block, of each shape: where its configurations begin among the allowed ones, of
        which they are neighbours; how many they are; and its rank, from the mean.
    """
    found: list[tuple[IntArray, IntArray, FloatArray]] = []
    for b, plan in enumerate(space.plans):
        kernels, channels, *bits = plan.shape
        shapes, first, count = np.unique(
            space.allowed(b) // math.prod(bits), return_index=True, return_counts=True
        )
        kernel, channel = np.divmod(shapes, channels)
        rank = kernel / max(kernels - 1, 1) + channel / max(channels - 1, 1)
        found.append((first, count, rank - rank.mean()))
    return found

"""Subspaces, and spaces small enough to list every network of."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np

from apq_moo.arrays import IntArray
from apq_moo.errors import UserError
from apq_moo.space.loading import load_space, presets
from apq_moo.space.space import Space
from apq_moo.space.subnet import Subnet

MOST_LISTED = 2**20
"""Networks of a space that :func:`all_networks` lists."""


def superspace(space: Space) -> Space:
    """The space that a space is a subspace of, whose supernet it shares; itself if of none."""
    name = space.spec.part_of
    if not name:
        return space
    return load_space(name if name in presets() else Path(space.spec.relative_to, name))


def embed(space: Space, X: IntArray) -> IntArray:
    """The same networks as members of :func:`superspace`.

    Args:
        space: any space.
        X: canonical genotypes of it, shape ``(n, n_var)``.

    Returns:
        Canonical genotypes of the superspace, shape ``(n, n_var of that)``.

    Raises:
        UserError: one is no member of it.
    """
    larger = superspace(space)
    if larger is space:
        return X
    subnets = [Subnet(larger.name, subnet.blocks) for subnet in space.decode(X)]
    try:
        return larger.encode(subnets)
    except UserError as error:
        raise UserError(
            f"space {space.name!r} is no subspace of {larger.name!r}: {error}"
        ) from error


def all_networks(space: Space) -> IntArray:
    """Canonical genotypes of every network that no rule forbids, in lexicographic order.

    Returns:
        Shape ``(space.count(), n_var)``.

    Raises:
        UserError: there are more than :data:`MOST_LISTED`.
    """
    if space.count() > MOST_LISTED:
        raise UserError(
            f"space {space.name!r} has {space.count():.3g} networks; at most {MOST_LISTED:,} can "
            "be listed"
        )
    stages = []
    for stage, blocks in zip(space.spec.stages, space.layout.stage_blocks, strict=True):
        numbers = range(blocks.start, blocks.stop)
        choices = [
            row
            for depth in stage.depths
            for row in product(
                *(space.allowed(b) for b in numbers[:depth]),
                *((int(space.block_sizes[b]),) for b in numbers[depth:]),
            )
        ]
        stages.append(np.array(choices, dtype=np.int64))
    places = np.indices([len(part) for part in stages]).reshape(len(stages), -1)
    index = np.hstack([part[at] for part, at in zip(stages, places, strict=True)])
    X = space.from_block_index(index)
    return X[np.lexsort(X.T[::-1])]

"""What systems that train distributions let blocks choose from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from apq_moo.algorithms.baselines.choice import DEPTH, Choice
from apq_moo.algorithms.baselines.distribution import Candidates, Distribution
from apq_moo.arrays import BoolArray
from apq_moo.space import Block, Space
from apq_moo.space.spec import FIELDS, ROLES

_CHANNELS = FIELDS.index("channels")
_ROLES = [FIELDS.index(role) for role in ROLES]


@dataclass(frozen=True)
class ChannelLevels(Choice):
    """A choice of which some channel numbers are left.

    Attributes:
        levels: of each block, spread evenly from the smallest to the largest.
    """

    levels: int = 3

    @cached_property
    def open(self) -> tuple[BoolArray, ...]:
        """See :class:`Choice`."""
        space = self.problem.space
        masks = []
        for b, mask in enumerate(super().open):
            n = len(space.plans[b].options["channels"])
            spread = np.linspace(0, n - 1, min(self.levels, n)).round().astype(int)
            channels = space.block_genes(b, np.arange(len(mask)))[:, _CHANNELS]
            masks.append(mask & np.isin(channels, spread))
        return tuple(masks)


def architectures(choice: Choice) -> Distribution:
    """A probability for each configuration of each block, and for each depth."""
    problem, space = choice.problem, choice.problem.space
    numbers = [np.flatnonzero(mask) for mask in choice.open]
    blocks = [Candidates.apart(of if len(of) else np.zeros(1, np.int64)) for of in numbers]
    depths: list[list[int]] = [[int(d)] for d in space.layout.depths(choice.base[None])[0]]
    if DEPTH in choice.fields:
        opens = problem.region.options.open_depths
        for stage, inside in enumerate(space.layout.stage_blocks):
            filled = [len(of) > 0 for of in numbers[inside]]
            offered = space.spec.stages[stage].depths[: opens[stage]]
            depths[stage] = [depth for depth in offered if all(filled[:depth])]
    return Distribution(space, blocks, depths)


def bit_widths(choice: Choice) -> Distribution:
    """Probabilities of the four bit-widths of each block, as far as combinations are open."""
    space, blocks = choice.problem.space, []
    for b, mask in enumerate(choice.open):
        rows = np.flatnonzero(mask)
        if len(rows):
            options = space.block_genes(b, rows)[:, _ROLES]
            blocks.append(Candidates(rows, options))
        else:
            blocks.append(Candidates.apart(np.zeros(1, np.int64)))
    depths = [[int(d)] for d in space.layout.depths(choice.base[None])[0]]
    return Distribution(space, blocks, depths)


def block_of(space: Space, block: int, number: int) -> Block:
    """A configuration of a block by its number."""
    plan, genes = space.plans[block], space.block_genes(block, number)
    chosen = {name: plan.options[name][gene] for name, gene in zip(FIELDS, genes, strict=True)}
    return Block(stage=plan.stage, **chosen)

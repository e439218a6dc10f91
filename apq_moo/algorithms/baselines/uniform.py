"""Controls without a search: one reference network, and families of it by one number.

Every system is worth what it adds to them: the widest multiple of a reference network's width, or
the most bits for all its layers, that meets a limit.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from apq_moo.algorithms.baselines.choice import Choice
from apq_moo.algorithms.baselines.reference import reference_network
from apq_moo.algorithms.baselines.system import Asking, System, Target
from apq_moo.arrays import IntArray, distinct
from apq_moo.errors import UserError
from apq_moo.problems import APQProblem
from apq_moo.space import Space
from apq_moo.space.spec import FIELDS, ROLES


class Family(System):
    """Evaluates the first network of a family that meets the limits: one for each target."""

    @abstractmethod
    def family(self, problem: APQProblem, base: IntArray) -> IntArray:
        """The networks, the largest first, shape ``(n, n_blocks)``."""

    def choices(self, problem: APQProblem, base: IntArray) -> list[Choice]:
        """See :class:`System`; a set for each network that the device can run."""
        networks = distinct(self.family(problem, base))
        runs = np.all(problem.region.options.feasible_blocks(networks), axis=1)
        if not runs.any():
            raise UserError(
                f"the device and the limits leave no network of space {problem.space.name!r} that "
                f"{self.title} can choose; raise the limits"
            )
        return [Choice(problem, network, (), self.title) for network in networks[runs]]

    def reach(self, target: Target, base: IntArray | None = None) -> Asking[Any]:
        """See :class:`System`."""
        start = reference_network(target.problem) if base is None else base
        networks = np.array([choice.base for choice in self.choices(target.problem, start)])
        yield networks[target.region.contains_blocks(networks)][:1]


class MobileNetV2Like(Family):
    """The reference network at 8 bits, as it is; at a pipeline's start whatever it costs."""

    title = "mobilenetv2-8bit"
    fields: ClassVar[tuple[str, ...]] = ()

    def family(self, problem: APQProblem, base: IntArray) -> IntArray:
        """See :class:`Family`."""
        del problem
        return base[None]


class UniformWidth(Family):
    """All blocks at one share of the reference network's channels, rounded down to an option."""

    title = "uniform-width"
    fields: ClassVar[tuple[str, ...]] = ("channels",)

    def family(self, problem: APQProblem, base: IntArray) -> IntArray:
        """See :class:`Family`."""
        space = problem.space
        blocks = np.flatnonzero(space.layout.active(base[None])[0])
        options = {b: np.array(space.plans[b].options["channels"]) for b in blocks.tolist()}
        widest = {b: options[b][gene_of(space, base, b, "channels")] for b in options}
        shares = np.unique(np.concatenate([options[b] / widest[b] for b in options]))
        shares = shares[shares <= 1]
        networks = []
        for share in shares[::-1]:
            row = base
            for b, channels in options.items():
                gene = max(int(np.searchsorted(channels, share * widest[b], "right")) - 1, 0)
                row = with_gene(space, row, b, "channels", gene)
            networks.append(row)
        return np.array(networks)


class UniformBits(Family):
    """One bit-width for all weights and activations of the reference network's blocks.

    A role that does not offer it takes the next fewer bits that it offers, or its fewest.
    """

    title = "uniform-bits"
    fields: ClassVar[tuple[str, ...]] = ROLES

    def family(self, problem: APQProblem, base: IntArray) -> IntArray:
        """See :class:`Family`."""
        space = problem.space
        blocks = np.flatnonzero(space.layout.active(base[None])[0]).tolist()
        offered = {role: np.array(space.spec.bits[role]) for role in ROLES}
        networks = []
        for width in np.unique(np.concatenate(list(offered.values())))[::-1]:
            row = base
            for b in blocks:
                for role, bits in offered.items():
                    gene = max(int(np.searchsorted(bits, width, "right")) - 1, 0)
                    row = with_gene(space, row, b, role, gene)
            networks.append(row)
        return np.array(networks)


def gene_of(space: Space, index: IntArray, block: int, field: str) -> int:
    """A gene of a block of a network of shape ``(n_blocks,)``."""
    return int(space.block_genes(block, index[block])[FIELDS.index(field)])


def with_gene(space: Space, index: IntArray, block: int, field: str, gene: int) -> IntArray:
    """A network, shape ``(n_blocks,)``, with another option of one field of one block."""
    changed = index.copy()
    step = space.layout.strides[block, FIELDS.index(field)]
    changed[block] += (gene - gene_of(space, index, block, field)) * step
    return changed

"""Controls without a search: one reference network, and families of it by one number.

Every system is worth what it adds to them: the widest multiple of a reference network's width, or
the most bits for all its layers, that meets a limit.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from apq_moo.algorithms.baselines.reference import reference_network
from apq_moo.algorithms.baselines.system import Asking, System, Target
from apq_moo.arrays import IntArray, distinct
from apq_moo.errors import UserError
from apq_moo.problems import APQProblem
from apq_moo.problems.feasibility import unreachable
from apq_moo.space import Space
from apq_moo.space.spec import FIELDS, ROLES


class Family(System):
    """Evaluates the first network of a family that meets the limits: one for each target."""

    @abstractmethod
    def family(self, problem: APQProblem, base: IntArray) -> IntArray:
        """The networks, the largest first, shape ``(n, n_blocks)``.

        Raises:
            UserError: the space leaves no choice.
        """

    def _family(self, problem: APQProblem) -> IntArray:
        networks = distinct(self.family(problem, reference_network(problem)))
        return networks[np.all(problem.region.options.feasible_blocks(networks), axis=1)]

    def admit(self, problem: APQProblem) -> None:
        """See :class:`System`."""
        networks = self._family(problem)
        if problem.region.contains_blocks(networks).any():
            return
        of = f" that {self.title} can choose"
        for table, limit in problem.region.limits:
            if len(networks) and (least := float(table.gather(networks).min())) > limit:
                raise UserError(unreachable(table, limit, least, of=of))
        raise UserError(
            f"no network of space {problem.space.name!r} that {self.title} can choose meets all "
            "limits together; raise one"
        )

    def reach(self, target: Target) -> Asking[Any]:
        """See :class:`System`."""
        networks = self._family(target.problem)
        yield networks[target.region.contains_blocks(networks)][:1]


class MobileNetV2Like(Family):
    """The reference network at 8 bits, as it is."""

    title = "mobilenetv2-8bit"

    def family(self, problem: APQProblem, base: IntArray) -> IntArray:
        """See :class:`Family`."""
        del problem
        return base[None]


class UniformWidth(Family):
    """All blocks at one share of the reference network's channels, rounded down to an option."""

    title = "uniform-width"

    def family(self, problem: APQProblem, base: IntArray) -> IntArray:
        """See :class:`Family`."""
        space = problem.space
        blocks = np.flatnonzero(space.layout.active(base[None])[0])
        options = {b: np.array(space.plans[b].options["channels"]) for b in blocks.tolist()}
        widest = {b: options[b][gene_of(space, base, b, "channels")] for b in options}
        shares = np.unique(np.concatenate([options[b] / widest[b] for b in options]))
        shares = shares[shares <= 1]
        if len(shares) < 2:
            raise UserError(
                f"{self.title} chooses channels, of which space {space.name!r} leaves no choice"
            )
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

    def family(self, problem: APQProblem, base: IntArray) -> IntArray:
        """See :class:`Family`."""
        space = problem.space
        blocks = np.flatnonzero(space.layout.active(base[None])[0]).tolist()
        offered = {role: np.array(space.spec.bits[role]) for role in ROLES}
        if all(len(bits) < 2 for bits in offered.values()):
            raise UserError(no_bits(self.title, space))
        networks = []
        for width in np.unique(np.concatenate(list(offered.values())))[::-1]:
            row = base
            for b in blocks:
                for role, bits in offered.items():
                    gene = max(int(np.searchsorted(bits, width, "right")) - 1, 0)
                    row = with_gene(space, row, b, role, gene)
            networks.append(row)
        return np.array(networks)


def no_bits(title: str, space: Space) -> str:
    """What to tell of a space on which a system that chooses bits has nothing to choose."""
    return (
        f"{title} chooses bits, of which space {space.name!r} offers one width each: name another "
        "space, or an algorithm that chooses something else"
    )


def gene_of(space: Space, index: IntArray, block: int, field: str) -> int:
    """A gene of a block of a network of shape ``(n_blocks,)``."""
    return int(space.block_genes(block, index[block])[FIELDS.index(field)])


def with_gene(space: Space, index: IntArray, block: int, field: str, gene: int) -> IntArray:
    """A network, shape ``(n_blocks,)``, with another option of one field of one block."""
    changed = index.copy()
    step = space.layout.strides[block, FIELDS.index(field)]
    changed[block] += (gene - gene_of(space, index, block, field)) * step
    return changed

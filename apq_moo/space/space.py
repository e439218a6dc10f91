"""A search space: its networks, their number, random ones, and their layers."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from apq_moo.arrays import BoolArray, IntArray
from apq_moo.errors import UserError, shown
from apq_moo.space.encoding import Encoding
from apq_moo.space.layers import Layer
from apq_moo.space.plan import fixed_layers, forbidden_configurations, listed
from apq_moo.space.released import is_released, joined, read_released, write_released
from apq_moo.space.spec import FIELDS, SpaceSpec
from apq_moo.space.subnet import Block, Subnet


class Space(Encoding):
    """A search space with its integer encoding.

    Args:
        spec: the description.

    Raises:
        UserError: a block has no member, because of the channel range or the forbidden rules, or
            the space has more blocks or configurations than :mod:`apq_moo.space.plan` allows.
    """

    def __init__(self, spec: SpaceSpec) -> None:
        super().__init__(spec)
        masks = [~forbidden_configurations(plan, spec) for plan in self.plans]
        for b, mask in enumerate(masks):
            if not mask.any():
                raise UserError(
                    f"space {self.name!r}: the forbidden rules leave block {b} no configuration"
                )
        self._allowed = [np.flatnonzero(mask) for mask in masks]
        self._obeys = self.layout.table(masks, inactive=True)

    def __repr__(self) -> str:
        return f"Space({self.name!r}, n_var={self.n_var}, n_blocks={self.n_blocks})"

    def __copy__(self) -> Space:
        """Nothing changes a space, so copies of what holds one may share it."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Space:
        return self

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the description without its name; equal for equal spaces."""
        return self.spec.digest

    @property
    def option(self) -> str:
        """What names it on a command line, ``--space ...``: its file, or the name of a preset."""
        return f"--space {shlex.quote(self.spec.file or self.name)}"

    # -- rules and counting ------------------------------------------------------------------------

    def allowed(self, block: int) -> IntArray:
        """Indices of a block's configurations that no rule forbids, ascending."""
        return self._allowed[block]

    def valid(self, X: IntArray) -> BoolArray:
        """Whether each row obeys the forbidden rules in all its active blocks, shape ``(n,)``."""
        good: BoolArray = np.all(self.layout.gather(self._obeys, self.block_index(X)), axis=1)
        return good

    def _count(self, per_block: Sequence[int]) -> int:
        total = 1
        for stage, blocks in zip(self.spec.stages, self.layout.stage_blocks, strict=True):
            counts = per_block[blocks]
            total *= sum(math.prod(counts[:depth]) for depth in stage.depths)
        return total

    def count(self) -> int:
        """Exact number of distinct valid networks (canonical forms)."""
        return self._count([len(allowed) for allowed in self._allowed])

    def count_architectures(self) -> int:
        """Exact number of distinct full-precision networks (depths, kernels and channels)."""
        return self._count([plan.shape[0] * plan.shape[1] for plan in self.plans])

    # -- sampling ----------------------------------------------------------------------------------

    def sample(
        self,
        n: int,
        rng: np.random.Generator,
        *,
        usable: Sequence[BoolArray] | None = None,
    ) -> IntArray:
        """Draw random networks in canonical form, shape ``(n, n_var)``.

        Depths are uniform, and so is each active block's configuration over those that may be used.

        Args:
            n: how many.
            rng: source of randomness.
            usable: for each block, which configurations may be used, shape ``(block_sizes[b],)``;
                by default those that no rule forbids. A block that has none is drawn from all.
        """
        X = rng.integers(0, self.n_options, size=(n, self.n_var), dtype=np.int64)
        options: Sequence[IntArray] = []
        if usable is not None:
            options = [np.flatnonzero(mask) for mask in usable]
        elif self.spec.forbidden:
            options = self._allowed
        for b, numbers in enumerate(options):
            if len(numbers):
                X[:, self.block_columns[b]] = self.block_genes(b, rng.choice(numbers, n))
        return self.canonical(X)

    def smallest(self) -> IntArray:
        """The row with every gene at its first option, shape ``(n_var,)``."""
        return np.zeros(self.n_var, dtype=np.int64)

    def largest(self) -> IntArray:
        """The row with every gene at its last option, shape ``(n_var,)``."""
        return self.n_options - 1

    # -- networks ----------------------------------------------------------------------------------

    def decode(self, X: ArrayLike) -> list[Subnet]:
        """The networks that the rows of a genotype matrix stand for.

        Args:
            X: option indices, shape ``(n, n_var)``; reals, as pymoo's own operators leave them, are
                rounded to the nearest integers.

        Raises:
            UserError: see :meth:`check`.
        """
        X = self.check(X, reals=True)
        active = self.active(X)
        subnets = []
        for row, mask in zip(X, active, strict=True):
            blocks = []
            for b in np.flatnonzero(mask):
                plan = self.plans[b]
                genes = row[self.block_columns[b]]
                chosen = {
                    name: plan.options[name][gene] for name, gene in zip(FIELDS, genes, strict=True)
                }
                blocks.append(Block(stage=plan.stage, **chosen))
            subnets.append(Subnet(self.name, tuple(blocks)))
        return subnets

    def encode(self, subnets: Sequence[Subnet | dict[str, Any] | list[dict[str, Any]]]) -> IntArray:
        """The canonical genotypes of networks, shape ``(n, n_var)``.

        The forbidden rules are not checked; :meth:`valid` tells which rows obey them.

        Args:
            subnets: :class:`Subnet` objects, their JSON form, or the released code's dictionaries
                (keys ``ks``, ``e``, ``d`` and ``pw_w_bits_setting`` and so on), also in two parts,
                architecture and bits, as its files ``arch`` hold them.

        Raises:
            UserError: one is malformed, or has a depth or an option that this space lacks.
        """
        index = np.tile(self.block_sizes, (len(subnets), 1))
        for row, item in zip(index, subnets, strict=True):
            blocks, numbers = zip(*self._places(self._read(item)), strict=True)
            row[list(blocks)] = numbers
        return self.from_block_index(index)

    def _read(self, item: Any) -> Subnet:
        if isinstance(item, Subnet):
            return item
        if is_released(item):
            return read_released(joined(item), self.spec, self.plans)
        return Subnet.from_dict(item)

    def released(self, X: ArrayLike) -> list[dict[str, Any]]:
        """The networks of a genotype matrix as the released code's dictionaries.

        The inverse of :meth:`encode`. That code takes networks of the space ``imagenet``; its files
        hold what :func:`apq_moo.space.released.in_two_parts` makes of a dictionary.

        Args:
            X: see :meth:`decode`.

        Raises:
            UserError: see :meth:`check`.
        """
        return [write_released(subnet, self.spec, self.plans) for subnet in self.decode(X)]

    def _places(self, subnet: Subnet) -> list[tuple[int, int]]:
        """For each block of a network which of the space's it is, and its configuration's number.

        Raises:
            UserError: it is not a member of this space.
        """
        if subnet.space != self.name:
            raise UserError(f"this subnet is of space {shown(subnet.space)}, not {self.name!r}")
        stages = [block.stage for block in subnet.blocks]
        if stages != sorted(stages) or not set(stages) <= set(range(len(self.spec.stages))):
            last = len(self.spec.stages) - 1
            raise UserError(f"a subnet's stages must ascend from 0 to {last}")
        numbers: list[int] = []
        for number, stage in enumerate(self.spec.stages):
            depth = stages.count(number)
            if depth not in stage.depths:
                raise UserError(
                    f"stage {number} has {depth} blocks; space {self.name!r} allows "
                    f"{listed(stage.depths)}"
                )
            first = self.layout.stage_blocks[number].start
            numbers += range(first, first + depth)
        return [
            (b, self.plans[b].number(block))
            for b, block in zip(numbers, subnet.blocks, strict=True)
        ]

    def fixed_layers(self) -> list[Layer]:
        """The layers outside the searchable blocks, at the fixed bits, in order."""
        return list(self._fixed)

    @cached_property
    def _fixed(self) -> list[Layer]:
        return fixed_layers(self.spec, self.plans[-1])

    def layers(self, subnet: Subnet) -> list[Layer]:
        """Every layer of a network, in order.

        Raises:
            UserError: it is not a member of this space.
        """
        fixed = self.fixed_layers()
        n_ahead = sum(layer.component in ("stem", "first_block") for layer in fixed)
        blocks = [
            layer
            for (b, _), block in zip(self._places(subnet), subnet.blocks, strict=True)
            for layer in self.plans[b].layers(block)
        ]
        return [*fixed[:n_ahead], *blocks, *fixed[n_ahead:]]

"""Integer encoding of a search space: genotype matrices and what can be computed of them.

A genotype is an integer matrix ``X`` of shape ``(n, n_var)``; each entry is an option's index. The
columns are one depth for each stage that offers more than one, then for each block its kernel,
middle channels, and bits ``w_pw``, ``a_pw``, ``w_dw``, ``a_dw``. A block beyond its stage's depth
is inactive; its genes mean nothing and are 0 in canonical form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from apq_moo.arrays import IntArray
from apq_moo.errors import UserError, shown
from apq_moo.space.frames import gene_matrix
from apq_moo.space.layers import Layer
from apq_moo.space.plan import fixed_layers, forbidden_configurations, plan_blocks
from apq_moo.space.released import read_released
from apq_moo.space.spec import FIELDS, SpaceSpec
from apq_moo.space.subnet import Block, Subnet

_CHUNK = 2048
"""Rows indexed at a time, so that they stay in the processor's cache."""


@dataclass(frozen=True)
class Gene:
    """One column of a genotype matrix.

    Attributes:
        name: such as ``stage0.depth`` or ``block3.kernel``.
        kind: ``depth`` or one of the per-block fields.
        stage: its stage, from 0.
        block: its block, from 0 over the whole network; -1 for a depth.
        options: what the indices stand for.
    """

    name: str
    kind: str
    stage: int
    block: int
    options: tuple[int, ...]


class Space:
    """A search space with its integer encoding.

    Args:
        spec: the description.

    Attributes:
        spec: the description.
        name: its name.
        n_var: number of genes.
        n_blocks: number of searchable blocks, active or not.
        genes: the columns, in order.
        n_options: number of options of each gene, shape ``(n_var,)``.
        plans: what is fixed about each block.

    Raises:
        UserError: a block has no member, because of the channel range or the forbidden rules, or
            the space has more blocks or configurations than :mod:`apq_moo.space.plan` allows.
    """

    def __init__(self, spec: SpaceSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self.plans = plan_blocks(spec)
        self.n_blocks = len(self.plans)
        genes = [
            Gene(f"stage{i}.depth", "depth", i, -1, stage.depths)
            for i, stage in enumerate(spec.stages)
            if len(stage.depths) > 1
        ]
        n_depth = len(genes)
        for b, plan in enumerate(self.plans):
            genes += [
                Gene(f"block{b}.{name}", name, plan.stage, b, plan.options[name]) for name in FIELDS
            ]
        self.genes = tuple(genes)
        self.n_var = len(genes)
        self.n_options: IntArray = np.array([len(gene.options) for gene in genes], dtype=np.int64)
        self.depth_columns = {gene.stage: i for i, gene in enumerate(genes[:n_depth])}
        self.block_columns: IntArray = n_depth + np.arange(self.n_blocks * len(FIELDS)).reshape(
            self.n_blocks, len(FIELDS)
        )
        self.block_sizes: IntArray = np.array(
            [plan.n_configurations for plan in self.plans], dtype=np.int64
        )
        self.bit_columns: IntArray = self.block_columns[:, 2:].ravel()
        self._depth_options = [np.array(stage.depths, dtype=np.int64) for stage in spec.stages]
        self._strides = np.array([_row_major(plan.shape) for plan in self.plans], dtype=np.int64)
        depths = [max(stage.depths) for stage in spec.stages]
        self._first_block = [0, *accumulate(depths)]
        self._allowed: list[NDArray[np.bool_]] = []
        for b, plan in enumerate(self.plans):
            allowed = ~forbidden_configurations(plan, spec)
            if not allowed.any():
                raise UserError(
                    f"space {self.name!r}: the forbidden rules leave block {b} no configuration"
                )
            # One more entry: the index of an inactive block, which no rule touches.
            self._allowed.append(np.append(allowed, True))

    def __repr__(self) -> str:
        return f"Space({self.name!r}, n_var={self.n_var}, n_blocks={self.n_blocks})"

    def __copy__(self) -> Space:
        """Nothing changes a space, so copies of what holds one may share it."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Space:
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the description without its name; equal for equal spaces."""
        return self.spec.digest

    @property
    def gene_type(self) -> np.dtype[Any]:
        """The smallest unsigned integer that holds any option's index."""
        return np.min_scalar_type(int(self.n_options.max()) - 1)

    # -- genotypes ---------------------------------------------------------------------------------

    def check(self, X: ArrayLike) -> IntArray:
        """Check a genotype matrix.

        Args:
            X: integers of shape ``(n, n_var)``, or one row; or a data frame, whose columns are
                found by their genes' names (see :func:`apq_moo.space.frames.gene_matrix`).

        Returns:
            ``X`` as an int64 matrix.

        Raises:
            UserError: wrong shape or columns, not integers, or an index out of range.
        """
        X = gene_matrix((gene.name for gene in self.genes), X)
        try:
            array = np.atleast_2d(np.asarray(X))
        except ValueError as error:
            raise UserError("X must be a matrix: its rows differ in length") from error
        if array.ndim != 2 or array.shape[1] != self.n_var:
            raise UserError(
                f"space {self.name!r} expects X of shape (n, {self.n_var}), got {array.shape}"
            )
        if array.dtype.kind not in "iu":
            raise UserError(f"X must hold integers (option indices), got {array.dtype}")
        bad = (array < 0) | (array >= self.n_options)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise UserError(
                f"X[{row}, {column}] = {array[row, column]} is out of range: gene "
                f"{self.genes[column].name} has {self.n_options[column]} options"
            )
        return array.astype(np.int64, copy=False)

    def depths(self, X: IntArray) -> IntArray:
        """Depth of each stage, shape ``(n, n_stages)``."""
        depths = np.empty((len(X), len(self._depth_options)), dtype=np.int64)
        for stage, options in enumerate(self._depth_options):
            column = self.depth_columns.get(stage)
            depths[:, stage] = options[0] if column is None else options[X[:, column]]
        return depths

    @cached_property
    def _stage_of_block(self) -> IntArray:
        return np.array([plan.stage for plan in self.plans])

    @cached_property
    def _position_of_block(self) -> IntArray:
        return np.array([plan.position for plan in self.plans])

    def active(self, X: IntArray) -> NDArray[np.bool_]:
        """Which blocks are active, shape ``(n, n_blocks)``."""
        mask: NDArray[np.bool_] = self.depths(X)[:, self._stage_of_block] > self._position_of_block
        return mask

    def active_genes(self, X: IntArray) -> NDArray[np.bool_]:
        """Which genes mean something, shape ``(n, n_var)``; depth genes always do."""
        mask = np.ones(X.shape, dtype=bool)
        mask[:, self.block_columns] = self.active(X)[:, :, None]
        return mask

    def canonical(self, X: IntArray) -> IntArray:
        """A copy with inactive genes set to 0; equal rows are equal networks."""
        return np.where(self.active_genes(X), X, 0)

    def architecture(self, X: IntArray) -> IntArray:
        """Canonical form with all bit genes 0: equal rows are equal full-precision networks."""
        result = self.canonical(X)
        result[:, self.bit_columns] = 0
        return result

    def block_index(self, X: IntArray) -> IntArray:
        """One number for each block's configuration, shape ``(n, n_blocks)``.

        It lies in ``[0, block_sizes[b])`` and enumerates the fields in row-major order; an inactive
        block gets ``block_sizes[b]``. Tables of per-block costs are indexed by it. Columns are
        contiguous in memory.
        """
        index = np.empty((self.n_blocks, len(X)), dtype=np.int64)
        reals = np.empty((min(_CHUNK, len(X)), self.n_var), dtype=np.float32)
        for start in range(0, len(X), _CHUNK):
            rows, part = X[start : start + _CHUNK], index[:, start : start + _CHUNK]
            genes = reals[: len(rows)]
            np.copyto(genes, rows, casting="unsafe")
            for number, (first, columns, weights) in enumerate(self._index_weights):
                numbers = part[first : first + len(weights)]
                # Exact: every partial sum is an integer below MAX_CONFIGURATIONS = 2^24.
                np.copyto(numbers, weights @ genes[:, columns].T, casting="unsafe")
                if number in self.depth_columns:
                    options = self._depth_options[number]
                    depth = options[rows[:, self.depth_columns[number]]]
                    for position in range(int(options[0]), len(weights)):
                        inactive = depth <= position
                        np.copyto(
                            numbers[position], self.block_sizes[first + position], where=inactive
                        )
        return index.T

    @cached_property
    def _index_weights(self) -> list[tuple[int, slice, NDArray[np.float32]]]:
        """For each stage its first block, its blocks' columns, and what these genes count for.

        The last has shape ``(n_blocks of the stage, n_columns)``.
        """
        stages = []
        for stage, first in zip(self.spec.stages, self._first_block, strict=False):
            blocks = range(first, first + max(stage.depths))
            columns = self.block_columns[blocks].ravel()
            weights = np.zeros((len(blocks), len(columns)), dtype=np.float32)
            for row, b in enumerate(blocks):
                place = slice(row * len(FIELDS), (row + 1) * len(FIELDS))
                weights[row, place] = self._strides[b]
            stages.append((first, slice(int(columns[0]), int(columns[-1]) + 1), weights))
        return stages

    def block_genes(self, block: int, index: ArrayLike) -> IntArray:
        """Inverse of :meth:`block_index` for one block: genes of shape ``(..., 6)``."""
        genes = np.unravel_index(np.asarray(index), self.plans[block].shape)
        return np.stack(genes, axis=-1).astype(np.int64)

    @cached_property
    def _gene_table(self) -> NDArray[np.integer]:
        """Genes of every block's configurations and of an inactive one, one after the other."""
        parts = []
        for b, size in enumerate(self.block_sizes):
            genes = self.block_genes(b, np.arange(size))
            parts.append(np.vstack([genes, np.zeros((1, len(FIELDS)), dtype=np.int64)]))
        return np.concatenate(parts).astype(self.gene_type)

    @cached_property
    def _gene_offsets(self) -> IntArray:
        return np.cumsum(self.block_sizes + 1) - (self.block_sizes + 1)

    def from_block_index(self, index: IntArray, dtype: DTypeLike = np.int64) -> NDArray[Any]:
        """Inverse of :meth:`block_index`: canonical genotypes, shape ``(n, n_var)``.

        Args:
            index: shape ``(n, n_blocks)``.
            dtype: of the result; :attr:`gene_type` is the smallest that serves.
        """
        X = np.empty((len(index), self.n_var), dtype=dtype)
        genes = self._gene_table[self._gene_offsets + index]
        X[:, self.block_columns.ravel()] = genes.reshape(len(index), -1)
        for stage, column in self.depth_columns.items():
            blocks = slice(self._first_block[stage], self._first_block[stage + 1])
            depth = (index[:, blocks] < self.block_sizes[blocks]).sum(axis=1)
            X[:, column] = np.searchsorted(self._depth_options[stage], depth)
        return X

    def allowed(self, block: int) -> IntArray:
        """Indices of a block's configurations that no rule forbids, ascending."""
        return np.flatnonzero(self._allowed[block][:-1]).astype(np.int64)

    def valid(self, X: IntArray) -> NDArray[np.bool_]:
        """Whether each row obeys the forbidden rules in all its active blocks, shape ``(n,)``."""
        index = self.block_index(X)
        good = np.ones(len(X), dtype=bool)
        for b, allowed in enumerate(self._allowed):
            good &= allowed[index[:, b]]
        return good

    # -- counting and sampling ---------------------------------------------------------------------

    def _count(self, per_block: Sequence[int]) -> int:
        total = 1
        for stage, first in zip(self.spec.stages, self._first_block, strict=False):
            total *= sum(math.prod(per_block[first : first + depth]) for depth in stage.depths)
        return total

    def count(self) -> int:
        """Exact number of distinct valid networks (canonical forms)."""
        return self._count([len(self.allowed(b)) for b in range(self.n_blocks)])

    def count_architectures(self) -> int:
        """Exact number of distinct full-precision networks (depths, kernels and channels)."""
        return self._count([plan.shape[0] * plan.shape[1] for plan in self.plans])

    def sample(self, n: int, rng: np.random.Generator, *, valid: bool = True) -> IntArray:
        """Draw random networks in canonical form, shape ``(n, n_var)``.

        Every active gene is uniform over its options; with ``valid`` each block's configuration is
        uniform over those that no rule forbids. Depths are uniform.
        """
        X = rng.integers(0, self.n_options, size=(n, self.n_var), dtype=np.int64)
        if valid and self.spec.forbidden:
            for b in range(self.n_blocks):
                allowed = self.allowed(b)
                chosen = allowed[rng.integers(0, len(allowed), size=n)]
                X[:, self.block_columns[b]] = self.block_genes(b, chosen)
        return self.canonical(X)

    def smallest(self) -> IntArray:
        """The row with every gene at its first option, shape ``(n_var,)``."""
        return np.zeros(self.n_var, dtype=np.int64)

    def largest(self) -> IntArray:
        """The row with every gene at its last option, shape ``(n_var,)``."""
        return self.n_options - 1

    # -- features ----------------------------------------------------------------------------------

    @cached_property
    def _one_hot_offsets(self) -> tuple[IntArray, int, int]:
        """First input of each block gene; number of architecture inputs; of all inputs."""
        offsets = np.empty((self.n_blocks, len(FIELDS)), dtype=np.int64)
        start = architecture = 0
        for f, name in enumerate(FIELDS):
            for b, plan in enumerate(self.plans):
                offsets[b, f] = start
                start += len(plan.options[name])
            if name == "channels":
                architecture = start
        return offsets, architecture, start

    @property
    def one_hot_offsets(self) -> IntArray:
        """Position of each block gene's first option among the inputs, ``(n_blocks, 6)``."""
        return self._one_hot_offsets[0]

    @property
    def n_architecture_inputs(self) -> int:
        """Leading one-hot inputs that describe kernels and channels; the rest describe bits."""
        return self._one_hot_offsets[1]

    @property
    def n_inputs(self) -> int:
        """Width of :meth:`one_hot`."""
        return self._one_hot_offsets[2]

    def one_hot_index(self, X: IntArray) -> IntArray:
        """Positions of the ones, shape ``(n, n_blocks, 6)``; -1 where a block is inactive."""
        index = X[:, self.block_columns] + self._one_hot_offsets[0]
        return np.where(self.active(X)[:, :, None], index, -1)

    def one_hot(self, X: IntArray) -> NDArray[np.float32]:
        """Inputs of a predictor, shape ``(n, n_inputs)``, in the published layout.

        Field by field (kernels, channels, then the four bit roles), within a field block by block,
        within a block option by option; inactive blocks are all zero, which is how depth shows.
        """
        index = self.one_hot_index(X)  # its -1 falls into one more column, cut off below
        out = np.zeros((len(X), self.n_inputs + 1), dtype=np.float32)
        out[np.arange(len(X))[:, None, None], index] = 1.0
        return out[:, :-1]

    # -- networks ----------------------------------------------------------------------------------

    def decode(self, X: ArrayLike) -> list[Subnet]:
        """The networks that the rows of a genotype matrix stand for.

        Raises:
            UserError: see :meth:`check`.
        """
        X = self.check(X)
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

    def encode(self, subnets: Sequence[Subnet | dict[str, Any]]) -> IntArray:
        """The canonical genotypes of networks, shape ``(n, n_var)``.

        The forbidden rules are not checked; :meth:`valid` tells which rows obey them.

        Args:
            subnets: :class:`Subnet` objects, their JSON form, or the released code's dictionaries
                (keys ``ks``, ``e``, ``d`` and ``pw_w_bits_setting`` and so on).

        Raises:
            UserError: one is malformed, or has a depth or an option that this space lacks.
        """
        X = np.zeros((len(subnets), self.n_var), dtype=np.int64)
        for row, item in zip(X, subnets, strict=True):
            self._encode_one(self._read(item), row)
        return X

    def _read(self, item: Subnet | dict[str, Any]) -> Subnet:
        if isinstance(item, Subnet):
            return item
        if isinstance(item, dict) and "ks" in item:
            return read_released(item, self.spec, self.plans)
        return Subnet.from_dict(item)

    def _encode_one(self, subnet: Subnet, row: IntArray) -> None:
        if subnet.space != self.name:
            raise UserError(f"this subnet is of space {shown(subnet.space)}, not {self.name!r}")
        by_stage: list[list[Block]] = [[] for _ in self.spec.stages]
        last = 0
        for block in subnet.blocks:
            if not last <= block.stage < len(by_stage):
                raise UserError(f"a subnet's stages must ascend from 0 to {len(by_stage) - 1}")
            last = block.stage
            by_stage[block.stage].append(block)
        for number, (stage, blocks) in enumerate(zip(self.spec.stages, by_stage, strict=True)):
            if len(blocks) not in stage.depths:
                raise UserError(
                    f"stage {number} has {len(blocks)} blocks; space {self.name!r} allows "
                    f"{_listed(stage.depths)}"
                )
            if number in self.depth_columns:
                row[self.depth_columns[number]] = stage.depths.index(len(blocks))
            for b, block in enumerate(blocks, start=self._first_block[number]):
                self._encode_block(b, block, row)

    def _encode_block(self, b: int, block: Block, row: IntArray) -> None:
        for column, name in zip(self.block_columns[b], FIELDS, strict=True):
            options = self.plans[b].options[name]
            value = getattr(block, name)
            if value not in options:
                raise UserError(
                    f"block {b}: {name} {shown(value)} is not offered; options: {_listed(options)}"
                )
            row[column] = options.index(value)

    def fixed_layers(self) -> list[Layer]:
        """The layers outside the searchable blocks, at the fixed bits, in order."""
        return fixed_layers(self.spec, self.plans[-1])

    def has_residual(self, part: str) -> bool:
        """Whether a block (``block<b>`` or ``first_block``, as in layers' names) adds its input."""
        if part.startswith("block"):
            return self.plans[int(part.removeprefix("block"))].residual
        first = self.spec.first_block
        return first is not None and first[2] == 1 and first[0] == self.spec.stem[0]

    def layers(self, subnet: Subnet) -> list[Layer]:
        """Every layer of a network, in order.

        Raises:
            UserError: it is not a member of this space.
        """
        numbers = np.flatnonzero(self.active(self.encode([subnet]))[0])
        fixed = self.fixed_layers()
        n_ahead = sum(layer.component in ("stem", "first_block") for layer in fixed)
        layers = fixed[:n_ahead]
        for b, block in zip(numbers, subnet.blocks, strict=True):
            layers += self.plans[b].layers(block, f"block{b}")
        return layers + fixed[n_ahead:]


def _row_major(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


def _listed(options: tuple[int, ...]) -> str:
    texts = [str(option) for option in options]
    return ", ".join(texts if len(texts) <= 12 else [*texts[:3], "...", texts[-1]])

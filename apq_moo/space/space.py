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
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apq_moo.errors import UserError
from apq_moo.space.layers import Layer
from apq_moo.space.released import read_released
from apq_moo.space.spec import FIELDS, ROLES, SpaceSpec, Stage
from apq_moo.space.subnet import Block, Subnet

IntArray = NDArray[np.int64]


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


@dataclass(frozen=True)
class BlockPlan:
    """What is fixed about one searchable block.

    Attributes:
        stage: its stage.
        position: its place within the stage, from 0; it is active iff ``position < depth``.
        c_in: input channels.
        c_out: output channels.
        size: height and width of its input.
        stride: stride of its depthwise layer.
        options: for each field, the options.
    """

    stage: int
    position: int
    c_in: int
    c_out: int
    size: int
    stride: int
    options: dict[str, tuple[int, ...]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of options of each field, in the order of the genes."""
        return tuple(len(self.options[name]) for name in FIELDS)

    @property
    def n_configurations(self) -> int:
        """Number of combinations of options, forbidden ones included."""
        return math.prod(self.shape)

    def layers(self, block: Block, prefix: str) -> list[Layer]:
        """The three layers of the block under a choice of options."""
        mid = block.channels
        out = -(-self.size // self.stride)
        name = [f"{prefix}.{part}" for part in ("expand", "depthwise", "project")]
        w_dw, a_dw, w_pw, a_pw = block.w_dw, block.a_dw, block.w_pw, block.a_pw
        return [
            Layer(name[0], "block", self.c_in, mid, self.size, 1, 1, 1, w_pw, a_pw),
            Layer(
                name[1], "block", mid, mid, self.size, block.kernel, self.stride, mid, w_dw, a_dw
            ),
            Layer(name[2], "block", mid, self.c_out, out, 1, 1, 1, w_pw, a_pw),
        ]


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
        UserError: a block has no member, because of the channel range or the forbidden rules.
    """

    def __init__(self, spec: SpaceSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self.plans = _plan(spec)
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
        self._strides = np.array([_strides(plan.shape) for plan in self.plans], dtype=np.int64)
        self._forbidden = [_forbidden_mask(plan, spec) for plan in self.plans]
        for b, mask in enumerate(self._forbidden):
            if mask.all():
                raise UserError(f"space {self.name!r}: every option of block {b} is forbidden")

    def __repr__(self) -> str:
        return f"Space({self.name!r}, n_var={self.n_var}, n_blocks={self.n_blocks})"

    @property
    def digest(self) -> str:
        """SHA-256 of the description without its name; equal for equal spaces."""
        return self.spec.digest

    # -- genotypes ---------------------------------------------------------------------------------

    def check(self, X: ArrayLike) -> IntArray:
        """Check a genotype matrix.

        Args:
            X: integers of shape ``(n, n_var)``, or one row.

        Returns:
            ``X`` as an int64 matrix.

        Raises:
            UserError: wrong shape, not integers, or an index out of range.
        """
        array = np.atleast_2d(np.asarray(X))
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
        block gets ``block_sizes[b]``. Tables of per-block costs are indexed by it.
        """
        index = np.einsum("nbf,bf->nb", X[:, self.block_columns], self._strides)
        return np.where(self.active(X), index, self.block_sizes)

    def block_genes(self, block: int, index: ArrayLike) -> IntArray:
        """Inverse of :meth:`block_index` for one block: genes of shape ``(..., 6)``."""
        genes = np.unravel_index(np.asarray(index), self.plans[block].shape)
        return np.stack(genes, axis=-1).astype(np.int64)

    def allowed(self, block: int) -> IntArray:
        """Indices of a block's configurations that no rule forbids, ascending."""
        return np.flatnonzero(~self._forbidden[block]).astype(np.int64)

    def valid(self, X: IntArray) -> NDArray[np.bool_]:
        """Whether each row obeys the forbidden rules in all its active blocks, shape ``(n,)``."""
        index = self.block_index(X)
        good = np.ones(len(X), dtype=bool)
        for b, mask in enumerate(self._forbidden):
            good &= ~np.append(mask, False)[index[:, b]]
        return good

    # -- counting and sampling ---------------------------------------------------------------------

    def _count(self, per_block: Sequence[int]) -> int:
        total = 1
        for stage, spec in enumerate(self.spec.stages):
            sizes = [per_block[b] for b, plan in enumerate(self.plans) if plan.stage == stage]
            total *= sum(math.prod(sizes[:depth]) for depth in spec.depths)
        return total

    def count(self) -> int:
        """Exact number of distinct valid networks (canonical forms)."""
        return self._count([int((~mask).sum()) for mask in self._forbidden])

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
        index = self.one_hot_index(X).reshape(len(X), -1)
        out = np.zeros((len(X), self.n_inputs + 1), dtype=np.float32)
        out[np.arange(len(X))[:, None], index] = 1.0
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

        Args:
            subnets: :class:`Subnet` objects, their JSON form, or the released code's dictionaries
                (keys ``ks``, ``e``, ``d`` and ``pw_w_bits_setting`` and so on).

        Raises:
            UserError: one is malformed or not a member of this space.
        """
        X = np.zeros((len(subnets), self.n_var), dtype=np.int64)
        for row, item in zip(X, subnets, strict=True):
            self._encode_one(self._read(item), row)
        return X

    def _read(self, item: Subnet | dict[str, Any]) -> Subnet:
        if isinstance(item, Subnet):
            return item
        if "ks" in item:
            return read_released(item, self.name, self.plans, len(self.spec.stages))
        return Subnet.from_dict(item)

    def _encode_one(self, subnet: Subnet, row: IntArray) -> None:
        if subnet.space != self.name:
            raise UserError(f"this subnet is of space {subnet.space!r}, not {self.name!r}")
        by_stage: list[list[Block]] = [[] for _ in self.spec.stages]
        last = 0
        for block in subnet.blocks:
            if not last <= block.stage < len(by_stage):
                raise UserError(f"a subnet's stages must ascend from 0 to {len(by_stage) - 1}")
            last = block.stage
            by_stage[block.stage].append(block)
        first = 0
        for number, (stage, blocks) in enumerate(zip(self.spec.stages, by_stage, strict=True)):
            if len(blocks) not in stage.depths:
                raise UserError(
                    f"stage {number} has {len(blocks)} blocks; space {self.name!r} allows "
                    f"{', '.join(map(str, stage.depths))}"
                )
            if number in self.depth_columns:
                row[self.depth_columns[number]] = stage.depths.index(len(blocks))
            for offset, block in enumerate(blocks):
                self._encode_block(first + offset, block, row)
            first += max(stage.depths)

    def _encode_block(self, b: int, block: Block, row: IntArray) -> None:
        for column, name in zip(self.block_columns[b], FIELDS, strict=True):
            options = self.plans[b].options[name]
            value = getattr(block, name)
            if value not in options:
                raise UserError(
                    f"block {b}: {name} {value} is not offered; options: "
                    f"{', '.join(map(str, options))}"
                )
            row[column] = options.index(value)

    def fixed_layers(self) -> list[Layer]:
        """The layers outside the searchable blocks, at the fixed bits, in order."""
        spec = self.spec
        bits = spec.fixed_bits
        channels, kernel, stride = spec.stem
        size = -(-spec.input_size // stride)
        layers = [
            Layer("stem", "stem", spec.input_channels, channels, spec.input_size, kernel, stride, 1,
                  bits, bits)
        ]  # fmt: skip
        if spec.first_block is not None:
            out, kernel, stride = spec.first_block
            name = "first_block"
            layers.append(
                Layer(f"{name}.depthwise", name, channels, channels, size, kernel, stride, channels,
                      bits, bits)
            )  # fmt: skip
            size = -(-size // stride)
            layers.append(Layer(f"{name}.project", name, channels, out, size, 1, 1, 1, bits, bits))
        last = self.plans[-1]
        size, channels = -(-last.size // last.stride), last.c_out
        if spec.feature_mix is not None:
            layers.append(
                Layer("feature_mix", "feature_mix", channels, spec.feature_mix, size, 1, 1, 1,
                      bits, bits)
            )  # fmt: skip
            channels = spec.feature_mix
        layers.append(
            Layer("classifier", "classifier", channels, spec.classes, 1, 1, 1, 1, bits, bits,
                  bias=True)
        )  # fmt: skip
        return layers

    def layers(self, subnet: Subnet) -> list[Layer]:
        """Every layer of a network, in order.

        Raises:
            UserError: it is not a member of this space.
        """
        self.encode([subnet])
        fixed = self.fixed_layers()
        ahead = [layer for layer in fixed if layer.component in ("stem", "first_block")]
        result = list(ahead)
        counts = [0] * len(self.spec.stages)
        for block in subnet.blocks:
            b = self._first_block_of(block.stage) + counts[block.stage]
            counts[block.stage] += 1
            result += self.plans[b].layers(block, f"block{b}")
        return result + fixed[len(ahead) :]

    def _first_block_of(self, stage: int) -> int:
        return sum(max(s.depths) for s in self.spec.stages[:stage])


def _strides(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


def _channel_options(stage: Stage, c_in: int, step: int) -> tuple[int, ...]:
    low, high = stage.expand
    first = max(1, math.ceil(low * c_in / step - 1e-9))
    last = math.floor(high * c_in / step + 1e-9)
    return tuple(step * i for i in range(first, last + 1))


def _plan(spec: SpaceSpec) -> tuple[BlockPlan, ...]:
    width = spec.stem[0]
    size = -(-spec.input_size // spec.stem[2])
    if spec.first_block is not None:
        width = spec.first_block[0]
        size = -(-size // spec.first_block[2])
    plans = []
    for number, stage in enumerate(spec.stages):
        for position in range(max(stage.depths)):
            channels = _channel_options(stage, width, spec.channel_step)
            if not channels:
                raise UserError(
                    f"space {spec.name!r}: no multiple of {spec.channel_step} lies within "
                    f"{stage.expand[0]:g} to {stage.expand[1]:g} times {width} (stage {number + 1})"
                )
            options = {"kernel": stage.kernels, "channels": channels}
            options |= {role: spec.bits[role] for role in ROLES}
            stride = stage.stride if position == 0 else 1
            plans.append(BlockPlan(number, position, width, stage.width, size, stride, options))
            width, size = stage.width, -(-size // stride)
    return tuple(plans)


def _forbidden_mask(plan: BlockPlan, spec: SpaceSpec) -> NDArray[np.bool_]:
    """Which configurations of a block some rule forbids, shape ``(n_configurations,)``."""
    mask = np.zeros(plan.shape, dtype=bool)
    for rule in spec.forbidden:
        hit = np.ones(plan.shape, dtype=bool)
        for axis, name in enumerate(FIELDS):
            if name in rule:
                shape = [1] * len(FIELDS)
                shape[axis] = -1
                hit &= np.isin(plan.options[name], rule[name]).reshape(shape)
        mask |= hit
    return mask.ravel()

"""What a description fixes about each layer and block: shapes, options, forbidden combinations."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from apq_moo.errors import UserError, shown
from apq_moo.space.layers import Layer
from apq_moo.space.spec import FIELDS, ROLES, SpaceSpec, Stage
from apq_moo.space.subnet import Block

MAX_BLOCKS = 4096
"""Most searchable blocks of a space, so that a genotype has at most some 25,000 genes."""

MAX_CONFIGURATIONS = 2**24
"""Most configurations of all blocks together, so that a cost table stays within 128 MiB."""


@dataclass(frozen=True)
class BlockPlan:
    """What is fixed about one searchable block.

    Attributes:
        block: which it is, from 0 over the whole network.
        stage: its stage, from 0.
        position: its place within the stage, from 0; it is active iff ``position < depth``.
        c_in: input channels.
        c_out: output channels.
        size: height and width of its input.
        stride: stride of its depthwise layer.
        between_bits: in which its output is stored; see :class:`~apq_moo.space.Layer`.
        signed: whether its input has both signs.
        options: for each field, the options.
    """

    block: int
    stage: int
    position: int
    c_in: int
    c_out: int
    size: int
    stride: int
    between_bits: int
    signed: bool
    options: dict[str, tuple[int, ...]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of options of each field, in the order of the genes."""
        return tuple(len(self.options[name]) for name in FIELDS)

    @property
    def n_configurations(self) -> int:
        """Number of combinations of options, forbidden ones included."""
        return math.prod(self.shape)

    @property
    def size_out(self) -> int:
        """Height and width of its output."""
        return size_behind(self.size, self.stride)

    @property
    def has_shortcut(self) -> bool:
        """Whether its input is added to its output."""
        return self.stride == 1 and self.c_in == self.c_out

    def number(self, block: Block) -> int:
        """The number of a configuration, in row-major order of the fields.

        Raises:
            UserError: it has an option that is not offered.
        """
        number = 0
        for name in FIELDS:
            options, value = self.options[name], getattr(block, name)
            if value not in options:
                raise UserError(
                    f"block {self.block}: {name} {shown(value)} is not offered; options: "
                    f"{listed(options)}"
                )
            number = number * len(options) + options.index(value)
        return number

    def layers(self, block: Block) -> list[Layer]:
        """The three layers of the block under a choice of options, the same objects each time."""
        pointwise = block.channels, block.w_pw, block.a_pw
        depthwise = block.channels, block.w_dw, block.a_dw, block.kernel
        known = self._known
        if pointwise not in known or depthwise not in known:
            expand, middle, project = self._layers(block)
            known.setdefault(pointwise, (expand, project))
            known.setdefault(depthwise, (middle,))
        expand, project = known[pointwise]
        return [expand, *known[depthwise], project]

    @cached_property
    def _known(self) -> dict[tuple[int, ...], tuple[Layer, ...]]:
        """Layers by what they depend on: channels and bits, and the kernel of depthwise ones."""
        return {}

    def _layers(self, block: Block) -> tuple[Layer, Layer, Layer]:
        mid, b, shortcut = block.channels, self.block, self.has_shortcut
        pw, dw = (block.w_pw, block.a_pw), (block.w_dw, block.a_dw)
        expand = ("block", self.c_in, mid, self.size, 1, 1, 1, *pw)
        depthwise = ("block", mid, mid, self.size, block.kernel, self.stride, mid, *dw)
        project = Layer("block", mid, self.c_out, self.size_out, 1, 1, 1, *pw, block=b)
        return (
            Layer(*expand, block=b, place="expand", opens_shortcut=shortcut, signed=self.signed),
            Layer(*depthwise, block=b, place="depthwise"),
            _projection(project, self.between_bits, shortcut=shortcut),
        )


def _projection(layer: Layer, between: int, *, shortcut: bool) -> Layer:
    """The last layer of a block."""
    end = replace(layer, place="project", activation=None)
    return replace(end, closes_shortcut=shortcut, between_bits=between)


def size_behind(size: int, stride: int) -> int:
    """Height and width behind a "same"-padded layer."""
    return -(-size // stride)


def plan_blocks(spec: SpaceSpec) -> tuple[BlockPlan, ...]:
    """Plan the searchable blocks, in order.

    Raises:
        UserError: a block has no channel option, or the space passes :data:`MAX_BLOCKS` or
            :data:`MAX_CONFIGURATIONS`.
    """
    n_blocks = sum(max(stage.depths) for stage in spec.stages)
    if n_blocks > MAX_BLOCKS:
        raise UserError(
            f"space {spec.name!r} has {n_blocks} blocks; at most {MAX_BLOCKS} are supported: "
            "lower depths"
        )
    width, size = spec.stem[0], size_behind(spec.input_size, spec.stem[2])
    if spec.first_block is not None:
        width, size = spec.first_block[0], size_behind(size, spec.first_block[2])
    plans: list[BlockPlan] = []
    total = 0
    for number, stage in enumerate(spec.stages):
        for position in range(max(stage.depths)):
            channels = _channel_options(stage, width, spec.channel_step)
            if not channels:
                raise UserError(
                    f"space {spec.name!r}: no multiple of channel_step {spec.channel_step} lies "
                    f"within expand, {stage.expand[0]:g} to {stage.expand[1]:g} times {width} "
                    f"(stages[{number}])"
                )
            bits = {role: spec.bits[role] for role in ROLES}
            total += len(stage.kernels) * len(channels) * math.prod(map(len, bits.values()))
            if total > MAX_CONFIGURATIONS:
                raise UserError(
                    f"space {spec.name!r} has more than {MAX_CONFIGURATIONS:,} configurations of "
                    f"its blocks (stages[{number}] alone offers {len(channels)} channel numbers a "
                    "block): offer fewer bits or kernels, or raise channel_step"
                )
            options = {"kernel": stage.kernels, "channels": tuple(channels), **bits}
            stride = stage.stride if position == 0 else 1
            signed = bool(plans) or spec.first_block is not None
            shape = (width, stage.width, size, stride, spec.between_bits, signed)
            plans.append(BlockPlan(len(plans), number, position, *shape, options))
            width, size = stage.width, plans[-1].size_out
    return tuple(plans)


def _channel_options(stage: Stage, c_in: int, step: int) -> range:
    low, high = stage.expand
    first = max(1, math.ceil(low * c_in / step - 1e-9))
    last = math.floor(high * c_in / step + 1e-9)
    return range(step * first, step * last + 1, step)


def forbidden_configurations(plan: BlockPlan, spec: SpaceSpec) -> NDArray[np.bool_]:
    """Which configurations of a block some rule forbids, shape ``(n_configurations,)``."""
    mask = np.zeros(plan.shape, dtype=bool)
    for rule in spec.forbidden:
        hits = [np.isin(plan.options[name], rule.get(name, plan.options[name])) for name in FIELDS]
        mask[np.ix_(*hits)] = True
    return mask.ravel()


def fixed_layers(spec: SpaceSpec, last: BlockPlan) -> list[Layer]:
    """The layers outside the searchable blocks, at the fixed bits, in order.

    Args:
        spec: the description.
        last: the last block, which the layers of the tail follow.
    """
    bits, between = (spec.fixed_bits, spec.fixed_bits), spec.between_bits
    c_in, size = spec.input_channels, spec.input_size
    c_out, kernel, stride = spec.stem
    layers = [Layer("stem", c_in, c_out, size, kernel, stride, 1, *bits, between_bits=between)]
    if spec.first_block is not None:
        part, c_in, size = "first_block", c_out, layers[-1].size_out
        c_out, kernel, stride = spec.first_block
        shortcut = stride == 1 and c_in == c_out
        depthwise = (part, c_in, c_in, size, kernel, stride, c_in, *bits)
        layers.append(Layer(*depthwise, place="depthwise", opens_shortcut=shortcut))
        project = Layer(part, c_in, c_out, layers[-1].size_out, 1, 1, 1, *bits)
        layers.append(_projection(project, between, shortcut=shortcut))
    c_out = last.c_out
    if spec.feature_mix is not None:
        c_in, c_out = c_out, spec.feature_mix
        mix = ("feature_mix", c_in, c_out, last.size_out, 1, 1, 1, *bits)
        layers.append(Layer(*mix, between_bits=between, signed=True))
    classifier = ("classifier", c_out, spec.classes, 1, 1, 1, 1, *bits)
    signed = spec.feature_mix is None
    layers.append(Layer(*classifier, bias=True, activation=None, signed=signed))
    return layers


def listed(options: tuple[int, ...]) -> str:
    """Options as messages show them: all of them, or the first and the last."""
    texts = [str(option) for option in options]
    return ", ".join(texts if len(texts) <= 12 else [*texts[:3], "...", texts[-1]])

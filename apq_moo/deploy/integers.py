"""A network of integers, independent of any format: what exporters write and checkers compare with.

Every layer multiplies levels and sums them exactly. Behind the sum stands one gain and one bias for
each channel, which hold the steps of weight and input and the batch norm; with single-precision
roundings where ``docs/supernet.md`` has them, so that the network gives the very logits that a
search measured. Gains are never negative: where a batch norm's scale is, the channel's weights have
the other sign, which changes nothing, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.errors import UserError
from apq_moo.space import Block, Layer, Subnet

LEAST_BITS, MOST_BITS = 2, 8
"""Bits of weights and activations that integer networks have."""

HALF, SINGLE = 16, 32
"""Bits of floats between blocks; 8 are integers."""

Weights = NDArray[np.int8]
Singles = NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """The integers that an activation may have, 0 of which stands for 0.0.

    Attributes:
        step: what 1 stands for; a single-precision number.
        low: the smallest level, at most 0; its negative is the zero point of unsigned integers.
        bits: there are ``2^bits`` levels.
    """

    step: float
    low: int
    bits: int

    @property
    def high(self) -> int:
        """The largest level."""
        return int(self.low + 2**self.bits - 1)

    @property
    def inverse(self) -> np.float32:
        """What values are multiplied by before they are rounded: ``single(1 / step)``."""
        return np.float32(1) / np.float32(self.step)

    def levels(self, x: Singles) -> Singles:
        """The levels of values, as whole floats of the same shape."""
        levels: Singles = np.rint(x * self.inverse)
        return np.clip(levels, np.float32(self.low), np.float32(self.high), out=levels)

    def rounded(self, x: Singles) -> Singles:
        """What values are stored as: ``single(level * step)``."""
        stored: Singles = self.levels(x) * np.float32(self.step)
        return stored


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """One layer of an integer network.

    Attributes:
        shape: its place, shape, bits and what follows it (ReLU6, shortcut, form between blocks).
        stage: the stage of its searchable block; None outside these.
        weight: levels, within ``-(2^(w_bits-1) - 1) ... 2^(w_bits-1) - 1``, shape ``(c_out,
            c_in / groups, kernel, kernel)``.
        gain: what 1 of the sum stands for behind the batch norm, at least 0, shape ``(c_out,)``.
        bias: what is then added, shape ``(c_out,)``.
        input: levels of its input.
        output: levels of what is stored between blocks, before a shortcut is added; None where that
            is a float, or within a block.
        total: levels of the sum with the shortcut; None where there is none, or it is a float.
    """

    shape: Layer
    stage: int | None
    weight: Weights
    gain: Singles
    bias: Singles
    input: Grid
    output: Grid | None = None
    total: Grid | None = None

    @property
    def name(self) -> str:
        """Where it stands, such as ``stem`` or ``block3.expand``."""
        return self.shape.name

    @property
    def top(self) -> int:
        """The largest level of its weights."""
        return int(2 ** (self.shape.w_bits - 1) - 1)

    @property
    def weight_step(self) -> NDArray[np.float64]:
        """What 1 of a weight stands for with the batch norm folded in, shape ``(c_out,)``."""
        return self.gain.astype(np.float64) / self.input.step

    @property
    def largest_sum(self) -> int:
        """A bound on the magnitude of the sum."""
        levels = max(-self.input.low, self.input.high)
        sums = np.abs(self.weight.astype(np.int64)).reshape(len(self.weight), -1).sum(1)
        return int(sums.max(initial=0)) * levels


@dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """A whole network of integers, from an image to its logits.

    Attributes:
        layers: in order; the last is the classifier, on the mean over the pixels.
        classes: their names, in the order of the logits.
        space: the name of the space that it is a member of.
        origin: where it comes from (JSON): digests of space, supernet and images.
    """

    layers: tuple[IntegerLayer, ...]
    classes: tuple[str, ...]
    space: str
    origin: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image, whose values lie in [0, 1]."""
        first = self.layers[0].shape
        return first.c_in, first.size, first.size

    @property
    def between_bits(self) -> int:
        """What is stored between blocks: integers of 8 bits, or floats of 16 or 32."""
        found = self.layers[0].shape.between_bits
        assert found is not None
        return found

    @cached_property
    def subnet(self) -> Subnet:
        """The policy, read from the layers.

        Raises:
            UserError: their bits are not those of one.
        """
        return policy(self.space, [(layer.stage, layer.shape) for layer in self.layers])


def policy(space: str, layers: Sequence[tuple[int | None, Layer]]) -> Subnet:
    """The subnet that consists of layers.

    Args:
        space: the space's name.
        layers: in order, with the stage of each; None outside searchable blocks.

    Raises:
        UserError: a block is not one of expansion, depthwise convolution and projection, or its
            bits are not those of one.
    """
    blocks: dict[tuple[int, int], dict[str, Layer]] = {}
    for stage, layer in layers:
        if layer.block is not None and stage is not None:
            blocks.setdefault((layer.block, stage), {})[layer.place] = layer
    found = []
    for (number, stage), parts in blocks.items():
        if list(parts) != ["expand", "depthwise", "project"]:
            raise UserError(f"block{number} has the layers {', '.join(parts)}")
        expand, depthwise, project = parts.values()
        if (expand.w_bits, expand.a_bits) != (project.w_bits, project.a_bits):
            raise UserError(f"the two pointwise layers of block{number} differ in their bits")
        bits = expand.w_bits, expand.a_bits, depthwise.w_bits, depthwise.a_bits
        found.append(Block(stage, depthwise.kernel, expand.c_out, *bits))
    return Subnet(space, tuple(found))


def check(network: IntegerNetwork) -> None:
    """Check that the layers of a network fit each other and their tensors.

    Raises:
        UserError: they do not; the message names the layer.
    """
    shapes = [layer.shape for layer in network.layers]
    if len(shapes) < 2 or not shapes[-1].bias or any(shape.bias for shape in shapes[:-1]):
        raise UserError("a network has one layer with a bias of its own, the classifier at its end")
    if len({shape.name for shape in shapes}) < len(shapes):
        raise UserError("two layers have the same name")
    if len(network.classes) != shapes[-1].c_out:
        raise UserError(f"{len(network.classes)} classes are named, not {shapes[-1].c_out}")
    _check_places(shapes)
    for layer in network.layers:
        check_bits(layer.shape)
        try:
            _check_tensors(layer)
            _check_grids(layer)
        except UserError as error:
            raise UserError(f"{layer.name}: {error}") from None


def check_bits(layer: Layer) -> None:
    """Check that a layer can be one of integers.

    Raises:
        UserError: its weights or inputs have other than 2 to 8 bits.
    """
    if not all(LEAST_BITS <= bits <= MOST_BITS for bits in (layer.w_bits, layer.a_bits)):
        raise UserError(
            f"{layer.name} has weights of {layer.w_bits} bits and inputs of {layer.a_bits}; "
            f"networks of integers have {LEAST_BITS} to {MOST_BITS}"
        )


def _check_places(shapes: Sequence[Layer]) -> None:
    """What each layer reads is what the one before it gives, and shortcuts close."""
    between = shapes[0].between_bits
    held: Layer | None = None
    for shape, following in zip(shapes, [*shapes[1:], None], strict=True):
        if shape.opens_shortcut:
            held = shape
        if shape.closes_shortcut:
            fits = held is not None and (held.c_in, held.size) == (shape.c_out, shape.size_out)
            if not fits or not shape.leaves_block or shape.activation is not None:
                raise UserError(f"{shape.name}: its shortcut does not fit")
            held = None
        if shape.between_bits not in (None, between) or between is None:
            raise UserError(f"{shape.name}: blocks store in different forms")
        if shape.groups not in (1, shape.c_in) or shape.c_out % shape.groups:
            raise UserError(f"{shape.name}: it has {shape.groups} groups")
        _check_following(shape, following)
    if not shapes[-2].leaves_block:
        raise UserError(f"{shapes[-2].name}: its output is not stored")


def _check_following(shape: Layer, following: Layer | None) -> None:
    if following is None:
        if shape.size != 1 or shape.kernel != 1 or shape.leaves_block or shape.activation:
            raise UserError(f"{shape.name}: it is no classifier of pooled features")
        return
    size = 1 if following.bias else shape.size_out
    if (following.c_in, following.size) != (shape.c_out, size) or shape.size_out < 1:
        raise UserError(f"{following.name}: it does not read what {shape.name} gives")


def _check_tensors(layer: IntegerLayer) -> None:
    shape, top = layer.shape, layer.top
    kernel = (shape.c_out, shape.c_in // shape.groups, shape.kernel, shape.kernel)
    for name, kind, size in (
        ("weight", np.int8, kernel),
        ("gain", np.float32, kernel[:1]),
        ("bias", np.float32, kernel[:1]),
    ):
        tensor = getattr(layer, name)
        if tensor.dtype != kind or tensor.shape != size:
            raise UserError(
                f"its {name} has shape {tensor.shape} and type {tensor.dtype}, not {size} and "
                f"{np.dtype(kind)}"
            )
    if int(layer.weight.min(initial=0)) < -top or int(layer.weight.max(initial=0)) > top:
        raise UserError(f"its weights are not within -{top} ... {top}")
    if not (np.isfinite(layer.gain) & (layer.gain >= 0) & np.isfinite(layer.bias)).all():
        raise UserError("its gains or biases are negative or not finite")


def _check_grids(layer: IntegerLayer) -> None:
    shape = layer.shape
    if layer.input.bits != shape.a_bits:
        raise UserError(f"its input has levels of {layer.input.bits} bits, not {shape.a_bits}")
    stored = shape.between_bits == MOST_BITS
    for what, grid, there in (
        ("output", layer.output, stored),
        ("total", layer.total, stored and shape.closes_shortcut),
    ):
        if (grid is not None) != there or (grid is not None and grid.bits != MOST_BITS):
            raise UserError(f"its {what} has no levels of {MOST_BITS} bits, or has some in vain")
    for grid in (layer.input, layer.output, layer.total):
        if grid is not None and not grid.low <= 0 <= grid.high:
            raise UserError(f"levels {grid.low} ... {grid.high} lack 0")

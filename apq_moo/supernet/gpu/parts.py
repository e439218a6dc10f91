"""What a subnet consists of for the kernels: convolutions, and parts of them that are kept.

A part launches the same whatever its bits are, but for addresses.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from apq_moo.space import Layer
from apq_moo.supernet.gpu.operands import Weight
from apq_moo.supernet.layers import ElasticNorm
from apq_moo.supernet.network import Node


@dataclass(frozen=True)
class Use:
    """A convolution as a subnet uses it.

    Attributes:
        node: the layer and its module.
        number: of its batch norm's vectors.
        weight: all of it, or its part for the layer's input channels.
        span: of its input, if that is rounded to levels.
        shape: a number that those have in common whose launches differ in addresses only.
    """

    node: Node
    number: int
    weight: Weight
    span: Tensor | None
    shape: int

    @property
    def layer(self) -> Layer:
        """Its shape and bits."""
        return self.node.layer

    @property
    def variables(self) -> list[Tensor]:
        """What depends on the bits."""
        return [x for x in (self.weight.data, self.weight.scale, self.span) if x is not None]


@dataclass(frozen=True)
class Part:
    """Convolutions from one output that is stored between blocks to the next.

    Attributes:
        uses: these; a shortcut leads around all of them.
        reads: what its input is stored as: levels, floats or integers.
        kind: the type of these.
        stored: if integers, their span.
        storing: spans of the integers that it stores, if it does.
    """

    uses: Sequence[Use]
    reads: str
    kind: torch.dtype
    stored: Tensor | None
    storing: Tensor | None

    @property
    def writes(self) -> tuple[str, torch.dtype]:
        """What its output is stored as, and the type."""
        if self.storing is None:
            return "floats", torch.float16
        return "integers", torch.int8 if self.last.activation is None else torch.uint8

    @property
    def last(self) -> Layer:
        """Its last layer."""
        return self.uses[-1].layer

    @property
    def shape(self) -> tuple[Hashable, ...]:
        """The same for parts whose launches differ in addresses only."""
        return self.reads, self.storing is None, *[use.shape for use in self.uses]

    @property
    def variables(self) -> list[Tensor]:
        """These addresses."""
        found = [x for x in (self.stored, self.storing) if x is not None]
        for use in self.uses:
            found += use.variables
        return found


@dataclass(frozen=True)
class TrainedUse:
    """A convolution as a subnet that is trained uses it.

    Attributes:
        node: the layer and its module.
        number: of its batch norm's vectors.
        data: its weight in single precision, of the kernel's size.
        grad: where the weight's gradient goes; its leading rows and columns are the layer's.
        span: of its input, if that is rounded to levels.
        shape: what launches depend on, but for addresses.
    """

    node: Node
    number: int
    data: Tensor
    grad: Tensor
    span: Tensor | None
    shape: tuple[Hashable, ...]

    @property
    def layer(self) -> Layer:
        """Its shape and bits."""
        return self.node.layer

    @property
    def norm(self) -> ElasticNorm:
        """Its batch norm."""
        assert not isinstance(self.node.module, nn.Linear)
        return self.node.module.norm


@dataclass(frozen=True)
class TrainedPart:
    """Likewise of a subnet that is trained, whose raw outputs are kept.

    Attributes:
        uses: these; a shortcut leads around all of them.
        shape: what launches depend on, but for addresses.
        spans: those of the inputs.
    """

    uses: Sequence[TrainedUse]
    shape: tuple[Hashable, ...]
    spans: Sequence[Tensor]

    @property
    def last(self) -> TrainedUse:
        """What gives its output."""
        return self.uses[-1]

"""What convolutions read, multiply by, and write."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Weight:
    """A convolution's weight as kernels read it.

    Attributes:
        data: levels or floats.
        row: elements from one output channel to the next.
        scale: size of a level for each output channel; None for floats.
    """

    data: Tensor
    row: int
    scale: Tensor | None = None


@dataclass(frozen=True)
class Source:
    """What a convolution reads.

    Attributes:
        data: the stored numbers, ``(channels, pitch)``.
        how: one of the ``IN_*`` ways of :mod:`~apq_moo.supernet.gpu.primitives`.
        coefficients: number of the layer whose batch norm (or its gradient) is applied on reading.
        raw: a second tensor of the same shape, for ``IN_GRADIENT``.
        span: range of the activation, if levels are multiplied; the weights are levels then too.
        stored: span of the integers that are read, for ``IN_STORED``.
    """

    data: Tensor
    how: int
    coefficients: int = 0
    raw: Tensor | None = None
    span: Tensor | None = None
    stored: Tensor | None = None


@dataclass(frozen=True)
class Target:
    """What a convolution writes.

    Attributes:
        data: where, ``(channels, pitch)``.
        how: one of the ``OUT_*`` ways.
        norm: number of the layer whose batch norm is applied, or recorded.
        relu: whether a ReLU6 follows the norm.
        other: what is added: the shortcut, or the gradient that came around it.
        raw: the raw outputs that the gradient meets, for ``OUT_GRADIENT``.
        span: range of the next layer's input, for ``OUT_LEVELS``; the three of ``OUT_STORED``; for
            ``OUT_GRADIENT`` the range in which the activations that it leads to were rounded.
        entered: these activations, where they were read from between blocks.
    """

    data: Tensor
    how: int
    norm: int = 0
    relu: bool = False
    other: Tensor | None = None
    raw: Tensor | None = None
    span: Tensor | None = None
    entered: Tensor | None = None

"""Layers and networks as ONNX models that runtimes turn into integer kernels, by QDQ pairs.

At 8 bits and fewer a convolution stands between DequantizeLinear and QuantizeLinear, which runtimes
fuse: weights int8 for each output channel, activations uint8, biases int32. At 32 bits it is plain.
A ReLU6 needs no node of its own where integers follow it: the largest one of them clips. Networks
are deployed in this form too (``apq_moo.deploy``); what is timed has random weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from apq_moo.hardware.measuring.onnx_graph import INPUT, Graph, Quantiser, attributes
from apq_moo.space import Layer, Space, Subnet
from apq_moo.space.spec import FLOAT_BITS

_CLIPPED = Quantiser(np.float32(6 / 255))
_LINEAR = Quantiser(np.float32(0.05), 128)
"""Tensors behind a ReLU6, and others."""

_WEIGHT_SCALE = np.float32(0.01)
_INTEGERS = 8


@dataclass(frozen=True, eq=False)
class Tensors:
    """A layer with what it computes with.

    Attributes:
        layer: its shape and place.
        weight: int8 with ``scale``, or floats, shape ``(c_out, c_in / groups, kernel, kernel)``.
        scale: of each output channel, shape ``(c_out,)``.
        bias: int32 at ``scale`` times that of ``read``, or floats, shape ``(c_out,)``.
        input: of its input; None for floats.
        output: of what is stored between blocks, before a shortcut is added; None for floats.
        total: of the sum with the shortcut; None for floats, or where there is none.
        multiple: integers of the input are multiplied by it before the layer reads them, which
            changes nothing but makes 1 of the sum, and so the rounding of the bias, finer.
    """

    layer: Layer
    weight: NDArray[Any]
    scale: NDArray[np.float32]
    bias: NDArray[Any]
    input: Quantiser | None
    output: Quantiser | None = None
    total: Quantiser | None = None
    multiple: int = 1

    @property
    def read(self) -> Quantiser | None:
        """Of the integers that the layer multiplies with."""
        by = self.input
        if by is None or self.multiple == 1:
            return by
        scale = by.scale / np.float32(self.multiple)
        return Quantiser(scale, by.zero * self.multiple, by.top * self.multiple)


class QdqGraph(Graph):
    """A graph of layers whose tensors are rounded where they are read or stored."""

    def read(self, x: str, of: Tensors) -> str:
        """A value as a layer reads it."""
        if of.input is None or of.read is None:
            return x
        x = self.dequantise(self.quantise(x, of.input, of.layer.name), of.input)
        if of.multiple == 1:
            return x
        integers = self.add("QuantizeLinear", x, *self.scale(of.read))
        return self.dequantise(integers, of.read)

    def stored(self, x: str, by: Quantiser | None, name: str) -> str:
        """A value as it is stored between blocks, from where it is rounded again as it is read."""
        return x if by is None else self.dequantise(self.quantise(x, by, name, clip=True), by)

    def convolution(self, x: str, of: Tensors, *, clip: bool) -> str:
        """A convolution with bias of an input that is rounded already, and ReLU6 if asked for."""
        layer = of.layer
        w, b = (self._stored(of, part) for part in ("weight", "bias"))
        y = self.add("Conv", x, w, b, **attributes(layer))
        if not clip:
            return y
        return self.add("Clip", y, self.constant(np.float32(0)), self.constant(np.float32(6)))

    def _stored(self, of: Tensors, part: str) -> str:
        """A layer's weight or bias, dequantised where it consists of integers."""
        values: NDArray[Any] = getattr(of, part)
        name = self.constant(values, f"{of.layer.name}.{part}")
        if values.dtype == np.float32:
            return name
        scale = of.scale
        if part == "bias":
            assert of.read is not None
            scale = scale * of.read.scale
        zero = np.zeros(len(scale), dtype=values.dtype)
        constants = self.constant(scale), self.constant(zero)
        return self.add("DequantizeLinear", name, *constants, axis=0)


def qdq_graph(layers: Sequence[Tensors]) -> QdqGraph:
    """A whole network, from images to logits of shape ``(n, classes)``."""
    graph = QdqGraph()
    x = held = INPUT
    for of, following in zip(layers, [*layers[1:], None], strict=True):
        layer = of.layer
        if layer.opens_shortcut:
            held = x
        if layer.bias:
            x = graph.add("GlobalAveragePool", x)
        read = graph.read(x, of)
        clipped = of.output is not None or (
            not layer.leaves_block and following is not None and following.input is not None
        )
        x = graph.convolution(read, of, clip=layer.activation is not None and not clipped)
        x = graph.stored(x, of.output, f"{layer.part}.output")
        if layer.closes_shortcut:
            x = graph.stored(graph.add("Add", x, held), of.total, f"{layer.part}.total")
        if layer.between_bits == 16:
            x = graph.add(
                "Cast", graph.add("Cast", x, to=TensorProto.FLOAT16), to=TensorProto.FLOAT
            )
    graph.add("Flatten", x)
    return graph


def random_tensors(layer: Layer, rng: np.random.Generator) -> Tensors:
    """Random weights for a layer, as integers of 8 bits or as floats, and ranges of any sense."""
    shape = (layer.c_out, layer.c_in // layer.groups, layer.kernel, layer.kernel)
    weight = rng.integers(-127, 128, shape, dtype=np.int8)
    bias = rng.integers(-500, 500, layer.c_out, dtype=np.int32)
    scale = np.full(layer.c_out, _WEIGHT_SCALE)
    entering = _LINEAR if layer.signed else _CLIPPED
    output = total = None
    if layer.between_bits == _INTEGERS:
        output = _LINEAR if layer.activation is None else _CLIPPED
        total = _LINEAR if layer.closes_shortcut else None
    floats = layer.w_bits == FLOAT_BITS, layer.a_bits == FLOAT_BITS
    return Tensors(
        layer,
        weight * _WEIGHT_SCALE if floats[0] else weight,
        scale,
        bias.astype(np.float32) * (_WEIGHT_SCALE * entering.scale) if any(floats) else bias,
        None if floats[1] else entering,
        output,
        total,
    )


def _apart(of: Tensors, rng: np.random.Generator) -> Tensors:
    """With scales of its own for what has both signs: what blocks store, and what is read of it.

    In a network that was trained no two are alike, so that integers are rounded anew on the way;
    between equal ones runtimes would leave that out.
    """

    def anew(by: Quantiser | None) -> Quantiser | None:
        return None if by is None else replace(by, scale=np.float32(by.scale * rng.uniform(0.5, 1)))

    entering = anew(of.input) if of.layer.signed else of.input
    output = anew(of.output) if of.layer.activation is None else of.output
    return replace(of, input=entering, output=output, total=anew(of.total))


def layer_model(layer: Layer) -> bytes:
    """One layer with ReLU6: from uint8 to uint8 at 8 bits, else from float to float.

    At 8 bits input and output have their channels last, as integer kernels want them, so that no
    time goes to transpositions that a network does not need between its layers.
    """
    graph, of = QdqGraph(), random_tensors(layer, np.random.default_rng(0))
    shape = [1, layer.c_in, layer.size, layer.size]
    out_shape = [1, layer.c_out, layer.size_out, layer.size_out]
    if of.input is None:
        graph.convolution(INPUT, of, clip=True)
        return graph.model(TensorProto.FLOAT, shape, out_shape)
    x = graph.add("Transpose", INPUT, perm=[0, 3, 1, 2])
    y = graph.convolution(graph.dequantise(x, of.input), of, clip=False)
    graph.add("Transpose", graph.quantise(y, _CLIPPED), perm=[0, 2, 3, 1])
    return graph.model(TensorProto.UINT8, [shape[i] for i in (0, 2, 3, 1)],
                       [out_shape[i] for i in (0, 2, 3, 1)])  # fmt: skip


def trivial_model(operators: int) -> bytes:
    """Next to nothing: one number negated so many times."""
    graph = Graph()
    x = INPUT
    for _ in range(operators):
        x = graph.add("Neg", x)
    return graph.model(TensorProto.FLOAT, [1], [1])


def network_model(space: Space, subnet: Subnet) -> bytes:
    """A whole network on one image, from float to float.

    Raises:
        UserError: the subnet is not a member of the space.
    """
    rng, layers = np.random.default_rng(0), space.layers(subnet)
    graph = qdq_graph([_apart(random_tensors(layer, rng), rng) for layer in layers])
    first = layers[0]
    shape = [1, first.c_in, first.size, first.size]
    return graph.model(TensorProto.FLOAT, shape, [1, layers[-1].c_out])

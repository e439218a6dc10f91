"""Layers and networks as ONNX models of random weights, quantised by QDQ pairs.

At 8 bits a convolution stands between DequantizeLinear and QuantizeLinear, which runtimes fuse into
integer kernels: weights int8 for each output channel, activations uint8. At 32 bits it is plain.
Tensors are quantised where a layer of 8 bits reads them. Behind a ReLU6 their range is 0 to 6, so
that the quantisation does the clipping.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

from apq_moo.space import Layer, Space, Subnet
from apq_moo.space.spec import FLOAT_BITS

_OPSET = 17
_IR_VERSION = 9
_CLIPPED = (np.float32(6 / 255), np.uint8(0))
_LINEAR = (np.float32(0.05), np.uint8(128))
"""Scale and zero point of tensors behind a ReLU6, and of others."""

_WEIGHT_SCALE = np.float32(0.01)
INPUT, OUTPUT = "image", "logits"


class _Graph:
    """A graph in the making; its methods return the names of the values that they add."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(0)

    def constant(self, value: ArrayLike) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _range(self, *, clipped: bool) -> tuple[str, str]:
        """Scale and zero point."""
        scale, zero_point = _CLIPPED if clipped else _LINEAR
        return self.constant(scale), self.constant(zero_point)

    def quantise(self, x: str, *, clipped: bool) -> str:
        return self.add("QuantizeLinear", x, *self._range(clipped=clipped))

    def dequantise(self, x: str, *, clipped: bool) -> str:
        return self.add("DequantizeLinear", x, *self._range(clipped=clipped))

    def rounded(self, x: str, bits: int, *, clipped: bool) -> str:
        """A value as a layer of these bits reads it."""
        if bits == FLOAT_BITS:
            return x
        return self.dequantise(self.quantise(x, clipped=clipped), clipped=clipped)

    def convolution(self, x: str, layer: Layer, *, clipped: bool, activation: bool) -> str:
        """A convolution with bias, and ReLU6; ``clipped`` says whether its input is behind one."""
        shape = (layer.c_out, layer.c_in // layer.groups, layer.kernel, layer.kernel)
        weights = self._rng.integers(-127, 128, shape, dtype=np.int8)
        bias = self._rng.integers(-500, 500, layer.c_out, dtype=np.int32)
        scale = np.full(layer.c_out, _WEIGHT_SCALE)
        scale_in = (_CLIPPED if clipped else _LINEAR)[0]
        if layer.w_bits == FLOAT_BITS:
            w = self.constant(weights * _WEIGHT_SCALE)
            b = self.constant(bias.astype(np.float32) * (_WEIGHT_SCALE * scale_in))
        else:
            w = self._constant_integers(weights, scale)
            b = self._constant_integers(bias, scale * scale_in)
        y = self.add(
            "Conv",
            *(x, w, b),
            kernel_shape=[layer.kernel] * 2,
            strides=[layer.stride] * 2,
            pads=[layer.padding] * 4,
            group=layer.groups,
        )
        if not activation:
            return y
        return self.add("Clip", y, self.constant(np.float32(0)), self.constant(np.float32(6)))

    def _constant_integers(self, values: np.ndarray, scale: np.ndarray) -> str:
        zero = np.zeros(len(scale), dtype=values.dtype)
        parts = [self.constant(part) for part in (values, scale, zero)]
        return self.add("DequantizeLinear", *parts, axis=0)

    def model(self, kind: int, shape: list[int], out_shape: list[int]) -> bytes:
        """The serialised model, from one input to the last value, of the same element type."""
        self._nodes[-1].output[0] = OUTPUT
        graph = helper.make_graph(
            self._nodes,
            "apq_moo",
            [helper.make_tensor_value_info(INPUT, kind, shape)],
            [helper.make_tensor_value_info(OUTPUT, kind, out_shape)],
            self._constants,
        )
        opset = helper.make_opsetid("", _OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
        serialised: bytes = model.SerializeToString()
        return serialised


def layer_model(layer: Layer) -> bytes:
    """One layer with ReLU6: from uint8 to uint8 at 8 bits, else from float to float.

    At 8 bits input and output have their channels last, as integer kernels want them, so that no
    time goes to transpositions that a network does not need between its layers.
    """
    graph = _Graph()
    shape = [1, layer.c_in, layer.size, layer.size]
    out_shape = [1, layer.c_out, layer.size_out, layer.size_out]
    if layer.w_bits == FLOAT_BITS:
        graph.convolution(INPUT, layer, clipped=True, activation=True)
        return graph.model(TensorProto.FLOAT, shape, out_shape)
    x = graph.add("Transpose", INPUT, perm=[0, 3, 1, 2])
    x = graph.dequantise(x, clipped=True)
    y = graph.quantise(graph.convolution(x, layer, clipped=True, activation=True), clipped=True)
    graph.add("Transpose", y, perm=[0, 2, 3, 1])
    return graph.model(TensorProto.UINT8, [shape[i] for i in (0, 2, 3, 1)],
                       [out_shape[i] for i in (0, 2, 3, 1)])  # fmt: skip


def trivial_model(operators: int) -> bytes:
    """Next to nothing: one number negated so many times."""
    graph = _Graph()
    x = INPUT
    for _ in range(operators):
        x = graph.add("Neg", x)
    return graph.model(TensorProto.FLOAT, [1], [1])


def network_model(space: Space, subnet: Subnet) -> bytes:
    """A whole network on one image, from float to float.

    Raises:
        UserError: the subnet is not a member of the space.
    """
    graph = _Graph()
    layers = space.layers(subnet)
    x, held, clipped = INPUT, "", False
    for layer in layers:
        if layer.component == "classifier":
            x = graph.add("GlobalAveragePool", graph.rounded(x, layer.a_bits, clipped=clipped))
        read = graph.rounded(x, layer.a_bits, clipped=clipped)
        if layer.opens_shortcut:
            held = read
        activation = layer.activation is not None
        x = graph.convolution(read, layer, clipped=clipped, activation=activation)
        clipped = activation
        if layer.closes_shortcut:
            x = graph.add("Add", held, graph.rounded(x, layer.a_bits, clipped=False))
    graph.rounded(x, layers[-1].a_bits, clipped=False)
    first, last = layers[0], layers[-1]
    shape = [1, first.c_in, first.size, first.size]
    return graph.model(TensorProto.FLOAT, shape, [1, last.c_out, 1, 1])

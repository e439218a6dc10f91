"""An integer network as a QONNX graph: Quant nodes on every weight and activation.

A weight is stored as its levels, in floats, and its quantiser has a scale of 1; what an output
channel's sum stands for, and its bias, are a batch norm behind the convolution. So any gain can be
written, also 0, and every number is exact where the steps of activations are powers of two. A ReLU6
is a Relu where the quantiser behind it saturates at or below 6; a Clip elsewhere, for which readers
have no hardware.

The node is called ``IntQuant`` since QONNX 1.0, which reads the older name ``Quant`` as well; other
readers, and parts of the ``qonnx`` package itself, look for the older one only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, helper

from apq_moo.deploy.integers import HALF, Grid, IntegerLayer, IntegerNetwork
from apq_moo.hardware.measuring.onnx_graph import INPUT, OUTPUT, Graph, attributes

DOMAIN = "qonnx.custom_op.general"
QUANTISER = "Quant"
OPSET, DOMAIN_OPSET, IR_VERSION = 13, 1, 8

_SIX = np.float32(6)


class QonnxGraph(Graph):
    """A graph whose values have known shapes, as readers of QONNX want them.

    Args:
        batch: images at once.
        image: shape of one.
    """

    def __init__(self, batch: int, image: Sequence[int]) -> None:
        super().__init__()
        self._batch = batch
        self._shapes: dict[str, tuple[int, ...]] = {INPUT: (batch, *image)}
        self._halves: list[str] = []

    def value(self, kind: str, *inputs: str, name: str = "", **attributes: object) -> str:
        """A value of the shape of its first input."""
        return self.shaped(kind, self._shapes[inputs[0]], *inputs, name=name, **attributes)

    def shaped(
        self, kind: str, shape: Sequence[int], *inputs: str, name: str = "", **attributes: object
    ) -> str:
        """A value of another shape."""
        made = self.add(kind, *inputs, name=name, **attributes)
        self._shapes[made] = tuple(shape)
        return made

    def rounded(self, x: str, grid: Grid, name: str) -> str:
        """What a value is rounded to."""
        zero = zero_point(grid)
        scale = np.float32(grid.step)
        return self._quantised(x, scale, zero, grid.bits, name, signed=signed(grid), narrow=False)

    def weight(self, layer: IntegerLayer) -> str:
        """A layer's weight, in the form that its product wants: transposed for a MatMul."""
        levels = layer.weight.astype(np.float32)
        if layer.shape.bias:
            levels = np.ascontiguousarray(levels[:, :, 0, 0].T)
        stored = self.constant(levels, f"{layer.name}.weight")
        self._shapes[stored] = levels.shape
        bits, name = layer.shape.w_bits, f"{layer.name}.levels"
        return self._quantised(stored, np.float32(1), 0, bits, name, signed=True, narrow=True)

    def _quantised(
        self, x: str, scale: np.float32, zero: int, bits: int, name: str, *,
        signed: bool, narrow: bool,
    ) -> str:  # fmt: skip
        inputs = (self.constant(np.float32(value)) for value in (scale, zero, bits))
        return self.value(
            QUANTISER, x, *inputs, name=name, domain=DOMAIN,
            signed=int(signed), narrow=int(narrow), rounding_mode="ROUND",
        )  # fmt: skip

    def product(self, layer: IntegerLayer, x: str) -> str:
        """A convolution, or the classifier's product with flat features."""
        shape = layer.shape
        if shape.bias:
            return self.shaped("MatMul", (self._batch, shape.c_out), x, self.weight(layer))
        size = (self._batch, shape.c_out, shape.size_out, shape.size_out)
        described = {**attributes(shape), "dilations": [1, 1]}
        return self.shaped("Conv", size, x, self.weight(layer), **described)

    def scaled(self, layer: IntegerLayer, x: str) -> str:
        """Sums times gains, plus biases: a batch norm, but for the classifier."""
        gain, bias = layer.weight_step.astype(np.float32), layer.bias
        if layer.shape.bias:
            x = self.value("Mul", x, self.constant(gain[None], f"{layer.name}.gain"))
            return self.value("Add", x, self.constant(bias[None], f"{layer.name}.bias"))
        rest = (np.zeros_like(bias), np.ones_like(bias))
        inputs = [
            self.constant(gain, f"{layer.name}.gain"),
            self.constant(bias, f"{layer.name}.bias"),
        ]
        inputs += [self.constant(values) for values in rest]
        return self.value("BatchNormalization", x, *inputs, epsilon=0.0, momentum=0.9)

    def pooled(self, x: str) -> str:
        """The mean over the pixels, flat."""
        channels = self._shapes[x][1]
        x = self.shaped("GlobalAveragePool", (self._batch, channels, 1, 1), x)
        return self.shaped("Flatten", (self._batch, channels), x, axis=1)

    def finished(self, metadata: dict[str, str]) -> bytes:
        """The serialised model, which ends with the last value."""
        last = self._nodes[-1].output[0]
        self._nodes[-1].output[0] = OUTPUT
        self._shapes[OUTPUT] = self._shapes.pop(last)
        stored = {item.name for item in self._constants}
        infos = {
            name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in self._shapes.items()
            if name not in stored
        }
        ends = [[infos.pop(name)] for name in (INPUT, OUTPUT)]
        for name in self._halves:
            infos[name].type.tensor_type.elem_type = TensorProto.FLOAT16
        for number, node in enumerate(self._nodes):
            node.name = f"{node.op_type}_{number}"
        graph = helper.make_graph(
            self._nodes, "apq_moo", *ends, self._constants, value_info=list(infos.values())
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, DOMAIN_OPSET)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="apq-moo"
        )
        helper.set_model_props(model, metadata)
        serialised: bytes = model.SerializeToString()
        return serialised

    def halved(self, x: str) -> str:
        """A value rounded to half precision, as a single."""
        half = self.value("Cast", x, to=TensorProto.FLOAT16)
        self._halves.append(half)
        return self.value("Cast", half, to=TensorProto.FLOAT)


def signed(grid: Grid) -> bool:
    """Whether levels are two's complement."""
    return bool(grid.low == -(2 ** (grid.bits - 1)))


def zero_point(grid: Grid) -> int:
    """What is added to levels that are neither unsigned nor two's complement."""
    return 0 if signed(grid) else -grid.low


def saturates(grid: Grid) -> bool:
    """Whether a quantiser gives its largest level for 6 and beyond, by either way to compute it."""
    levels = (_SIX * grid.inverse, _SIX / np.float32(grid.step))
    return all(np.rint(level) >= grid.high for level in levels)


def clipped(network: IntegerNetwork) -> list[str]:
    """Layers whose ReLU6 is not the saturation of a quantiser."""
    found = []
    for layer, following in zip(network.layers, network.layers[1:], strict=False):
        if layer.shape.activation is None:
            continue
        if layer.output is not None:
            fits = saturates(layer.output)
        else:
            kept = layer.shape.leaves_block and following.shape.opens_shortcut
            fits = saturates(following.input) and not kept and not following.shape.bias
        if not fits:
            found.append(layer.name)
    return found


def qonnx_graph(network: IntegerNetwork, batch: int = 1) -> QonnxGraph:
    """The graph of a network, from images to logits.

    Args:
        network: any.
        batch: how many images, which readers want to know.
    """
    graph, clips = QonnxGraph(batch, network.image_shape), set(clipped(network))
    x = held = INPUT
    for layer in network.layers:
        shape, part = layer.shape, layer.shape.part
        if shape.opens_shortcut:
            held = x
        if shape.bias:
            x = graph.pooled(x)
        x = graph.product(layer, graph.rounded(x, layer.input, layer.name))
        x = graph.scaled(layer, x)
        if layer.name in clips:
            x = graph.value("Clip", x, *(graph.constant(end) for end in (np.float32(0), _SIX)))
        elif shape.activation is not None:
            x = graph.value("Relu", x)
        if layer.output is not None:
            x = graph.rounded(x, layer.output, f"{part}.output")
        if shape.closes_shortcut:
            x = graph.value("Add", x, held)
        if layer.total is not None:
            x = graph.rounded(x, layer.total, f"{part}.total")
        if shape.between_bits == HALF:
            x = graph.halved(x)
    return graph

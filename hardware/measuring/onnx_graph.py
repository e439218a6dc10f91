"""ONNX graphs in the making: shared by the models that are timed and those that are deployed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from apq_moo.space import Layer

OPSET = 21
"""The first in which DequantizeLinear reads 4-bit integers; ONNX Runtime 1.18 knows it."""

IR_VERSION = 10
INPUT, OUTPUT = "image", "logits"


@dataclass(frozen=True)
class Quantiser:
    """How a value becomes unsigned integers of 8 bits or fewer.

    Attributes:
        scale: what 1 stands for.
        zero: the integer that stands for 0.0.
        top: the largest integer.
    """

    scale: np.float32
    zero: int = 0
    top: int = 255


def attributes(layer: Layer) -> dict[str, Any]:
    """Those of a layer's convolution."""
    return {
        "kernel_shape": [layer.kernel] * 2,
        "strides": [layer.stride] * 2,
        "pads": [layer.padding] * 4,
        "group": layer.groups,
    }


class Graph:
    """A graph in the making; its methods return the names of the values that they add."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, value: ArrayLike, name: str = "") -> str:
        """A tensor that is stored."""
        name = name or f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def nibbles(self, values: NDArray[np.int8], name: str) -> str:
        """Integers within -8 ... 7, stored two a byte."""
        halves = np.resize(values.ravel(), values.size + values.size % 2).astype(np.uint8) & 15
        packed = (halves[::2] | halves[1::2] << 4).tobytes()
        tensor = helper.make_tensor(name, TensorProto.INT4, values.shape, packed, raw=True)
        self._constants.append(tensor)
        return name

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: object) -> str:
        """A node, and the name of its one output."""
        name = name or f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def quantise(self, x: str, by: Quantiser, name: str = "", *, clip: bool = False) -> str:
        """A value's integers, no larger than the top.

        Args:
            x: the value.
            by: how.
            name: of the integers.
            clip: whether a node clips them even where their type does. ONNX Runtime would make one
                of two pairs of QuantizeLinear and DequantizeLinear in a row, and round otherwise.
        """
        clip = clip or by.top < 255
        integers = self.add("QuantizeLinear", x, *self.scale(by), name="" if clip else name)
        if not clip:
            return integers
        bounds = (self.constant(np.uint8(bound)) for bound in (0, by.top))
        return self.add("Clip", integers, *bounds, name=name)

    def dequantise(self, x: str, by: Quantiser) -> str:
        """What integers stand for."""
        return self.add("DequantizeLinear", x, *self.scale(by))

    def scale(self, by: Quantiser) -> tuple[str, str]:
        """Scale and zero point, as constants."""
        return self.constant(np.float32(by.scale)), self.constant(np.uint8(by.zero))

    def model(
        self,
        kind: int,
        shape: Sequence[int | str],
        out_shape: Sequence[int | str],
        metadata: dict[str, str] | None = None,
    ) -> bytes:
        """The serialised model, from one input to the last value, of the same element type."""
        self._nodes[-1].output[0] = OUTPUT
        graph = helper.make_graph(
            self._nodes,
            "apq_moo",
            [helper.make_tensor_value_info(INPUT, kind, shape)],
            [helper.make_tensor_value_info(OUTPUT, kind, out_shape)],
            self._constants,
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="apq-moo"
        )
        helper.set_model_props(model, metadata or {})
        serialised: bytes = model.SerializeToString()
        return serialised

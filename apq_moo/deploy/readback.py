"""Reading a policy back from what was exported, without what the file says about itself.

Only the stages, which no graph shows, are taken from the space's description.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.errors import UserError
from apq_moo.space import Block, Subnet

if TYPE_CHECKING:
    from apq_moo.deploy.onnx_files import OnnxFile

_CONVOLUTIONS = ("Conv", "ConvInteger")


@dataclass(frozen=True)
class Seen:
    """What a format shows of a layer: output channels, kernel, bits."""

    c_out: int
    kernel: int
    w_bits: int
    a_bits: int


def weight_bits(levels: NDArray[Any]) -> int:
    """The bits of symmetric levels, the largest of which is ``2^(bits-1) - 1``; or of multiples.

    Multiples are by such a power of two as makes them integers of 8 bits.
    """
    top = int(np.abs(levels.astype(np.int64)).max(initial=0))
    finer = 128 - top
    if top > 63 and finer & (finer - 1) == 0:
        return 9 - finer.bit_length()
    return top.bit_length() + 1


def policy_of(seen: Mapping[str, Seen], stages: Sequence[Mapping[str, Any]], space: str) -> Subnet:
    """The policy of layers by name, such as ``block3.expand``.

    Args:
        seen: the layers.
        stages: of the space's description; of each its ``depths`` are read.
        space: its name.

    Raises:
        UserError: a block lacks a layer, or its layers do not fit.
    """
    stage_of = list(chain.from_iterable(repeat(i, max(s["depths"])) for i, s in enumerate(stages)))
    numbers = sorted({int(name[5:].split(".")[0]) for name in seen if name.startswith("block")})
    blocks = []
    for number in numbers:
        try:
            expand, depthwise, project = (
                seen[f"block{number}.{place}"] for place in ("expand", "depthwise", "project")
            )
            stage = stage_of[number]
        except (KeyError, IndexError):
            raise UserError(f"block{number} is none of the space's") from None
        bits = expand.w_bits, expand.a_bits
        if bits != (project.w_bits, project.a_bits) or expand.c_out != depthwise.c_out:
            raise UserError(f"the layers of block{number} do not fit each other")
        blocks.append(
            Block(stage, depthwise.kernel, expand.c_out, *bits, depthwise.w_bits, depthwise.a_bits)
        )
    return Subnet(space, tuple(blocks))


def parts_of(model: bytes) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The graph of a serialised model, its nodes by their first output, and constants by name."""
    import onnx

    graph = onnx.ModelProto.FromString(model).graph
    made = {node.output[0]: node for node in graph.node}
    return graph, made, {item.name: item for item in graph.initializer}


def onnx_policy(file: OnnxFile) -> Subnet:
    """The policy that the graph of an ONNX file shows.

    Raises:
        UserError: it is not that of a network.
    """
    import onnx

    graph, made, constants = parts_of(file.model)
    seen = {}
    for node in graph.node:
        if node.op_type not in _CONVOLUTIONS:
            continue
        weight = node.input[1]
        while weight not in constants:
            weight = made[weight].input[0]
        levels = made[node.input[0]]
        if levels.op_type == "DequantizeLinear":
            levels = made[levels.input[0]]
        before = made.get(levels.input[0])
        if (
            before is not None and before.op_type == "DequantizeLinear"
        ):  # a multiple of fewer levels
            levels = made[before.input[0]]
        top = 255
        if levels.op_type == "Clip":
            top = int(onnx.numpy_helper.to_array(constants[levels.input[2]]))
        values = onnx.numpy_helper.to_array(constants[weight]).astype(np.int16)
        if node.op_type == "ConvInteger":
            values = values - 128
        name, _, _ = weight.rpartition(".")
        kernel = next(item for item in node.attribute if item.name == "kernel_shape").ints[0]
        seen[name] = Seen(len(values), kernel, weight_bits(values), top.bit_length())
    return policy_of(seen, file.network.origin["space_content"]["stages"], file.network.space)

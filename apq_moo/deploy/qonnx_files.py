"""Integer networks as QONNX files, and back: what a file says is checked by making it anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from apq_moo.deploy.integers import IntegerNetwork
from apq_moo.deploy.onnx_files import (
    array_of,
    array_of_text,
    describing,
    names_of_layers,
    parsed,
    text_of_array,
    verified,
)
from apq_moo.deploy.qonnx_graph import QUANTISER, qonnx_graph
from apq_moo.deploy.readback import Seen, parts_of, policy_of
from apq_moo.deploy.storage import contents
from apq_moo.errors import UserError
from apq_moo.files import replacing
from apq_moo.space import Subnet

FORMAT = "apq-moo qonnx 1"
_PRODUCTS = ("Conv", "MatMul")


@dataclass(frozen=True, eq=False)
class QonnxFile:
    """A QONNX file that was exported here.

    Attributes:
        network: what it computes.
        model: its bytes.
    """

    network: IntegerNetwork
    model: bytes


def qonnx_model(network: IntegerNetwork) -> bytes:
    """A network as a serialised QONNX model, from one image ``(1, c, h, w)`` to its logits."""
    _, tensors = contents(network)
    kept = {name: text_of_array(x) for name, x in tensors.items() if name.endswith(".gain")}
    return qonnx_graph(network).finished(describing(network, FORMAT, {"tensors": kept}))


def save_qonnx(path: str | Path, network: IntegerNetwork) -> None:
    """Write what :func:`qonnx_model` gives, atomically.

    Raises:
        UserError: it cannot be written.
    """
    model = qonnx_model(network)
    with replacing(path) as temporary:
        temporary.write_bytes(model)


def load_qonnx(path: str | Path) -> QonnxFile:
    """Read what :func:`save_qonnx` wrote.

    Raises:
        UserError: it is missing, damaged, of other origin, or has been altered.
    """
    data, model, told = parsed(path, FORMAT)
    try:
        tensors = _tensors(model, told)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged: its tensors are malformed") from error
    network = verified(told, tensors, str(path), model, qonnx_model)
    return QonnxFile(network, data)


def _tensors(model: onnx.ModelProto, told: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """The tensors of a network, as :func:`contents` names them.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: they are malformed.
    """
    layers = names_of_layers(told["header"])
    found: dict[str, NDArray[Any]] = {
        name: array_of_text(text) for name, text in told["tensors"].items()
    }
    for item in model.graph.initializer:
        layer, _, part = item.name.rpartition(".")
        if layer in layers and part == "bias":
            found[item.name] = array_of(item).ravel()
        elif layer in layers and part == "weight":
            found[item.name] = _levels(array_of(item))
    return found


def _levels(values: NDArray[Any]) -> NDArray[np.int8]:
    """Stored weights as integers, of shape ``(c_out, c_in / groups, kernel, kernel)``."""
    if not (np.isfinite(values).all() and (np.abs(values) < 128).all()):
        raise ValueError("weights that are no levels")
    if values.ndim == 2:
        values = values.T[:, :, None, None]
    if (values != np.rint(values)).any():
        raise ValueError("weights that are no integers")
    return np.ascontiguousarray(values.astype(np.int8))


def qonnx_policy(file: QonnxFile) -> Subnet:
    """The policy that the graph of a QONNX file shows: shapes, and the bits of its quantisers.

    Raises:
        UserError: it is not that of a network.
    """
    graph, made, constants = parts_of(file.model)
    seen = {}
    for node in graph.node:
        if node.op_type not in _PRODUCTS:
            continue
        entering, weight = (made[name] for name in node.input)
        if {entering.op_type, weight.op_type} != {QUANTISER}:
            raise UserError(f"{node.name} has operands that are not quantised")
        a_bits, w_bits = (int(array_of(constants[x.input[3]])) for x in (entering, weight))
        name, _, _ = weight.input[0].rpartition(".")
        shape = constants[weight.input[0]].dims
        c_out, kernel = (shape[0], shape[-1]) if node.op_type == "Conv" else (shape[1], 1)
        seen[name] = Seen(c_out, kernel, w_bits, a_bits)
    return policy_of(seen, file.network.origin["space_content"]["stages"], file.network.space)

"""Integer networks as ONNX files, and back: what a file says is checked by making it anew.

The metadata hold the policy, bits, class names and what is done to a picture before it is
classified, for any reader; and the header of the network, from which, with the stored integers,
this module makes the network again. A file is taken only if exporting that network gives the same
model.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from apq_moo.deploy.integers import MOST_BITS, IntegerNetwork
from apq_moo.deploy.onnx_exact import exact_graph
from apq_moo.deploy.onnx_fused import coarser, float_graph, fused_graph
from apq_moo.deploy.preprocessing import preprocessing
from apq_moo.deploy.storage import contents, digest_of_network, network_of
from apq_moo.errors import UserError, shown
from apq_moo.files import parse_json, read_bytes, replacing
from apq_moo.hardware.measuring.onnx_graph import Graph
from apq_moo.tensors import checksum

FORMAT = "apq-moo onnx 1"
KEY = "apq_moo"
"""The metadata's entry that the network is made of again."""

Arithmetic = Literal["exact", "fused"]
ARITHMETICS: tuple[Arithmetic, ...] = get_args(Arithmetic)

_MAX_BYTES = 2**29
_KINDS = {TensorProto.INT8: np.int8, TensorProto.UINT8: np.uint8, TensorProto.FLOAT: np.float32}


def arithmetic_of(name: str) -> Arithmetic:
    """One of :data:`ARITHMETICS`, by name.

    Raises:
        UserError: there is none of that name.
    """
    for known in ARITHMETICS:
        if name == known:
            return known
    raise UserError(f"arithmetic={shown(name)}: write {' or '.join(ARITHMETICS)}")


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """An ONNX file that was exported here.

    Attributes:
        network: what it computes.
        arithmetic: in which form.
        native_int4: whether weights of up to 4 bits are stored two a byte.
        model: its bytes.
    """

    network: IntegerNetwork
    arithmetic: Arithmetic
    native_int4: bool
    model: bytes


def onnx_model(
    network: IntegerNetwork, arithmetic: Arithmetic = "exact", *, native_int4: bool = False
) -> bytes:
    """A network as a serialised ONNX model, from ``(n, c, h, w)`` to logits ``(n, classes)``.

    Args:
        network: any.
        arithmetic: ``exact`` for the very logits of the package, in floats; ``fused`` for integer
            kernels, see :mod:`apq_moo.deploy.onnx_fused`.
        native_int4: whether weights of up to 4 bits are stored two a byte.

    Raises:
        UserError: no such arithmetic, or 4-bit integers are wanted in ``fused``.
    """
    if arithmetic_of(arithmetic) == "fused":
        if native_int4:
            raise UserError("arithmetic=fused: runtimes fuse no 4-bit integers; write exact")
        graph: Graph = fused_graph(network)
    else:
        graph = exact_graph(network, native_int4=native_int4)
    _, tensors = contents(network)
    kept = {name: text_of_array(tensors[name]) for name in _unstored(network, arithmetic)}
    told = {"arithmetic": arithmetic, "native_int4": native_int4, "tensors": kept}
    metadata = describing(network, FORMAT, told)
    shape: list[int | str] = ["n", *network.image_shape]
    return graph.model(TensorProto.FLOAT, shape, ["n", len(network.classes)], metadata)


def describing(network: IntegerNetwork, form: str, told: dict[str, Any]) -> dict[str, str]:
    """The metadata of a model.

    Args:
        network: what it computes.
        form: the format's name and version.
        told: what else is to be known to make it again.
    """
    header, tensors = contents(network)
    whole = {"format": form, **told, "header": header, "sha256": checksum(header, tensors)}
    return {
        "policy": json.dumps(network.subnet.to_dict()),
        "bits": json.dumps({x.name: [x.shape.w_bits, x.shape.a_bits] for x in network.layers}),
        "classes": json.dumps(list(network.classes)),
        "preprocessing": json.dumps(preprocessing(network)),
        KEY: json.dumps(whole),
    }


def _unstored(network: IntegerNetwork, arithmetic: Arithmetic) -> list[str]:
    """Tensors of a network that the graph holds in another form only."""
    if arithmetic == "exact":
        return []
    names = [f"{layer.name}.{part}" for layer in network.layers for part in ("gain", "bias")]
    return names + [f"{layer.name}.weight" for layer in network.layers if coarser(layer)]


def text_of_array(tensor: NDArray[Any]) -> str:
    """A tensor's bytes, for the metadata."""
    return base64.b64encode(tensor.tobytes()).decode()


def array_of_text(text: str) -> NDArray[np.float32]:
    """A row of single-precision numbers that :func:`text_of_array` wrote.

    Raises:
        ValueError, TypeError: it is malformed.
    """
    return np.frombuffer(base64.b64decode(text, validate=True), np.float32)


def float_model(network: IntegerNetwork) -> bytes:
    """The same network in floats and without a rounding, whose speed tells what integers bring."""
    shape: list[int | str] = ["n", *network.image_shape]
    graph = float_graph(network)
    return graph.model(TensorProto.FLOAT, shape, ["n", len(network.classes)])


def save_onnx(
    path: str | Path,
    network: IntegerNetwork,
    arithmetic: Arithmetic = "exact",
    *,
    native_int4: bool = False,
) -> None:
    """Write what :func:`onnx_model` gives, atomically.

    Raises:
        UserError: see there; or it cannot be written.
    """
    model = onnx_model(network, arithmetic, native_int4=native_int4)
    with replacing(path) as temporary:
        temporary.write_bytes(model)


def load_onnx(path: str | Path) -> OnnxFile:
    """Read what :func:`save_onnx` wrote.

    Raises:
        UserError: it is missing, damaged, of other origin, or has been altered.
    """
    data, model, told = parsed(path, FORMAT)
    arithmetic, native = told.get("arithmetic"), told.get("native_int4") is True
    if arithmetic not in ARITHMETICS:
        raise UserError(f"{path} is damaged: its metadata are malformed")
    network = verified(
        told,
        _tensors(model, told, str(path)),
        str(path),
        model,
        lambda network: onnx_model(network, arithmetic, native_int4=native),
    )
    return OnnxFile(network, arithmetic, native, data)


def parsed(path: str | Path, form: str) -> tuple[bytes, onnx.ModelProto, dict[str, Any]]:
    """A file's content, its model, and what :func:`describing` put into that.

    Args:
        path: the file.
        form: the format's name and version.

    Raises:
        UserError: it is missing, damaged, or of other origin.
    """
    data = read_bytes(path, _MAX_BYTES)
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's own kinds of errors
        raise UserError(f"cannot read {path}: it is damaged, or no ONNX file") from error
    metadata = {item.key: item.value for item in model.metadata_props}
    if KEY not in metadata:
        raise UserError(f"{path} was not exported by apq-moo: its metadata lack {KEY!r}")
    told = parse_json(metadata[KEY], f"the metadata of {path}")
    if not isinstance(told, dict) or told.get("format") != form:
        raise UserError(
            f"{path} was exported in another format or by another version of apq-moo; "
            "export it again"
        )
    if not isinstance(told.get("tensors"), dict):
        raise UserError(f"{path} is damaged: its metadata are malformed")
    return data, model, told


def verified(
    told: dict[str, Any],
    tensors: dict[str, NDArray[Any]],
    path: str,
    model: onnx.ModelProto,
    make: Callable[[IntegerNetwork], bytes],
) -> IntegerNetwork:
    """The network of a model, which is that of the network.

    Args:
        told: see :func:`parsed`.
        tensors: of the network.
        path: how messages name the file.
        model: its content.
        make: the model of a network.

    Raises:
        UserError: the model is another one, or what it tells is malformed.
    """
    network = network_of(told.get("header"), tensors, path)
    if told.get("sha256") != digest_of_network(network):
        raise UserError(f"{path} has been altered: its numbers do not match their checksum")
    if onnx.ModelProto.FromString(make(network)) != model:
        raise UserError(
            f"{path} has been altered: it is not the model of the network that its metadata "
            "describe; export it again"
        )
    return network


def _tensors(model: onnx.ModelProto, told: dict[str, Any], path: str) -> dict[str, NDArray[Any]]:
    """The tensors of a network, as :func:`contents` names them."""
    found: dict[str, NDArray[Any]] = {}
    try:
        layers = names_of_layers(told["header"])
        stored = ("weight", "gain", "bias") if told["arithmetic"] == "exact" else ("weight",)
        for item in model.graph.initializer:
            layer, _, part = item.name.rpartition(".")
            if layer in layers and part in stored:
                found[item.name] = _stored(item, part, told["arithmetic"], layers[layer])
        for name, text in told["tensors"].items():
            if name.endswith(".weight"):
                data = base64.b64decode(text, validate=True)
                found[name] = np.frombuffer(data, np.int8).reshape(found[name].shape)
            else:
                found[name] = array_of_text(text)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged: its tensors are malformed") from error
    return found


def names_of_layers(header: Any) -> dict[str, dict[str, Any]]:
    """What a header says of layers, by their names.

    Raises:
        KeyError, TypeError: it is malformed.
    """
    return {_name(layer): layer for layer in header["layers"]}


def _name(layer: dict[str, Any]) -> str:
    part = layer["component"] if layer["block"] is None else f"block{layer['block']}"
    return f"{part}.{layer['place']}" if layer["place"] else str(part)


def _stored(
    item: onnx.TensorProto, part: str, arithmetic: Arithmetic, layer: dict[str, Any]
) -> NDArray[Any]:
    """A stored tensor as the network has it.

    Raises:
        ValueError, KeyError: it is malformed.
    """
    values = array_of(item)
    if part != "weight":
        return values.ravel()
    if values.dtype == np.uint8:
        return (values.astype(np.int16) - 128).astype(np.int8)
    if arithmetic == "fused":
        return values // np.int8(2 ** (MOST_BITS - int(layer["w_bits"])))
    return values


def array_of(item: onnx.TensorProto) -> NDArray[Any]:
    """An initializer's values, if all of them are there.

    Raises:
        ValueError, KeyError: they are not, or of another kind than is written here.
    """
    shape = tuple(item.dims)
    size = math.prod(shape)
    if any(n < 0 for n in shape) or size > _MAX_BYTES or item.external_data:
        raise ValueError(shape)
    if item.data_type == TensorProto.INT4:
        packed = np.frombuffer(item.raw_data, np.uint8)
        halves = np.stack([packed & 15, packed >> 4], axis=1).ravel()[:size].astype(np.int8)
        return ((halves ^ 8) - 8).reshape(shape)
    return np.frombuffer(item.raw_data, _KINDS[item.data_type]).reshape(shape)

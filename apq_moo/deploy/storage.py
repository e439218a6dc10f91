"""Storing integer networks as safetensors, with a JSON header that needs no space to be read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.deploy.integers import (
    LEAST_BITS,
    MOST_BITS,
    Grid,
    IntegerLayer,
    IntegerNetwork,
)
from apq_moo.errors import UserError
from apq_moo.files import replacing
from apq_moo.reading import Must, integer, read
from apq_moo.space import Layer
from apq_moo.tensors import checksum, read_tensors

FORMAT = "apq-moo integer network 1"
_MAX_BYTES = 2**29
_MAX_VALUES = 2**26
"""Values of one image in one layer."""

_MAX_MACS = 2**38
_PARTS = ("weight", "gain", "bias")

_Channels = Annotated[int, integer(1, 65536)]
_Bits = Annotated[int, integer(LEAST_BITS, MOST_BITS)]
_Single = Annotated[
    float,
    Must(
        "a single-precision number from 1e-37 to 1e37",
        lambda value: (
            type(value) in (int, float)
            and 1e-37 <= value <= 1e37
            and float(np.float32(value)) == value
        ),
    ),
]


@dataclass(frozen=True)
class _Grid:
    step: _Single
    low: Annotated[int, integer(-255, 0)]
    bits: _Bits


@dataclass(frozen=True)
class _Layer:
    """The fields of :class:`Layer`, and those of :class:`IntegerLayer` that are no tensors."""

    component: Annotated[str, Must("a name", lambda text: isinstance(text, str) and len(text) < 65)]
    c_in: _Channels
    c_out: _Channels
    size: Annotated[int, integer(1, 4096)]
    kernel: Annotated[int, integer(1, 31), Must("odd", lambda kernel: kernel % 2 == 1)]
    stride: Annotated[int, integer(1, 8)]
    groups: _Channels
    w_bits: _Bits
    a_bits: _Bits
    bias: Annotated[bool, Must("true or false", lambda value: type(value) is bool)]
    block: Annotated[int, integer(0, 65536)] | None
    place: Annotated[str, Must("a name", lambda text: isinstance(text, str) and len(text) < 65)]
    activation: Annotated[str, Must("'relu6'", lambda text: text == "relu6")] | None
    opens_shortcut: Annotated[bool, Must("true or false", lambda value: type(value) is bool)]
    closes_shortcut: Annotated[bool, Must("true or false", lambda value: type(value) is bool)]
    between_bits: Annotated[int, Must("8, 16 or 32", lambda bits: bits in (8, 16, 32))] | None
    signed: Annotated[bool, Must("true or false", lambda value: type(value) is bool)]
    stage: Annotated[int, integer(0, 65536)] | None
    input: _Grid
    output: _Grid | None
    total: _Grid | None


@dataclass(frozen=True)
class _Header:
    space: str
    classes: tuple[str, ...]
    layers: tuple[_Layer, ...]
    origin: dict[str, Any]


def contents(network: IntegerNetwork) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The header of a network, fit for JSON, and its tensors by name."""
    layers: list[dict[str, Any]] = []
    tensors: dict[str, NDArray[Any]] = {}
    for layer in network.layers:
        grids = {name: getattr(layer, name) for name in ("input", "output", "total")}
        told = {name: None if grid is None else asdict(grid) for name, grid in grids.items()}
        layers.append({**asdict(layer.shape), "stage": layer.stage, **told})
        tensors |= {
            f"{layer.name}.{part}": np.ascontiguousarray(getattr(layer, part)) for part in _PARTS
        }
    header = {
        "space": network.space,
        "classes": list(network.classes),
        "layers": layers,
        "origin": network.origin,
    }
    return json.loads(json.dumps(header)), tensors


def network_of(header: Any, tensors: dict[str, NDArray[Any]], source: str) -> IntegerNetwork:
    """The network of what :func:`contents` gave.

    Args:
        header: parsed JSON.
        tensors: by name.
        source: how messages name where it comes from.

    Raises:
        UserError: it is malformed, or its parts do not fit each other.
    """
    known = read(_Header, header, source, "its header")
    names = {f"{_shape(layer).name}.{part}" for layer in known.layers for part in _PARTS}
    if names != tensors.keys() or len(names) != len(_PARTS) * len(known.layers):
        raise UserError(f"{source} does not hold the tensors of its layers")
    try:
        return IntegerNetwork(
            tuple(_layer(layer, tensors) for layer in known.layers),
            known.classes,
            known.space,
            known.origin,
        )
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def _shape(told: _Layer) -> Layer:
    fields = {name: getattr(told, name) for name in Layer.__dataclass_fields__}
    return Layer(**fields)


def _layer(told: _Layer, tensors: dict[str, NDArray[Any]]) -> IntegerLayer:
    shape = _shape(told)
    values = max(
        shape.c_in * (shape.size + 2 * shape.padding) ** 2, shape.c_out * shape.size_out**2
    )
    if values > _MAX_VALUES or shape.macs > _MAX_MACS:
        raise UserError(f"{shape.name}: it is too large")
    weight, gain, bias = (tensors[f"{shape.name}.{part}"] for part in _PARTS)
    output, total = (None if grid is None else _grid(grid) for grid in (told.output, told.total))
    return IntegerLayer(shape, told.stage, weight, gain, bias, _grid(told.input), output, total)


def _grid(told: _Grid) -> Grid:
    return Grid(told.step, told.low, told.bits)


def digest_of_network(network: IntegerNetwork) -> str:
    """SHA-256 of everything that a network is, in hex."""
    return checksum(*contents(network))


def save_network(path: str | Path, network: IntegerNetwork) -> None:
    """Write an integer network atomically.

    Raises:
        UserError: it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(network_bytes(network))


def network_bytes(network: IntegerNetwork) -> bytes:
    """A network as the content of a safetensors file."""
    from safetensors.numpy import save

    header, tensors = contents(network)
    header["format"] = FORMAT
    signed = {**header, "sha256": checksum(header, tensors)}
    content: bytes = save(tensors, metadata={"header": json.dumps(signed)})
    return content


def load_network(path: str | Path) -> IntegerNetwork:
    """Read what :func:`save_network` wrote.

    Raises:
        UserError: it is missing, truncated, altered or of another kind.
    """
    return _verified(*read_tensors(path, FORMAT, "np", _MAX_BYTES), str(path))


def parse_network(content: bytes, source: str) -> IntegerNetwork:
    """The network of what :func:`network_bytes` gave; ``source`` names it in messages.

    Raises:
        UserError: it is truncated, altered or of another kind.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder, "network.safetensors")
        path.write_bytes(content)
        return _verified(*read_tensors(path, FORMAT, "np", _MAX_BYTES), source)


def _verified(
    tensors: dict[str, NDArray[Any]], header: dict[str, Any], path: str
) -> IntegerNetwork:
    said = header.pop("sha256", None)
    if said != checksum(header, tensors):
        raise UserError(f"{path} is damaged: its contents do not match its checksum; make it anew")
    del header["format"]
    return network_of(header, tensors, path)

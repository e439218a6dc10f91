"""Integer networks as C: one file and a header, without libraries or heap.

The arithmetic is in ``template.c``, whose tables are written here. Weights and what their sums are
scaled by take what the objective ``size`` says, the arena what ``memory`` says.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apq_moo.deploy.arena import Arena, plan_arena
from apq_moo.deploy.integers import Grid, IntegerLayer, IntegerNetwork
from apq_moo.deploy.storage import digest_of_network
from apq_moo.errors import UserError, shown
from apq_moo.files import check_suffix, read_bytes, write_text
from apq_moo.space import Layer

FORMAT = "apq-moo C network 1"
MAX_BYTES = 2**28
"""Of a file that is read."""

_MOST = 2**16 - 1
_LARGEST_SUM = 2**31 - 1
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*")
_BYTES_A_LINE = 20


@dataclass(frozen=True)
class CSource:
    """A network in C.

    Attributes:
        name: what its functions begin with.
        source: the text of the ``.c`` file.
        header: the text of its ``.h`` file.
        weight_bytes: bytes of the weights at their bits, and of gains and biases.
        arena_bytes: bytes of the arena for activations.
    """

    name: str
    source: str
    header: str
    weight_bytes: int
    arena_bytes: int


def write_c(network: IntegerNetwork, path: str | Path) -> CSource:
    """Write a network as ``PATH`` and its header beside it.

    Args:
        network: any.
        path: of the ``.c`` file; the functions are called after it.

    Raises:
        UserError: the file's name does not fit; it cannot be written; see :func:`c_source`.
    """
    path = Path(path)
    check_suffix(path, ".c")
    made = c_source(network, path.stem)
    write_text(path.with_suffix(".h"), made.header)
    write_text(path, made.source)
    return made


def c_source(network: IntegerNetwork, name: str = "net") -> CSource:
    """A network as C99.

    Args:
        network: any.
        name: what its functions begin with, such as ``net_classify``.

    Raises:
        UserError: the name is no identifier; a layer is too large for the tables' integers of 16
            bits, or its sums for 32; a kernel is even.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{shown(name)} cannot begin a C function's name: use letters and digits")
    for layer in network.layers:
        _check(layer)
    arena, grids = plan_arena(network), _Grids()
    table = "".join(_rows(network, arena, grids))
    packed = np.concatenate([pack(layer) for layer in network.layers])
    affine = np.concatenate([np.stack([x.gain, x.bias], axis=1) for x in network.layers])
    weight_bytes = packed.nbytes + affine.nbytes
    values = {
        "TITLE": f"A network of the space {_plain(network.space)}, by apq-moo.",
        "FIGURES": f"Weights take {weight_bytes:,} bytes, the arena {arena.n_bytes:,}.",
        **_sizes(network),
        "ARENA": arena.n_bytes,
        "WEIGHTS": weight_bytes,
        "NAMES": "{" + ", ".join(map(_string, network.classes)) + "}",
        "GRIDS": _listed((f"{{{_float(g.step)}, {-g.low}, {g.bits}}}" for g in grids), 4),
        "TABLE": table,
        "CODES": _listed(map(str, packed), _BYTES_A_LINE),
        "ABOUT": _about(network),
        "AFFINE": _listed((f"{{{_float(gain)}, {_float(bias)}}}" for gain, bias in affine), 2),
    }
    source, header = (filled(f"template.{kind}", values, name) for kind in ("c", "h"))
    return CSource(name, source, header, weight_bytes, arena.n_bytes)


def _about(network: IntegerNetwork) -> str:
    """What the tables do not say, as JSON that a comment can hold."""
    about = {
        "format": FORMAT,
        "space": network.space,
        "classes": network.classes,
        "origin": network.origin,
        "sha256": digest_of_network(network),
    }
    return json.dumps(about).replace("*/", "*\\/")


def _sizes(network: IntegerNetwork) -> dict[str, int]:
    """What arrays of the program and its loops are bounded by."""
    first = network.layers[0]
    dense = [layer.shape for layer in network.layers if layer.shape.groups == 1]
    depthwise = [layer.shape for layer in network.layers if layer.shape.groups > 1]
    return {
        "BETWEEN": network.between_bits,
        "LAYERS": len(network.layers),
        "INPUTS": max(shape.kernel**2 * shape.c_in for shape in dense),
        "KERNEL": max((shape.kernel for shape in depthwise), default=1),
        "ROW": max((shape.size + shape.kernel - 1 for shape in depthwise), default=1),
        "SIZE": first.shape.size,
        "CHANNELS": first.shape.c_in,
        "CLASSES": network.layers[-1].shape.c_out,
        "TOP": first.input.high - first.input.low,
    }


def name_in(path: str | Path) -> str:
    """What the functions of a program begin with, whatever its file is called now.

    Raises:
        UserError: it cannot be read, or includes no header.
    """
    text = read_bytes(path, MAX_BYTES).decode("utf-8", errors="replace")
    found = re.search(r'^#include "(\w+)\.h"$', text, flags=re.MULTILINE)
    if found is None:
        raise UserError(f"{path} is no C program of apq-moo: it includes no header of its own")
    return found[1]


def pack(layer: IntegerLayer) -> NDArray[np.uint8]:
    """A layer's weights, each in its bits, the lowest first; unused bits of the last byte are 0.

    Dense weights are in order of output, row, column, input; others of channel, row, column. What
    is stored is a level with the largest one added, so that it is never negative.
    """
    bits = layer.shape.w_bits
    codes = (layer.weight.transpose(0, 2, 3, 1).astype(np.int16) + layer.top).astype(np.uint8)
    single = np.unpackbits(codes.reshape(-1, 1), axis=1, count=bits, bitorder="little")
    return np.packbits(single, bitorder="little")


def _check(layer: IntegerLayer) -> None:
    shape = layer.shape
    if max(shape.c_in, shape.c_out, shape.size) > _MOST or max(shape.kernel, shape.stride) > 255:
        raise UserError(f"{layer.name} is too large for C with sizes of 16 bits")
    if shape.kernel % 2 == 0:
        raise UserError(f"{layer.name} has an even kernel, {shape.kernel}")
    sums = np.abs(layer.weight.astype(np.int64)).reshape(shape.c_out, -1).sum(1)
    if int(sums.max(initial=0)) * (2**shape.a_bits - 1) > _LARGEST_SUM:
        raise UserError(f"{layer.name} has sums beyond 32 bits")


class _Grids:
    """Numbers of grids in their table."""

    def __init__(self) -> None:
        self._numbers: dict[Grid, int] = {}

    def number(self, grid: Grid | None) -> int:
        """A grid's number; any where there is none."""
        return 0 if grid is None else self._numbers.setdefault(grid, len(self._numbers))

    def __iter__(self) -> Iterator[Grid]:
        return iter(self._numbers)


def _rows(network: IntegerNetwork, arena: Arena, grids: _Grids) -> Iterator[str]:
    """Rows of the table of layers; grids that they name enter theirs."""
    weights = channels = 0
    stored: Grid | None = None
    held: Grid | None = None
    for number, layer in enumerate(network.layers):
        shape = layer.shape
        before, behind = (
            network.layers[number - 1],
            network.layers[(number + 1) % len(arena.inputs)],
        )
        held = stored if shape.opens_shortcut else held
        size = before.shape.size_out if shape.bias else shape.size
        geometry = [shape.c_in, shape.c_out, size, shape.kernel, shape.stride, shape.w_bits]
        grid = (
            layer.input,
            held if shape.closes_shortcut else stored,
            layer.output if shape.leaves_block or shape.bias else behind.input,
            layer.total,
        )
        fields = [
            *geometry,
            _flags(shape),
            _source(shape, before.shape, first=number == 0),
            "TO_STORED" if shape.leaves_block else "TO_LOGITS" if shape.bias else "TO_PACKED",
            *map(grids.number, grid),
            *(arena.inputs[number], arena.outputs[number], weights, channels),
        ]
        place = shape.name if layer.stage is None else f"{shape.name} of stage {layer.stage}"
        place += " reads both signs" if shape.signed else ""
        yield f"    {{{', '.join(map(str, fields))}}}, /* {_plain(place)} */\n"
        weights += packed_bytes(shape)
        channels += shape.c_out
        if shape.leaves_block:
            stored = layer.total or layer.output


def _flags(shape: Layer) -> str:
    flags = {
        "DEPTHWISE": shape.groups > 1,
        "RELU6": shape.activation is not None,
        "SHORTCUT": shape.closes_shortcut,
    }
    return " | ".join(name for name, there in flags.items() if there) or "0"


def _source(shape: Layer, before: Layer, *, first: bool) -> str:
    if first or shape.bias:
        return "PICTURE" if first else "POOLED"
    return "STORED" if before.leaves_block else "PACKED"


def packed_bytes(shape: Layer) -> int:
    """Bytes that a layer's weights take at their bits."""
    return -(-shape.weights * shape.w_bits // 8)


def filled(template: str, values: Mapping[str, object], name: str) -> str:
    """The text of a shipped template.

    Args:
        template: its file's name.
        values: what stands for ``@KEY@``.
        name: what stands for ``net`` in the names of functions and of the header.
    """
    text = (files("apq_moo.deploy") / template).read_text(encoding="utf-8")
    for before, after in (("net_", f"{name}_"), ("NET_", f"{name.upper()}_")):
        text = re.sub(rf"\b{before}", after, text)
    text = text.replace('"net.h"', f'"{name}.h"')
    return re.sub("@([A-Z]+)@", lambda found: str(values[found[1]]), text)


def _float(value: float) -> str:
    """A single-precision number as C writes it to the last bit."""
    mantissa, exponent = float(value).hex().split("p")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}p{exponent}f"


def _string(text: str) -> str:
    """A string of C; bytes that are no plain ASCII, and such as end strings, as octal numbers."""
    plain = set(string.ascii_letters + string.digits + " ,.;:+-_()[]/&!'")
    return (
        '"'
        + "".join(
            chr(byte) if chr(byte) in plain else f"\\{byte:03o}"
            for byte in text.encode("utf-8", errors="backslashreplace")
        )
        + '"'
    )


def _plain(text: str) -> str:
    """Text that a comment of C can hold."""
    return re.sub(r"[^A-Za-z0-9_. -]", "?", text)


def _listed(items: Iterable[str], a_line: int) -> str:
    """Items of an array, some in a line."""
    found = list(items)
    rows = (found[first : first + a_line] for first in range(0, len(found), a_line))
    return "".join(f"    {', '.join(row)},\n" for row in rows)

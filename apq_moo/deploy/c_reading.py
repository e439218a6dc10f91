"""Reading a network back from the C program that was written of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.deploy.c import FORMAT, MAX_BYTES, c_source, name_in, packed_bytes
from apq_moo.deploy.integers import (
    MOST_BITS,
    Grid,
    IntegerLayer,
    IntegerNetwork,
    Singles,
    Weights,
)
from apq_moo.deploy.storage import digest_of_network
from apq_moo.errors import UserError, shown
from apq_moo.files import parse_json, read_bytes
from apq_moo.reading import read
from apq_moo.space import Layer

_ABOUT = "\n/* {"
_ROW = re.compile(
    r"\{(.*)\}, /\* (?:block(\d+)|(\w+?))(?:\.(\w+))?(?: of stage (\d+))?( reads both signs)? \*/"
)


@dataclass(frozen=True)
class _About:
    format: str
    space: str
    classes: tuple[str, ...]
    origin: dict[str, Any]
    sha256: str


def read_c(path: str | Path) -> IntegerNetwork:
    """Read what :func:`apq_moo.deploy.c.write_c` wrote.

    Args:
        path: of the ``.c`` file, its header beside it.

    Returns:
        The network, from the program's tables.

    Raises:
        UserError: the file or its header is missing, is none of these programs, or is not, to the
            letter, what is written of the network in its tables: it was altered, or written by
            another version.
    """
    path = Path(path)
    text, name = _text(path), name_in(path)
    try:
        network = _network(text)
        made = c_source(network, name)
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    except (ValueError, IndexError, ArithmeticError) as error:
        raise UserError(f"{path} is no C program of apq-moo, or is damaged: {error}") from None
    header = path.with_name(f"{name}.h")
    for file, found, wanted in ((path, text, made.source), (header, _text(header), made.header)):
        if found != wanted:
            raise UserError(
                f"{file} is not what this version writes of the network in it: it was altered, or "
                "written by another version; export it anew"
            )
    return network


def _text(path: Path) -> str:
    return read_bytes(path, MAX_BYTES).decode("utf-8", errors="replace")


@dataclass(frozen=True)
class _Tables:
    """What a program's tables hold.

    Attributes:
        grids: by number.
        affine: gains and biases of all channels, shape ``(n, 2)``.
        weights: packed, in bytes.
        between: bits of what is stored between blocks.
    """

    grids: list[Grid]
    affine: Singles
    weights: NDArray[np.uint8]
    between: int


def _network(text: str) -> IntegerNetwork:
    start = text.rindex(_ABOUT)
    told = text[start + len(_ABOUT) - 1 : text.index("*/", start)]
    about = read(_About, parse_json(told, "its comment"), "its comment")
    if about.format != FORMAT:
        raise UserError(f"its format is {shown(about.format)}, not {FORMAT!r}")
    codes = _inside(text, "weights[] = {").replace(",", " ").split()
    affine = [[_number(x) for x in row] for row in _rows(_inside(text, "affine[][2] = {"))]
    tables = _Tables(
        [
            Grid(_number(step), -int(zero), int(bits))
            for step, zero, bits in _rows(_inside(text, "grids[] = {"))
        ],
        np.array(affine, dtype=np.float32).reshape(-1, 2),
        np.array(codes, dtype=np.int64).astype(np.uint8),
        int(_inside(text, "#define BETWEEN_BITS ", " ")),
    )
    lines = _inside(text, "layers[N_LAYERS] = {").strip().splitlines()
    layers = [_layer(line, tables) for line in lines]
    opening = {layer.shape.part for layer in layers if layer.shape.closes_shortcut}
    for number, layer in enumerate(layers):
        if layer.shape.part in opening:
            opening.remove(layer.shape.part)
            layers[number] = replace(layer, shape=replace(layer.shape, opens_shortcut=True))
    network = IntegerNetwork(tuple(layers), about.classes, about.space, about.origin)
    if digest_of_network(network) != about.sha256:
        raise UserError("its tables do not match its checksum; export it anew")
    return network


def _layer(line: str, tables: _Tables) -> IntegerLayer:
    found = _ROW.fullmatch(line.strip())
    if found is None:
        raise ValueError(f"its row {shown(line)} cannot be read")
    fields, block, component, place, stage, signed = found.groups()
    c_in, c_out, size, kernel, stride, w_bits, flags, _, to, *rest = fields.split(", ")
    entering, _, output, total, _, _, weights, channels = map(int, rest)
    last, stored, grids = to == "TO_LOGITS", to == "TO_STORED", tables.grids
    shape = Layer(
        component=component or "block",
        c_in=int(c_in),
        c_out=int(c_out),
        size=1 if last else int(size),
        kernel=int(kernel),
        stride=int(stride),
        groups=int(c_in) if "DEPTHWISE" in flags else 1,
        w_bits=int(w_bits),
        a_bits=grids[entering].bits,
        bias=last,
        block=None if block is None else int(block),
        place=place or "",
        activation="relu6" if "RELU6" in flags else None,
        closes_shortcut="SHORTCUT" in flags,
        between_bits=tables.between if stored else None,
        signed=signed is not None,
    )
    integers = stored and tables.between == MOST_BITS
    gain, bias = tables.affine[channels : channels + shape.c_out].T.copy()
    return IntegerLayer(
        shape,
        None if stage is None else int(stage),
        unpacked(shape, tables.weights[weights : weights + packed_bytes(shape)]),
        gain,
        bias,
        grids[entering],
        grids[output] if integers else None,
        grids[total] if integers and shape.closes_shortcut else None,
    )


def unpacked(shape: Layer, codes: NDArray[np.uint8]) -> Weights:
    """Levels of a layer's weights, of what :func:`apq_moo.deploy.c.pack` gave.

    Raises:
        ValueError: there are too few.
    """
    if len(codes) != packed_bytes(shape):
        raise ValueError(f"{shape.name} lacks weights")
    bits = np.unpackbits(codes, count=shape.weights * shape.w_bits, bitorder="little")
    single = np.packbits(bits.reshape(-1, shape.w_bits), axis=1, bitorder="little")
    levels = single.astype(np.int16) - (2 ** (shape.w_bits - 1) - 1)
    kernel = (shape.c_out, shape.kernel, shape.kernel, shape.c_in // shape.groups)
    return np.ascontiguousarray(levels.reshape(kernel).transpose(0, 3, 1, 2)).astype(np.int8)


def _inside(text: str, begin: str, end: str = "};") -> str:
    """What stands between two pieces of text.

    Raises:
        ValueError: one of them is not there.
    """
    start = text.index(begin) + len(begin)
    return text[start : text.index(end, start)]


def _rows(text: str) -> list[list[str]]:
    """The rows of a table of C, each as the texts of its fields."""
    return [row.split(", ") for row in re.findall(r"{([^{}]*)}", text)]


def _number(text: str) -> float:
    return float.fromhex(text.removesuffix("f"))

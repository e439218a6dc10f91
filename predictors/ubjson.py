"""Reading UBJSON, the binary form of JSON in which XGBoost writes its models; strictly."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPES = {"i": "i1", "U": "u1", "I": "i2", "l": "i4", "L": "i8", "d": "f4", "D": "f8"}
_SIZES = {ord(kind): np.dtype(of).itemsize for kind, of in _TYPES.items()}
_ARRAY, _TABLE, _END, _TYPE, _COUNT, _LENGTH, _TEXT = b"[{}$#LS"

_MAX_DEPTH = 16
_MAX_VALUES = 2_000_000

_length = struct.Struct(">Q").unpack_from


Numbers = tuple[int, bytes]
"""The type and the bytes of a number, or of the numbers in an array."""


def read_ubjson(data: bytes) -> dict[str, Any]:
    """Tables as dictionaries, arrays as lists, texts, and numbers as :data:`Numbers`.

    Raises:
        ValueError: it is not UBJSON as XGBoost writes it, where lengths come before what they
            count; or it has more values, or is nested deeper, than its models.
    """
    try:
        found, stop = _Reader(data).value(0, 0)
    except (IndexError, KeyError, struct.error) as error:
        raise ValueError("cut off, or of an unknown type") from error
    if stop != len(data) or not isinstance(found, dict):
        raise ValueError("not one table")
    return found


class _Reader:
    """Its methods take the place where something begins, and return it and the place behind it."""

    def __init__(self, data: bytes) -> None:
        self.data, self.left = data, _MAX_VALUES

    def value(self, place: int, depth: int) -> tuple[Any, int]:
        self.left -= 1
        if self.left < 0 or depth > _MAX_DEPTH:
            raise ValueError("too many values, or nested too deeply")
        kind = self.data[place]
        if kind == _ARRAY:
            return self.array(place + 1, depth)
        if kind == _TABLE:
            return self.table(place + 1, depth)
        if kind == _TEXT:
            start, stop = self.span(place + 1)
            return self.data[start:stop].decode(), stop
        stop = place + 1 + _SIZES[kind]
        return (kind, self.data[place + 1 : stop]), stop

    def array(self, place: int, depth: int) -> tuple[Any, int]:
        kind = None
        if self.data[place] == _TYPE:
            kind, place = self.data[place + 1], place + 2
        if self.data[place] != _COUNT:
            raise ValueError("an array without a length")
        start, stop = self.span(place + 1, 1 if kind is None else _SIZES[kind])
        if kind is not None:
            return (kind, self.data[start:stop]), stop
        items, place = [], start
        for _ in range(stop - start):
            item, place = self.value(place, depth + 1)
            items.append(item)
        return items, place

    def table(self, place: int, depth: int) -> tuple[dict[str, Any], int]:
        data, found = self.data, dict[str, Any]()
        while data[place] != _END:
            start, stop = self.span(place)
            found[data[start:stop].decode()], place = self.value(stop, depth + 1)
        return found, place + 1

    def span(self, place: int, size: int = 1) -> tuple[int, int]:
        """Where the items begin and end whose number comes first."""
        if self.data[place] != _LENGTH:
            raise ValueError("a length that is not of 64 bits")
        return place + 9, place + 9 + _length(self.data, place + 1)[0] * size


def joined(parts: Iterable[Numbers], kind: str) -> NDArray[Any]:
    """The numbers of several arrays in one.

    Args:
        parts: the arrays.
        kind: the type of their numbers, as UBJSON marks it.

    Raises:
        ValueError: one is not an array of that type.
    """
    parts = list(parts)
    if any(not isinstance(part, tuple) or part[0] != ord(kind) for part in parts):
        raise ValueError(f"an array that is not of type {kind!r}")
    return np.frombuffer(b"".join([data for _, data in parts]), f">{_TYPES[kind]}")

"""Reading and writing arrays as ``.npz``, of strangers too."""

from __future__ import annotations

import math
import os
import struct
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from apq_moo.errors import UserError, shown
from apq_moo.files import MAX_ARRAYS, parse_json, replacing

_MAX_DIRECTORY = 2**20
"""Bytes of an archive's list of members."""


def read_arrays(
    file: str | Path | BinaryIO,
    wanted: Mapping[str, tuple[str, int]],
    *,
    others: str = "",
    max_bytes: int = MAX_ARRAYS,
    source: str = "",
) -> dict[str, NDArray[Any]]:
    """Read arrays of an ``.npz``. Nothing in it is run, and no more is unpacked than was checked.

    Args:
        file: its path, or an open file.
        wanted: for each array that must be there the kinds that its type may have (letters of
            ``numpy.dtype.kind``) and the number of its axes.
        others: kinds of further arrays that are read too; none are by default.
        max_bytes: of all arrays together.
        source: how messages name it; by default its path.

    Raises:
        UserError: it is missing, unreadable, damaged or too large, or an array is missing or of
            another kind.
    """
    source = source or str(file)
    try:
        if isinstance(file, str | Path):
            with Path(file).open("rb") as handle:
                return _arrays(handle, wanted, others, max_bytes)
        return _arrays(file, wanted, others, max_bytes)
    except OSError as error:
        raise UserError(f"cannot read {source}: {error.strerror or error}") from error
    except Exception as error:  # damaged archives make numpy and zipfile raise almost anything
        text = str(error) or type(error).__name__
        raise UserError(f"cannot read {source}: it is damaged ({text})") from error


def open_zip(handle: BinaryIO) -> zipfile.ZipFile:
    """A zip archive whose list of members is short, and names each once.

    Raises:
        ValueError: it is none, or members are encrypted or packed by other means than deflation.
        zipfile.BadZipFile: it is damaged.
    """
    handle.seek(max(handle.seek(0, os.SEEK_END) - 98, 0))
    end = handle.read()
    if end[-22:-18] != b"PK\5\6":
        raise ValueError("it is no zip archive, or truncated")
    (directory,) = struct.unpack("<L", end[-10:-6])
    if end[-42:-38] == b"PK\6\7":  # as of archives beyond 4 GiB, and of torch's
        (directory,) = struct.unpack("<Q", end[40:48])
    if directory > _MAX_DIRECTORY:
        raise ValueError("it has too many members")
    archive = zipfile.ZipFile(handle)
    members = archive.infolist()
    if len({member.filename for member in members}) < len(members):
        raise ValueError("a member occurs twice")
    for member in members:
        if member.flag_bits & 1 or member.compress_type not in {
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        }:
            raise ValueError("a member is encrypted, or packed by other means than deflation")
    return archive


def _arrays(
    file: BinaryIO, wanted: Mapping[str, tuple[str, int]], others: str, max_bytes: int
) -> dict[str, NDArray[Any]]:
    with open_zip(file) as archive, warnings.catch_warnings():
        warnings.simplefilter("error")
        members = {
            name: member
            for member in archive.infolist()
            if (name := member.filename.removesuffix(".npy")) in wanted or others
        }
        for name in wanted:
            if name not in members:
                raise ValueError(f"it lacks {shown(name)}")
        for name, member in members.items():
            kinds, n_axes = wanted.get(name, (others, None))
            _check_array(archive, member, shown(name), kinds, n_axes)
        if sum(member.file_size for member in members.values()) > max_bytes:
            raise ValueError(f"it unpacks to more than {max_bytes:,} bytes")
        return {name: _array(archive, member) for name, member in members.items()}


_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def _check_array(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, kinds: str, n_axes: int | None
) -> None:
    """Check what an array's header says, before any of its data is read."""
    with archive.open(member) as handle:
        shape, _, dtype = _HEADERS[np.lib.format.read_magic(handle)](handle)
        n_bytes = member.file_size - handle.tell()
    if dtype.kind not in kinds or n_axes not in {len(shape), None}:
        raise ValueError(f"{name} has {len(shape)} axes of {shown(dtype.str)[1:-1]}")
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != n_bytes:
        raise ValueError(f"{name} should have other than {n_bytes:,} bytes")
    if math.prod(max(n, 1) for n in shape) > MAX_ARRAYS:
        raise ValueError(f"{name} is too large")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as handle:
        array: NDArray[Any] = np.lib.format.read_array(handle, allow_pickle=False)
        handle.read(1)  # beyond the end, so that the checksum is verified
    if array.dtype.kind == "U" and array.size and array.itemsize:
        letters = np.ascontiguousarray(array).view(
            np.dtype("u4").newbyteorder(array.dtype.byteorder)
        )
        if letters.max() > sys.maxunicode:
            raise ValueError("a text is malformed")
    if array.dtype.kind == "b":
        array = array.view(np.uint8) != 0
    return array


def header_of(arrays: dict[str, NDArray[Any]], source: str | Path) -> dict[str, Any]:
    """Take the array ``header`` out of others: a JSON object, as bytes.

    Raises:
        UserError: it is malformed.
    """
    found = parse_json(arrays.pop("header").tobytes(), f"the header of {source}")
    if not isinstance(found, dict):
        raise UserError(f"the header of {source} must be an object, not {shown(found)}")
    return found


HEADER = ("u", 1)
"""What the array ``header`` must be, see :func:`read_arrays`."""


def write_arrays(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an ``.npz`` atomically, compressed as fast as zlib can.

    Raises:
        UserError: it cannot be written.
    """
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bundle,
    ):
        for name, array in arrays.items():
            with bundle.open(f"{name}.npy", "w", force_zip64=True) as handle:
                np.lib.format.write_array(handle, np.asarray(array), allow_pickle=False)

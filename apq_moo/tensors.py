"""Reading safetensors files with a JSON header, no larger than they may be, and their checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from apq_moo.errors import UserError
from apq_moo.files import parse_json

_MAX_LIST = 2**22
"""Bytes of the list of tensors, which is read into some ten times as much."""


def read_tensors(
    path: str | Path, kind: str | None, framework: Literal["np", "pt"], max_bytes: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors of a file by name, and the JSON object ``header`` of its metadata.

    Args:
        path: the file.
        kind: the expected ``format`` of the header; None where a file may come from anywhere, and
            have no header.
        framework: whose tensors they become.
        max_bytes: of the file.

    Raises:
        UserError: it is missing, truncated, altered, too large or of another kind.
    """
    from safetensors import safe_open

    try:
        with Path(path).open("rb") as handle:
            if int.from_bytes(handle.read(8), "little") > _MAX_LIST:
                raise UserError(
                    f"cannot read {path}: its list of tensors is too long, or it has none"
                )
            if handle.seek(0, 2) > max_bytes:
                raise UserError(f"cannot read {path}: it has more than {max_bytes:,} bytes")
        with safe_open(path, framework=framework) as found:
            text = (found.metadata() or {}).get("header", "{}")
            header = parse_json(text, f"the header of {path}")
            if not isinstance(header, dict) or kind not in (None, header.get("format")):
                raise UserError(f"{path} is not a file of kind {kind!r}")
            return {name: found.get_tensor(name) for name in found.keys()}, header  # noqa: SIM118
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # such as of types that the framework has not
        raise UserError(f"cannot read {path}: {error}") from error


def checksum(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of a JSON header and of every array, in hex."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()

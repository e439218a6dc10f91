"""Storing supernets as safetensors, with a header that says which space they belong to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from apq_moo.errors import UserError
from apq_moo.files import replacing
from apq_moo.space import Space, belonging, refuse_other_space
from apq_moo.supernet.network import Supernet
from apq_moo.tensors import read_tensors

FORMAT = "apq-moo supernet 1"
_MAX_BYTES = 2**31
"""Of a file that is read, and so of one that is written."""

_RANGES = "ranges"


def save_tensors(path: str | Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and a JSON header atomically.

    Raises:
        UserError: it cannot be written, or would be too large to be read again.
    """
    from safetensors.torch import save

    n_bytes = sum(value.numel() * value.element_size() for value in tensors.values())
    if n_bytes > _MAX_BYTES:
        raise UserError(
            f"cannot write {path}: it would have {n_bytes:,} bytes, and more than {_MAX_BYTES:,} "
            "are not read again; use a smaller space"
        )
    plain = {name: value.detach().contiguous() for name, value in tensors.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(save(plain, metadata={"header": json.dumps(header)}))


def load_tensors(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_tensors` wrote.

    Args:
        path: the file.
        kind: the expected ``format`` of the header.

    Raises:
        UserError: it is missing, truncated, altered or of another kind.
    """
    return read_tensors(path, kind, "pt", _MAX_BYTES)


def save_supernet(path: str | Path, supernet: Supernet, **header: Any) -> None:
    """Write a supernet; ``header`` is kept beside it.

    Raises:
        UserError: it cannot be written.
    """
    header |= {"format": FORMAT, **belonging(supernet.space)}
    save_tensors(path, tensors_of(supernet), header)


def tensors_of(supernet: Supernet) -> dict[str, Tensor]:
    """A supernet's weights, and its ranges if it has any."""
    tensors: dict[str, Tensor] = dict(supernet.state_dict())
    if supernet.ranges.known and supernet.ranges.widths:
        tensors[_RANGES] = supernet.ranges.tensor()
    return tensors


def take_tensors(supernet: Supernet, tensors: dict[str, Tensor], path: str | Path) -> None:
    """Take what :func:`tensors_of` gave.

    Raises:
        UserError: it is of another space, or malformed; names ``path``.
    """
    weights = dict(tensors)
    ranges = weights.pop(_RANGES, None)
    try:
        supernet.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{path} does not hold this space's weights") from error
    if ranges is not None:
        try:
            supernet.ranges.load(ranges)
        except UserError as error:
            raise UserError(f"{path} is damaged: {error}") from error


def load_supernet(path: str | Path, space: Space) -> tuple[Supernet, dict[str, Any]]:
    """Read a supernet and its header.

    Raises:
        UserError: the file is unreadable, no supernet, or of another space.
    """
    tensors, header = load_tensors(path, FORMAT)
    refuse_other_space(header, space, path)
    supernet = Supernet(space)
    take_tensors(supernet, tensors, path)
    return supernet.eval(), header

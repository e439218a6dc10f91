"""The one file format of fitted predictors: safetensors with a checked JSON header.

Nothing in it is executable. The header says which predictor of which space the arrays are, and
carries a SHA-256 of itself and of every array, so an altered file is refused as surely as a
truncated one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.errors import UserError
from apq_moo.files import replacing
from apq_moo.space import Space, belonging, refuse_other_space
from apq_moo.tensors import checksum, read_tensors

FORMAT = "apq-moo predictor 1"
_MAX_BYTES = 2**27

MOST = 1e6
"""No number that a predictor learns is larger; with such ones no prediction overflows."""

Arrays = dict[str, NDArray[Any]]


def real(settings: Mapping[str, Any], name: str) -> float:
    """A number among a predictor's settings.

    Raises:
        KeyError, TypeError, ValueError: it is missing, none, or too large.
    """
    value = float(settings[name])
    if not abs(value) <= MOST:
        raise ValueError(f"{name} must lie between {-MOST:,.0f} and {MOST:,.0f}, not be {value:g}")
    return value


def write_state(path: str | Path, space: Space, arrays: Arrays, header: Mapping[str, Any]) -> None:
    """Write arrays and a header atomically.

    Args:
        path: the file; any suffix, by custom ``.safetensors``.
        space: the space that the predictor belongs to.
        arrays: what was learnt.
        header: what else is needed to restore it; must survive JSON.

    Raises:
        UserError: it cannot be written.
    """
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    header = json.loads(json.dumps({**header, "format": FORMAT, **belonging(space)}))
    signed = {**header, "sha256": checksum(header, arrays)}
    with replacing(path) as temporary:
        temporary.write_bytes(save(arrays, metadata={"header": json.dumps(signed)}))


def read_state(path: str | Path, space: Space) -> tuple[Arrays, dict[str, Any]]:
    """Read what :func:`write_state` wrote.

    Raises:
        UserError: it is missing, truncated, altered, no predictor, or of another space.
    """
    arrays, header = read_tensors(path, FORMAT, "np", _MAX_BYTES)
    said = header.pop("sha256", None)
    if said != checksum(header, arrays):
        raise UserError(f"{path} is damaged: its contents do not match its checksum; fit it again")
    refuse_other_space(header, space, path)
    return arrays, header

"""Known Pareto fronts: published ones, which ship with the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.data.assets import predictor_file
from apq_moo.npz import read_arrays
from apq_moo.space import Space

FOLDER = Path(str(files("apq_moo.problems") / "published"))


@dataclass(frozen=True)
class KnownFront:
    """A front and the networks on it.

    Attributes:
        F: objectives, minimised, non-dominated, ascending by the first, shape ``(n, n_obj)``.
        X: canonical genotypes, shape ``(n, n_var)``; None where only the objectives are known.
    """

    F: FloatArray
    X: IntArray | None


def nondominated_rows(F: FloatArray) -> IntArray:
    """Rows of the distinct non-dominated points, ascending by the first objective."""
    from moocore import is_nondominated

    rows = np.flatnonzero(is_nondominated(F, keep_weakly=False)) if len(F) else np.empty(0, int)
    ordered: IntArray = rows[np.lexsort(F[rows].T[::-1])]
    return ordered


def front_name(objectives: Sequence[str], device: str, predictor: str) -> str:
    """What a published front is called in its space's file."""
    return f"{'+'.join(objectives)}|{device}|{predictor}"


def published_front(
    space: Space, objectives: Sequence[str], device: str, predictor: str, digest: Mapping[str, str]
) -> KnownFront | None:
    """The union of all fronts of the published benchmark, if that had this problem; or None.

    Args:
        space: the space.
        objectives: their names; the problem has no limits.
        device: the device's name.
        predictor: the predictor's name.
        digest: checksums of what its accuracies come from; a front of another predictor of this
            name does not count.
    """
    path = FOLDER / f"{space.name}.npz"
    if not path.is_file():
        return None
    arrays, name = read_arrays(path, {}, others="iufU"), front_name(objectives, device, predictor)
    checksum = digest.get(predictor_file(predictor))
    if checksum is None or str(arrays.get(f"{name}|sha256", "")) != checksum:
        return None
    X = arrays.get(f"{name}|X")
    return KnownFront(arrays[name], None if X is None else X.astype(np.int64))

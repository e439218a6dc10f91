"""Evaluated networks: those of a round, or all of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.npz import write_arrays


@dataclass(frozen=True)
class Evaluated:
    """Evaluated networks, in the order in which they were evaluated.

    Attributes:
        X: canonical genotypes, shape ``(n, n_var)``; in as small a type as holds them.
        F: minimised objectives, shape ``(n, n_obj)``.
        feasible: whether each satisfies all constraints of the user, shape ``(n,)``.
    """

    X: NDArray[np.integer[Any]]
    F: FloatArray
    feasible: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.X)

    @property
    def genotypes(self) -> IntArray:
        """``X`` as everything else takes it, int64."""
        return self.X.astype(np.int64, copy=False)

    @classmethod
    def join(cls, parts: Sequence[Evaluated]) -> Evaluated:
        """Several as one, in their order."""
        return cls(
            np.vstack([part.X for part in parts]),
            np.vstack([part.F for part in parts]),
            np.concatenate([part.feasible for part in parts]),
        )

    def front(self) -> Evaluated:
        """The feasible non-dominated networks, without duplicates, by ascending last objective.

        Of networks with equal objectives the one evaluated first stays.
        """
        from moocore import is_nondominated

        rows = np.flatnonzero(self.feasible)
        rows = rows[is_nondominated(self.F[rows], keep_weakly=False)] if len(rows) else rows
        order = np.lexsort(self.F[rows].T)
        rows = rows[order]
        return Evaluated(self.X[rows], self.F[rows], self.feasible[rows])

    def save(self, path: str | Path, **more: NDArray[np.generic]) -> None:
        """Write it as an ``.npz``, atomically, with further arrays if given.

        Raises:
            UserError: it cannot be written.
        """
        write_arrays(path, {"X": self.X, "F": self.F, "feasible": self.feasible, **more})

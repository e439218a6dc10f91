"""Tables of networks with the numbers of images that they classify rightly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.data.samples import MAX_BYTES
from apq_moo.errors import UserError
from apq_moo.files import replacing
from apq_moo.npz import HEADER, header_of, read_arrays
from apq_moo.space import Space, refuse_other_space

SPLITS = ("validation", "test")
FORMAT = "apq-moo accuracies 1"
_MAX_IMAGES = np.iinfo(np.int32).max
MISSING = -1
"""Stands where a network has not been measured."""


@dataclass(frozen=True)
class AccuracyTable:
    """Networks at their bits and what a supernet scored with them.

    Attributes:
        X: canonical genotypes, shape ``(n, n_var)``.
        right: rightly classified images of each of :data:`SPLITS`, shape ``(n, 2)``;
            :data:`MISSING` where not measured.
        images: images of each split.
        provenance: what made it: space, digest, checksums, seconds, device.
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS

    X: IntArray
    right: NDArray[np.int32]
    images: tuple[int, int]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every network has been measured."""
        return bool((self.right != MISSING).all())

    @property
    def quantised(self) -> BoolArray:
        """Which networks run at their bits, shape ``(n,)``: all."""
        return np.ones(len(self.X), dtype=bool)

    @property
    def wanted(self) -> BoolArray:
        """Which of :attr:`splits` are measured of each network, shape ``(n, 2)``: all."""
        return np.ones(self.right.shape, dtype=bool)

    def unmeasured(self) -> IntArray:
        """Rows that lack a split."""
        return np.flatnonzero((self.right == MISSING).any(axis=1))

    def with_counts(
        self, rows: IntArray, right: NDArray[np.int32], images: Sequence[int]
    ) -> AccuracyTable:
        """The table with rightly classified images of rows, shape ``(len(rows), 2)``."""
        assert tuple(images) == self.images
        found = self.right.copy()
        found[rows] = right
        return replace(self, right=found)

    def joined(self, other: AccuracyTable) -> AccuracyTable:
        """What this table knows, and else another one of the same networks."""
        return replace(self, right=np.where(self.right == MISSING, other.right, self.right))

    def accuracies(self) -> FloatArray:
        """Percent on validation and test images, shape ``(n, 2)``; NaN where not measured."""
        percent = 100.0 * self.right / np.array(self.images)
        return np.where(self.right == MISSING, np.nan, percent)

    def save(self, path: str | Path) -> None:
        """Write it as an ``.npz``, atomically.

        Raises:
            UserError: it cannot be written.
        """
        header = json.dumps({"format": FORMAT, "images": self.images, **self.provenance})
        with replacing(path) as temporary, temporary.open("wb") as handle:
            np.savez_compressed(
                handle,
                X=self.X.astype(np.min_scalar_type(int(self.X.max(initial=0)))),
                right=self.right,
                header=np.frombuffer(header.encode(), dtype=np.uint8),
            )


def load_table(path: str | Path, space: Space) -> AccuracyTable:
    """Read a table of accuracies.

    Raises:
        UserError: it is missing, damaged, or of another space.
    """
    wanted = {"header": HEADER, "X": ("iu", 2), "right": ("i", 2)}
    arrays = read_arrays(path, wanted, max_bytes=MAX_BYTES, source=f"table of accuracies {path}")
    header, X, right = header_of(arrays, path), arrays["X"], arrays["right"]
    if header.pop("format", None) != FORMAT:
        raise UserError(f"{path} is not a table of accuracies of this version")
    refuse_other_space(header, space, path)
    images = header.pop("images", None)
    if (
        not isinstance(images, list)
        or len(images) != len(SPLITS)
        or not all(type(n) is int and 0 < n <= _MAX_IMAGES for n in images)
        or right.dtype != np.int32
        or right.shape != (len(X), len(SPLITS))
        or bool(((right < MISSING) | (right > np.array(images))).any())
    ):
        raise UserError(f"{path} holds arrays of the wrong shape, type or range")
    return AccuracyTable(space.check(X), right, (images[0], images[1]), header)

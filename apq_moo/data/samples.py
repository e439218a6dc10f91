"""Tables of sampled subnets with their measured accuracies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.errors import UserError
from apq_moo.files import replacing
from apq_moo.npz import HEADER, header_of, read_arrays
from apq_moo.space import Space, refuse_other_space

FOUND = "mp_found"
SETS = ("fp", "mp", "fp_held_out", "mp_held_out", FOUND)
"""Random draws: full-precision and mixed-precision samples to fit to, and others to judge by. And
what searches measured: mixed-precision networks to fit to as well."""

FORMAT = "apq-moo samples 1"

MAX_BYTES = 2**25
"""Of the arrays of a table of networks."""


@dataclass(frozen=True)
class SampleTable:
    """Subnets and their accuracies.

    Attributes:
        X: canonical genotypes, shape ``(n, n_var)``; bit genes are 0 in full-precision rows.
        group: index into :data:`SETS`, shape ``(n,)``.
        acc: accuracy on the validation split in percent, shape ``(n,)``; NaN where not measured.
        provenance: what made it: space, digest, seed, checksums, settings, seconds.
        acc_test: accuracy on the test split in percent, shape ``(n,)``, of the rows to judge by:
            what is learnt from validation labels is judged by other images too. NaN where not
            measured; by default everywhere, as in files of before.
    """

    splits: ClassVar[tuple[str, ...]] = ("validation", "test")

    X: IntArray
    group: NDArray[np.int8]
    acc: FloatArray
    provenance: dict[str, Any] = field(default_factory=dict)
    acc_test: FloatArray = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        if not len(self.acc_test):
            object.__setattr__(self, "acc_test", np.full(len(self.X), np.nan))

    def rows(self, name: str) -> tuple[IntArray, FloatArray]:
        """The measured genotypes and accuracies of one of :data:`SETS`."""
        chosen = self._measured(name)
        return self.X[chosen], self.acc[chosen]

    def to_fit(self) -> tuple[IntArray, FloatArray]:
        """All measured mixed-precision networks that none is judged by."""
        chosen = self._measured("mp") | self._measured(FOUND)
        return self.X[chosen], self.acc[chosen]

    def with_found(self, X: IntArray, acc: FloatArray) -> SampleTable:
        """The table with networks that searches measured, those left out that it has already.

        Args:
            X: canonical genotypes, shape ``(n, n_var)``.
            acc: their validation accuracies in percent, shape ``(n,)``.
        """
        seen = {row.tobytes() for row in self.X[self.quantised]}
        fresh = []
        for i, row in enumerate(np.asarray(X, dtype=self.X.dtype)):
            if row.tobytes() not in seen:
                seen.add(row.tobytes())
                fresh.append(i)
        return replace(
            self,
            X=np.vstack([self.X, np.asarray(X, dtype=self.X.dtype)[fresh]]),
            group=np.append(self.group, np.full(len(fresh), SETS.index(FOUND), dtype=np.int8)),
            acc=np.append(self.acc, np.asarray(acc)[fresh]),
            acc_test=np.append(self.acc_test, np.full(len(fresh), np.nan)),
        )

    def test_accuracies(self, name: str) -> FloatArray:
        """Those of the rows of :meth:`rows`; NaN where not measured."""
        return self.acc_test[self._measured(name)]

    def _measured(self, name: str) -> BoolArray:
        found: BoolArray = (self.group == SETS.index(name)) & np.isfinite(self.acc)
        return found

    @property
    def complete(self) -> bool:
        """Whether every row has been measured."""
        return not len(self.unmeasured())

    @property
    def wanted(self) -> BoolArray:
        """Which of :attr:`splits` are measured of each row, shape ``(n, 2)``."""
        judging = np.isin(self.group, [SETS.index("fp_held_out"), SETS.index("mp_held_out")])
        return np.stack([np.ones(len(self.X), dtype=bool), judging], axis=1)

    @property
    def quantised(self) -> BoolArray:
        """Which rows are measured at their bits, shape ``(n,)``."""
        return np.isin(self.group, [SETS.index(name) for name in SETS if name.startswith("mp")])

    def unmeasured(self) -> IntArray:
        """Rows that lack an accuracy, those of small sets first.

        So an unfinished table has what judges and transfers, and some of the rest.
        """
        missing = np.isnan(np.stack([self.acc, self.acc_test], axis=1)) & self.wanted
        todo = np.flatnonzero(missing.any(axis=1))
        size = np.bincount(self.group, minlength=len(SETS))[self.group[todo]]
        return todo[np.argsort(size, kind="stable")]

    def with_counts(
        self, rows: IntArray, right: NDArray[np.int32], images: Sequence[int]
    ) -> SampleTable:
        """The table with accuracies of rows.

        Args:
            rows: which.
            right: rightly classified images of each of :attr:`splits`, shape ``(len(rows), 2)``;
                negative where they were not classified.
            images: of each split.
        """
        found = []
        for split, (known, n) in enumerate(zip((self.acc, self.acc_test), images, strict=True)):
            classified = right[:, split] >= 0
            found.append(known.copy())
            found[-1][rows[classified]] = 100.0 * (right[classified, split] / n)
        return replace(self, acc=found[0], acc_test=found[1])

    def joined(self, other: SampleTable) -> SampleTable:
        """What this table knows, and else another one of the same rows."""
        return replace(
            self,
            acc=np.where(np.isnan(self.acc), other.acc, self.acc),
            acc_test=np.where(np.isnan(self.acc_test), other.acc_test, self.acc_test),
        )

    def counts(self) -> dict[str, int]:
        """Measured rows of each set."""
        return {name: len(self.rows(name)[1]) for name in SETS}

    def save(self, path: str | Path) -> None:
        """Write it as an ``.npz``, atomically.

        Raises:
            UserError: it cannot be written.
        """
        header = json.dumps({"format": FORMAT, **self.provenance})
        with replacing(path) as temporary, temporary.open("wb") as handle:
            np.savez_compressed(
                handle,
                X=self.X.astype(np.uint8),
                group=self.group,
                acc=self.acc,
                acc_test=self.acc_test,
                header=np.frombuffer(header.encode(), dtype=np.uint8),
            )


def load_samples(path: str | Path, space: Space) -> SampleTable:
    """Read a sample table.

    Raises:
        UserError: it is missing, damaged, or of another space.
    """
    wanted = {"header": HEADER, "X": ("iu", 2), "group": ("i", 1), "acc": ("f", 1)}
    arrays = read_arrays(path, wanted, others="f", max_bytes=MAX_BYTES, source=f"samples {path}")
    header = header_of(arrays, path)
    X, group, acc = (arrays[name] for name in ("X", "group", "acc"))
    acc_test = arrays.get("acc_test", np.full(acc.shape, np.nan))  # none in files of before
    if header.pop("format", None) != FORMAT:
        raise UserError(f"{path} is not a sample table of this version")
    refuse_other_space(header, space, path)
    good = (
        group.shape == acc.shape == acc_test.shape == (len(X),)
        and group.dtype == np.int8
        and acc.dtype == acc_test.dtype == np.float64
        and bool(((group >= 0) & (group < len(SETS))).all())
    )
    if not good:
        raise UserError(f"{path} holds arrays of the wrong shape or type")
    return SampleTable(space.check(X), group, acc, header, acc_test)

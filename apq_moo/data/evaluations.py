"""Expensive evaluations, each kept as soon as it is known, and shared by processes.

One SQLite file holds values by space, canonical genotype, evaluator, what is evaluated and data, so
that no two evaluations of a network are ever paid for: neither by a search that goes on after a
kill, nor by two searches at the same time.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.caching import cache_folder
from apq_moo.databases import database
from apq_moo.errors import UserError
from apq_moo.files import refuse_links
from apq_moo.space import Space

_TABLE = """
CREATE TABLE IF NOT EXISTS evaluations (
    space TEXT NOT NULL,
    genotype BLOB NOT NULL,
    evaluator TEXT NOT NULL,
    data TEXT NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (space, genotype, evaluator, data)
) WITHOUT ROWID
"""
_GENE = np.dtype("<u2")


class Evaluations:
    """Values of one evaluator on the networks of one space.

    Args:
        space: the space, whose digest counts.
        evaluator: what computes the values, and from what: name and checksum of its weights.
        data: checksum of the images.
        path: the file; by default in :func:`apq_moo.caching.cache_folder`.

    Raises:
        UserError: the file cannot be written or locked, or is no such archive.
    """

    def __init__(
        self, space: Space, evaluator: str, data: str, path: str | Path | None = None
    ) -> None:
        self.path = cache_folder() / "evaluations.sqlite" if path is None else Path(path)
        self._mend = "; set APQ_MOO_CACHE to another folder" if path is None else ""
        self._key = space.digest, evaluator, data
        with self._open() as connection:
            connection.execute("PRAGMA user_version = 0")  # a write, also where the table was there
        with self._alone(b""):
            pass

    def known(self, X: IntArray, names: Sequence[str]) -> FloatArray:
        """What is known of canonical genotypes, shape ``(n, n_names)``; else NaN.

        Args:
            X: shape ``(n, n_var)``.
            names: of what is evaluated, such as splits of the images.
        """
        query = (
            "SELECT value FROM evaluations WHERE space=? AND evaluator=? AND data=? AND genotype=?"
        )
        space, evaluator, data = self._key
        values = np.full((len(X), len(names)), np.nan)
        with self._open() as connection:
            for i, genotype in enumerate(_bytes(X)):
                for j, name in enumerate(names):
                    key = (space, f"{evaluator} {name}", data, genotype)
                    row = connection.execute(query, key).fetchone()
                    if row is not None and isinstance(row[0], float):
                        values[i, j] = row[0]
        return values

    def values(
        self, x: IntArray, names: Sequence[str], evaluate: Callable[[list[str]], FloatArray]
    ) -> FloatArray:
        """The values of a canonical genotype, shape ``(n_names,)``, evaluated only if need be.

        While one process evaluates a network, others that want the same one wait for it; a process
        that dies keeps nobody waiting.

        Args:
            x: shape ``(n_var,)``.
            names: of what is evaluated.
            evaluate: gives values for those names that have none yet.
        """
        row = x[None]
        found: FloatArray = self.known(row, names)[0]
        if np.isnan(found).any():
            with self._alone(_bytes(row)[0]):
                found = self.known(row, names)[0]
                missing = np.isnan(found)
                if missing.any():
                    wanted = [name for name, lacks in zip(names, missing, strict=True) if lacks]
                    found[missing] = evaluate(wanted)
                    self._put(
                        (_bytes(row)[0], name, value)
                        for name, value in zip(wanted, found[missing], strict=True)
                    )
        return found

    def put(self, X: IntArray, name: str, values: FloatArray) -> None:
        """Keep values that are known from elsewhere.

        Args:
            X: canonical genotypes, shape ``(n, n_var)``.
            name: of what was evaluated.
            values: shape ``(n,)``.
        """
        self._put(
            (genotype, name, value) for genotype, value in zip(_bytes(X), values, strict=True)
        )

    def _put(self, entries: Iterable[tuple[bytes, str, float]]) -> None:
        space, evaluator, data = self._key
        command = "INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?, ?, ?)"
        with self._open() as connection:
            for genotype, name, value in entries:
                row = (space, genotype, f"{evaluator} {name}", data, float(value))
                connection.execute(command, row)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for each use, since none may cross into a forked process."""
        try:
            refuse_links(self.path, self.path.with_suffix(".lock"))
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error.strerror or error) from error
        what = "the archive of evaluations "
        with database(self.path, [_TABLE], what=what, mend=self._mend) as connection:
            yield connection

    def _unusable(self, why: object) -> UserError:
        return UserError(f"cannot use the archive of evaluations {self.path}: {why}{self._mend}")

    @contextmanager
    def _alone(self, genotype: bytes) -> Iterator[None]:
        """Lock one network: a byte of the lock's file, freed by the system if its owner dies."""
        try:
            import fcntl
        except ImportError:  # such systems may evaluate a network twice
            yield
            return
        digest = hashlib.sha256("/".join(self._key).encode() + genotype).digest()
        place = int.from_bytes(digest[:7], "little")
        with ExitStack() as stack:
            try:
                handle = os.open(self.path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR)
                stack.callback(os.close, handle)
                fcntl.lockf(handle, fcntl.LOCK_EX, 1, place)
            except OSError as error:
                raise self._unusable(error.strerror or error) from error
            yield


def _bytes(X: IntArray) -> list[bytes]:
    return [row.tobytes() for row in X.astype(_GENE)]

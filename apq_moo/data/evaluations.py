"""Expensive evaluations, each kept as soon as it is known, and shared by processes.

One SQLite file holds values by space, canonical genotype, evaluator and data, so that no two
evaluations of a network are ever paid for: neither by a search that goes on after a kill, nor by
two searches at the same time.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.caching import cache_folder
from apq_moo.errors import UserError
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
_WAIT_S = 60.0
_GENE = np.dtype("<u2")


class Evaluations:
    """Values of one evaluator on the networks of one space.

    Args:
        space: the space, whose digest counts.
        evaluator: what computes the values, and from what: name and checksum of its weights.
        data: checksum of the images.
        path: the file; by default in :func:`apq_moo.caching.cache_folder`.

    Raises:
        UserError: the file cannot be opened, or is no such archive.
    """

    def __init__(
        self, space: Space, evaluator: str, data: str, path: str | Path | None = None
    ) -> None:
        self.path = cache_folder() / "evaluations.sqlite" if path is None else Path(path)
        self._key = space.digest, evaluator, data
        self._run(_TABLE)

    def known(self, X: IntArray) -> FloatArray:
        """Values of canonical genotypes, shape ``(n,)``; NaN where they are not known."""
        query = (
            "SELECT value FROM evaluations WHERE space=? AND evaluator=? AND data=? AND genotype=?"
        )
        values = np.full(len(X), np.nan)
        with self._open() as connection:
            for i, genotype in enumerate(_bytes(X)):
                row = connection.execute(query, (*self._key, genotype)).fetchone()
                if row is not None:
                    values[i] = row[0]
        return values

    def value(self, x: IntArray, evaluate: Callable[[], float]) -> float:
        """The value of a canonical genotype of shape ``(n_var,)``, evaluated only if need be.

        While one process evaluates a network, others that want the same one wait for it; a process
        that dies keeps nobody waiting.
        """
        row = x[None]
        known = self.known(row)[0]
        if np.isnan(known):
            with self._alone(_bytes(row)[0]):
                known = self.known(row)[0]
                if np.isnan(known):
                    known = float(evaluate())
                    self._put(_bytes(row)[0], known)
        return float(known)

    def _put(self, genotype: bytes, value: float) -> None:
        space, evaluator, data = self._key
        self._run(
            "INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?, ?, ?)",
            (space, genotype, evaluator, data, value),
        )

    def _run(self, command: str, values: tuple[object, ...] = ()) -> None:
        with self._open() as connection:
            connection.execute(command, values)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for each use, since none may cross into a forked process."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_WAIT_S)) as connection, connection:
                yield connection
        except OSError as error:
            raise UserError(f"cannot use {self.path}: {error.strerror or error}") from error
        except sqlite3.Error as error:
            raise UserError(
                f"cannot use the archive of evaluations {self.path}: {error}"
            ) from error

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
        handle = os.open(self.path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX, 1, place)
            yield
        finally:
            os.close(handle)


def _bytes(X: IntArray) -> list[bytes]:
    return [row.tobytes() for row in X.astype(_GENE)]

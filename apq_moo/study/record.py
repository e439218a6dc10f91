"""What a search has done so far, in its run folder, so that it survives being killed.

Evaluated networks are appended to ``evaluations.part``; ``checkpoint.npz`` says how many of them
count and holds the state of the strategy after these, if it has one, and is replaced as a whole.
Whatever a killed process had written beyond the last checkpoint is cut off. A finished search
becomes ``archive.npz``.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.algorithms.strategy import State
from apq_moo.errors import UserError
from apq_moo.files import MAX_ARRAYS, replacing
from apq_moo.npz import HEADER, header_of, read_arrays
from apq_moo.problems.evaluated import Evaluated
from apq_moo.space import Space

ARCHIVE = "archive.npz"
CHECKPOINT = "checkpoint.npz"
EVALUATIONS = "evaluations.part"

EVERY_S = 1.0
"""Seconds between checkpoints; a round that takes longer is followed by one."""


class Trace:
    """Evaluations and seconds after each round.

    Attributes:
        evaluations: in all, after each round.
        seconds: of searching, breaks left out.
    """

    def __init__(self, evaluations: list[int], seconds: list[float]) -> None:
        self.evaluations, self.seconds = evaluations, seconds
        self.resume()

    def resume(self) -> None:
        """The search goes on from here; what came between did not belong to it."""
        self._begun = time.perf_counter() - (self.seconds[-1] if self.seconds else 0.0)

    def note(self, evaluations: int) -> None:
        """A round has ended."""
        self.evaluations.append(evaluations)
        self.seconds.append(time.perf_counter() - self._begun)


class Recorder:
    """Everything a search evaluates, in memory and, where there is a folder, on disk.

    Args:
        row: how one evaluation is laid out, see :func:`row_type`.
        folder: the run's, or None to keep nothing.
        key: what the search is; a checkpoint of another one is refused.
        every_s: seconds between checkpoints.

    Attributes:
        trace: evaluations and seconds.
        state: the strategy's at the last checkpoint, or None.

    Raises:
        UserError: the checkpoint is damaged, or of another search or version.
    """

    def __init__(
        self, row: np.dtype[Any], folder: Path | None, key: str, every_s: float = EVERY_S
    ) -> None:
        self._folder, self._key, self._every_s = folder, key, every_s
        self._row = row
        self._parts: list[Evaluated] = []
        self._new: list[Evaluated] = []  # since the last checkpoint
        self._rows = self._written = 0
        self.trace = Trace([], [])
        self.state: State | None = None
        if folder is not None:
            self._read(folder)
        self._last = time.perf_counter()

    def __len__(self) -> int:
        return self._rows

    def _read(self, folder: Path) -> None:
        path = folder / CHECKPOINT
        if not path.is_file():
            return
        header, arrays = _contents(path)
        _check_key(path, header.get("key"), self._key)
        rows = _rows(path, header)
        self.trace = _trace(path, arrays, rows)
        try:
            self.state = unpack(header.get("state"), arrays)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path} is damaged") from error
        if not isinstance(self.state, dict | None):
            raise UserError(f"{path} is damaged")
        self._parts = [_evaluations(folder / EVALUATIONS, self._row, rows)]
        self._rows = self._written = rows

    def add(self, part: Evaluated) -> None:
        """Take note of what a round evaluated."""
        self._parts.append(part)
        if self._folder is not None:
            self._new.append(part)
        self._rows += len(part)
        self.trace.note(self._rows)

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return self._folder is not None and time.perf_counter() - self._last >= self._every_s

    def checkpoint(self, state: State | None) -> None:
        """Write down what was added, and the strategy's state after it, if it has one.

        Raises:
            UserError: the disk is full, or the folder cannot be written to. The last checkpoint
                stays as it was.
        """
        if self._folder is None:
            return
        self._append(self._folder / EVALUATIONS)
        arrays: dict[str, NDArray[Any]] = {}
        plain = pack(state, arrays)
        header = {"key": self._key, "rows": self._rows, "state": plain}
        contents: dict[str, Any] = {
            "header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
            "evaluations": np.array(self.trace.evaluations, dtype=np.int64),
            "seconds": np.array(self.trace.seconds),
            **arrays,
        }
        with (
            replacing(self._folder / CHECKPOINT) as temporary,
            temporary.open("wb") as handle,
        ):
            np.savez(handle, **contents)
        self._last = time.perf_counter()

    def _append(self, path: Path) -> None:
        some = Evaluated.join(self._new) if self._new else None
        rows = np.empty(0 if some is None else len(some), dtype=self._row)
        if some is not None:
            rows["X"], rows["F"], rows["feasible"] = some.X, some.F, some.feasible
        try:
            # A folder from elsewhere may hold a link of this name: it is not written through.
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            with os.fdopen(
                os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666), "r+b"
            ) as handle:
                handle.seek(self._written * self._row.itemsize)
                handle.truncate()
                handle.write(rows.tobytes())
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        self._written += len(rows)
        self._new = []

    def archive(self) -> Evaluated | None:
        """Everything evaluated so far; None if nothing."""
        return Evaluated.join(self._parts) if self._parts else None

    def finish(self) -> Evaluated:
        """Write the archive, and remove what only an unfinished search needs.

        Raises:
            UserError: it cannot be written.
        """
        archive = Evaluated.join(self._parts)
        if self._folder is not None:
            archive.save(
                self._folder / ARCHIVE,
                evaluations=np.array(self.trace.evaluations, dtype=np.int64),
                seconds=np.array(self.trace.seconds),
                key=np.array(self._key),
            )
            discard(self._folder)
        return archive


def recorded(folder: Path) -> int:
    """How many evaluations of an unfinished search its last checkpoint counts.

    Raises:
        UserError: the checkpoint is damaged.
    """
    path = folder / CHECKPOINT
    return int(_contents(path)[0].get("rows", 0)) if path.is_file() else 0


def discard(folder: Path) -> None:
    """Remove what only an unfinished search needs; also what a process killed while at it left."""
    for name in (CHECKPOINT, EVALUATIONS):
        (folder / name).unlink(missing_ok=True)


def pack(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """A state as JSON; its arrays go to ``arrays`` and are named in their place."""
    if isinstance(value, dict):
        return {"dict": {key: pack(item, arrays) for key, item in value.items()}}
    if isinstance(value, np.ndarray | np.generic):
        name = f"array_{len(arrays)}"
        arrays[name] = np.array(value)
        return {"scalar" if isinstance(value, np.generic) else "array": name}
    if isinstance(value, list | tuple):
        return [pack(item, arrays) for item in value]
    return value


def unpack(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """Inverse of :func:`pack`."""
    if isinstance(value, list):
        return [unpack(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "dict":
        return {key: unpack(item, arrays) for key, item in content.items()}
    return arrays[content] if kind == "array" else arrays[content][()]


def _check_key(path: Path, found: Any, wanted: str | None) -> None:
    if wanted is not None and found != wanted:
        raise UserError(
            f"{path} belongs to another configuration or version of apq-moo; begin a new run, or "
            "replace this one with overwrite=True"
        )


_TRACE = {"evaluations": ("i", 1), "seconds": ("f", 1)}
_MAX_ROUNDS = 2**22


def _contents(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The header and the arrays of a checkpoint."""
    arrays = read_arrays(path, {"header": HEADER, **_TRACE}, others="biufU")
    return header_of(arrays, path), arrays


def _rows(path: Path, header: dict[str, Any]) -> int:
    """How many evaluated networks count."""
    rows = header.get("rows")
    if type(rows) is not int or rows < 0:
        raise UserError(f"{path} is damaged")
    return rows


def _trace(path: Path, arrays: dict[str, NDArray[Any]], rows: int) -> Trace:
    evaluations, seconds = (arrays[name] for name in _TRACE)
    steps = np.diff(evaluations, prepend=0)
    if (
        evaluations.shape != seconds.shape
        or len(evaluations) > _MAX_ROUNDS
        or (steps < 0).any()
        or evaluations.max(initial=0) != rows
        or not np.isfinite(seconds).all()
    ):
        raise UserError(f"{path} is damaged: its rounds are not those of {rows} networks")
    return Trace(evaluations.tolist(), seconds.tolist())


def _evaluations(path: Path, row: np.dtype[Any], n: int) -> Evaluated:
    """The first ``n`` rows of a file of evaluations."""
    try:
        there = path.stat().st_size // row.itemsize
        if there < n:
            raise UserError(f"{path} is truncated: {n} networks were evaluated, {there} are there")
        if n * row.itemsize > MAX_ARRAYS:
            raise UserError(f"{path} has more than {MAX_ARRAYS:,} bytes")
        data = np.fromfile(path, dtype=row, count=n)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return Evaluated(data["X"], data["F"], data["feasible"].view(np.uint8) != 0)


def finished(
    folder: Path, key: str | None = None, row: np.dtype[Any] | None = None
) -> tuple[Evaluated, Trace] | None:
    """The archive of a finished search and its trace, or None.

    Args:
        folder: the run's.
        key: what the search must be, if it matters.
        row: how one evaluation is laid out, see :func:`row_type`, if that is known.

    Raises:
        UserError: it is damaged, or of another search.
    """
    path = folder / ARCHIVE
    if not path.is_file():
        return None
    wanted = {"X": ("u", 2), "F": ("f", 2), "feasible": ("b", 1), "key": ("U", 0)}
    arrays = read_arrays(path, {**wanted, **_TRACE})
    _check_key(path, arrays["key"].item(), key)
    X, F, feasible = arrays["X"], arrays["F"], arrays["feasible"]
    if (
        not len(X) == len(F) == len(feasible)
        or np.isnan(F).any()
        or (row is not None and (X.shape[1:], F.shape[1:]) != (row["X"].shape, row["F"].shape))
    ):
        raise UserError(f"{path} is damaged: it holds arrays of the wrong shape")
    return Evaluated(X, F, feasible), _trace(path, arrays, len(X))


def so_far(folder: Path, row: np.dtype[Any]) -> tuple[Evaluated, Trace] | None:
    """What a search, finished or not, has evaluated up to its last checkpoint; None if nothing.

    Raises:
        UserError: a file is damaged.
    """
    known = finished(folder, row=row)
    path = folder / CHECKPOINT
    if known is not None or not path.is_file():
        return known
    header, arrays = _contents(path)
    rows = _rows(path, header)
    return _evaluations(folder / EVALUATIONS, row, rows), _trace(path, arrays, rows)


def evaluated(folder: Path, row: np.dtype[Any]) -> Evaluated | None:
    """The networks of :func:`so_far`."""
    known = so_far(folder, row)
    return None if known is None else known[0]


def row_type(space: Space, n_obj: int) -> np.dtype[Any]:
    """How an evaluation is laid out in ``evaluations.part``."""
    return np.dtype(
        [("X", space.gene_type, (space.n_var,)), ("F", "<f8", (n_obj,)), ("feasible", "?")]
    )

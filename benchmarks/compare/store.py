"""The results of a benchmark: one SQLite file, to which every finished cell is added.

Only the process that was started writes to it, so that workers may be anywhere. A kill loses the
cells in flight and nothing else.
"""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import FloatArray
from apq_moo.benchmarks.compare.plan import BenchPlan, Cell
from apq_moo.errors import UserError
from apq_moo.files import refuse_links, replacing
from apq_moo.study.config import RunConfig
from apq_moo.study.folder import is_empty

NAME = "results.sqlite"
FORMAT = "apq-moo bench 1"


_TABLES = (
    "CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE IF NOT EXISTS cells (
        key TEXT PRIMARY KEY,
        label TEXT NOT NULL,
        config TEXT NOT NULL,
        facts TEXT NOT NULL,
        arrays BLOB NOT NULL
    ) WITHOUT ROWID""",
)


@dataclass(frozen=True)
class Outcome:
    """What came of one cell.

    Attributes:
        cell: which.
        status: ``ok`` or ``failed``.
        error: why it failed.
        evaluations: of all objectives.
        measured: networks that were evaluated on a supernet for it.
        seconds: of loading and searching.
        genotypes: genotypes of the non-dominated feasible networks of all that were evaluated,
            ``(n, n_var)``.
        front: their objectives, minimised, ``(n, n_obj)``.
        population: objectives of the final population's non-dominated feasible networks.
        marks: numbers of evaluations, ascending.
        curve: hypervolume of all that was evaluated until then, at each mark.
        curve_seconds: seconds of searching until then.
    """

    cell: Cell
    status: Literal["ok", "failed"]
    error: str = ""
    evaluations: int = 0
    measured: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    genotypes: NDArray[np.integer[Any]] = field(default_factory=lambda: np.empty((0, 0), np.uint8))
    front: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    population: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    marks: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    curve: FloatArray = field(default_factory=lambda: np.empty(0))
    curve_seconds: FloatArray = field(default_factory=lambda: np.empty(0))

    @property
    def ok(self) -> bool:
        """Whether it came to its end."""
        return self.status == "ok"


_ARRAYS = ("genotypes", "front", "population", "marks", "curve", "curve_seconds")
_FACTS = ("status", "error", "evaluations", "measured", "seconds")


class Store:
    """The results store of a folder.

    Args:
        folder: a benchmark's folder; see :meth:`create` and :meth:`open`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / NAME

    @classmethod
    def create(cls, folder: str | Path, plan: BenchPlan, about: Mapping[str, Any]) -> Store:
        """Begin a benchmark.

        Args:
            folder: one that does not exist, or is empty.
            plan: what is compared.
            about: versions, machine, and checksums of data.

        Raises:
            UserError: the folder is in use, or cannot be written to.
        """
        store = cls(Path(folder))
        if store.begun:
            raise UserError(
                f"{folder} holds a benchmark; go on with it by Store.open({str(folder)!r})"
            )
        if store.folder.is_file() or not (store.path.exists() or is_empty(store.folder)):
            raise UserError(f"{folder} is no empty folder; name another")
        entries = {"format": FORMAT, "plan": plan.to_dict(), **about}
        with replacing(store.path) as temporary, store._open(temporary) as connection:
            connection.execute("PRAGMA journal_mode = MEMORY")  # no file beside it
            for table in _TABLES:
                connection.execute(table)
            connection.executemany(
                "INSERT INTO about VALUES (?, ?)",
                [(name, json.dumps(value)) for name, value in entries.items()],
            )
        return store

    @classmethod
    def open(cls, folder: str | Path) -> Store:
        """The store of an earlier benchmark.

        Raises:
            UserError: there is none, or one of another version.
        """
        store = cls(Path(folder))
        if not store.begun:
            why = f"{NAME} is empty" if store.path.is_file() else f"no {NAME}"
            raise UserError(f"{folder} holds no benchmark ({why})")
        found = store.about().get("format")
        if found != FORMAT:
            raise UserError(
                f"{store.path} was written by another version ({found!r}, not {FORMAT!r}); run the "
                "benchmark again in a new folder"
            )
        return store

    @property
    def begun(self) -> bool:
        """Whether there is a store; a file of 0 bytes, left where a disk was full, is none."""
        return self.path.is_file() and self.path.stat().st_size > 0

    def about(self) -> dict[str, Any]:
        """What is known of the benchmark: ``format``, ``plan``, versions, costs."""
        with self._open() as connection:
            rows = connection.execute("SELECT name, value FROM about").fetchall()
        return {name: json.loads(value) for name, value in rows}

    def note(self, **entries: Any) -> None:
        """Add to :meth:`about`."""
        with self._open() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO about VALUES (?, ?)",
                [(name, json.dumps(value)) for name, value in entries.items()],
            )

    @property
    def plan(self) -> BenchPlan:
        """What is compared."""
        return BenchPlan.from_dict(self.about()["plan"], source=str(self.path))

    def finished(self) -> set[str]:
        """Keys of the cells that came to their end; failed ones are tried again."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT key FROM cells WHERE json_extract(facts, '$.status') = 'ok'"
            ).fetchall()
        return {key for (key,) in rows}

    def put(self, outcome: Outcome) -> None:
        """Keep an outcome, in place of an earlier one of the same cell."""
        bundle = io.BytesIO()
        np.savez_compressed(bundle, **{name: getattr(outcome, name) for name in _ARRAYS})
        facts = {name: getattr(outcome, name) for name in _FACTS}
        row = (
            outcome.cell.key,
            outcome.cell.label,
            json.dumps(outcome.cell.config.to_dict()),
            json.dumps(facts),
            bundle.getvalue(),
        )
        with self._open() as connection:
            connection.execute("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?)", row)

    def outcomes(self) -> list[Outcome]:
        """Everything so far, in the order of the plan; cells that are no longer in it last."""
        order = {cell.key: i for i, cell in enumerate(self.plan.cells())}
        with self._open() as connection:
            rows = connection.execute("SELECT * FROM cells").fetchall()
        rows.sort(key=lambda row: (order.get(row[0], len(order)), row[0]))
        return [self._read(*row[1:]) for row in rows]

    def _read(self, label: str, config: str, facts: str, arrays: bytes) -> Outcome:
        try:
            cell = Cell(RunConfig.from_dict(json.loads(config)), label)
            with np.load(io.BytesIO(arrays), allow_pickle=False) as bundle:
                return Outcome(cell, **json.loads(facts), **{n: bundle[n] for n in _ARRAYS})
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(f"{self.path} is damaged: {error}") from error

    @contextmanager
    def _open(self, path: Path | None = None) -> Iterator[sqlite3.Connection]:
        refuse_links(self.path)
        try:
            with (
                closing(sqlite3.connect(path or self.path, timeout=60.0)) as connection,
                connection,
            ):
                yield connection
        except sqlite3.Error as error:
            raise UserError(f"cannot use {self.path}: {error}") from error

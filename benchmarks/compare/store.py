"""The results of a benchmark: one SQLite file, to which every finished cell is added.

Only the process that was started writes to it, so that workers may be anywhere. A kill loses the
cells in flight and nothing else.
"""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Container, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import FloatArray
from apq_moo.benchmarks.compare.plan import MAX_CELLS, BenchPlan, Cell, keys
from apq_moo.databases import database
from apq_moo.errors import UserError, shown
from apq_moo.files import MAX_ARRAYS, is_file, parse_json, refuse_links, replacing
from apq_moo.npz import read_arrays
from apq_moo.reading import Must, read
from apq_moo.space import load_space
from apq_moo.study.config import RunConfig, said
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
        status: ``ok``, ``failed``, or ``left`` where its time was over; such are not kept.
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
        gradient_steps: that were taken on a supernet.
        gradient_evaluations: that these were charged as, beside those that were made.
    """

    cell: Cell
    status: Literal["ok", "failed", "left"]
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
    gradient_steps: int = 0
    gradient_evaluations: int = 0

    @property
    def ok(self) -> bool:
        """Whether it came to its end."""
        return self.status == "ok"


_ARRAYS = {
    "genotypes": ("iu", 2),
    "front": ("f", 2),
    "population": ("f", 2),
    "marks": ("i", 1),
    "curve": ("f", 1),
    "curve_seconds": ("f", 1),
}
_MAX_S = 5.0
_MAX_ABOUT = 1000


@dataclass(frozen=True)
class _Cost:
    seconds: float
    jobs: int
    energy_kwh: float | None = None
    co2e_kg: float | None = None
    cpu: str | None = None
    country: str | None = None


@dataclass(frozen=True)
class _About:
    """What the store says of a benchmark, as far as it is used."""

    plan: dict[str, Any]
    versions: dict[str, str] | None = None
    processor: str | None = None
    data: dict[str, dict[str, str]] | None = None
    cost: tuple[_Cost, ...] | None = None


@dataclass(frozen=True)
class _Facts:
    status: Annotated[str, Must("ok or failed", lambda text: text in ("ok", "failed"))]
    error: str
    evaluations: int
    measured: int
    seconds: dict[str, float]
    gradient_steps: int = 0
    gradient_evaluations: int = 0


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
        with replacing(store.path) as temporary, database(temporary, ()) as connection:
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
                f"{store.path} was written by another version ({shown(found)}, not {FORMAT!r}); "
                "run the benchmark again in a new folder"
            )
        return store

    @property
    def begun(self) -> bool:
        """Whether there is a store; a file of 0 bytes, left where a disk was full, is none."""
        return is_file(self.path) and self.path.stat().st_size > 0

    def about(self) -> dict[str, Any]:
        """What is known of the benchmark: ``format``, ``plan``, versions, costs."""
        with self._open() as connection:
            query = "SELECT name, value FROM about LIMIT ?"
            rows = connection.execute(query, (_MAX_ABOUT,)).fetchall()
        found = {str(name): parse_json(value, f"{name} in {self.path}") for name, value in rows}
        known = {item.name: found[item.name] for item in fields(_About) if item.name in found}
        if isinstance(known.get("cost"), list):
            used = {item.name for item in fields(_Cost)}
            known["cost"] = [
                {name: value for name, value in entry.items() if name in used}
                if isinstance(entry, dict)
                else entry
                for entry in known["cost"]
            ]
        read(_About, known, str(self.path), "what it is about")
        return found

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
        return BenchPlan.from_dict(said(self.about().get("plan")), source=str(self.path))

    def finished(self) -> set[str]:
        """Keys of the cells that came to their end; failed ones are tried again."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT key FROM cells WHERE json_extract(facts, '$.status') = 'ok' LIMIT ?",
                (MAX_CELLS,),
            ).fetchall()
        return {key for (key,) in rows}

    def put(self, outcome: Outcome) -> None:
        """Keep an outcome, in place of an earlier one of the same cell."""
        bundle = io.BytesIO()
        np.savez_compressed(bundle, **{name: getattr(outcome, name) for name in _ARRAYS})
        facts = {item.name: getattr(outcome, item.name) for item in fields(_Facts)}
        row = (
            outcome.cell.key,
            outcome.cell.label,
            json.dumps(outcome.cell.config.to_dict()),
            json.dumps(facts),
            bundle.getvalue(),
        )
        with self._open() as connection:
            connection.execute("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?)", row)

    def outcomes(self, besides: Container[str] = ()) -> list[Outcome]:
        """Everything so far, in the order of the plan; cells that are no longer in it last.

        Args:
            besides: keys of cells to leave out.
        """
        order = {key: i for i, key in enumerate(keys(self.plan.cells()))}
        found: list[tuple[str, Outcome]] = []
        left = MAX_ARRAYS
        with self._open() as connection:
            query = "SELECT key, label, config, facts, arrays FROM cells LIMIT ?"
            rows = connection.execute(query, (MAX_CELLS,))
            for key, label, config, facts, arrays in rows:
                if key in besides:
                    continue
                outcome = self._read(label, config, facts, arrays, left)
                left -= sum(getattr(outcome, name).nbytes for name in _ARRAYS)
                found.append((key, outcome))
        found.sort(key=lambda pair: (order.get(pair[0], len(order)), pair[0]))
        return [outcome for _, outcome in found]

    def _read(self, label: Any, config: Any, facts: Any, arrays: Any, max_bytes: int) -> Outcome:
        source = f"a cell of {self.path}"
        if not isinstance(label, str) or not isinstance(arrays, bytes):
            raise UserError(f"{source} is damaged")
        cell = Cell(RunConfig.from_dict(parse_json(config, source)), label)
        known = read(_Facts, parse_json(facts, source), source)
        bundle = read_arrays(io.BytesIO(arrays), _ARRAYS, max_bytes=max_bytes, source=source)
        genotypes, front, population, *curves = bundle.values()
        n_obj = len(cell.config.objectives)
        if (
            len(genotypes) != len(front)
            or any(F.size and F.shape[1] != n_obj for F in (front, population))
            or not np.isfinite(front).all()
            or not np.isfinite(population).all()
            or len({len(curve) for curve in curves}) != 1
            or (np.diff(bundle["marks"], prepend=0) <= 0).any()
        ):
            raise UserError(f"{source} is damaged: its arrays do not belong together")
        if len(genotypes):
            load_space(cell.config.space).check(genotypes)
        return Outcome(cell, **{**asdict(known), **bundle})

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        refuse_links(self.path)
        return database(self.path, _TABLES, max_s=_MAX_S)

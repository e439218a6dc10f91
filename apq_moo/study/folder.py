"""The folder of a run: what was asked, what came of it, and what is needed to go on."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

from apq_moo.errors import UserError, shown
from apq_moo.files import (
    is_file,
    is_folder,
    locked,
    parse_json,
    read_csv,
    read_json,
    write_json,
    write_text,
)
from apq_moo.reading import integer, read
from apq_moo.study.config import AlgorithmFile, RunConfig
from apq_moo.study.inputs import DEVICE, SPACE, at_hand, check_inputs, keep_inputs
from apq_moo.study.record import ARCHIVE, CHECKPOINT, EVALUATIONS

FORMAT = "apq-moo run 2"
HISTORY = "history.csv"
LOCK = ".lock"
_WRITTEN = re.compile(
    "|".join(
        (
            *map(re.escape, ("front.csv", "front.png", HISTORY, ARCHIVE, CHECKPOINT, EVALUATIONS)),
            rf"({SPACE}|{DEVICE})(\.\w+)?",
            r"policy\.json",
            r"breakdown-\d+\.png",
            r"audit\.json",
            r"audit-.+\.npz(\.part\d+)?",
        )
    )
)
"""Whatever a run, or a command that is given one, writes into its folder; ``run.json`` apart."""
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}(\.\w+)?")
MEASURED = ("acc_val_true", "acc_test")
ON_FRONT = "measured_front"
"""Columns that verification adds to ``front.csv``: two accuracies, and whether (1 or 0) a measured
network is non-dominated by its validation accuracy among those that were measured."""


@dataclass(frozen=True)
class _Gap:
    optimum: int
    worst: float
    mean: float
    hypervolume_ratio: float | None


@dataclass(frozen=True)
class _Entries:
    """What ``run.json`` says of a run's end."""

    status: str
    versions: dict[str, str] | None = None
    processor: str | None = None
    data: dict[str, str] | None = None
    verify: Annotated[int, integer(0, 1_000_000)] | None = None
    evaluations: int | None = None
    gradient_steps: int | None = None
    gradient_evaluations: int | None = None
    seconds: dict[str, float] | None = None
    verified: dict[str, float | None] | None = None
    gap: _Gap | None = None


class RunFolder:
    """A run's folder.

    It holds ``run.json``, ``front.csv``, ``front.png``, ``history.csv`` and ``archive.npz``, or of
    an unfinished search what :mod:`apq_moo.study.record` keeps.

    Args:
        path: the folder; see :meth:`create` and :meth:`open`.
        record: the contents of ``run.json``.
    """

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path = path
        self.record = record
        self.config = RunConfig.from_dict(record.get("config"))

    @classmethod
    def create(
        cls, path: str | Path, config: RunConfig, *, verify: int | None, overwrite: bool
    ) -> RunFolder:
        """Begin a run.

        Args:
            path: a folder that does not exist or is empty; or, with ``overwrite``, an earlier run.
            config: the configuration.
            verify: how many members to verify in the end, or None.
            overwrite: whether an earlier run there may be replaced.

        Raises:
            UserError: the folder is in use, or cannot be written.
        """
        path = Path(path)
        if is_file(path):
            raise UserError(f"{path} is a file; name a folder")
        if not is_empty(path):
            if not is_file(path / "run.json"):
                raise UserError(f"{path} is not empty and holds no run; name another folder")
            _check_record(path, read_json(path / "run.json"))
            if not overwrite:
                raise UserError(
                    f"{path} holds a run; add overwrite=True to replace it, or continue it with "
                    f"RunFolder.open({str(path)!r})"
                )
            try:
                with alone(path):
                    for file in list(path.iterdir()):
                        if _WRITTEN.fullmatch(file.name):
                            file.unlink(missing_ok=True)
            except OSError as error:
                raise UserError(
                    f"cannot replace the run in {path}: {error.strerror or error}"
                ) from error
        record = {
            "format": FORMAT,
            "status": "unfinished",
            "config": config.to_dict(),
            "verify": verify,
        }
        folder = cls(path, record)
        keep_inputs(path, config)
        folder.store()
        return folder

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Read the folder of an earlier run.

        Raises:
            UserError: it holds no run, or one of another version.
        """
        path = Path(path)
        if not is_file(path / "run.json"):
            raise UserError(f"{path} holds no run (no run.json)")
        record = read_json(path / "run.json")
        _check_record(path, record)
        entries = {item.name: record[item.name] for item in fields(_Entries) if item.name in record}
        known = read(_Entries, entries, str(path / "run.json"), "it")
        if known.status == "finished" and None in (known.evaluations, known.seconds):
            raise UserError(
                f"{path / 'run.json'} lacks how many evaluations the run took, or how long"
            )
        return cls(path, record)

    @property
    def at_hand(self) -> RunConfig:
        """The configuration, with what the folder keeps of files that are missing or changed."""
        return at_hand(self.path, self.config)

    def found(self, file: AlgorithmFile) -> None:
        """Note where the file of the run's algorithm lies now.

        Raises:
            UserError: it is another file.
        """
        stored = self.config.algo_file
        if stored is not None and stored != file:
            if (stored.entry, stored.sha256) != (file.entry, file.sha256):
                raise UserError(
                    f"{file.path}:{file.entry} is not what the run in {self.path} was begun with, "
                    f"{stored.path}:{stored.entry} as it was then; begin a new run"
                )
            self.config = replace(self.config, algo_file=file)
            self.store(config=self.config.to_dict())

    def check_inputs(self) -> None:
        """Check that the space and the device are those of the run.

        Raises:
            UserError: they are not, or cannot be read.
        """
        check_inputs(self.at_hand, self.record.get("data"), f"the run in {self.path}")

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.record.get("status") == "finished"

    @property
    def searched(self) -> bool:
        """Whether nothing is left but what comes after the search."""
        return (self.path / ARCHIVE).is_file()

    def store(self, **entries: Any) -> None:
        """Add to ``run.json``.

        Raises:
            UserError: it cannot be written.
        """
        self.record |= entries
        write_json(self.path / "run.json", self.record)

    def write_front(self, columns: dict[str, list[Any]]) -> None:
        """Write ``front.csv``; floats in their shortest exact form, missing values empty.

        Raises:
            UserError: it cannot be written.
        """
        self.write_table("front.csv", columns)

    def write_table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write a CSV file into the folder; see :meth:`write_front`.

        Raises:
            UserError: it cannot be written.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow(["" if value is None else value for value in row])
        write_text(self.path / name, text.getvalue())

    def read_front(self) -> dict[str, list[Any]]:
        """Read ``front.csv``: numbers as floats (None where missing), subnets as dictionaries.

        Raises:
            UserError: it is missing or malformed.
        """
        path = self.path / "front.csv"
        columns = read_csv(path)
        for name in (*self.config.objectives, "subnet"):
            if name not in columns:
                raise UserError(f"{path} is malformed: it has no column {name!r}")
        try:
            return {name: [_read(name, text) for text in of] for name, of in columns.items()}
        except ValueError as error:
            raise UserError(f"{path} is malformed: {error}") from error


def _check_record(path: Path, record: Any) -> None:
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{path / 'run.json'} is not a run of this version")


def is_empty(path: Path) -> bool:
    """Whether a folder does not exist, or holds nothing but what a killed process locked it by."""
    return not is_folder(path) or all(file.name == LOCK for file in path.iterdir())


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder, and tidy up what killed ones left half written.

    Raises:
        UserError: another process carries out the run; see :func:`apq_moo.files.locked`.
    """
    refusal = f"the run or benchmark in {path} is being carried out by another process"
    with locked(path / LOCK, refusal):
        for file in path.glob(".*"):
            if _TEMPORARY.fullmatch(file.name):
                with suppress(OSError):
                    file.unlink()
        yield


def _read(name: str, text: str) -> Any:
    if name == "subnet":
        subnet = parse_json(text, "a subnet")
        if not isinstance(subnet, dict):
            raise ValueError(f"a subnet must be an object, not {shown(subnet)}")
        return subnet
    return None if name in (*MEASURED, ON_FRONT) and text == "" else float(text)

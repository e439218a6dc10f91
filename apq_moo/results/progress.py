"""How far a run has come, read from its folder while it may be written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from apq_moo.errors import UserError
from apq_moo.files import read_csv
from apq_moo.hardware import minimised
from apq_moo.results.history import history
from apq_moo.study.folder import HISTORY, RunFolder
from apq_moo.study.record import ARCHIVE, CHECKPOINT, Trace, row_type, so_far
from apq_moo.study.search import problem_of

_RECENT = 0.5
"""Share of the rounds so far by whose pace the time left is estimated."""

_TRIES = 3


@dataclass(frozen=True)
class RunProgress:
    """A run at one moment.

    Attributes:
        folder: the run's.
        algorithm: its name.
        space: a preset or a file.
        finished: whether it came to its end.
        searched: whether the search did, so that only verification is left.
        evaluations: up to the last checkpoint.
        budget: evaluations in all.
        seconds: of searching, up to then.
        left_s: seconds of searching that are left, by the pace of the latter half; None where no
            round has ended, or nothing is left.
        written_s: seconds since the last checkpoint was written; None where there is none.
        objectives: their names.
        best: of each objective the best value so far, in natural units; None where nothing is
            feasible.
        front: the feasible non-dominated networks' objectives, in natural units.
        marks: numbers of evaluations.
        hypervolume: at each mark, as in ``history.csv``.
    """

    folder: str
    algorithm: str
    space: str
    finished: bool
    searched: bool
    evaluations: int
    budget: int
    seconds: float
    left_s: float | None
    written_s: float | None
    objectives: tuple[str, ...]
    best: tuple[float | None, ...]
    front: tuple[tuple[float, ...], ...]
    marks: tuple[int, ...]
    hypervolume: tuple[float, ...]


def run_progress(path: str | Path) -> RunProgress:
    """Look at a run. Nothing is written, and no lock is taken.

    Raises:
        UserError: it holds no run, a file is damaged, or the space or the device has changed since
            it began.
    """
    for _ in range(_TRIES - 1):
        try:
            return _look(RunFolder.open(path))
        except UserError:  # files of an unfinished search go when it ends, between two looks
            time.sleep(0.05)
    return _look(RunFolder.open(path))


def _look(run: RunFolder) -> RunProgress:
    config, objectives = run.config, run.config.objectives
    marks: list[int] = []
    volumes: list[float] = []
    best: list[float | None] = [None] * len(objectives)
    front: list[list[float]] = []
    trace = Trace([], [])
    done = 0
    if run.finished and (run.path / HISTORY).is_file():
        columns = read_csv(run.path / HISTORY)
        marks = [int(number) for number in _numbers(run, columns, "evaluations")]
        volumes = _numbers(run, columns, "hypervolume")
        trace = Trace(marks, _numbers(run, columns, "seconds"))
        members = run.read_front()
        front = [list(row) for row in zip(*(members[name] for name in objectives), strict=True)]
        done = int(run.record["evaluations"])
    else:
        run.check_inputs()
        problem = problem_of(run.at_hand)
        known = so_far(run.path, row_type(problem.space, len(objectives)))
        if known is not None:
            archive, trace = known
            done = len(archive)
            found = history(problem, archive, trace)
            marks = [int(value or 0) for value in found["evaluations"]]
            volumes = [float(value or 0.0) for value in found["hypervolume"]]
            front = minimised(objectives, archive.front().F).tolist()
    if front:
        smallest = minimised(objectives, front).min(axis=0)
        best = list(minimised(objectives, smallest).tolist())
    return RunProgress(
        str(run.path),
        config.algo,
        config.space,
        run.finished,
        run.searched,
        done,
        config.budget,
        trace.seconds[-1] if trace.seconds else 0.0,
        None if run.searched or run.finished else _left_s(trace, config.budget),
        _age_s(run.path),
        objectives,
        tuple(best),
        tuple(tuple(row) for row in front),
        tuple(marks),
        tuple(volumes),
    )


def _numbers(run: RunFolder, columns: dict[str, list[str]], name: str) -> list[float]:
    try:
        return [float(text) for text in columns[name]]
    except (KeyError, ValueError) as error:
        raise UserError(f"{run.path / HISTORY} is malformed: {error}") from error


def _left_s(trace: Trace, budget: int) -> float | None:
    """Seconds to the budget, by the pace of the latter half of the rounds."""
    if not trace.evaluations or trace.evaluations[-1] >= budget:
        return None
    begin = int(len(trace.evaluations) * _RECENT) - 1
    done, seconds = (0, 0.0) if begin < 0 else (trace.evaluations[begin], trace.seconds[begin])
    made, took = trace.evaluations[-1] - done, trace.seconds[-1] - seconds
    return (budget - trace.evaluations[-1]) * took / made if made > 0 else None


def _age_s(path: Path) -> float | None:
    for name in (CHECKPOINT, ARCHIVE):
        try:
            return max(0.0, time.time() - (path / name).stat().st_mtime)
        except OSError:
            continue
    return None

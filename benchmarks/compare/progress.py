"""How far a benchmark has come, read from its folder while it may be written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apq_moo.benchmarks.compare.fronts import nondominated
from apq_moo.benchmarks.compare.plan import keys
from apq_moo.benchmarks.compare.store import Outcome, Store
from apq_moo.hardware import minimised


@dataclass(frozen=True)
class AlgorithmProgress:
    """One algorithm on one problem.

    Attributes:
        label: the algorithm.
        done: seeds that came to their end.
        failed: seeds that failed.
        seeds: in all.
        hypervolume: median of the seeds that came to their end; None where none did.
        marks: numbers of evaluations.
        curve: median hypervolume at each mark.
    """

    label: str
    done: int
    failed: int
    seeds: int
    hypervolume: float | None
    marks: tuple[int, ...]
    curve: tuple[float, ...]


@dataclass(frozen=True)
class ProblemProgress:
    """One problem at one budget.

    Attributes:
        title: the problem and the budget.
        objectives: their names.
        best: of each objective the best value of any run, in natural units; None where there is
            none.
        front: what no run has bettered, in natural units.
        algorithms: each of them.
    """

    title: str
    objectives: tuple[str, ...]
    best: tuple[float | None, ...]
    front: tuple[tuple[float, ...], ...]
    algorithms: tuple[AlgorithmProgress, ...]


@dataclass(frozen=True)
class BenchProgress:
    """A benchmark at one moment.

    Attributes:
        folder: of it.
        finished: whether nothing is left to do.
        done: cells that came to their end.
        failed: cells that failed.
        cells: in all.
        work_s: seconds that one process would need for what is left, by what cells of the same
            algorithm, or else all, have taken; None where none came to its end, or nothing is left.
        written_s: seconds since the last cell was kept.
        problems: each of them.
    """

    folder: str
    finished: bool
    done: int
    failed: int
    cells: int
    work_s: float | None
    written_s: float
    problems: tuple[ProblemProgress, ...]


class BenchWatcher:
    """Looks at a benchmark again and again, and reads only what is new.

    Args:
        folder: of the benchmark.

    Raises:
        UserError: there is none.
    """

    def __init__(self, folder: str | Path) -> None:
        self._store = Store.open(folder)
        self._known: dict[str, Outcome] = {}

    def look(self) -> BenchProgress:
        """The benchmark now.

        Raises:
            UserError: the file is damaged.
        """
        store = self._store
        plan = store.plan  # which may have grown
        cells = plan.cells()
        names = keys(cells)
        new = store.outcomes(besides=self._known)
        found = dict(zip(keys([outcome.cell for outcome in new]), new, strict=True))
        self._known |= {key: outcome for key, outcome in found.items() if outcome.ok}
        found |= self._known
        groups: dict[tuple[str, int], dict[str, list[Outcome | None]]] = {}
        for cell, key in zip(cells, names, strict=True):
            group = groups.setdefault((cell.problem, cell.config.budget), {})
            group.setdefault(cell.label, []).append(found.get(key))
        there = [found[key] for key in names if key in found]
        done, failed = sum(o.ok for o in there), sum(not o.ok for o in there)
        return BenchProgress(
            str(store.folder),
            done == len(cells),
            done,
            failed,
            len(cells),
            _work_s(list(groups.values())),
            max(0.0, time.time() - store.path.stat().st_mtime),
            tuple(
                _problem(f"{name}, {budget:,} evaluations", objectives, of)
                for (name, budget), of in groups.items()
                for objectives in [next(c.config.objectives for c in cells if c.problem == name)]
            ),
        )


def _problem(
    title: str, objectives: tuple[str, ...], of: dict[str, list[Outcome | None]]
) -> ProblemProgress:
    fronts = [o.front for outcomes in of.values() for o in outcomes if o and o.ok and len(o.front)]
    best: list[float | None] = [None] * len(objectives)
    front: list[list[float]] = []
    if fronts:
        points = nondominated(np.vstack(fronts))
        front = minimised(objectives, points).tolist()
        best = list(minimised(objectives, points.min(axis=0)).tolist())
    return ProblemProgress(
        title,
        objectives,
        tuple(best),
        tuple(tuple(row) for row in front),
        tuple(_algorithm(label, outcomes) for label, outcomes in of.items()),
    )


def _algorithm(label: str, outcomes: Sequence[Outcome | None]) -> AlgorithmProgress:
    ended = [outcome for outcome in outcomes if outcome is not None and outcome.ok]
    marks = ended[0].marks.tolist() if ended else []
    curve = np.median([outcome.curve for outcome in ended], axis=0).tolist() if ended else []
    return AlgorithmProgress(
        label,
        len(ended),
        sum(outcome is not None and not outcome.ok for outcome in outcomes),
        len(outcomes),
        curve[-1] if curve else None,
        tuple(marks),
        tuple(curve),
    )


def _work_s(groups: Sequence[dict[str, list[Outcome | None]]]) -> float | None:
    """Seconds of one process for all cells that have not come to their end."""
    means: list[tuple[float | None, int]] = []
    everything: list[float] = []
    for group in groups:
        for outcomes in group.values():
            took = [sum(o.seconds.values()) for o in outcomes if o is not None and o.ok]
            everything += took
            means.append((float(np.mean(took)) if took else None, len(outcomes) - len(took)))
    if not everything or not any(left for _, left in means):
        return None
    overall = float(np.mean(everything))
    return sum(left * (overall if mean is None else mean) for mean, left in means)

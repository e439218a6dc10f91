"""Scores of a benchmark held against those of another, such as the published one.

``benchmarks/published`` holds its plans and the scores of every seed, and of what they were made:
scores of other data, or on another scale, cannot be compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from apq_moo.benchmarks.compare.analysis import Analysis, ProblemResults
from apq_moo.benchmarks.compare.plan import BenchPlan
from apq_moo.benchmarks.compare.statistics import compare_with
from apq_moo.errors import UserError, shown
from apq_moo.files import is_file, read_csv, read_json
from apq_moo.study.inputs import refuse_changes

FOLDER = Path(str(files("apq_moo.benchmarks") / "published"))
SCORES = FOLDER / "scores.csv"
_PROBLEM = ("space", "objectives", "limits", "predictor", "device", "budget")
_DIGITS = 6
"""Of hypervolumes; tables may have been rounded, and no smaller difference matters."""

_COLUMNS = (*_PROBLEM, "algorithm", "seed", "hv")


@dataclass(frozen=True)
class Held:
    """One algorithm of a benchmark beside all of another.

    Attributes:
        problem: what was solved, and at which budget.
        algorithm: its label.
        seeds: runs that came to their end.
        hypervolume: their median.
        same: the other benchmark's median of the algorithm of that label; None if it has none.
        p: of a test that both are alike, two-sided; None if there is none.
        a12: chance that a run here is better than one there, ties counted half; likewise.
        paired: whether the seeds are among those of the other benchmark, and are compared by pairs.
        place: how many of the other benchmark's algorithms have a larger median, plus one.
        better_than: algorithms of the other benchmark that are significantly worse.
        worse_than: those that are significantly better.
        others: how many algorithms the other benchmark has.
    """

    problem: str
    algorithm: str
    seeds: int
    hypervolume: float
    same: float | None
    p: float | None
    a12: float | None
    paired: bool
    place: int
    better_than: tuple[str, ...]
    worse_than: tuple[str, ...]
    others: int


def published_plan(name: str) -> BenchPlan:
    """The plan of a published benchmark.

    Raises:
        UserError: there is none of that name.
    """
    known = sorted(path.stem for path in FOLDER.glob("*.toml"))
    if name not in known:
        raise UserError(f"no published plan {shown(name)}; there are {', '.join(known)}")
    return BenchPlan.read(FOLDER / f"{name}.toml")


def hold(folder: str | Path, scores: str | Path | None = None) -> list[Held]:
    """Hold a benchmark's hypervolumes against those of another, problem by problem.

    Both are on the fixed scale of the problem. Holm's correction is over the algorithms that one is
    compared with.

    Args:
        folder: of the benchmark.
        scores: a table of scores as ``apq_moo.benchmarks.load`` gives it, in a CSV file; None for
            those that are published, whose data must then be the benchmark's.

    Returns:
        A row for each algorithm and problem that both have.

    Raises:
        UserError: there is no benchmark, the table is malformed or of other data, or they have no
            problem in common.
    """
    analysis = Analysis.of_bench(folder)
    path = SCORES if scores is None else Path(scores)
    known = _read(path)
    found: list[Held] = []
    for problem in analysis.problems:
        others = known.get(_key(problem), {})
        if others:
            if scores is None:
                _check_data(analysis, problem)
            found += _held(problem, others)
    if not found:
        there = "; ".join(" ".join(filter(None, key)) for key in known)
        raise UserError(
            f"{folder} has no problem, predictor, device and budget in common with {path.name}, "
            f"which has: {there}"
        )
    return found


def _check_data(analysis: Analysis, problem: ProblemResults) -> None:
    known = read_json(FOLDER / "data.json")[problem.config.space]
    refuse_changes(analysis.recorded(problem) or {}, known, analysis.folder)


def _key(problem: ProblemResults) -> tuple[str, ...]:
    config = problem.config
    limits = " ".join(f"{name}={limit:g}" for name, limit in config.limits.items())
    objectives = "+".join(config.objectives)
    known = config.space, objectives, limits, config.predictor, config.device
    return (*known, str(problem.budget))


def _read(path: Path) -> dict[tuple[str, ...], dict[str, dict[int, float]]]:
    """Hypervolumes by problem, algorithm and seed."""
    if not is_file(path):
        raise UserError(f"{path} is no file; name a table that `apq-moo table` wrote, as .csv")
    columns = read_csv(path)
    for name in _COLUMNS:
        if name not in columns:
            raise UserError(f"{path} has no column {name!r}; needed: {', '.join(_COLUMNS)}")
    found: dict[tuple[str, ...], dict[str, dict[int, float]]] = {}
    for row in zip(*(columns[name] for name in _COLUMNS), strict=True):
        *problem, algorithm, seed, value = row
        try:
            number, score = int(seed), float(value)
            if not math.isfinite(score):
                raise ValueError(f"a hypervolume is {value}")
        except ValueError as error:
            raise UserError(f"{path} is malformed: {error}") from None
        found.setdefault(tuple(problem), {}).setdefault(algorithm, {})[number] = score
    return found


def _held(problem: ProblemResults, others: dict[str, dict[int, float]]) -> list[Held]:
    medians = {label: float(np.median(list(of.values()))) for label, of in others.items()}
    found = []
    for label in problem.labels:
        seeds = [outcome.cell.config.seed for outcome in problem.of(label)]
        if not seeds:
            continue
        values = problem.values(label, "hv").round(_DIGITS)
        paired = all(set(seeds) <= of.keys() for of in others.values())
        samples = {name: _sample(of, seeds, paired) for name, of in others.items()}
        tests = compare_with(label, values, samples, paired=paired, larger_is_better=True)
        by_name = {test.b: test for test in tests}
        median = float(np.median(values))
        same = by_name.get(label)
        found.append(
            Held(
                problem.title,
                label,
                len(seeds),
                median,
                medians.get(label),
                None if same is None else same.p,
                None if same is None else same.a12,
                paired,
                1 + sum(other > median for other in medians.values()),
                tuple(name for name, test in by_name.items() if test.winner == ""),
                tuple(name for name, test in by_name.items() if test.winner == name),
                len(others),
            )
        )
    return found


def _sample(of: dict[int, float], seeds: Sequence[int], paired: bool) -> list[float]:
    chosen = [of[seed] for seed in seeds] if paired else list(of.values())
    return [round(value, _DIGITS) for value in chosen]

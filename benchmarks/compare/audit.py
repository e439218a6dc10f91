"""Do predicted fronts hold? Networks of fronts that were found with a predictor, measured.

Which networks are measured: of every algorithm's first seeds on every problem, members of the front
that are evenly spread over its order by predicted accuracy, both ends among them; as many of each
front as keep all distinct networks together within the given number.

Measuring can be left to another machine, for instance one with a GPU and nothing but torch:
``apq-moo audit`` leaves the networks in ``audit-<space>.npz``, and ``apq-moo supernet measure``
completes such a file where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.benchmarks.compare.analysis import Analysis, ProblemResults
from apq_moo.benchmarks.compare.scores import hypervolume
from apq_moo.benchmarks.compare.store import Outcome
from apq_moo.data.assets import SUPERNET, find_assets
from apq_moo.data.tables import AccuracyTable
from apq_moo.errors import UserError
from apq_moo.files import write_json
from apq_moo.predictors.metrics import kendall_tau
from apq_moo.problems import is_measured
from apq_moo.space import Space, load_space, superspace
from apq_moo.study.inputs import refuse_changes
from apq_moo.study.search import Search

MOST = 5000
"""Distinct networks of an audit."""

FILE = "audit.json"


@dataclass(frozen=True)
class Row:
    """How predicted fronts of one algorithm on one problem fared; medians over its seeds.

    Attributes:
        problem: the problem.
        label: the algorithm.
        seeds: fronts that were sampled.
        networks: distinct networks measured of these.
        predicted_hv: hypervolume of the sampled members, as predicted.
        true_hv_validation: with accuracies measured on the validation images.
        true_hv_test: with those on the test images.
        kendall_tau: between predicted and measured (validation) accuracy along a front.
        overestimate_points: predicted minus measured accuracy (validation), mean of a front.
        worst_tenth_points: the same of that tenth of the fronts, in the order of their predicted
            accuracies and of all seeds together, where it is largest in magnitude; None in files
            of before.
    """

    problem: str
    label: str
    seeds: int
    networks: int
    predicted_hv: float
    true_hv_validation: float
    true_hv_test: float
    kendall_tau: float
    overestimate_points: float
    worst_tenth_points: float | None = None


@dataclass(frozen=True)
class _Sample:
    """Sampled members of one front."""

    problem: ProblemResults
    outcome: Outcome
    rows: IntArray

    @property
    def genotypes(self) -> IntArray:
        found: IntArray = self.outcome.genotypes[self.rows].astype(np.int64)
        return found


def rule(per_front: int, seeds: int) -> str:
    """Says which networks are measured."""
    return (
        f"of the first {seeds} seeds of each algorithm on each problem, at most {per_front} "
        "members of the front, evenly spread over its order by predicted accuracy, both ends among "
        "them"
    )


def audited(analysis: Analysis) -> list[ProblemResults]:
    """The problems whose accuracies were predicted."""
    return [
        problem
        for problem in analysis.problems
        if "acc" in problem.objectives and not is_measured(problem.config.predictor)
    ]


def _spread(outcome: Outcome, column: int, k: int) -> IntArray:
    order = np.argsort(outcome.front[:, column], kind="stable")
    picked = np.unique(np.linspace(0, len(order) - 1, min(k, len(order))).round().astype(int))
    return np.sort(order[picked])


def choose(analysis: Analysis, *, most: int = MOST, seeds: int = 5) -> tuple[list[Any], int]:
    """Choose what to measure.

    Args:
        analysis: of a benchmark or a run.
        most: distinct networks in all.
        seeds: of each algorithm.

    Returns:
        The samples, and how many members of a front there are at most.

    Raises:
        UserError: no front was found with a predictor, or ``most`` is too small for two members of
            each.
    """
    fronts = [
        (problem, outcome, problem.objectives.index("acc"))
        for problem in audited(analysis)
        for label in problem.labels
        for outcome in problem.of(label)[:seeds]
        if len(outcome.front)
    ]
    if not fronts:
        raise UserError(
            f"{analysis.folder} has no front whose accuracies were predicted: nothing to audit"
        )

    def sample(k: int) -> list[_Sample]:
        return [_Sample(p, outcome, _spread(outcome, acc, k)) for p, outcome, acc in fronts]

    longest = max(len(outcome.front) for _, outcome, _ in fronts)
    k, step = 0, 1 << longest.bit_length()
    while step:
        if k + step <= longest and _distinct(sample(k + step)) <= most:
            k += step
        step //= 2
    if k < min(2, longest):
        raise UserError(
            f"most={most} is too small for two members of each of {len(fronts)} fronts; raise it "
            f"or lower seeds={seeds}"
        )
    return sample(k), k


def _distinct(samples: Sequence[_Sample]) -> int:
    return sum(len(rows) for rows in _by_space(samples).values())


def _by_space(samples: Sequence[_Sample]) -> dict[str, IntArray]:
    """Distinct networks by space, in lexicographic order."""
    found: dict[str, list[IntArray]] = {}
    for sample in samples:
        found.setdefault(sample.problem.config.space, []).append(sample.genotypes)
    return {name: np.unique(np.vstack(parts), axis=0) for name, parts in found.items()}


def table_file(folder: Path, space: Space) -> Path:
    """Where the networks of a space and what they scored lie."""
    return folder / f"audit-{space.name}.npz"


def audit(
    folder: str | Path,
    *,
    most: int = MOST,
    seeds: int = 5,
    on: str = "cpu",
    choose_only: bool = False,
    callback: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Row]:
    """Measure members of predicted fronts and compare.

    Args:
        folder: of a benchmark or a run; ``audit.json`` and the tables go there.
        most: distinct networks in all.
        seeds: of each algorithm.
        on: where torch runs.
        choose_only: write the networks and measure nothing.
        callback: told ``(done, total)`` networks.

    Returns:
        A row for each problem and algorithm; none if ``choose_only``.

    Raises:
        UserError: see :func:`choose`; a predictor or assets have changed since; or a
            space has no supernet, or its images are not here.
    """
    analysis = Analysis.read(folder)
    samples, per_front = choose(analysis, most=most, seeds=seeds)
    for problem in audited(analysis):
        refuse_changes(Search(problem.config).data, analysis.recorded(problem), str(folder))
    tables = {
        name: _measured(analysis.folder, load_space(name), rows, on, choose_only, callback)
        for name, rows in _by_space(samples).items()
    }
    if choose_only:
        return []
    rows = _rows(samples, tables)
    seconds = sum(float(table.provenance.get("seconds", 0.0)) for table in tables.values())
    write_json(
        analysis.folder / FILE,
        {
            "networks": _distinct(samples),
            "rule": rule(per_front, seeds),
            "seconds": seconds,
            "rows": [asdict(row) for row in rows],
        },
    )
    return rows


def _measured(
    folder: Path,
    space: Space,
    X: IntArray,
    on: str,
    choose_only: bool,
    callback: Callable[[int, int], None],
) -> AccuracyTable:
    from apq_moo.supernet.tabulate import begin_table, tabulate

    assets = find_assets(superspace(space))
    path = table_file(folder, space)
    table = begin_table(space, assets, X, path)
    if choose_only or table.complete:
        return table
    return tabulate(
        space, assets.path(SUPERNET), assets.images, table.X, path, on=on, callback=callback
    )


def _rows(samples: Sequence[_Sample], tables: dict[str, AccuracyTable]) -> list[Row]:
    known = {
        name: dict(zip(map(bytes, table.X.astype(np.uint16)), table.accuracies(), strict=True))
        for name, table in tables.items()
    }
    groups: dict[tuple[int, str], list[_Sample]] = {}
    for sample in samples:
        groups.setdefault((id(sample.problem), sample.outcome.cell.label), []).append(sample)
    rows = []
    for (_, label), of in groups.items():
        problem = of[0].problem
        there = [_measured_members(sample, known[problem.config.space]) for sample in of]
        figures = [_figures(sample, found) for sample, found in zip(of, there, strict=True)]
        medians = [float(value) for value in np.median(figures, axis=0)]
        networks = len(np.unique(np.vstack([sample.genotypes for sample in of]), axis=0))
        predicted = np.concatenate([_predicted(sample) for sample in of])
        tenth = worst_tenth(predicted, np.vstack(there)[:, 0])
        row = Row(problem.title, label, len(of), networks, *medians)
        rows.append(replace(row, worst_tenth_points=tenth))
    return rows


def worst_tenth(predicted: FloatArray, measured: FloatArray) -> float:
    """The mean overestimate of the tenth, by predicted accuracy, where it is farthest from 0.

    Args:
        predicted: accuracies of networks, of shape ``(n,)``; a network a tenth where there are few.
        measured: the same networks' measured ones.
    """
    over = (predicted - measured)[np.argsort(predicted, kind="stable")]
    tenths = [float(part.mean()) for part in np.array_split(over, min(10, len(over)))]
    return max(tenths, key=abs)


def _predicted(sample: _Sample) -> FloatArray:
    acc = sample.problem.objectives.index("acc")
    found: FloatArray = -sample.outcome.front[sample.rows, acc]
    return found


def _measured_members(sample: _Sample, known: dict[bytes, FloatArray]) -> FloatArray:
    """Accuracies of a sample's members on both splits, shape ``(n, 2)``."""
    return np.array([known[bytes(row)] for row in sample.genotypes.astype(np.uint16)])


def _figures(sample: _Sample, measured: FloatArray) -> list[float]:
    """Predicted and true hypervolumes, rank correlation and overestimate of one front."""
    problem = sample.problem
    acc = problem.objectives.index("acc")
    predicted = sample.outcome.front[sample.rows]
    volumes = [hypervolume(predicted, problem.bounds)]
    for split in range(2):
        F = predicted.copy()
        F[:, acc] = -measured[:, split]
        volumes.append(hypervolume(F, problem.bounds))
    tau = kendall_tau(measured[:, 0], -predicted[:, acc]) if len(predicted) > 1 else np.nan
    return [*volumes, float(tau), float(np.mean(_predicted(sample) - measured[:, 0]))]

"""What a benchmark's results say: scores, comparisons, attainment surfaces, anytime curves.

Scores are taken from stored fronts when they are asked for, since some need the fronts of all runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import FloatArray
from apq_moo.benchmarks.compare.anytime import attainment, curve_of, marks
from apq_moo.benchmarks.compare.bounds import bounds_of
from apq_moo.benchmarks.compare.fronts import known_front
from apq_moo.benchmarks.compare.plan import Cell, data_key, keys
from apq_moo.benchmarks.compare.scores import INDICATORS, Bounds
from apq_moo.benchmarks.compare.statistics import (
    ALPHA,
    Comparison,
    Ranks,
    Summary,
    compare_pairs,
    friedman,
    least_p,
    summarise,
)
from apq_moo.benchmarks.compare.store import NAME, Outcome, Store
from apq_moo.errors import UserError
from apq_moo.files import is_file
from apq_moo.hardware import QUANTITIES, minimised
from apq_moo.problems import APQProblem
from apq_moo.results.pick import read_everything
from apq_moo.space import Space, Subnet, load_space
from apq_moo.study.config import RunConfig
from apq_moo.study.folder import RunFolder
from apq_moo.study.inputs import check_inputs
from apq_moo.study.kept import what_counts
from apq_moo.study.search import problem_of

_KNOWN_NAMES = {
    "true": "true front",
    "union": "front of all runs",
    "shipped": "published and all runs",
}
Part = Literal["front", "population"]
"""What is scored: the front of all that was evaluated, or that of the final population."""


@dataclass(frozen=True)
class Score:
    """One algorithm's scores by one indicator on one problem.

    Attributes:
        label: the algorithm.
        values: one for each seed that came to its end.
        summary: median and quartiles; None if no seed did, or no run at all found anything.
        finished: seeds that came to their end.
        failed: seeds that failed or are missing.
        worse_than: algorithms that are significantly better.
        better_than: algorithms that are significantly worse.
        best: whether it came to its end and no other algorithm is significantly better, of runs
            enough that one could be.
    """

    label: str
    values: FloatArray
    summary: Summary | None
    finished: int
    failed: int
    worse_than: tuple[str, ...] = ()
    better_than: tuple[str, ...] = ()
    best: bool = False


class ProblemResults:
    """Results of all algorithms on one problem, at one budget.

    Args:
        name: of the problem.
        budget: evaluations of a search.
        outcomes: of it.
        seeds: how many were to be run.

    Attributes:
        config: the configuration of one of its searches.
        labels: the algorithms, in the order of the plan.
    """

    def __init__(self, name: str, budget: int, outcomes: Sequence[Outcome], seeds: int) -> None:
        self.name, self.budget, self.seeds = name, budget, seeds
        self.outcomes = list(outcomes)
        self.config: RunConfig = outcomes[0].cell.config
        self.labels = list(dict.fromkeys(outcome.cell.label for outcome in outcomes))

    @property
    def title(self) -> str:
        """For headings: the problem and the budget."""
        return f"{self.name}, {self.budget:,} evaluations"

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the columns of every front."""
        return self.config.objectives

    @property
    def units(self) -> tuple[str, ...]:
        """Units of the objectives."""
        return tuple(QUANTITIES.get(name).unit for name in self.objectives)

    @cached_property
    def space(self) -> Space:
        """The space that was searched."""
        return load_space(self.config.space)

    @cached_property
    def bounds(self) -> Bounds:
        """The fixed scale of the scores."""
        return bounds_of(self.problem)

    @cached_property
    def problem(self) -> APQProblem:
        """What was searched; its accuracies are at hand only where all networks are in a table."""
        return problem_of(self.config)

    @cached_property
    def _known(self) -> tuple[FloatArray, str]:
        fronts = [outcome.front for outcome in self.outcomes if len(outcome.front)]
        return known_front(self.problem, fronts)

    @property
    def known(self) -> FloatArray:
        """The front that all are compared with, minimised, ``(n, n_obj)``; perhaps empty."""
        return self._known[0]

    @property
    def known_kind(self) -> str:
        """``true``, ``shipped`` or ``union``: where :attr:`known` comes from."""
        return self._known[1]

    @property
    def known_name(self) -> str:
        """For legends: what :attr:`known` is."""
        return _KNOWN_NAMES[self.known_kind]

    def of(self, label: str) -> list[Outcome]:
        """The finished outcomes of an algorithm, by seed."""
        found = [o for o in self.outcomes if o.cell.label == label and o.ok]
        return sorted(found, key=lambda outcome: outcome.cell.config.seed)

    def failures(self) -> list[Outcome]:
        """The outcomes that failed."""
        return [outcome for outcome in self.outcomes if not outcome.ok]

    def natural(self, F: FloatArray) -> FloatArray:
        """Objectives in natural signs: percent for accuracy."""
        return minimised(self.objectives, F)

    def values(self, label: str, indicator: str, part: Part = "front") -> FloatArray:
        """Scores of an algorithm, one for each finished seed.

        Raises:
            UserError: an unknown indicator.
        """
        entry = INDICATORS.get(indicator)
        if entry.needs_known and not len(self.known):  # no run found anything
            return np.empty(0)
        found = [
            entry.function(getattr(outcome, part), self.bounds, self.known)
            for outcome in self.of(label)
        ]
        return np.array(found, dtype=np.float64)

    def scores(self, indicator: str, part: Part = "front") -> list[Score]:
        """Every algorithm's scores, with what differs significantly.

        Raises:
            UserError: an unknown indicator.
        """
        comparisons = self.comparisons(indicator, part)
        found = []
        for label in self.labels:
            values = self.values(label, indicator, part)
            worse_than = tuple(c.winner for c in comparisons if _loser(c) == label and c.winner)
            found.append(
                Score(
                    label,
                    values,
                    summarise(values) if len(values) else None,
                    len(self.of(label)),
                    self.seeds - len(self.of(label)),
                    worse_than,
                    tuple(_loser(c) for c in comparisons if c.winner == label),
                    best=len(values) > 0 and not worse_than and not self.seeds_needed,
                )
            )
        return found

    @cached_property
    def seeds_needed(self) -> int:
        """Seeds that algorithms need to differ significantly, where these are too few; else 0."""
        counts = [n for n in (len(self.of(label)) for label in self.labels) if n > 1]
        n, paired = max(counts, default=0), len(set(counts)) == 1
        if len(counts) > 1 and least_p(len(counts), n, paired=paired) <= ALPHA:
            return 0
        compared = max(2, len(self.labels))
        return next(n for n in count(2) if least_p(compared, n) <= ALPHA)

    def comparisons(self, indicator: str, part: Part = "front") -> list[Comparison]:
        """All pairs of algorithms with at least two finished seeds; paired where seeds are."""
        samples = {label: self.values(label, indicator, part) for label in self.labels}
        samples = {label: found for label, found in samples.items() if len(found) > 1}
        if len(samples) < 2:
            return []
        seeds = {tuple(o.cell.config.seed for o in self.of(label)) for label in samples}
        better = INDICATORS.get(indicator).larger_is_better
        return compare_pairs(samples, paired=len(seeds) == 1, larger_is_better=better)

    def curves(self, label: str) -> tuple[NDArray[np.int64], FloatArray]:
        """Hypervolume over evaluations: marks, and one row for each finished seed."""
        found = self.of(label)
        if not found:
            return np.empty(0, np.int64), np.empty((0, 0))
        return found[0].marks, np.array([outcome.curve for outcome in found])

    def surfaces(
        self, label: str, levels: Sequence[float] = (25, 50, 75)
    ) -> dict[float, FloatArray]:
        """Attainment surfaces of an algorithm's fronts, minimised; of two objectives only."""
        return attainment([outcome.front for outcome in self.of(label)], levels)

    def typical(self, label: str) -> Outcome | None:
        """The finished outcome whose hypervolume is the median (the lower one of two)."""
        found = self.of(label)
        if not found:
            return None
        order = np.argsort(self.values(label, "hv"), kind="stable")
        return found[int(order[(len(order) - 1) // 2])]

    def subnets(self, outcome: Outcome) -> list[Subnet]:
        """The networks of an outcome's front."""
        return self.space.decode(outcome.genotypes.astype(np.int64)) if len(outcome.front) else []


def _loser(comparison: Comparison) -> str:
    """The algorithm that a significant comparison finds worse, or nothing."""
    if comparison.winner is None:
        return ""
    return comparison.b if comparison.winner == comparison.a else comparison.a


class Analysis:
    """The results of a whole benchmark, or of a single run.

    Args:
        outcomes: of all cells that were carried out.
        seeds: how many each algorithm was to be run with.
        missing: cells that are still to be carried out.
        about: versions, machine, costs.
        folder: where they come from.

    Attributes:
        problems: results by problem and budget.

    Raises:
        UserError: nothing has come to its end yet, or a space or a device has changed since.
    """

    def __init__(
        self,
        outcomes: Sequence[Outcome],
        *,
        seeds: int,
        missing: int,
        about: Mapping[str, Any],
        folder: Path,
    ) -> None:
        groups: dict[tuple[str, int], list[Outcome]] = {}
        for outcome in outcomes:
            key = outcome.cell.problem, outcome.cell.config.budget
            groups.setdefault(key, []).append(outcome)
        if not groups:
            raise UserError(f"{folder} has no finished cells yet; run it first")
        self.problems = [
            ProblemResults(name, budget, of, seeds) for (name, budget), of in groups.items()
        ]
        self.missing, self.about, self.folder, self.seeds = missing, dict(about), folder, seeds
        for problem in self.problems:
            check_inputs(problem.config, self.recorded(problem), str(folder))

    def recorded(self, problem: ProblemResults) -> Mapping[str, str] | None:
        """Digests of what a problem's results come from; None where they were not noted."""
        known: Mapping[str, Mapping[str, str]] = self.about.get("data") or {}
        return known.get(data_key(problem.config.space, problem.config.predictor))

    @classmethod
    def of_bench(cls, folder: str | Path) -> Analysis:
        """The results of a benchmark's folder, finished or not.

        Raises:
            UserError: it holds none.
        """
        store = Store.open(folder)
        outcomes, cells = store.outcomes(), store.plan.cells()
        there = set(keys([outcome.cell for outcome in outcomes]))
        return cls(
            outcomes,
            seeds=store.plan.seeds,
            missing=sum(key not in there for key in keys(cells)),
            about=store.about(),
            folder=store.folder,
        )

    @classmethod
    def of_run(cls, folder: str | Path) -> Analysis:
        """The results of a single run's folder.

        Raises:
            UserError: it holds none, or has evaluated nothing yet.
        """
        run = RunFolder.open(folder)
        archive, kept = read_everything(run)
        config = run.at_hand
        problem = problem_of(config)
        front = what_counts(archive, kept).front()
        at = marks(len(archive))
        bounds = bounds_of(problem)
        outcome = Outcome(
            Cell(config, config.algo),
            "ok",
            evaluations=len(archive),
            seconds=run.record.get("seconds") or {},
            genotypes=front.X,
            front=front.F,
            population=front.F[:0],
            marks=at,
            curve=curve_of(archive, kept, at, bounds),
            curve_seconds=np.full(len(at), np.nan),
        )
        data = {data_key(config.space, config.predictor): run.record.get("data")}
        about = {name: run.record.get(name) for name in ("config", "versions", "processor")}
        return cls([outcome], seeds=1, missing=0, about={**about, "data": data}, folder=run.path)

    @classmethod
    def read(cls, folder: str | Path) -> Analysis:
        """The results of a folder that holds a benchmark or a run.

        Raises:
            UserError: it holds neither.
        """
        folder = Path(folder)
        if is_file(folder / "run.json"):
            return cls.of_run(folder)
        if is_file(folder / NAME):
            return cls.of_bench(folder)
        raise UserError(f"{folder} holds neither a run (run.json) nor a benchmark ({NAME})")

    def ranks(self, indicator: str, part: Part = "front") -> Ranks | None:
        """Friedman's test with Nemenyi's on medians across problems, where there are enough.

        Algorithms that failed somewhere are left out.
        """
        shared = [
            label
            for label in self.problems[0].labels
            if all(label in p.labels and p.of(label) for p in self.problems)
        ]
        if len(shared) < 3 or len(self.problems) < 2:
            return None
        medians = np.array(
            [
                [float(np.median(p.values(label, indicator, part))) for label in shared]
                for p in self.problems
            ]
        )
        better = INDICATORS.get(indicator).larger_is_better
        return friedman(medians, shared, larger_is_better=better)

"""What the searches of a comparison came to: the best network of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.benchmarks.compare.store import Outcome
from apq_moo.benchmarks.systems.comparison import Comparison, Refusals
from apq_moo.benchmarks.systems.finishing import Finished
from apq_moo.benchmarks.systems.settings import Case, Limit, Settings
from apq_moo.errors import UserError
from apq_moo.hardware import find_device
from apq_moo.problems import APQProblem
from apq_moo.problems.measured import exact_name, exact_source
from apq_moo.problems.tabulated import NAME as TABLE
from apq_moo.space import load_space

SHOWN = ("latency", "energy", "bitops")

Accuracy = Literal["validation", "test"]
"""On which images networks are compared."""


@dataclass(frozen=True)
class Search:
    """A search that came to its end, and the most accurate network that it found.

    Attributes:
        case: its target and budget.
        system: its name.
        outcome: all that is kept of it.
        network: canonical genotype, shape ``(n_var,)``; None where nothing was found.
        acc: accuracy in percent as it was searched by.
        acc_val_true: as measured on validation images.
        acc_test: as measured on test images.
        costs: of the network, from tables compiled anew.
        violations: networks that were returned and exceed the limit by these.
        finished: the network after fine-tuning; None where it was not fine-tuned.
        regret: points of ``acc_val_true`` below the most accurate network of the space within the
            limit; None where nobody knows that, or nothing was found.
    """

    case: Case
    system: str
    outcome: Outcome
    network: IntArray | None
    acc: float | None
    acc_val_true: float | None
    acc_test: float | None
    costs: Mapping[str, float]
    violations: int
    regret: float | None
    finished: Finished | None = None

    @property
    def seed(self) -> int:
        """Of the search."""
        return self.outcome.cell.config.seed

    def accuracy(self, on: Accuracy) -> float | None:
        """On validation images as measured, else as searched by; or on test images.

        Minus infinity where nothing was found; None where it was not measured.
        """
        if self.network is None:
            return -np.inf
        if on == "test":
            return self.acc_test
        return self.acc if self.acc_val_true is None else self.acc_val_true


@dataclass(frozen=True)
class Results:
    """All searches of a comparison that came to their end.

    Attributes:
        settings: what is compared.
        refused: by case, systems that cannot search in it, with the reason.
        searches: by case and system, in the order of their seeds.
        failures: by case and system, why a search failed.
        optima: by target, the highest accuracy of any network within the limit; None where nobody
            knows.
    """

    settings: Settings
    refused: Refusals
    searches: Mapping[tuple[Case, str], Sequence[Search]]
    failures: Mapping[tuple[Case, str], str]
    optima: Mapping[Limit, float | None]

    def of(self, case: Case, system: str) -> Sequence[Search]:
        """The searches of a system in a case."""
        return self.searches.get((case, system), ())

    def values(self, case: Case, system: str, on: Accuracy) -> dict[int, float]:
        """Accuracies of a system's best networks by seed; see :meth:`Search.accuracy`."""
        found = {search.seed: search.accuracy(on) for search in self.of(case, system)}
        return {seed: value for seed, value in found.items() if value is not None}

    def seedless(self, case: Case, system: str) -> bool:
        """Whether the searches of a system do not depend on their seeds: all went the same way."""
        found = self.of(case, system)
        first = found[0].outcome if found else None
        return first is not None and all(
            np.array_equal(search.outcome.genotypes, first.genotypes)
            and np.array_equal(search.outcome.curve, first.curve)
            for search in found
        )


def most_accurate(outcome: Outcome) -> IntArray | None:
    """The most accurate network that a search found within the limits, ``(n_var,)``; or None."""
    if not len(outcome.front):
        return None
    found: IntArray = outcome.genotypes[int(outcome.front[:, 0].argmin())].astype(np.int64)
    return found


def results_of(
    comparison: Comparison,
    outcomes: Mapping[Case, Mapping[str, Sequence[Outcome]]],
    measured: Mapping[bytes, FloatArray],
    finished: Mapping[bytes, Finished],
) -> Results:
    """Judge what was found.

    Args:
        comparison: what it belongs to.
        outcomes: by case and system.
        measured: accuracies on validation and test images by network, as far as they are known.
        finished: what came of fine-tuning, likewise.
    """
    settings = comparison.settings
    costs = CostsAgain(settings)
    optima = optima_of(settings, costs)
    searches: dict[tuple[Case, str], list[Search]] = {}
    failures: dict[tuple[Case, str], str] = {}
    for case, of in outcomes.items():
        for system, found in of.items():
            ended = sorted(
                (outcome for outcome in found if outcome.ok), key=lambda o: o.cell.config.seed
            )
            best = optima[case.target]
            judged = _judged(case, system, ended, measured, costs, best)
            searches[case, system] = [_with_finished(search, finished) for search in judged]
            failed = next((outcome.error for outcome in found if not outcome.ok), None)
            if failed is not None:
                failures[case, system] = failed
    return Results(settings, comparison.refused, searches, failures, optima)


class CostsAgain:
    """Costs of networks from tables that are compiled anew, whatever the searches said of them.

    Args:
        settings: whose space, device and targets.
    """

    def __init__(self, settings: Settings) -> None:
        names = tuple(dict.fromkeys([*SHOWN, *(target.quantity for target in settings.targets)]))
        self._space = load_space(settings.space)
        self._problem = APQProblem(self._space, names, device=find_device(settings.device))

    def of(self, X: IntArray) -> Mapping[str, FloatArray]:
        """By name, shape ``(n,)`` each.

        Args:
            X: canonical genotypes, shape ``(n, n_var)``.
        """
        return self._problem.costs(self._space.block_index(X))


def _judged(
    case: Case,
    system: str,
    outcomes: Sequence[Outcome],
    measured: Mapping[bytes, FloatArray],
    costs: CostsAgain,
    optimum: float | None,
) -> list[Search]:
    target = case.target
    found = []
    for outcome in outcomes:
        best = most_accurate(outcome)
        if best is None:
            nothing = Search(case, system, outcome, None, None, None, None, {}, 0, None)
            found.append(nothing)
            continue
        # The best network first, then all that were returned.
        costed = costs.of(np.vstack([best[None], outcome.genotypes.astype(np.int64)]))
        val, test = (float(v) for v in measured.get(best.tobytes(), (np.nan, np.nan)))
        known = not np.isnan(val)
        found.append(
            Search(
                case,
                system,
                outcome,
                best,
                acc=-float(outcome.front[:, 0].min()),
                acc_val_true=val if known else None,
                acc_test=test if known else None,
                costs={name: float(costed[name][0]) for name in SHOWN},
                violations=int((costed[target.quantity][1:] > target.value).sum()),
                regret=optimum - val if known and optimum is not None else None,
            )
        )
    return found


def table_of(settings: Settings) -> tuple[IntArray, FloatArray] | None:
    """All networks of a space and their accuracies on validation images, where a table has them.

    Returns:
        Canonical genotypes, shape ``(n, n_var)``, and percent, ``(n,)``; None where there is no
        table.
    """
    space = load_space(settings.space)
    try:
        if exact_name(space, settings.assets) != TABLE:
            return None
        return exact_source(space, settings.assets).samples()
    except UserError:  # no assets are here; the searches had them
        return None


def _with_finished(search: Search, finished: Mapping[bytes, Finished]) -> Search:
    if search.network is None:
        return search
    return replace(search, finished=finished.get(search.network.tobytes()))


def optima_of(settings: Settings, costs: CostsAgain) -> dict[Limit, float | None]:
    """By target, the highest accuracy on validation images of any network within the limit.

    None where there is no table of all networks of the space, or none meets the limit.
    """
    known = table_of(settings)
    if known is None:
        return dict.fromkeys(settings.targets)
    X, accuracies = known
    costed = costs.of(X)
    within = {target: costed[target.quantity] <= target.value for target in settings.targets}
    return {
        target: float(accuracies[rows].max()) if rows.any() else None
        for target, rows in within.items()
    }

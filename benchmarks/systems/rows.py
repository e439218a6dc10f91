"""Rows of a comparison: a system under a target at a budget, and what it spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from apq_moo.benchmarks.compare.statistics import summarise
from apq_moo.benchmarks.systems.ledger import HOUR_S, DesignCost, Pricing, Spending, spent_once
from apq_moo.benchmarks.systems.results import SHOWN, Results, Search
from apq_moo.benchmarks.systems.settings import Case, Settings, title_of
from apq_moo.benchmarks.systems.significance import PairedTest
from apq_moo.data.assets import find_assets
from apq_moo.errors import UserError
from apq_moo.space import load_space


@dataclass(frozen=True)
class Spread:
    """Median and quartiles over seeds.

    Attributes:
        median: the middle one.
        q1: first quartile.
        q3: third quartile.
    """

    median: float
    q1: float
    q3: float

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread | None:
        """Of the values that are known; None where none is."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        found = summarise(known)
        return cls(found.median, found.q1, found.q3)


@dataclass(frozen=True)
class Row:
    """One system in one case; medians over the seeds that found a network within the limit.

    Attributes:
        target: the limit.
        budget: evaluations.
        system: its name.
        seeds: searches that came to their end.
        found: of them, those that found a network within the limit.
        violations: networks that were returned and exceed the limit by the tables.
        acc: accuracy in percent as it was searched by.
        acc_val_true: as measured on validation images.
        acc_test: as measured on test images.
        acc_finished: on test images after fine-tuning.
        regret: points of ``acc_val_true`` below the most accurate network within the limit.
        optimum: that network's accuracy, where it is known.
        better: systems that are significantly worse, by accuracy on validation images.
        worse: systems that are significantly better.
        latency: in ms.
        energy: in mJ.
        bitops: in G.
        evaluations: networks that were scored.
        gradient_steps: on the supernet.
        charged: evaluations in all, gradient steps included.
        finishing: epochs of fine-tuning of the best network; 0 for none.
        finishing_hours: of these.
        hours_once: that went to what all targets share.
        hours: for one target, searching and fine-tuning.
        kwh: of these.
        co2e_kg: of these.
        usd_low: of these.
        usd_high: of these.
        hours_in_all: for a number of deployments.
        note: why there is nothing.
    """

    target: str
    budget: int
    system: str
    seeds: int = 0
    found: int = 0
    violations: int = 0
    acc: Spread | None = None
    acc_val_true: Spread | None = None
    acc_test: Spread | None = None
    acc_finished: Spread | None = None
    regret: Spread | None = None
    optimum: float | None = None
    better: int = 0
    worse: int = 0
    latency: float | None = None
    energy: float | None = None
    bitops: float | None = None
    evaluations: float | None = None
    gradient_steps: float | None = None
    charged: float | None = None
    finishing: int = 0
    finishing_hours: float | None = None
    hours_once: float | None = None
    hours: float | None = None
    kwh: float | None = None
    co2e_kg: float | None = None
    usd_low: float | None = None
    usd_high: float | None = None
    hours_in_all: float | None = None
    note: str = ""

    def plain(self) -> dict[str, Any]:
        """Its columns in a CSV file; quartiles have columns of their own."""
        found: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.type.startswith("Spread"):
                parts = (None, None, None) if value is None else (value.median, value.q1, value.q3)
                names = (item.name, f"{item.name}_q1", f"{item.name}_q3")
                found |= dict(zip(names, parts, strict=True))
            else:
                found[item.name] = value
        return found


def rows_of(results: Results, tests: Sequence[PairedTest], pricing: Pricing) -> list[Row]:
    """All rows, case by case.

    Args:
        results: what was found.
        tests: of all pairs of systems, on validation images.
        pricing: of what was spent.
    """
    once = _once(results.settings)
    rows = []
    for case in results.settings.cases:
        refused = results.refused[case.title]
        for system in results.settings.systems:
            if system in refused:
                note = refused[system]
                rows.append(Row(title_of(case.target), case.budget, system, note=note))
            else:
                rows.append(_row(results, case, system, tests, pricing, once))
    return rows


def _row(
    results: Results,
    case: Case,
    system: str,
    tests: Sequence[PairedTest],
    pricing: Pricing,
    once: float | None,
) -> Row:
    ended = results.of(case, system)
    found = [search for search in ended if search.network is not None]
    where = title_of(case.target), case.budget
    own = [
        test for test in tests if (test.target, test.budget) == where and system in (test.a, test.b)
    ]
    won = [test.winner for test in own if test.winner is not None]
    nothing = "" if found else "nothing found" if ended else "no search ended"
    medians: dict[str, Any] = {
        name: Spread.of([getattr(search, name) for search in found])
        for name in ("acc", "acc_val_true", "acc_test", "regret")
    }
    tuned = [search.finished for search in found if search.finished is not None]
    medians["acc_finished"] = Spread.of([each.acc_test for each in tuned])
    medians |= {name: _median([search.costs[name] for search in found]) for name in SHOWN}
    return Row(
        target=title_of(case.target),
        budget=case.budget,
        system=system,
        seeds=len(ended),
        found=len(found),
        violations=sum(search.violations for search in ended),
        optimum=results.optima[case.target],
        better=won.count(system),
        worse=len(won) - won.count(system),
        finishing=results.settings.finish if tuned else 0,
        note=results.failures.get((case, system), nothing),
        **medians,
        **_prices(ended, pricing, once),
    )


def _prices(ended: Sequence[Search], pricing: Pricing, once: float | None) -> dict[str, Any]:
    """The columns of the ledger."""
    spent = [Spending.of(search.outcome) for search in ended]
    if not spent:
        return {}
    tuned = [search.finished.seconds for search in ended if search.finished is not None]
    finishing = float(np.median(tuned)) / HOUR_S if tuned else 0.0
    searching = float(np.median([each.hours(pricing.seconds_per_evaluation) for each in spent]))
    hours = searching + finishing
    low, high = pricing.rates.usd(hours)
    return {
        **{
            name: float(np.median([getattr(each, name) for each in spent]))
            for name in ("evaluations", "gradient_steps", "charged")
        },
        "finishing_hours": finishing if tuned else None,
        "hours_once": once,
        "hours": hours,
        "kwh": pricing.rates.kwh(hours),
        "co2e_kg": pricing.rates.co2e_kg(hours),
        "usd_low": low,
        "usd_high": high,
        "hours_in_all": DesignCost(once, hours).total(pricing.deployments),
    }


def _once(settings: Settings) -> float | None:
    try:
        assets = find_assets(load_space(settings.space), settings.assets)
        return spent_once(assets, settings.predictor)
    except UserError:  # nothing was trained
        return None


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if len(values) else None


def networks_of(results: Results) -> list[dict[str, Any]]:
    """The best network of every search, as a row of a CSV file."""
    space = load_space(results.settings.space)
    rows = []
    for case in results.settings.cases:
        for system in results.settings.systems:
            for search in results.of(case, system):
                if search.network is None:
                    continue
                (subnet,) = space.decode(search.network[None])
                rows.append(
                    {
                        "target": title_of(case.target),
                        "budget": case.budget,
                        "system": system,
                        "seed": search.seed,
                        "acc": search.acc,
                        "acc_val_true": search.acc_val_true,
                        "acc_test": search.acc_test,
                        "regret": search.regret,
                        **search.costs,
                        "subnet": subnet.to_dict(),
                    }
                )
    return rows

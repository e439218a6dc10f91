"""The table of a comparison in the paper's form, as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.benchmarks.compare.store import Outcome
from apq_moo.benchmarks.systems.comparison import Comparison, Limit, costs_again, title_of
from apq_moo.benchmarks.systems.ledger import DesignCost, Rates, Spending, spent_once
from apq_moo.data.assets import find_assets
from apq_moo.errors import UserError
from apq_moo.files import write_text
from apq_moo.problems.measured import exact_source
from apq_moo.space import load_space

MARKDOWN, CSV, NETWORKS = "comparison.md", "comparison.csv", "networks.csv"

SHOWN = ("latency", "energy", "bitops")


@dataclass(frozen=True)
class Row:
    """One system under one target; medians over seeds.

    Attributes:
        target: the limit.
        system: its name.
        seeds: searches that came to their end.
        found: of them, those that found a network within the limit.
        violations: networks that were returned and exceed the limit by the tables.
        acc: accuracy in percent as it was searched by.
        acc_low: lower quartile.
        acc_high: upper quartile.
        acc_val_true: as measured on validation images.
        acc_test: as measured on test images.
        latency: in ms.
        energy: in mJ.
        bitops: in G.
        evaluations: networks that were scored.
        gradient_steps: on the supernet.
        charged: evaluations in all, gradient steps included.
        hours_once: that went to what all targets share.
        hours: for one target.
        kwh: of these.
        co2e_kg: of these.
        usd_low: of these.
        usd_high: of these.
        hours_in_all: for a number of deployments.
        note: why there is nothing.
    """

    target: str
    system: str
    seeds: int = 0
    found: int = 0
    violations: int = 0
    acc: float | None = None
    acc_low: float | None = None
    acc_high: float | None = None
    acc_val_true: float | None = None
    acc_test: float | None = None
    latency: float | None = None
    energy: float | None = None
    bitops: float | None = None
    evaluations: float | None = None
    gradient_steps: float | None = None
    charged: float | None = None
    hours_once: float | None = None
    hours: float | None = None
    kwh: float | None = None
    co2e_kg: float | None = None
    usd_low: float | None = None
    usd_high: float | None = None
    hours_in_all: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Pricing:
    """How what was spent becomes money.

    Attributes:
        rates: of an hour.
        seconds_per_evaluation: see :meth:`Spending.hours`.
        deployments: N of the total.
    """

    rates: Rates = field(default_factory=Rates)
    seconds_per_evaluation: float | None = None
    deployments: int = 40


def write_tables(
    comparison: Comparison,
    pricing: Pricing,
    *,
    measure: bool = True,
    on: str | None = None,
    callback: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Row]:
    """Make the rows of a comparison, and write them into its folder.

    Args:
        comparison: as far as it has come.
        pricing: of the costs.
        measure: whether accuracies of the best networks are measured (or looked up), each once.
        on: where torch measures.
        callback: told ``(networks measured, in all)``.

    Raises:
        UserError: networks cannot be measured, or a file not be written.
    """
    best = {
        target: {
            name: [most_accurate(outcome) for outcome in of if outcome.ok]
            for name, of in comparison.outcomes(target).items()
        }
        for target in comparison.settings.targets
    }
    measured: dict[bytes, FloatArray] = {}
    if measure:
        networks = [x for of in best.values() for found in of.values() for x in found]
        measured = _measured(comparison, [x for x in networks if x is not None], on, callback)
    rows: list[Row] = []
    single: list[dict[str, Any]] = []
    for target in comparison.settings.targets:
        refused = comparison.refused[title_of(target)]
        outcomes = comparison.outcomes(target)
        for system in comparison.settings.systems:
            if system in refused:
                rows.append(Row(title_of(target), system, note=refused[system]))
                continue
            row, cells = _row(comparison, target, outcomes.get(system, []), system, measured)
            rows.append(_priced(row, comparison, pricing, outcomes.get(system, [])))
            single += cells
    write_text(comparison.folder / CSV, _csv([_plain(row) for row in rows]))
    write_text(comparison.folder / NETWORKS, _csv(single))
    write_text(comparison.folder / MARKDOWN, markdown(comparison, rows, pricing))
    return rows


def most_accurate(outcome: Outcome) -> IntArray | None:
    """The most accurate network that a search found within the limits, ``(n_var,)``; or None."""
    if not len(outcome.front):
        return None
    found: IntArray = outcome.genotypes[int(outcome.front[:, 0].argmin())].astype(np.int64)
    return found


def _measured(
    comparison: Comparison,
    networks: Sequence[IntArray],
    on: str | None,
    callback: Callable[[int, int], None],
) -> dict[bytes, FloatArray]:
    """Accuracies on validation and test images, by network."""
    if not networks:
        return {}
    settings = comparison.settings
    X = np.unique(np.array(networks), axis=0)
    source = exact_source(load_space(settings.space), settings.assets, on)
    found = source.measure(X, lambda done: callback(done, len(X)))
    return {x.tobytes(): row for x, row in zip(X, found, strict=True)}


def _row(
    comparison: Comparison,
    target: Limit,
    outcomes: Sequence[Outcome],
    system: str,
    measured: dict[bytes, FloatArray],
) -> tuple[Row, list[dict[str, Any]]]:
    """A row without prices, and what it is the median of."""
    name, limit = target.quantity, target.value
    ended = [outcome for outcome in outcomes if outcome.ok]
    names = tuple(dict.fromkeys([*SHOWN, name]))
    cells: list[dict[str, Any]] = []
    violations = 0
    for outcome in ended:
        best = most_accurate(outcome)
        if best is None:
            continue
        returned = outcome.genotypes.astype(np.int64)
        violations += int((costs_again(comparison.settings, returned, (name,))[name] > limit).sum())
        costs = costs_again(comparison.settings, best[None], names)
        val, test = measured.get(best.tobytes(), (None, None))
        (subnet,) = load_space(comparison.settings.space).decode(best[None])
        cells.append(
            {
                "target": title_of(target),
                "system": system,
                "seed": outcome.cell.config.seed,
                "acc": -float(outcome.front[:, 0].min()),
                "acc_val_true": None if val is None else float(val),
                "acc_test": None if test is None else float(test),
                **{cost: float(costs[cost][0]) for cost in SHOWN},
                "subnet": subnet.to_dict(),
            }
        )
    failed = next((outcome.error for outcome in outcomes if not outcome.ok), "")
    values = {
        column: _median([cell[column] for cell in cells])
        for column in ("acc", "acc_val_true", "acc_test", *SHOWN)
    }
    accs = [cell["acc"] for cell in cells]
    low, high = np.quantile(accs, [0.25, 0.75]).tolist() if accs else (None, None)
    note = failed or ("" if accs else "no search ended" if not ended else "nothing found")
    row = Row(
        title_of(target), system, len(ended), len(cells), violations,
        acc_low=low, acc_high=high, note=note, **values,
    )  # fmt: skip
    return row, cells


def _priced(row: Row, comparison: Comparison, pricing: Pricing, outcomes: Sequence[Outcome]) -> Row:
    spent = [Spending.of(outcome) for outcome in outcomes if outcome.ok]
    if not spent:
        return row
    settings = comparison.settings
    hours = float(np.median([each.hours(pricing.seconds_per_evaluation) for each in spent]))
    try:
        assets = find_assets(load_space(settings.space), settings.assets)
        once = spent_once(assets, settings.predictor)
    except UserError:  # nothing was trained
        once = None
    cost = DesignCost(once, hours)
    low, high = pricing.rates.usd(hours)
    return Row(
        **{
            **_plain(row),
            "evaluations": float(np.median([each.evaluations for each in spent])),
            "gradient_steps": float(np.median([each.gradient_steps for each in spent])),
            "charged": float(np.median([each.charged for each in spent])),
            "hours_once": once,
            "hours": hours,
            "kwh": pricing.rates.kwh(hours),
            "co2e_kg": pricing.rates.co2e_kg(hours),
            "usd_low": low,
            "usd_high": high,
            "hours_in_all": cost.total(pricing.deployments),
        }
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _plain(row: Row) -> dict[str, Any]:
    return {item.name: getattr(row, item.name) for item in fields(row)}


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: "" if v is None else v for k, v in row.items()})
    return text.getvalue()


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _quartiles(row: Row) -> str:
    if row.acc is None or row.acc_low is None or row.acc_high is None:
        return "-"
    return f"{row.acc:.2f} ({row.acc_low:.2f}-{row.acc_high:.2f})"


def _range(row: Row) -> str:
    if row.usd_low is None or row.usd_high is None:
        return "-"
    return f"{row.usd_low:.2g}-{row.usd_high:.2g}"


_COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("system", lambda row: row.system),
    ("acc %", _quartiles),
    ("validation %", lambda row: _number(row.acc_val_true, ".2f")),
    ("test %", lambda row: _number(row.acc_test, ".2f")),
    ("latency ms", lambda row: _number(row.latency, ".4g")),
    ("energy mJ", lambda row: _number(row.energy, ".4g")),
    ("BitOps G", lambda row: _number(row.bitops, ".4g")),
    ("scored", lambda row: _number(row.evaluations, ".0f")),
    ("gradient steps", lambda row: _number(row.gradient_steps, ".0f")),
    ("hours", lambda row: "-" if row.hours is None else str(DesignCost(row.hours_once, row.hours))),
    ("hours in all", lambda row: _number(row.hours_in_all, ".3g")),
    ("CO2e kg", lambda row: _number(row.co2e_kg, ".2g")),
    ("cloud $", _range),
    ("above", lambda row: str(row.violations)),
)


def markdown(comparison: Comparison, rows: Sequence[Row], pricing: Pricing) -> str:
    """The rows, target by target, with what the columns mean."""
    settings = comparison.settings
    rates = pricing.rates
    lines = [
        f"# Systems on `{settings.space}`, {settings.budget:,} evaluations for each target",
        "",
        f"Medians of {settings.seeds} seeds (quartiles) on one supernet whose weights stay; `acc` "
        f"is by `{settings.predictor}`, latency and energy are of `{settings.device}`. A budget "
        "holds scored networks and what gradient steps are charged as. `hours` is spent once + for "
        f"each of N deployments, in all with {pricing.deployments:,}; CO2e ({rates.kw:.3g} kW, "
        f"{rates.kg_per_kwh:.3g} kg a kWh) and cloud cost ({rates.usd_low:.3g} to "
        f"{rates.usd_high:.3g} dollars an hour) are of one "
        "deployment, from "
        f"{_clock(pricing)}. `above`: returned networks over the limit.",
    ]
    for target in settings.targets:
        lines += ["", f"## {target.quantity} <= {target.value:g}", ""]
        own = [row for row in rows if row.target == title_of(target)]
        shown = [row for row in own if row.seeds]
        if shown:
            lines.append(f"| {' | '.join(name for name, _ in _COLUMNS)} |")
            lines.append("|" + "---|" * len(_COLUMNS))
            lines += [f"| {' | '.join(text(row) for _, text in _COLUMNS)} |" for row in shown]
        lines += [f"\n`{row.system}`: {row.note}" for row in own if row.note]
    return "\n".join(lines) + "\n"


def _clock(pricing: Pricing) -> str:
    each = pricing.seconds_per_evaluation
    return "measured seconds" if each is None else f"{each:g} s an evaluation"

"""The tables of a comparison in the paper's form, as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from apq_moo.benchmarks.compare.store import Outcome
from apq_moo.benchmarks.systems.anytime import Curve, curve_rows, curves_of, draw_curves
from apq_moo.benchmarks.systems.claims import Claim, claims_of
from apq_moo.benchmarks.systems.claims import markdown as claims_markdown
from apq_moo.benchmarks.systems.comparison import Comparison
from apq_moo.benchmarks.systems.finishing import finish, known_finished
from apq_moo.benchmarks.systems.ledger import DesignCost, Pricing
from apq_moo.benchmarks.systems.measuring import known_accuracies, measure
from apq_moo.benchmarks.systems.results import Results, most_accurate, results_of
from apq_moo.benchmarks.systems.rows import Row, Spread, networks_of, rows_of
from apq_moo.benchmarks.systems.settings import Case, title_of
from apq_moo.benchmarks.systems.significance import (
    PairedTest,
    all_pairs,
    paired_tests,
    seeds_needed,
)
from apq_moo.deadlines import Deadline
from apq_moo.files import write_json, write_text

MARKDOWN, CSV, NETWORKS = "comparison.md", "comparison.csv", "networks.csv"
CLAIMS, CLAIMS_JSON = "claims.md", "claims.json"
TESTS, CURVES, PICTURE = "tests.csv", "curves.csv", "curves.png"


@dataclass(frozen=True)
class Analysis:
    """All that is said of a comparison.

    Attributes:
        results: what the searches came to.
        tests: of all pairs of systems.
        rows: of the table in the paper's form.
        curves: best accuracy against scored networks.
        claims: and their answers.
        pricing: of what was spent.
    """

    results: Results
    tests: Sequence[PairedTest]
    rows: Sequence[Row]
    curves: Sequence[Curve]
    claims: Sequence[Claim]
    pricing: Pricing


def analyse(comparison: Comparison) -> Analysis:
    """Make all that is said of a comparison as far as it has come, from its folder alone.

    Raises:
        UserError: what lies there is damaged.
    """
    return _analyse(comparison, _outcomes(comparison))


def _outcomes(comparison: Comparison) -> dict[Case, dict[str, list[Outcome]]]:
    return {case: comparison.outcomes(case) for case in comparison.settings.cases}


def _analyse(
    comparison: Comparison, outcomes: Mapping[Case, Mapping[str, Sequence[Outcome]]]
) -> Analysis:
    folder, settings, pricing = comparison.folder, comparison.settings, comparison.pricing
    measured, tuned = known_accuracies(folder, settings), known_finished(folder, settings)
    results = results_of(comparison, outcomes, measured, tuned)
    tests = _tests(results)
    return Analysis(
        results,
        tests,
        rows_of(results, [test for test in tests if test.accuracy == "validation"], pricing),
        curves_of(results),
        claims_of(results, pricing),
        pricing,
    )


def write_tables(
    comparison: Comparison,
    *,
    measuring: bool = True,
    jobs: int = 1,
    on: Sequence[str] = (),
    deadline: Deadline | None = None,
    callback: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Row]:
    """Write all that is said of a comparison into its folder.

    Args:
        comparison: as far as it has come.
        measuring: whether accuracies of the best networks are measured (or looked up), each once,
            and these are fine-tuned where that is part of the comparison.
        jobs: fine-tunings at a time.
        on: where torch trains, in turns, and on the first of which it measures.
        deadline: after which nothing more is measured or fine-tuned.
        callback: told ``(networks done, in all)``, of measuring and then of fine-tuning.

    Raises:
        UserError: networks cannot be measured, or a file not be written.
    """
    folder, outcomes = comparison.folder, _outcomes(comparison)
    if measuring:
        ended = [o for of in outcomes.values() for found in of.values() for o in found if o.ok]
        best = [network for o in ended if (network := most_accurate(o)) is not None]
        settings = comparison.settings
        measure(folder, settings, best, on[0] if on else None, callback, deadline)
        finish(folder, settings, best, jobs=jobs, on=on, callback=callback, deadline=deadline)
    found = _analyse(comparison, outcomes)
    write_text(folder / CSV, as_csv([row.plain() for row in found.rows]))
    write_text(folder / NETWORKS, as_csv(networks_of(found.results)))
    write_text(folder / TESTS, as_csv([_test_row(test) for test in found.tests]))
    write_text(folder / CURVES, as_csv(curve_rows(found.curves)))
    if found.curves:
        draw_curves(folder / PICTURE, found.results, found.curves)
    write_json(folder / CLAIMS_JSON, [claim.to_dict() for claim in found.claims])
    write_text(folder / CLAIMS, claims_markdown(found.claims))
    write_text(folder / MARKDOWN, markdown(found))
    return list(found.rows)


def _tests(results: Results) -> list[PairedTest]:
    """All pairs of systems, each case being a family, on validation and on test images."""
    return [
        test
        for case in results.settings.cases
        for on in ("validation", "test")
        for test in paired_tests(results, all_pairs(results, case), on)
    ]


def _test_row(test: PairedTest) -> dict[str, Any]:
    return {**asdict(test), "seedless": " ".join(test.seedless)}


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of the same columns; what is None is left empty."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: "" if v is None else v for k, v in row.items()})
    return text.getvalue()


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _spread(found: Spread | None) -> str:
    return "-" if found is None else f"{found.median:.2f} ({found.q1:.2f}-{found.q3:.2f})"


def _finishing(row: Row) -> str:
    if row.finishing_hours is None:
        return "none"
    epochs = f"{row.finishing} epoch" + "s" * (row.finishing > 1)
    return f"{epochs}, {row.finishing_hours:.2g} h"


def _range(row: Row) -> str:
    if row.usd_low is None or row.usd_high is None:
        return "-"
    return f"{row.usd_low:.2g}-{row.usd_high:.2g}"


Column = tuple[str, Callable[[Row], str]]

FOUND: tuple[Column, ...] = (
    ("system", lambda row: row.system),
    ("acc %", lambda row: _spread(row.acc)),
    ("validation %", lambda row: _spread(row.acc_val_true)),
    ("test %", lambda row: _spread(row.acc_test)),
    ("fine-tuned, test %", lambda row: _spread(row.acc_finished)),
    ("regret", lambda row: _spread(row.regret)),
    ("better/worse", lambda row: f"{row.better}/{row.worse}"),
    ("latency ms", lambda row: _number(row.latency, ".4g")),
    ("energy mJ", lambda row: _number(row.energy, ".4g")),
    ("BitOps G", lambda row: _number(row.bitops, ".4g")),
    ("above", lambda row: str(row.violations)),
)
"""Columns of what systems found."""

LEDGER: tuple[Column, ...] = (
    ("scored", lambda row: _number(row.evaluations, ".0f")),
    ("gradient steps", lambda row: _number(row.gradient_steps, ".0f")),
    ("charged", lambda row: _number(row.charged, ".0f")),
    ("finishing", _finishing),
    ("hours", lambda row: "-" if row.hours is None else str(DesignCost(row.hours_once, row.hours))),
    ("hours in all", lambda row: _number(row.hours_in_all, ".3g")),
    ("CO2e kg", lambda row: _number(row.co2e_kg, ".2g")),
    ("cloud $", _range),
)
"""Columns of what systems spent."""


def reading(found: Analysis) -> str:
    """What the columns of the table mean."""
    settings, pricing = found.results.settings, found.pricing
    rates = pricing.rates
    return (
        f"Medians of {settings.seeds} seeds (quartiles) on one supernet whose weights stay; `acc` "
        f"is by `{settings.predictor}`, latency and energy are of `{settings.device}`. A budget "
        "holds scored networks and what gradient steps are charged as. `hours` is spent once + for "
        f"each of N deployments, in all with {pricing.deployments:,}; CO2e ({rates.kw:.3g} kW, "
        f"{rates.kg_per_kwh:.3g} kg a kWh) and cloud cost ({rates.usd_low:.3g} to "
        f"{rates.usd_high:.3g} dollars an hour) are of one "
        "deployment, from "
        f"{_clock(pricing)}. `fine-tuned`: after the epochs that `finishing` names, the same for "
        "all. `regret`: points of validation accuracy below the best of all networks within the "
        "limit, where a table knows it. `better/worse`: how many systems are significantly worse "
        "and better on validation images (signed-rank tests by seed, Holm's correction over all "
        f"pairs, 0.05; `{TESTS}`). `above`: returned networks over the limit."
    )


def markdown(found: Analysis) -> str:
    """The rows, case by case, with what the columns mean."""
    results, settings = found.results, found.results.settings
    lines = [f"# Systems on `{settings.space}`", "", reading(found)]
    for case in settings.cases:
        lines += ["", f"## {heading(case)}", ""]
        own = rows_in(found, case)
        lines += _table([row for row in own if row.seeds], results.optima[case.target])
        if text := caution(results, case):
            lines += ["", text]
        lines += [f"\n`{row.system}`: {row.note}" for row in own if row.note]
    return "\n".join(lines) + "\n"


def heading(case: Case) -> str:
    """A case in words."""
    target = case.target
    return f"{target.quantity} <= {target.value:g}, {case.budget:,} evaluations"


def rows_in(found: Analysis, case: Case) -> list[Row]:
    """The rows of a case."""
    where = title_of(case.target), case.budget
    return [row for row in found.rows if (row.target, row.budget) == where]


def found_columns(rows: Sequence[Row]) -> list[Column]:
    """Columns of what was found; those of regret and fine-tuning only where there are any."""
    without = set()
    if all(row.regret is None for row in rows):
        without.add("regret")
    if all(row.acc_finished is None for row in rows):
        without.add("fine-tuned, test %")
    return [column for column in FOUND if column[0] not in without]


def _table(rows: Sequence[Row], optimum: float | None) -> list[str]:
    if not rows:
        return []
    columns = [*found_columns(rows), *LEDGER]
    lines = [] if optimum is None else [f"Best of all networks: {optimum:.2f} %.", ""]
    return [
        *lines,
        f"| {' | '.join(name for name, _ in columns)} |",
        "|" + "---|" * len(columns),
        *(f"| {' | '.join(text(row) for _, text in columns)} |" for row in rows),
    ]


def caution(results: Results, case: Case) -> str:
    """That nothing can be significant, where that is so; pairs without a test do not count."""
    seedless = {name: results.seedless(case, name) for name in results.settings.systems}
    pairs = sum(not (seedless[a] and seedless[b]) for _, a, b in all_pairs(results, case))
    seeds = max((len(results.of(case, name)) for name in results.settings.systems), default=0)
    if not pairs or seeds >= seeds_needed(pairs):
        return ""
    return (
        f"With {seeds} seeds nothing of {pairs} pairs can be significant: {seeds_needed(pairs)} "
        "are needed."
    )


def _clock(pricing: Pricing) -> str:
    each = pricing.seconds_per_evaluation
    return "measured seconds" if each is None else f"{each:g} s an evaluation"

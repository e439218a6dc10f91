"""The page of a comparison of systems: claims, the table in the paper's form, and curves."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from apq_moo.benchmarks.report import plots, sections
from apq_moo.benchmarks.systems import claims as claiming
from apq_moo.benchmarks.systems.comparison import Comparison
from apq_moo.benchmarks.systems.rows import Row
from apq_moo.benchmarks.systems.settings import Case
from apq_moo.benchmarks.systems.tables import (
    FOUND,
    LEDGER,
    Analysis,
    Column,
    analyse,
    caution,
    found_columns,
    heading,
    reading,
    rows_in,
)
from apq_moo.errors import UserError, escaped

_MOST_BANDS = 7
"""Curves whose quartiles are drawn too; more bands would hide one another."""


def contents(folder: str | Path) -> tuple[str, str]:
    """Title and body of the page.

    Raises:
        UserError: the folder is damaged, or nothing has come to its end.
    """
    comparison = Comparison.open(folder)
    found = analyse(comparison)
    if not any(row.seeds for row in found.rows):
        raise UserError(f"{folder} has no finished searches yet; run it first")
    settings = comparison.settings
    title = f"{len(settings.systems)} systems on {settings.space}"
    parts = [_head(title, found), _claims(found)]
    parts += [_case(found, case, number) for number, case in enumerate(settings.cases)]
    parts += [f'<h2>How to read it</h2><p class="note">{_code(reading(found))}</p>']
    parts.append(_reproducing(comparison))
    return title, "\n".join(parts)


def _code(text: str) -> str:
    """Words between backquotes as code."""
    parts = escape(escaped(text)).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))


def _head(title: str, found: Analysis) -> str:
    settings = found.results.settings
    links = "".join(
        f'<a href="#case{i}">{escape(heading(case))}</a>' for i, case in enumerate(settings.cases)
    )
    known = {
        "space": [settings.space],
        "systems": settings.systems,
        "seeds": [str(settings.seeds)],
        "evaluations": [f"{budget:,}" for budget in settings.budgets],
        "accuracy": [settings.predictor],
        "device": [settings.device],
    }
    return (
        f"<h1>{escape(escaped(title))}</h1><p>Each system seeks the most accurate network under a "
        "limit, with the same budget, on one supernet whose weights stay. Tap a name in a legend "
        f"to hide it.</p>{sections.facts(known)}<nav>{links}</nav>"
    )


def _claims(found: Analysis) -> str:
    parts = ["<h2>Claims</h2>"]
    parts.append(
        sections.table(["claim", "answer"], [[one.name, one.verdict] for one in found.claims])
    )
    for claim in found.claims:
        parts += [
            f"<h3>{escape(claim.name.capitalize())}</h3>",
            f"<p>{_code(claim.statement)}</p>",
            f'<p class="note">{_code(claiming.answer(claim))}</p>',
        ]
        for rows in (claiming.rows_of(claim), claim.figures):
            if rows:
                cells = [[claiming.text_of(value) for value in row.values()] for row in rows]
                parts.append(sections.table(list(rows[0]), cells))
    return "\n".join(parts)


def _case(found: Analysis, case: Case, number: int) -> str:
    name, rows = f"case{number}", rows_in(found, case)
    optimum = found.results.optima[case.target]
    parts = [f'<h2 id="{name}">{escape(heading(case))}</h2>']
    if optimum is not None:
        parts.append(f"<p>Best of all networks: {optimum:.2f} %.</p>")
    shown = [row for row in rows if row.seeds]
    if shown:
        parts += [_table(found_columns(shown), shown), "<h3>Ledger</h3>"]
        parts += [_table([FOUND[0], *LEDGER], shown), "<h3>Best accuracy over scored networks</h3>"]
        parts.append(sections.plot(f"{name}-curve", _curves(found, case)))
    notes = [caution(found.results, case)]
    notes += [f"{row.system}: {row.note}" for row in rows if row.note]
    parts += [f'<p class="note">{escape(escaped(note))}</p>' for note in notes if note]
    return "\n".join(parts)


def _table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    cells = [[text(row) for _, text in columns] for row in rows]
    return sections.table([title for title, _ in columns], cells)


def _curves(found: Analysis, case: Case) -> plots.Plot:
    """Best accuracy against scored networks."""
    names = found.results.settings.systems
    own = [curve for curve in found.curves if curve.case == case]
    traces: list[plots.Plot] = []
    ends: list[float] = []
    for curve in own:
        low, middle, high = curve.quartiles().T
        band = (low, high) if len(own) <= _MOST_BANDS and np.isfinite(low).all() else None
        number = names.index(curve.system)
        hover = "%{x} networks: %{y:.2f} &#37;"
        traces += plots.line(curve.system, number, curve.evaluations, middle, band, hover)
        if np.isfinite(middle[-1]):
            ends.append(float(middle[-1]))
    x_axis = {"title": {"text": "scored networks"}, "type": "log"}
    y_axis = {"title": {"text": "best accuracy (&#37;)"}, **_range(ends, found, case)}
    return {"traces": traces, "layout": plots.layout(x_axis, y_axis)}


def _range(ends: Sequence[float], found: Analysis, case: Case) -> plots.Plot:
    """From somewhat below where the worst ends; first random networks are far below."""
    optimum = found.results.optima[case.target]
    tops = [*ends, *([] if optimum is None else [optimum])]
    if not ends:
        return {}
    span = max(max(tops) - min(ends), 0.05)
    return {"range": [min(ends) - 0.5 * span, max(tops) + 0.1 * span]}


def _reproducing(comparison: Comparison) -> str:
    settings = comparison.settings
    words = ["apq-moo compare-systems", f"--space {shlex.quote(settings.space)}"]
    words += [f"--max {target.quantity}={target.value:g}" for target in settings.targets]
    words.append(f"--systems {shlex.quote(','.join(settings.systems))}")
    words.append(f"--budget {','.join(map(str, settings.budgets))} --seeds {settings.seeds}")
    words.append(f"--predictor {shlex.quote(settings.predictor)}")
    words.append(f"--device {shlex.quote(settings.device)}")
    if settings.assets is not None:
        words.append(f"--assets {shlex.quote(settings.assets)}")
    text = escape(escaped(" ".join(words) + " --out COMPARISON"))
    return (
        f"<h2>How to reproduce it</h2><pre>{text}\napq-moo report COMPARISON -o report.html</pre>"
    )

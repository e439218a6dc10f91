"""How good the best network was after so many scored ones: curves over seeds, and their picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import FloatArray
from apq_moo.benchmarks.compare.bounds import bounds_of
from apq_moo.benchmarks.compare.statistics import summarise
from apq_moo.benchmarks.systems.results import Results
from apq_moo.benchmarks.systems.settings import Case, title_of
from apq_moo.pictures import log_ticks, picture_type, save_picture
from apq_moo.study.search import problem_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito, Color Universal Design, 2008, without yellow.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LINES: tuple[Any, ...] = ("-", "--", ":", "-.")
_STYLE: Any = {
    "font.size": 7,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.1,
    "legend.fontsize": 6.5,
}
_WIDTH_IN, _HEIGHT_IN = 3.0, 2.2
_DPI = 200
_LETTER_IN = 0.05
_BEST = "best of all networks"
_MOST_BANDS = 7
"""Curves whose quartiles are drawn too; more bands would hide one another."""


@dataclass(frozen=True)
class Curve:
    """Best accuracy within the limit against scored networks, over seeds.

    Attributes:
        case: target and budget.
        system: its name.
        evaluations: numbers of scored networks, ascending; a search that ended before keeps its
            last value.
        best: accuracy in percent as it was searched by, shape ``(n_seeds, n_marks)``; minus
            infinity until something was found.
    """

    case: Case
    system: str
    evaluations: NDArray[np.int64]
    best: FloatArray

    def quartiles(self) -> FloatArray:
        """First quartile, median and third quartile at each mark, shape ``(n_marks, 3)``."""
        found = [summarise(column) for column in self.best.T]
        return np.array([[each.q1, each.median, each.q3] for each in found])


def curves_of(results: Results) -> list[Curve]:
    """A curve for each system in each case where a search has ended.

    Stored are hypervolumes of one objective: its reference less the best normalised value.
    """
    curves = []
    for case in results.settings.cases:
        bounds = None
        for system in results.settings.systems:
            found = results.of(case, system)
            if not found:
                continue
            bounds = bounds or bounds_of(problem_of(found[0].outcome.cell.config))
            volumes = np.array([search.outcome.curve for search in found])
            ideal, nadir = bounds.ideal[0], bounds.nadir[0]
            best = -(ideal + (bounds.reference - volumes) * (nadir - ideal))
            best = np.where(volumes > 0, best.round(9), -np.inf)
            curves.append(Curve(case, system, found[0].outcome.marks, best))
    return curves


def curve_rows(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """A row for each mark of each curve; quartiles are missing where nothing was found."""
    rows = []
    for curve in curves:
        quartiles = curve.quartiles()
        found = np.isfinite(curve.best).sum(axis=0)
        for at, n, values in zip(curve.evaluations, found, quartiles, strict=True):
            q1, median, q3 = (float(v) if np.isfinite(v) else None for v in values)
            rows.append(
                {
                    "target": title_of(curve.case.target),
                    "budget": curve.case.budget,
                    "system": curve.system,
                    "evaluations": int(at),
                    "seeds": len(curve.best),
                    "found": int(n),
                    "q1": q1,
                    "median": median,
                    "q3": q3,
                }
            )
    return rows


def draw_curves(path: str | Path, results: Results, curves: Sequence[Curve]) -> None:
    """Draw curves, a panel for each case: targets one below the other, budgets side by side.

    Args:
        path: a PNG, SVG or PDF file.
        results: of the comparison.
        curves: of it.

    Raises:
        UserError: another kind of file, or it cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    picture_type(path)
    settings = results.settings
    names = list(dict.fromkeys(curve.system for curve in curves))
    shape = len(settings.targets), len(settings.budgets)
    with mpl.rc_context(_STYLE):
        entry_in = _LETTER_IN * max(map(len, (*names, _BEST))) + 0.5
        width_in = max(3.6, _WIDTH_IN * shape[1], entry_in)
        across = int(width_in / entry_in)
        legend_in = 0.16 * -(-(len(names) + 1) // across) + 0.3
        size = width_in, _HEIGHT_IN * shape[0] + max(0.6, legend_in)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(*shape, squeeze=False)
        for row, target in enumerate(settings.targets):
            for column, budget in enumerate(settings.budgets):
                case, axis = Case(target, budget), panels[row, column]
                own = [curve for curve in curves if curve.case == case]
                _draw(axis, own, names, results.optima[target])
                axis.set_title(f"{target.quantity} <= {target.value:g}, budget {budget:,}")
                if row + 1 == shape[0]:
                    axis.set_xlabel("scored networks")
                if not column:
                    axis.set_ylabel("best accuracy (%)")
        known: dict[str, Any] = {}
        for axis in panels.flat:
            handles, labels = axis.get_legend_handles_labels()
            known |= dict(zip(labels, handles, strict=True))
        figure.legend(
            known.values(), known.keys(), loc="outside lower center", frameon=False,
            ncols=min(len(known) or 1, across),
        )  # fmt: skip
        save_picture(figure, path, _DPI)


def _draw(axis: Axes, curves: Sequence[Curve], names: Sequence[str], optimum: float | None) -> None:
    """One panel; its axis leaves out what is far below, as the first random networks are."""
    lowest, highest = [], []
    for curve in curves:
        number = names.index(curve.system)
        look = {
            "color": _COLOURS[number % len(_COLOURS)],
            "linestyle": _LINES[number // len(_COLOURS) % len(_LINES)],
        }
        low, middle, high = curve.quartiles().T
        shown = np.isfinite(middle)
        if not shown.any():
            continue
        at = curve.evaluations[shown]
        axis.plot(at, middle[shown], label=curve.system, **look)
        lowest.append(float(middle[-1]))
        highest.append(float(high[-1]))
        if len(curves) > _MOST_BANDS:
            continue
        band = shown & np.isfinite(low)
        axis.fill_between(
            curve.evaluations[band], low[band], high[band], color=look["color"], alpha=0.15,
            linewidth=0,
        )  # fmt: skip
    if optimum is not None:
        axis.axhline(optimum, color="#808080", linewidth=0.6, label=_BEST)
        highest.append(optimum)
    if lowest:
        span = max(max(highest) - min(lowest), 0.05)
        axis.set_ylim(min(lowest) - 0.5 * span, max(highest) + 0.1 * span)
    log_ticks(axis)
    axis.grid(alpha=0.3, linewidth=0.4)

"""Pictures of a benchmark for papers: one column wide, vector formats, colour-blind safe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from apq_moo.arrays import FloatArray
from apq_moo.benchmarks.compare.analysis import Analysis, ProblemResults
from apq_moo.errors import UserError
from apq_moo.pictures import picture_type, save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 3.4
"""Width of a column, in inches."""

DPI = 300
"""Dots an inch of a PNG."""

MOST_TOLD_APART = 7
"""Algorithms that colours and markers tell apart; more are drawn in grey."""

# Okabe and Ito, Color Universal Design, 2008.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "os^DvPX"
_LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
_GREY = "#b0b0b0"
_STYLE: Any = {
    "font.size": 7,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "legend.fontsize": 6,
    "svg.hashsalt": "apq-moo",
    "pdf.fonttype": 42,
}


def _chosen(problem: ProblemResults, algos: Sequence[str] | None) -> list[str]:
    """Algorithms to tell apart: those asked for, else the best by hypervolume."""
    if algos:
        for name in algos:
            if name not in problem.labels:
                known = ", ".join(problem.labels)
                raise UserError(f"no algorithm {name!r} in this benchmark; it has: {known}")
        if len(algos) > MOST_TOLD_APART:
            raise UserError(f"at most {MOST_TOLD_APART} algorithms can be told apart; name fewer")
        return list(algos)
    done = [score for score in problem.scores("hv") if score.summary is not None]
    done.sort(key=lambda score: -score.summary.median if score.summary else 0.0)
    best = {score.label for score in done[:MOST_TOLD_APART]}
    return [label for label in problem.labels if label in best]


def _look(number: int) -> dict[str, Any]:
    return {"color": _COLOURS[number], "linestyle": _LINES[number]}


def _label(problem: ProblemResults, column: int) -> str:
    name, unit = problem.objectives[column], problem.units[column]
    return f"{'accuracy' if name == 'acc' else name} ({unit})"


def _figure(panels: int = 1) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, 0.5 + 2.1 * panels), layout="constrained")
    axes = figure.subplots(panels, 1, squeeze=False)[:, 0]
    for axis in axes:
        axis.grid(alpha=0.3, linewidth=0.4)
    return figure, list(axes)


def _log_scale(axis: Axes) -> None:
    """A logarithmic scale with ticks at 1, 2 and 5 times powers of ten, written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)


def draw_fronts(
    path: str | Path, problem: ProblemResults, algos: Sequence[str] | None = None
) -> None:
    """Draw each algorithm's front of median hypervolume: the first objective against the others.

    Args:
        path: a PNG, SVG or PDF file.
        problem: its results.
        algos: algorithms to tell apart, at most :data:`MOST_TOLD_APART`; the others are grey. By
            default the best by hypervolume.

    Raises:
        UserError: an unknown algorithm, one objective only, or the file cannot be written.
    """
    import matplotlib as mpl

    picture_type(path)
    if len(problem.objectives) < 2:
        raise UserError("fronts need two objectives at least; draw curves instead")
    chosen = _chosen(problem, algos)
    with mpl.rc_context(_STYLE):
        others = range(1, len(problem.objectives))
        figure, axes = _figure(len(others))
        for axis, column in zip(axes, others, strict=True):
            if len(problem.known):
                known = problem.natural(problem.known)
                name = problem.known_name
                axis.plot(known[:, column], known[:, 0], ".", color=_GREY, ms=2.5, label=name)
            for label in problem.labels:
                _front(axis, problem, label, column, chosen)
            _log_scale(axis)
            axis.set_xlabel(_label(problem, column))
            axis.set_ylabel(_label(problem, 0))
        _legend(figure, axes[0])
        save_picture(figure, path, DPI)


def _front(
    axis: Axes, problem: ProblemResults, label: str, column: int, chosen: Sequence[str]
) -> None:
    outcome = problem.typical(label)
    if outcome is None or not len(outcome.front):
        return
    points = problem.natural(outcome.front)
    points = points[np.argsort(points[:, column], kind="stable")]
    if label in chosen:
        number = chosen.index(label)
        axis.plot(
            points[:, column], points[:, 0], _MARKERS[number], color=_COLOURS[number], ms=2,
            mew=0.4, fillstyle="none", label=label,
        )  # fmt: skip
    else:
        axis.plot(points[:, column], points[:, 0], ",", color=_GREY)


def draw_curves(
    path: str | Path, problem: ProblemResults, algos: Sequence[str] | None = None
) -> None:
    """Draw hypervolume against evaluations: medians, and quartiles as bands.

    Args:
        path: a PNG, SVG or PDF file.
        problem: its results.
        algos: see :func:`draw_fronts`; the axis is theirs, whatever the others do.

    Raises:
        UserError: an unknown algorithm, or the file cannot be written.
    """
    import matplotlib as mpl

    picture_type(path)
    chosen = _chosen(problem, algos)
    with mpl.rc_context(_STYLE):
        figure, (axis,) = _figure()
        ends: list[float] = []
        for label in problem.labels:
            marks, curves = problem.curves(label)
            if not len(curves):
                continue
            low, middle, high = np.quantile(curves, (0.25, 0.5, 0.75), axis=0)
            if label not in chosen:
                axis.plot(marks, middle, color=_GREY, linewidth=0.6, zorder=1)
                continue
            look = _look(chosen.index(label))
            axis.plot(marks, middle, label=label, **look)
            axis.fill_between(marks, low, high, color=look["color"], alpha=0.2, linewidth=0)
            ends += [low.min(), high.max()]
        if ends and min(ends) < max(ends):
            margin = 0.04 * (max(ends) - min(ends))
            axis.set_ylim(min(ends) - margin, max(ends) + margin)
        axis.set_xscale("log")
        axis.set_xlabel("evaluations")
        axis.set_ylabel("hypervolume")
        _legend(figure, axis)
        save_picture(figure, path, DPI)


def draw_attainment(
    path: str | Path, problem: ProblemResults, algos: Sequence[str] | None = None
) -> None:
    """Draw median attainment surfaces, between those of 25 and 75 percent of the runs.

    Args:
        path: a PNG, SVG or PDF file.
        problem: its results, of two objectives.
        algos: see :func:`draw_fronts`.

    Raises:
        UserError: an unknown algorithm, other than two objectives, or the file cannot be written.
    """
    import matplotlib as mpl

    picture_type(path)
    if len(problem.objectives) != 2:
        raise UserError(
            f"attainment surfaces need two objectives, this problem has {len(problem.objectives)}"
        )
    chosen = _chosen(problem, algos)
    with mpl.rc_context(_STYLE):
        figure, (axis,) = _figure()
        for number, label in enumerate(chosen):
            surfaces = problem.surfaces(label)
            for level, width, alpha in ((25, 0.5, 0.6), (50, 1.1, 1.0), (75, 0.5, 0.6)):
                if len(surfaces[level]):
                    _staircase(
                        axis, problem, surfaces[level], number, width, alpha,
                        label if level == 50 else None,
                    )  # fmt: skip
        _log_scale(axis)
        axis.set_xlabel(_label(problem, 1))
        axis.set_ylabel(_label(problem, 0))
        _legend(figure, axis)
        save_picture(figure, path, DPI)


def _staircase(
    axis: Axes, problem: ProblemResults, surface: FloatArray, number: int,
    width: float, alpha: float, label: str | None,
) -> None:  # fmt: skip
    points = problem.natural(surface)
    points = points[np.argsort(points[:, 1], kind="stable")]
    axis.step(
        points[:, 1], points[:, 0], where="post", linewidth=width, alpha=alpha, label=label,
        **_look(number),
    )  # fmt: skip


def draw_ranks(path: str | Path, analysis: Analysis) -> None:
    """Draw mean ranks over problems and the critical difference (Demsar, JMLR 7, 2006, figure 1).

    Raises:
        UserError: fewer than 2 problems or 3 algorithms that ended everywhere; or the file cannot
            be written.
    """
    import matplotlib as mpl

    picture_type(path)
    ranks = analysis.ranks("hv")
    if ranks is None:
        raise UserError("ranks need at least 2 problems and 3 algorithms that ended on all of them")
    order = np.argsort(ranks.mean_ranks, kind="stable")
    with mpl.rc_context(_STYLE):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH_IN, 0.7 + 0.14 * len(order)), layout="constrained")
        axis = figure.subplots()
        for row, i in enumerate(order):
            rank = ranks.mean_ranks[i]
            axis.plot([1, rank], [row, row], color=_GREY, linewidth=0.5, zorder=1)
            axis.plot(rank, row, "o", color=_COLOURS[0], ms=3)
        best = ranks.mean_ranks[order[0]]
        end = min(best + ranks.critical_difference, len(order))
        axis.axvspan(best, end, color=_COLOURS[4], alpha=0.2, linewidth=0)
        axis.set_yticks(range(len(order)), [ranks.names[i] for i in order])
        axis.invert_yaxis()
        axis.set_xlim(0.8, len(order) + 0.4)
        axis.set_xlabel(
            f"mean rank by hypervolume, {ranks.problems} problems;\n"
            f"shaded: within {ranks.critical_difference:.1f} of the best (Nemenyi)"
        )
        axis.grid(axis="x", alpha=0.3, linewidth=0.4)
        save_picture(figure, path, DPI)

"""Pictures of a benchmark for papers: one column wide, vector formats, colour-blind safe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from apq_moo.arrays import FloatArray
from apq_moo.benchmarks.compare.analysis import Analysis, ProblemResults
from apq_moo.errors import UserError
from apq_moo.pictures import log_ticks, picture_type, save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 3.4
"""Width of a column, in inches."""

DPI = 300
"""Dots an inch of a PNG."""

MOST_TOLD_APART = 7
"""Algorithms that colours and markers tell apart in one panel; more get a panel each."""

_ABREAST = 3
_PANEL_IN = 0.95
"""Panels beside one another, and the height of one in inches."""

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
    """Algorithms to tell apart: those asked for, else all that came to their end."""
    for name in algos or ():
        if name not in problem.labels:
            known = ", ".join(problem.labels)
            raise UserError(f"no algorithm {name!r} in this benchmark; it has: {known}")
    return list(algos or (label for label in problem.labels if problem.of(label)))


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
        algos: algorithms to tell apart; the others are grey. By default all. More than
            :data:`MOST_TOLD_APART` get a small panel each, the best by hypervolume first.

    Raises:
        UserError: an unknown algorithm, one objective only, or the file cannot be written.
    """
    import matplotlib as mpl

    picture_type(path)
    if len(problem.objectives) < 2:
        raise UserError("fronts need two objectives at least; draw curves instead")
    chosen = _chosen(problem, algos)
    others = range(1, len(problem.objectives))
    if len(chosen) > MOST_TOLD_APART:

        def draw(axis: Axes, label: str, column: int) -> None:
            if len(problem.known):
                known = problem.natural(problem.known)
                axis.plot(known[:, column], known[:, 0], "o", color=_GREY, ms=2.4, mew=0)
            _front(axis, problem, label, column, [label])
            log_ticks(axis)

        _draw_panels(
            path,
            problem,
            chosen,
            draw,
            [_label(problem, i) for i in others],
            _label(problem, 0),
            problem.known_name,
        )
        return
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(len(others))
        for axis, column in zip(axes, others, strict=True):
            if len(problem.known):
                known = problem.natural(problem.known)
                name = problem.known_name
                axis.plot(known[:, column], known[:, 0], ".", color=_GREY, ms=2.5, label=name)
            for label in problem.labels:
                _front(axis, problem, label, column, chosen)
            log_ticks(axis)
            axis.set_xlabel(_label(problem, column))
            axis.set_ylabel(_label(problem, 0))
        _legend(figure, axes[0])
        save_picture(figure, path, DPI)


_Panel: TypeAlias = "Callable[[Axes, str, int], None]"


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
    if len(chosen) > MOST_TOLD_APART:
        _draw_panels(
            path,
            problem,
            chosen,
            _one_curve(problem, chosen),
            ["evaluations"],
            "hypervolume",
            "the others",
        )
        return
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


def _one_curve(problem: ProblemResults, chosen: Sequence[str]) -> _Panel:
    """Draws one algorithm's curve before those of the others."""
    quartiles = {
        label: (marks, *np.quantile(curves, (0.25, 0.5, 0.75), axis=0))
        for label in chosen
        for marks, curves in [problem.curves(label)]
    }
    last = [curve[-1] for _, *curves in quartiles.values() for curve in curves]
    first = [low[len(low) // 3] for _, low, _, _ in quartiles.values()]
    bottom, top = float(np.median(first)), max(last)

    def draw(axis: Axes, label: str, _column: int) -> None:
        for other, (marks, _, middle, _) in quartiles.items():
            if other != label:
                axis.plot(marks, middle, color=_GREY, linewidth=0.4, zorder=1)
        marks, low, middle, high = quartiles[label]
        axis.plot(marks, middle, color=_COLOURS[0])
        axis.fill_between(marks, low, high, color=_COLOURS[0], alpha=0.25, linewidth=0)
        axis.set_xscale("log")
        if bottom < top:
            axis.set_ylim(bottom, top + 0.05 * (top - bottom))

    return draw


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
    if len(chosen) > MOST_TOLD_APART:

        def draw(axis: Axes, label: str, _column: int) -> None:
            if len(problem.known):
                _staircase(axis, problem, problem.known, {"color": _GREY, "linewidth": 1.6})
            _surfaces(axis, problem, label, {"color": _COLOURS[0]})
            log_ticks(axis)

        _draw_panels(
            path,
            problem,
            chosen,
            draw,
            [_label(problem, 1)],
            _label(problem, 0),
            problem.known_name,
        )
        return
    with mpl.rc_context(_STYLE):
        figure, (axis,) = _figure()
        for number, label in enumerate(chosen):
            _surfaces(axis, problem, label, _look(number))
        log_ticks(axis)
        axis.set_xlabel(_label(problem, 1))
        axis.set_ylabel(_label(problem, 0))
        _legend(figure, axis)
        save_picture(figure, path, DPI)


def _surfaces(axis: Axes, problem: ProblemResults, label: str, look: dict[str, Any]) -> None:
    surfaces = problem.surfaces(label)
    for level, width, alpha in ((25, 0.5, 0.6), (50, 1.1, 1.0), (75, 0.5, 0.6)):
        if len(surfaces[level]):
            name = label if level == 50 else None
            looks = {**look, "linewidth": width, "alpha": alpha, "label": name}
            _staircase(axis, problem, surfaces[level], looks)


def _staircase(
    axis: Axes, problem: ProblemResults, surface: FloatArray, look: dict[str, Any]
) -> None:
    points = problem.natural(surface)
    points = points[np.argsort(points[:, 1], kind="stable")]
    axis.step(points[:, 1], points[:, 0], where="post", **look)


def _draw_panels(
    path: str | Path,
    problem: ProblemResults,
    chosen: Sequence[str],
    draw: _Panel,
    across: Sequence[str],
    up: str,
    grey: str,
) -> None:
    """Draw a small panel for each algorithm, the best by hypervolume first, all on one scale.

    Args:
        path: a PNG, SVG or PDF file.
        problem: its results.
        chosen: the algorithms.
        draw: into the panel of an algorithm; given the number of the picture's part too, from 1.
        across: labels of the horizontal axes; a part of the picture for each.
        up: label of the vertical axis.
        grey: what is drawn in grey.
    """
    import matplotlib as mpl

    medians = {label: float(np.median(problem.values(label, "hv"))) for label in chosen}
    order = sorted(chosen, key=lambda label: -medians[label])
    rows = -(-len(order) // _ABREAST)
    with mpl.rc_context({**_STYLE, "font.size": 6, "axes.titlesize": 6}):
        from matplotlib.figure import Figure

        height = len(across) * (_PANEL_IN * rows + 0.3) + 0.25
        figure = Figure(figsize=(WIDTH_IN, height), layout="constrained")
        parts = figure.subfigures(len(across), 1, squeeze=False)[:, 0]
        for column, (part, name) in enumerate(zip(parts, across, strict=True), 1):
            axes = part.subplots(rows, _ABREAST, sharex=True, sharey=True, squeeze=False).ravel()
            for axis, label in zip(axes, order, strict=False):
                draw(axis, label, column)
                axis.set_title(label, pad=2)
                at = {"transform": axis.transAxes, "ha": "right", "va": "bottom", "fontsize": 5.5}
                axis.text(0.97, 0.05, f"{medians[label]:.4f}", **at)
                axis.grid(alpha=0.3, linewidth=0.4)
                axis.tick_params(labelsize=5, length=2)
            for axis in axes[len(order) :]:
                axis.set_axis_off()
            part.supxlabel(name, fontsize=6)
            part.supylabel(up, fontsize=6)
        figure.suptitle(f"each with its median hypervolume; in grey: {grey}", fontsize=6)
        save_picture(figure, path, DPI)


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

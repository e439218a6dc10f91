"""The page's plots, as traces and layouts for plotly.js."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import FloatArray
from apq_moo.benchmarks.compare.analysis import ProblemResults
from apq_moo.space import Subnet
from apq_moo.space.spec import FIELDS

Plot = dict[str, Any]
"""``traces`` and ``layout``."""

# Okabe and Ito's colours first, then Tol's muted ones.
_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#332288", "#88CCEE", "#117733", "#999933", "#882255", "#AA4499", "#44AA99", "#661100"),
    *("#6699CC", "#DDCC77", "#888888"),
)
_SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star")
_DASHES = ("solid", "dash", "dot", "dashdot")


def _look(number: int) -> tuple[str, str, str]:
    colour = _COLOURS[number % len(_COLOURS)]
    return colour, _SYMBOLS[number % len(_SYMBOLS)], _DASHES[number // len(_COLOURS) % len(_DASHES)]


def _plain(text: str) -> str:
    """A text that plotly.js shows as it is: no tag, entity or placeholder of a template."""
    return escape(text, quote=False).replace("%", "&#37;")


def _axis(problem: ProblemResults, column: int) -> Plot:
    name, unit = problem.objectives[column], problem.units[column]
    title = f"{'accuracy' if name == 'acc' else name} ({unit})"
    return {"title": {"text": _plain(title)}, "type": "linear" if name == "acc" else "log"}


def layout(x: Plot, y: Plot) -> Plot:
    """What all plots share, with two axes."""
    return {
        "xaxis": {**x, "automargin": True},
        "yaxis": {**y, "automargin": True},
        "margin": {"l": 50, "r": 10, "t": 10, "b": 45},
        "legend": {
            "orientation": "h", "y": 1.02, "yanchor": "bottom", "font": {"size": 11},
        },
        "hovermode": "closest",
        "template": "none",
    }  # fmt: skip


def _rounded(values: FloatArray) -> list[float | None]:
    """Six digits say more than any plot shows; JSON knows finite numbers only."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


@dataclass(frozen=True)
class Members:
    """One algorithm's front, of the run of median hypervolume.

    Attributes:
        label: the algorithm.
        number: its place among all, which says how it looks.
        points: objectives in natural signs.
        subnets: the networks.
        first: place of the first of them among all networks of the problem.
    """

    label: str
    number: int
    points: FloatArray
    subnets: list[Subnet]
    first: int


def members(problem: ProblemResults) -> list[Members]:
    """The fronts that are shown: of every algorithm that came to its end and found something."""
    found: list[Members] = []
    first = 0
    for number, label in enumerate(problem.labels):
        outcome = problem.typical(label)
        if outcome is None or not len(outcome.front):
            continue
        points, subnets = problem.natural(outcome.front), problem.subnets(outcome)
        found.append(Members(label, number, points, subnets, first))
        first += len(subnets)
    return found


def networks(problem: ProblemResults, found: Sequence[Members]) -> Plot:
    """All networks of a problem's fronts, by their places, and the bits that there are."""
    roles = problem.space.spec.bits.values()
    bits = sorted({width for role in roles for width in role})
    listed = [
        {
            "title": f"{_text(problem, row)}, {len(subnet.blocks)} blocks, "
            f"{subnet.mean_bits:.2f} bits on average",
            "blocks": [
                [block.stage, *(getattr(block, name) for name in FIELDS)] for block in subnet.blocks
            ],
        }
        for of in found
        for row, subnet in zip(of.points, of.subnets, strict=True)
    ]
    return {"networks": listed, "bits": bits}


def front_plots(problem: ProblemResults, found: Sequence[Members]) -> list[Plot]:
    """Fronts: up to three objectives each against each, more on parallel axes.

    With one objective, the mean bits stand in for the other.
    """
    n_obj = len(problem.objectives)
    if n_obj == 1:
        return [_bits(problem, found)]
    if n_obj > _MOST_PAIRED:
        return [_parallel(problem, found)]
    return [_pair(problem, found, y, x) for y, x in combinations(range(n_obj), 2)]


_MOST_PAIRED = 3
"""Objectives that are shown in pairs."""


def _pair(problem: ProblemResults, found: Sequence[Members], y: int, x: int) -> Plot:
    traces: list[Plot] = []
    if len(problem.known):
        known = problem.natural(problem.known)
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": problem.known_name,
                "legendgroup": "known", "x": _rounded(known[:, x]), "y": _rounded(known[:, y]),
                "marker": {"color": "#b0b0b0", "size": 4}, "hoverinfo": "skip",
            }
        )  # fmt: skip
    traces += [_front(of, of.points[:, x], of.points[:, y]) for of in found]
    return {"traces": traces, "layout": layout(_axis(problem, x), _axis(problem, y))}


def _bits(problem: ProblemResults, found: Sequence[Members]) -> Plot:
    traces = [
        _front(of, np.array([subnet.mean_bits for subnet in of.subnets]), of.points[:, 0])
        for of in found
    ]
    return {
        "traces": traces,
        "layout": layout({"title": {"text": "mean bits"}}, _axis(problem, 0)),
    }


def _front(of: Members, x: FloatArray, y: FloatArray) -> Plot:
    colour, symbol, _ = _look(of.number)
    return {
        "type": "scatter", "mode": "markers", "name": _plain(of.label), "legendgroup": of.label,
        "x": _rounded(x), "y": _rounded(y),
        "customdata": list(range(of.first, of.first + len(x))),
        "hovertemplate": f"{_plain(of.label)}<br>%{{text}}<extra></extra>",
        "marker": {"color": colour, "symbol": symbol, "size": 6},
    }  # fmt: skip


def _parallel(problem: ProblemResults, found: Sequence[Members]) -> Plot:
    """A line for each network, over axes that the problem's bounds scales."""
    signs = problem.natural(np.ones((1, len(problem.objectives))))[0]
    names = [_axis(problem, i)["title"]["text"] for i in range(len(signs))]
    traces: list[Plot] = []
    for of in found:
        scaled = problem.bounds.normalise(of.points * signs)
        gap = np.full((len(scaled), 1), np.nan)  # ends a network's line
        places = np.arange(of.first, of.first + len(scaled))
        colour, symbol, dash = _look(of.number)
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": _plain(of.label),
                "legendgroup": of.label, "x": [*names, None] * len(scaled),
                "y": _rounded(np.hstack([scaled, gap]).ravel()),
                "customdata": np.repeat(places, len(names) + 1).tolist(),
                "hovertemplate": f"{_plain(of.label)}<br>%{{text}}<extra></extra>",
                "line": {"color": colour, "dash": dash, "width": 0.5},
                "marker": {"color": colour, "symbol": symbol, "size": 5},
            }
        )  # fmt: skip
    y = {"title": {"text": "0: ideal, 1: nadir"}}
    return {"traces": traces, "layout": layout({"type": "category"}, y)}


def _text(problem: ProblemResults, row: FloatArray) -> str:
    parts = zip(problem.objectives, row, problem.units, strict=True)
    return ", ".join(f"{name} {value:.4g} {unit}" for name, value, unit in parts)


def curves(problem: ProblemResults) -> Plot:
    """Hypervolume against evaluations: medians, and quartiles as bands."""
    traces: list[Plot] = []
    for number, label in enumerate(problem.labels):
        marks, found = problem.curves(label)
        if len(found):
            low, middle, high = np.quantile(found, (0.25, 0.5, 0.75), axis=0)
            band = (low, high) if len(found) > 1 else None
            traces += line(label, number, marks, middle, band, "%{x} evaluations: %{y:.4f}")
    x_axis = {"title": {"text": "evaluations"}, "type": "log"}
    return {"traces": traces, "layout": layout(x_axis, {"title": {"text": "hypervolume"}})}


def line(
    label: str,
    number: int,
    x: NDArray[np.int64],
    middle: FloatArray,
    band: tuple[FloatArray, FloatArray] | None,
    hover: str,
) -> list[Plot]:
    """Traces of a line, perhaps within a band.

    Args:
        label: in the legend.
        number: its place among all lines, which says how it looks.
        x: shape ``(n,)``.
        middle: of the line, shape ``(n,)``.
        band: lower and upper end, shape ``(n,)`` each.
        hover: template of what is said of a point.
    """
    colour, _, dash = _look(number)
    traces: list[Plot] = []
    if band is not None:
        edge = {
            "type": "scatter", "mode": "lines", "legendgroup": label, "showlegend": False,
            "line": {"width": 0, "color": colour}, "hoverinfo": "skip", "x": x.tolist(),
        }  # fmt: skip
        filled = {"fill": "tonexty", "fillcolor": _clear(colour)}
        traces += [{**edge, "y": _rounded(band[0])}, {**edge, **filled, "y": _rounded(band[1])}]
    drawn = {
        "type": "scatter", "mode": "lines", "name": _plain(label), "legendgroup": label,
        "x": x.tolist(), "y": _rounded(middle),
        "line": {"color": colour, "dash": dash, "width": 2},
        "hovertemplate": f"{_plain(label)}<br>{hover}<extra></extra>",
    }  # fmt: skip
    return [*traces, drawn]


def _clear(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def attainment(problem: ProblemResults, levels: Sequence[float] = (25, 50, 75)) -> Plot:
    """Attainment surfaces: what a share of the runs reached, of two objectives."""
    traces: list[Plot] = []
    for number, label in enumerate(problem.labels):
        colour, _, dash = _look(number)
        surfaces = problem.surfaces(label, levels)
        for level in levels:
            points = problem.natural(surfaces[level])
            points = points[np.argsort(points[:, 1], kind="stable")]
            if not len(points):
                continue
            middle = level == 50
            traces.append(
                {
                    "type": "scatter", "mode": "lines", "name": _plain(label), "legendgroup": label,
                    "showlegend": middle, "x": _rounded(points[:, 1]), "y": _rounded(points[:, 0]),
                    "line": {
                        "shape": "hv", "color": colour, "width": 2 if middle else 0.7,
                        "dash": dash if middle else "dot",
                    },
                    "hovertemplate": f"{_plain(label)}, {level} % of the runs<extra></extra>",
                    "visible": True if number < _SHOWN_AT_FIRST else "legendonly",
                }
            )  # fmt: skip
    return {"traces": traces, "layout": layout(_axis(problem, 1), _axis(problem, 0))}


_SHOWN_AT_FIRST = 8
"""Surfaces that are shown before the legend is used."""


def as_json(plot: Plot) -> str:
    """JSON that may stand in a page: nothing in it ends a script."""
    text = json.dumps(plot, separators=(",", ":"))  # all but ASCII is escaped
    return text.translate({ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&"})

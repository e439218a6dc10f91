"""The page's plots, as traces and layouts for plotly.js."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.benchmarks.analysis import ProblemResults
from apq_moo.space.spec import FIELDS

Plot = dict[str, Any]
"""``traces`` and ``layout``; with ``networks`` and ``bits`` where points stand for networks."""

KNOWN = {
    "true": "true front",
    "union": "front of all runs",
    "shipped": "published front and all runs",
}

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


def _axis(problem: ProblemResults, column: int) -> Plot:
    name, unit = problem.objectives[column], problem.units[column]
    title = f"{'accuracy' if name == 'acc' else name} ({unit})"
    return {"title": {"text": title}, "type": "linear" if name == "acc" else "log"}


def _layout(x: Plot, y: Plot) -> Plot:
    return {
        "xaxis": {**x, "automargin": True},
        "yaxis": {**y, "automargin": True},
        "margin": {"l": 50, "r": 10, "t": 10, "b": 45},
        "legend": {"orientation": "h", "y": -0.25, "font": {"size": 11}},
        "hovermode": "closest",
        "template": "none",
    }


def _rounded(values: NDArray[np.float64]) -> list[float]:
    """Six digits say more than any plot shows."""
    return [float(f"{value:.6g}") for value in values]


def fronts(problem: ProblemResults, column: int) -> Plot:
    """Each algorithm's front of median hypervolume: the first objective against another.

    Args:
        problem: its results.
        column: which other objective; with one objective, the mean bits stand in for it.
    """
    single = len(problem.objectives) == 1
    traces: list[Plot] = []
    networks: list[Plot] = []
    if len(problem.known) and not single:
        known = problem.natural(problem.known)
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": KNOWN[problem.known_kind],
                "x": _rounded(known[:, column]), "y": _rounded(known[:, 0]),
                "marker": {"color": "#b0b0b0", "size": 4}, "hoverinfo": "skip",
            }
        )  # fmt: skip
    for number, label in enumerate(problem.labels):
        outcome = problem.typical(label)
        if outcome is None or not len(outcome.front):
            continue
        points = problem.natural(outcome.front)
        subnets = problem.subnets(outcome)
        texts = [_text(problem, row) for row in points]
        first = len(networks)
        networks += [
            {
                "title": f"{label}: {text}, {len(subnet.blocks)} blocks, "
                f"{subnet.mean_bits:.2f} bits on average",
                "blocks": [
                    [block.stage, *(getattr(block, name) for name in FIELDS)]
                    for block in subnet.blocks
                ],
            }
            for text, subnet in zip(texts, subnets, strict=True)
        ]
        across = [subnet.mean_bits for subnet in subnets] if single else points[:, column]
        colour, symbol, _ = _look(number)
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": label,
                "x": _rounded(np.asarray(across)), "y": _rounded(points[:, 0]), "text": texts,
                "customdata": list(range(first, len(networks))),
                "hovertemplate": f"{label}<br>%{{text}}<extra></extra>",
                "marker": {"color": colour, "symbol": symbol, "size": 6},
            }
        )  # fmt: skip
    x = {"title": {"text": "mean bits"}} if single else _axis(problem, column)
    roles = problem.space.spec.bits.values()
    bits = sorted({width for role in roles for width in role})
    layout = _layout(x, _axis(problem, 0))
    return {"traces": traces, "layout": layout, "networks": networks, "bits": bits}


def _text(problem: ProblemResults, row: NDArray[np.float64]) -> str:
    parts = zip(problem.objectives, row, problem.units, strict=True)
    return ", ".join(f"{name} {value:.4g} {unit}" for name, value, unit in parts)


def curves(problem: ProblemResults) -> Plot:
    """Hypervolume against evaluations: medians, and quartiles as bands."""
    traces: list[Plot] = []
    for number, label in enumerate(problem.labels):
        marks, found = problem.curves(label)
        if not len(found):
            continue
        low, middle, high = np.quantile(found, (0.25, 0.5, 0.75), axis=0)
        colour, _, dash = _look(number)
        x = marks.tolist()
        band = {
            "type": "scatter", "mode": "lines", "legendgroup": label, "showlegend": False,
            "line": {"width": 0, "color": colour}, "hoverinfo": "skip",
        }  # fmt: skip
        if len(found) > 1:
            traces.append({**band, "x": x, "y": _rounded(low)})
            filled = {"fill": "tonexty", "fillcolor": _clear(colour)}
            traces.append({**band, **filled, "x": x, "y": _rounded(high)})
        traces.append(
            {
                "type": "scatter", "mode": "lines", "name": label, "legendgroup": label,
                "x": x, "y": _rounded(middle), "line": {"color": colour, "dash": dash, "width": 2},
                "hovertemplate": f"{label}<br>%{{x}} evaluations: %{{y:.4f}}<extra></extra>",
            }
        )  # fmt: skip
    x_axis = {"title": {"text": "evaluations"}, "type": "log"}
    return {"traces": traces, "layout": _layout(x_axis, {"title": {"text": "hypervolume"}})}


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
                    "type": "scatter", "mode": "lines", "name": label, "legendgroup": label,
                    "showlegend": middle, "x": _rounded(points[:, 1]), "y": _rounded(points[:, 0]),
                    "line": {
                        "shape": "hv", "color": colour, "width": 2 if middle else 0.7,
                        "dash": dash if middle else "dot",
                    },
                    "hovertemplate": f"{label}, {level} % of the runs<extra></extra>",
                    "visible": True if number < _SHOWN_AT_FIRST else "legendonly",
                }
            )  # fmt: skip
    return {"traces": traces, "layout": _layout(_axis(problem, 1), _axis(problem, 0))}


_SHOWN_AT_FIRST = 8
"""Surfaces that are shown before the legend is used."""


def as_json(plot: Plot) -> str:
    """JSON that may stand in a page: nothing in it ends a script."""
    return json.dumps(plot, separators=(",", ":")).replace("<", "\\u003c")

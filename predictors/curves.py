"""Learning curves as figures with bands, as CSV and as a picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apq_moo.files import write_text
from apq_moo.pictures import picture_type, save_picture
from apq_moo.predictors.compare import Row


def mean_and_band(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % confidence interval by Student's t; NaN for one value.

    >>> mean_and_band([1.0, 2.0, 3.0])[0]
    2.0
    >>> round(mean_and_band([1.0, 2.0, 3.0])[1], 3)
    2.484
    """
    from scipy import stats

    n = len(values)
    if n < 2:
        return float(np.mean(values)), float("nan")
    half = float(stats.t.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return float(np.mean(values)), half


def draw_curves(path: str | Path, rows: Sequence[Row], *, ceiling: float | None = None) -> None:
    """Draw pairwise accuracy against the number of mixed-precision samples, with 95 % bands.

    Where the labels of other images are known, a second panel has them.

    Args:
        path: a PNG, SVG or PDF file.
        rows: what :func:`compare` gave.
        ceiling: pairwise accuracy of a perfect predictor by the labels of other images.

    Raises:
        UserError: it cannot be written, or is of another type.
    """
    from matplotlib.figure import Figure

    picture_type(path)
    panels = ["pairwise_accuracy"]
    if any(math.isfinite(row.pairwise_accuracy_test) for row in rows):
        panels.append("pairwise_accuracy_test")
    figure = Figure(figsize=(6.4 if len(panels) == 1 else 11, 4.4), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        _draw_panel(axis, rows, panel)
    axes[0].set_ylabel("pairwise accuracy on held-out networks")
    if len(panels) > 1:
        axes[0].set_title("labels of the images of the fit")
        axes[1].set_title("labels of other images")
        if ceiling is not None:
            axes[1].axhline(ceiling, color="black", linestyle="--", linewidth=1, label="ceiling")
    axes[-1].legend(loc="lower right")
    save_picture(figure, path)


def _draw_panel(axis: Any, rows: Sequence[Row], panel: str) -> None:
    for number, name in enumerate(dict.fromkeys(row.predictor for row in rows)):
        of = [row for row in rows if row.predictor == name]
        sizes = sorted({row.n_mp for row in of})
        points = [
            mean_and_band([getattr(row, panel) for row in of if row.n_mp == size]) for size in sizes
        ]
        means = np.array([mean for mean, _ in points])
        bands = np.nan_to_num([band for _, band in points])
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        axis.plot(sizes, means, color=colour, marker=marker, markersize=4, label=name)
        axis.fill_between(sizes, means - bands, means + bands, color=colour, alpha=0.2, lw=0)
    axis.set_xscale("log")
    ticks = sorted({row.n_mp for row in rows})
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel("mixed-precision samples")
    axis.grid(alpha=0.3)


_COLOURS = (
    *("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73", "#44AA77", "#CC79A7"),
    *("#000000", "#999999", "#882255", "#332288"),
)
_MARKERS = "os^vDPX*<>d"


def write_curves(path: str | Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV, their fields in the order of :class:`Row`; what is not known is empty.

    Raises:
        UserError: it cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(vars(rows[0])), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {name: "" if value != value else value for name, value in vars(row).items()}  # noqa: PLR0124 - NaN
        )
    write_text(path, text.getvalue())

"""What a run shows: the columns of its front, a table for the terminal, a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from apq_moo.hardware import QUANTITIES, minimised
from apq_moo.pictures import save_picture
from apq_moo.problems import AccuracySource, APQProblem
from apq_moo.problems.evaluated import Evaluated
from apq_moo.space import Space, Subnet
from apq_moo.space.spec import FIELDS
from apq_moo.study.folder import MEASURED, ON_FRONT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

_MAX_ROWS = 20


def front_columns(
    space: Space,
    objectives: Sequence[str],
    front: Evaluated,
    surrogate: AccuracySource | None = None,
) -> dict[str, list[Any]]:
    """Columns of ``front.csv`` in natural units, without verification.

    With a surrogate, ``acc_surrogate`` is what it predicts.
    """
    columns: dict[str, list[Any]] = {}
    for name, column in zip(objectives, minimised(objectives, front.F).T, strict=True):
        columns[name] = column.tolist()
    if surrogate is not None:
        columns["acc_surrogate"] = surrogate.predict(front.genotypes).tolist()
    columns["subnet"] = [json.dumps(subnet.to_dict()) for subnet in space.decode(front.genotypes)]
    return columns


def not_offered(problem: APQProblem) -> str:
    """The options that no feasible configuration of any block has, by field; or nothing.

    Returns:
        Such as ``w_pw 3, 4; a_pw 3, 4``.
    """
    space = problem.space
    texts = []
    for f, field in enumerate(FIELDS):
        offered: set[int] = set()
        usable: set[int] = set()
        for b, mask in enumerate(problem.feasible):
            options = space.plans[b].options[field]
            offered.update(options)
            genes = np.unique(space.block_genes(b, np.flatnonzero(mask))[:, f])
            usable.update(options[gene] for gene in genes)
        lost = sorted(offered - usable)
        if lost:
            texts.append(f"{field} {', '.join(map(str, lost))}")
    return "; ".join(texts)


def shown_rows(n: int) -> list[int]:
    """Rows of a front of ``n`` that a terminal shows, evenly spread."""
    return sorted(set(np.linspace(0, n - 1, min(n, _MAX_ROWS)).round().astype(int).tolist()))


def front_table(
    columns: dict[str, list[Any]],
    objectives: Sequence[str],
    title: str,
    rows: Sequence[int] | None = None,
) -> Table:
    """The front as a rich table, its rows numbered as in ``front.csv``, from 0.

    Args:
        columns: what ``front.csv`` holds; subnets as JSON text or dictionaries.
        objectives: names of the objectives, first columns of the table.
        title: above it.
        rows: which to show, with their measured accuracies; by default some of all, without.
    """
    from rich.table import Table

    table = Table(title=title)
    table.add_column("row", justify="right")
    for name in objectives:
        table.add_column(f"{name} ({QUANTITIES.get(name).unit})", justify="right")
    extra = [name for name in MEASURED if rows is not None and name in columns]
    for name in (*extra, "depth", "mean bits"):
        table.add_column(name, justify="right")
    for i in shown_rows(len(columns["subnet"])) if rows is None else rows:
        cells = [
            f"{columns[name][i]:.2f}" if name == "acc" else f"{columns[name][i]:.4g}"
            for name in objectives
        ]
        cells += ["" if columns[name][i] is None else f"{columns[name][i]:.2f}" for name in extra]
        subnet = columns["subnet"][i]
        network = Subnet.from_dict(json.loads(subnet) if isinstance(subnet, str) else subnet)
        table.add_row(str(i), *cells, str(len(network.blocks)), f"{network.mean_bits:.1f}")
    return table


def draw_front(
    path: str | Path, columns: dict[str, list[Any]], objectives: Sequence[str], title: str
) -> None:
    """Draw the front as a PNG: the first objective against each of the others.

    A single objective is drawn against the mean bits. Members of the measured front show their
    measured accuracies too, other measured ones that by which they fell behind.

    Raises:
        UserError: it cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    main = "acc" if "acc" in objectives else objectives[0]
    bits = [Subnet.from_dict(json.loads(text)).mean_bits for text in columns["subnet"]]
    panels = [name for name in objectives if name != main]
    data = {**columns, "mean bits": bits}
    figure = Figure(figsize=(5.6 * max(1, len(panels)), 4.2), layout="constrained")
    axes = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
    with mpl.rc_context({"font.size": 10}):
        for axis, name in zip(axes, panels or ["mean bits"], strict=True):
            points = axis.scatter(
                data[name], data[main], c=bits, cmap="viridis", s=16, label="predicted"
            )
            if main == "acc":
                _draw_measured(axis, columns, data[name])
            unit = f" ({QUANTITIES.get(name).unit})" if name in QUANTITIES else ""
            axis.set_xlabel(f"{name}{unit}")
            axis.set_ylabel(
                f"{'accuracy' if main == 'acc' else main} ({QUANTITIES.get(main).unit})"
            )
            axis.locator_params(axis="x", nbins=6)
            axis.grid(alpha=0.3)
            axis.legend(loc="lower right")
        figure.colorbar(points, ax=axes[-1], label="mean bits")
    figure.suptitle(title)
    save_picture(figure, path)


def _draw_measured(axis: Axes, columns: dict[str, list[Any]], at: Sequence[float]) -> None:
    """Measured accuracies at given abscissae: of members of the measured front, and the others."""
    validation, test = MEASURED
    measured = [i for i, value in enumerate(columns.get(test, [])) if value is not None]
    chosen = [i for i in measured if columns.get(ON_FRONT, columns[test])[i]]
    others = [i for i in measured if i not in chosen]
    black: dict[str, Any] = {"facecolors": "none", "edgecolors": "black"}
    for rows, column, label, look in (
        (others, validation, "measured, fell behind", {"marker": ".", "c": "0.6"}),
        (chosen, validation, "measured front, validation", {"marker": "o", **black}),
        (chosen, test, "measured front, test", {"marker": "x", "c": "tab:red"}),
    ):
        if rows:
            values = [columns[column][i] for i in rows]
            axis.scatter([at[i] for i in rows], values, s=36, label=label, **look)

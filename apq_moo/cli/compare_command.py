"""The command ``compare``: scores of a benchmark beside published ones."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from apq_moo.cli.app import app, out, say, say_json
from apq_moo.cli.options import JsonOption

if TYPE_CHECKING:
    from apq_moo.benchmarks.compare.published import Held


@app.command()
def compare(
    folder: Annotated[Path, typer.Argument(metavar="BENCH", help="A benchmark's folder.")],
    scores: Annotated[
        Path | None,
        typer.Option(
            "--with",
            help="Scores of another benchmark, by `apq-moo table BENCH -o scores.csv`.",
            show_default="the published ones",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Hold a benchmark's scores against published ones, or those of another."""
    from apq_moo.benchmarks.compare.published import hold

    rows = hold(folder, scores)
    if as_json:
        say_json([asdict(row) for row in rows])
        return
    for problem in dict.fromkeys(row.problem for row in rows):
        out.print(_table(problem, [row for row in rows if row.problem == problem]))
    say(
        "Median hypervolumes, on one scale. p and A12: against the algorithm of that name there; "
        "better, worse: than how many there, significantly, by Holm's correction."
    )


def _table(problem: str, rows: list[Held]) -> Table:
    table = Table(title=problem, title_justify="left", box=SIMPLE)
    table.add_column("algorithm", no_wrap=True)
    for column in ("hv", "there", "p", "A12", "place", "better", "worse", "seeds"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.algorithm,
            f"{row.hypervolume:.4f}",
            "" if row.same is None else f"{row.same:.4f}",
            "" if row.p is None else f"{row.p:.2g}",
            "" if row.a12 is None else f"{row.a12:.2f}",
            f"{row.place}",
            f"{len(row.better_than)}",
            f"{len(row.worse_than)}",
            f"{row.seeds}",
        )
    how = "by pairs of seeds" if rows[0].paired else "unpaired: other seeds"
    table.caption = f"beside {rows[0].others} algorithms, {how}"
    return table

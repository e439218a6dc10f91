"""Commands about accuracy predictors: ``predictor fit`` and ``predictor compare``."""

from __future__ import annotations

from math import isfinite, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from apq_moo.cli.app import app, check_output, out, progress_bar
from apq_moo.cli.options import SeedOption, SpaceOption
from apq_moo.cli.stopping import going_on
from apq_moo.defaults import DEFAULT_SPACE, MAX_JOBS
from apq_moo.errors import UserError
from apq_moo.texts import by_commas

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apq_moo.arrays import FloatArray
    from apq_moo.predictors import Row
    from apq_moo.space import Space

predictor_app = typer.Typer(no_args_is_help=True, help="Fit and compare accuracy predictors.")
app.add_typer(predictor_app, name="predictor")

SamplesOption = Annotated[
    Path | None, typer.Option("--samples", help="A sample table; default: shipped.")
]


def _table(space: str, given: Path | None) -> Path:
    from apq_moo.data.assets import SAMPLES, find_assets
    from apq_moo.space import load_space

    return given or find_assets(load_space(space)).path(SAMPLES)


@predictor_app.command("fit")
def predictor_fit(
    name: Annotated[
        str, typer.Argument(help="Such as mlp, or with parameters xgboost:target=log-error.")
    ],
    file: Annotated[Path, typer.Option("--out", "-o", help="Where the predictor goes.")],
    space: SpaceOption = DEFAULT_SPACE,
    samples: SamplesOption = None,
    seed: SeedOption = 0,
) -> None:
    """Fit a predictor and show how it ranks held-out networks."""
    import numpy as np

    from apq_moo.data.samples import load_samples
    from apq_moo.predictors import create_predictor, fit_to_samples
    from apq_moo.predictors.metrics import kendall_tau, pairwise_accuracy, rmse
    from apq_moo.space import load_space

    loaded = load_space(space)
    create_predictor(name, loaded)
    check_output("weights", file)
    path = _table(space, samples)
    predictor = fit_to_samples(name, loaded, path, seed=seed)
    predictor.save(file)
    table = load_samples(path, loaded)
    (X, y), other = table.rows("mp_held_out"), table.test_accuracies("mp_held_out")
    line = f"{name}: {file}"
    if len(y) > 2:
        guess = predictor.predict(X)
        line += (
            f"; on {len(y)} held-out networks Kendall tau {kendall_tau(y, guess):.3f}, pairwise "
            f"accuracy {pairwise_accuracy(y, guess):.3f}, RMSE {rmse(y, guess):.2f} points"
        )
        known = np.isfinite(other)
        if known.sum() > 2:
            line += f"; by the test images {pairwise_accuracy(other[known], guess[known]):.3f}"
    out.print(line, markup=False, soft_wrap=True)


@predictor_app.command("compare")
def predictor_compare(
    space: SpaceOption = DEFAULT_SPACE,
    samples: SamplesOption = None,
    names: Annotated[
        str,
        typer.Option(
            help="Predictors, by commas; default: all. With parameters: xgboost:target=log-error."
        ),
    ] = "",
    sizes: Annotated[
        str, typer.Option(help="Numbers of mixed-precision samples, by commas.")
    ] = "100,500,1500",
    seeds: Annotated[int, typer.Option(min=1, max=10_000, help="Repetitions.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, max=MAX_JOBS, help="Processes.")] = 1,
    file: Annotated[Path | None, typer.Option("--out", "-o", help="All figures, as CSV.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the curves: a PNG, SVG or PDF file.")
    ] = None,
) -> None:
    """Compare predictors against the number of mixed-precision samples."""
    import numpy as np

    from apq_moo.data.samples import load_samples
    from apq_moo.predictors import PREDICTORS, compare, create_predictor
    from apq_moo.predictors.curves import draw_curves, write_curves
    from apq_moo.space import load_space

    loaded = load_space(space)
    chosen = by_commas(names) or tuple(name for name, _ in PREDICTORS.usable())
    for name in chosen:
        create_predictor(name, loaded)
    try:
        counts = sorted({int(text) for text in sizes.split(",")})
    except ValueError:
        raise UserError(f"--sizes {sizes!r}: write numbers by commas, such as 100,500") from None
    check_output("figures", file)
    check_output("picture", picture)
    table = load_samples(_table(space, samples), loaded)
    (X, y), other = table.rows("mp_held_out"), table.test_accuracies("mp_held_out")
    k = min(10, len(y))
    with going_on(lambda: "nothing is kept"), progress_bar() as progress:
        task = progress.add_task("fits", total=len(chosen) * seeds)
        rows = compare(
            loaded, chosen, table.rows("fp"), table.rows("mp"), (X, y), counts, range(seeds),
            test_accuracies=other, k=k, jobs=jobs,
            callback=lambda done, _: progress.update(task, completed=done),
        )  # fmt: skip
    out.print(_curves_table(rows, len(y), seeds))
    known = np.isfinite(other)
    rho = "" if known.any() else " rho: Spearman's;"
    out.print(
        f"MP: mixed-precision samples; tau: Kendall's;{rho} pairs: share of pairs in the right "
        f"order; regret: points lost by taking the best of the predicted top {k}"
    )
    ceiling = None
    if known.any():
        out.print(
            "Test pairs: by labels of the test images; the noise of the others is in what was "
            "fitted to, and learnt"
        )
        ceiling = _ceiling(loaded, other[known]) if samples is None else None
    if file is not None:
        write_curves(file, rows)
    if picture is not None:
        draw_curves(picture, rows, ceiling=ceiling)


def _curves_table(rows: Sequence[Row], n_held_out: int, seeds: int) -> Table:
    from apq_moo.predictors.curves import mean_and_band

    repeats = f"means of {seeds} and 95 % bands" if seeds > 1 else "one repetition"
    shown = Table(title=f"{n_held_out} held-out networks, {repeats}", box=SIMPLE)
    shown.add_column("predictor", overflow="fold", min_width=10)
    tested = any(isfinite(row.pairwise_accuracy_test) for row in rows)
    third = {"test pairs": "pairwise_accuracy_test"} if tested else {"rho": "spearman"}
    columns = {"tau": "kendall_tau", "pairs": "pairwise_accuracy", **third}
    columns |= {"RMSE": "rmse", "regret": "top_k_regret"}
    for column in ("MP", *columns, "fit s"):
        shown.add_column(column, justify="right", min_width=6 if column in columns else 4)
    for name, n in dict.fromkeys((row.predictor, row.n_mp) for row in rows):
        of = [row for row in rows if (row.predictor, row.n_mp) == (name, n)]
        cells = []
        for field in columns.values():
            mean, band = mean_and_band([getattr(row, field) for row in of])
            cells.append(f"{mean:.3f}" if isnan(band) else f"{mean:.3f} ±{band:.3f}")
        seconds = sum(row.fit_seconds for row in of) / len(of)
        shown.add_row(name, str(n), *cells, f"{seconds:.1f}")
    return shown


def _ceiling(space: Space, accuracies: FloatArray) -> float | None:
    """Say and return what a perfect predictor scores by test images, if their noise is known.

    Args:
        space: of shipped samples.
        accuracies: of held-out networks on the test images.
    """
    from apq_moo.data.assets import find_assets
    from apq_moo.predictors.metrics import pairwise_ceiling

    measured = find_assets(space).manifest.get("supernet", {})
    noise = measured.get("noise", {}).get("mp")
    if noise is not None and (images := measured.get("images")):
        noise *= (images["validation"] / images["test"]) ** 0.5
    spread = float(accuracies.std())
    if noise is None or spread <= noise:
        return None
    ceiling = pairwise_ceiling(noise, (spread**2 - noise**2) ** 0.5)
    out.print(
        f"By them a perfect predictor would reach a pairwise accuracy of {ceiling:.3f}: accuracies "
        f"spread by {spread:.2f} points and are known to {noise:.2f}"
    )
    return ceiling

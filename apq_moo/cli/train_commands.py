"""Commands that make assets: ``supernet``, ``samples``, ``predictor`` and ``pipeline``."""

from __future__ import annotations

from math import isfinite, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from apq_moo.cli.app import app, check_output, err, out, progress_bar, say
from apq_moo.cli.options import (
    DeviceOption,
    LimitOption,
    MissingOption,
    OnOption,
    WarmupOption,
    measuring_device,
    parse_limits,
)
from apq_moo.cli.stopping import going_on
from apq_moo.defaults import DEFAULT_SPACE, MAX_JOBS, MAX_SEED
from apq_moo.errors import UserError
from apq_moo.pipeline import Listener, PipelineConfig, run
from apq_moo.study.config import parse_objectives
from apq_moo.texts import by_commas

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apq_moo.arrays import FloatArray, IntArray
    from apq_moo.data.samples import SampleTable
    from apq_moo.data.tables import AccuracyTable
    from apq_moo.predictors import Row
    from apq_moo.space import Space

supernet_app = typer.Typer(no_args_is_help=True, help="Train and evaluate a supernet.")
samples_app = typer.Typer(no_args_is_help=True, help="Collect accuracies of random subnets.")
predictor_app = typer.Typer(no_args_is_help=True, help="Fit and compare accuracy predictors.")
app.add_typer(supernet_app, name="supernet")
app.add_typer(samples_app, name="samples")
app.add_typer(predictor_app, name="predictor")

SpaceOption = Annotated[str, typer.Option(help="A preset or a TOML file.")]
DrawOption = Annotated[
    str, typer.Option(help="How random subnets are drawn: `uniform`, or `sizes`: of all sizes.")
]
SeedOption = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of everything random.")]
CheckpointOption = Annotated[
    Path | None, typer.Option("--supernet", help="A trained supernet; default: shipped.")
]
SamplesOption = Annotated[
    Path | None, typer.Option("--samples", help="A sample table; default: shipped.")
]

TrainOnOption = Annotated[
    str, typer.Option("--on", help="Where torch trains: cpu, cuda or cuda:1.")
]


def _checkpoint(space: Space, given: Path | None) -> Path:
    from apq_moo.data.assets import SUPERNET, find_assets
    from apq_moo.space import superspace

    if space.spec.part_of:
        say(
            f"space {space.name!r} is part of {space.spec.part_of!r}: its networks are measured on "
            "that supernet",
            err,
        )
    return given or find_assets(superspace(space)).path(SUPERNET)


def _table(space: str, given: Path | None) -> Path:
    from apq_moo.data.assets import SAMPLES, find_assets
    from apq_moo.space import load_space

    return given or find_assets(load_space(space)).path(SAMPLES)


@supernet_app.command("train")
def supernet_train(
    file: Annotated[Path, typer.Option("--out", "-o", help="Where the supernet goes.")],
    space: SpaceOption = DEFAULT_SPACE,
    steps: Annotated[int, typer.Option(min=1, max=100_000_000, help="Optimiser steps.")] = 3600,
    warmup_steps: WarmupOption = None,
    batch_size: Annotated[int, typer.Option(min=1, max=100_000, help="Images of a step.")] = 128,
    random_subnets: Annotated[
        int, typer.Option(min=0, max=10_000, help="Random subnets of a step.")
    ] = 2,
    draw: DrawOption = "uniform",
    learning_rate: Annotated[float, typer.Option(min=1e-9, help="Its peak.")] = 3e-3,
    ramp_steps: Annotated[
        int, typer.Option(min=0, max=100_000_000, help="Steps until it is reached.")
    ] = 100,
    weight_decay: Annotated[float, typer.Option(min=0, help="AdamW's.")] = 1e-4,
    label_smoothing: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of the labels spread over all classes.")
    ] = 0.0,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="Progressive shrinking, not the sandwich rule alone.")
    ] = False,
    quantised_steps: Annotated[
        int,
        typer.Option(
            min=0, max=100_000_000, help="Last steps, in which random bits are trained too."
        ),
    ] = 0,
    distillation: Annotated[
        str,
        typer.Option(
            help="What the others learn from the largest: `kl`, or `alpha`: the larger of two "
            "alpha-divergences."
        ),
    ] = "kl",
    sampling: Annotated[
        str,
        typer.Option(
            help="Which random subnets are trained: `random`, or of --candidates of like size the "
            "one with the lowest (`best-up`) or highest (`worst-up`) losses of its options so far."
        ),
    ] = "random",
    candidates: Annotated[
        int, typer.Option(min=1, max=256, help="Of `best-up` and `worst-up`.")
    ] = 3,
    bit_phases: Annotated[
        bool,
        typer.Option(
            "--bit-phases", help="Draw random bits from the widest first, then from more."
        ),
    ] = False,
    bit_sandwich: Annotated[
        bool,
        typer.Option(
            "--bit-sandwich", help="Train the largest and the smallest at their fewest bits too."
        ),
    ] = False,
    momentum_groups: Annotated[
        bool,
        typer.Option("--momentum-groups", help="Moments of their own for the smaller half."),
    ] = False,
    augmentation: Annotated[
        str, typer.Option(help="Beyond the image set's `own`: `erasing` of random rectangles.")
    ] = "own",
    average_decay: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share that the weights' moving average keeps in a step; 0: none."
        ),
    ] = 0.0,
    split: Annotated[
        str, typer.Option(help="What of a step several processes share: its `images` or `subnets`.")
    ] = "images",
    on: TrainOnOption = "cpu",
    seed: SeedOption = 0,
) -> None:
    """Train a supernet; repeat the command to continue an interrupted training."""
    from apq_moo.data import images_of
    from apq_moo.pipeline.stages import train
    from apq_moo.space import load_space
    from apq_moo.supernet.distributed import rank_of_environment
    from apq_moo.supernet.training import TrainConfig

    check_output("weights", file)
    config = TrainConfig(
        steps=steps,
        warmup_steps=warmup_steps,
        batch_size=batch_size,
        random_subnets=random_subnets,
        draw=draw,
        learning_rate=learning_rate,
        ramp_steps=ramp_steps,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        shrink=shrink,
        quantised_steps=quantised_steps,
        distillation=distillation,
        sampling=sampling,
        candidates=candidates,
        bit_phases=bit_phases,
        bit_sandwich=bit_sandwich,
        momentum_groups=momentum_groups,
        augmentation=augmentation,
        average_decay=average_decay,
        seed=seed,
    )
    loaded = load_space(space)
    images = images_of(loaded)
    with going_on(lambda: _steps_kept(file, steps)), progress_bar() as bar:
        task = bar.add_task("training", total=steps)
        seconds = train(
            loaded, images, config, file, lambda p: bar.update(task, completed=p.step),
            on=on, split=split,
        )  # fmt: skip
    if rank_of_environment() == 0:
        done = f"trained {steps} steps, the first {config.warmup} as a warm-up"
        out.print(f"{done}, in {seconds:.0f} s: {file}", soft_wrap=True)


def _steps_kept(file: Path, steps: int) -> str:
    from apq_moo.supernet.checkpoint import load_tensors
    from apq_moo.supernet.training import FORMAT

    unfinished = file.with_suffix(".training")
    if not unfinished.is_file():
        return "nothing is kept yet"
    step = load_tensors(unfinished, FORMAT)[1]["step"]
    return f"{step:,} of {steps:,} steps are kept in {unfinished}: repeat the command to go on"


@supernet_app.command("eval")
def supernet_eval(
    space: SpaceOption = DEFAULT_SPACE,
    supernet: CheckpointOption = None,
    random: Annotated[int, typer.Option(min=2, max=1_000_000, help="Random subnets.")] = 200,
    draw: DrawOption = "uniform",
    on: OnOption = None,
    seed: SeedOption = 0,
) -> None:
    """Show how well a supernet tells its subnets apart."""
    from apq_moo.data import images_of
    from apq_moo.pipeline.stages import evaluate
    from apq_moo.space import load_space

    loaded = load_space(space)
    path = _checkpoint(loaded, supernet)
    with progress_bar() as bar:
        task = bar.add_task("measuring", total=2 * random)
        found = evaluate(
            loaded,
            path,
            images_of(loaded),
            n_random=random,
            draw=draw,
            seed=seed,
            on=measuring_device(on),
            callback=lambda done, _total: bar.update(task, completed=done),
        )
    table = Table(title="accuracy (%)")
    for column in ("subnet", "precision", "validation", "test", "clean test"):
        table.add_column(column)
    for name, kinds in found.named.items():
        for kind, split in kinds.items():
            cells = [f"{split[key]:.2f}" for key in ("validation", "test", "test_clean")]
            table.add_row(name, {"fp": "full", "mp": "its bits"}[kind], *cells)
    out.print(table)
    for kind, label in (("fp", "full precision"), ("mp", "random bits")):
        out.print(
            f"{random} random subnets, {label}: mean {found.mean[kind]:.2f} %, spread "
            f"{found.spread[kind]:.2f} points, noise {found.total_noise(kind):.2f} (images "
            f"{found.noise[kind]:.2f}, calibration {found.calibration_noise[kind]:.2f}), Kendall "
            f"tau validation-test {found.tau[kind]:.3f}",
            soft_wrap=True,
        )
    if found.of_few_images:
        say(found.of_few_images)


@supernet_app.command("measure")
def supernet_measure(
    file: Annotated[
        Path, typer.Argument(help="A table of networks, such as `apq-moo audit --choose` writes.")
    ],
    space: SpaceOption = DEFAULT_SPACE,
    supernet: CheckpointOption = None,
    on: OnOption = None,
) -> None:
    """Measure the networks of a table that are not measured yet, and keep the results in it."""
    from apq_moo.data.tables import load_table
    from apq_moo.space import load_space

    check_output("networks", file, overwrite=True)
    loaded = load_space(space)
    _measure_all(loaded, load_table(file, loaded).X, file, _checkpoint(loaded, supernet), on)


def _measure_all(space: Space, X: IntArray, file: Path, supernet: Path, on: str | None) -> None:
    """Measure networks, or what is left of them, into a table."""
    from apq_moo.data import images_of
    from apq_moo.data.tables import load_table
    from apq_moo.supernet.distributed import rank_of_environment
    from apq_moo.supernet.tabulate import tabulate

    with going_on(lambda: _kept(file, space, load_table)), progress_bar() as bar:
        task = bar.add_task("measuring", total=len(X))
        table = tabulate(
            space, supernet, images_of(space), X, file, on=measuring_device(on),
            callback=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    if rank_of_environment() == 0:
        seconds = table.provenance["seconds"]
        out.print(f"{len(X):,} networks, {seconds:.0f} s of measuring: {file}", soft_wrap=True)


def _kept(
    file: Path, space: Space, load: Callable[[Path, Space], SampleTable | AccuracyTable]
) -> str:
    if not file.is_file():
        return "nothing is kept yet"
    table = load(file, space)
    n = len(table.X)
    return (
        f"{n - len(table.unmeasured()):,} of {n:,} networks are kept in {file}: "
        "repeat the command to go on"
    )


@samples_app.command("collect")
def samples_collect(
    file: Annotated[Path, typer.Option("--out", "-o", help="Where the table goes.")],
    space: SpaceOption = DEFAULT_SPACE,
    supernet: CheckpointOption = None,
    fp: Annotated[int, typer.Option(min=0, max=10_000_000, help="Full-precision samples.")] = 3000,
    mp: Annotated[int, typer.Option(min=0, max=10_000_000, help="Mixed-precision samples.")] = 1500,
    held_out: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Further samples of each to judge by.")
    ] = 1000,
    finetune_steps: Annotated[
        int,
        typer.Option(
            min=0, max=1_000_000, help="Quantisation-aware steps of each mixed-precision sample."
        ),
    ] = 0,
    draw: DrawOption = "uniform",
    jobs: Annotated[int, typer.Option(min=1, max=MAX_JOBS, help="Processes.")] = 2,
    on: OnOption = None,
    seed: SeedOption = 0,
) -> None:
    """Measure random subnets; repeat the command to continue an interrupted collection."""
    from apq_moo.data import images_of, load_images
    from apq_moo.data.noise import few_images
    from apq_moo.data.samples import load_samples
    from apq_moo.space import load_space
    from apq_moo.supernet.distributed import rank_of_environment
    from apq_moo.supernet.sampling import SampleConfig, collect

    check_output("networks", file, overwrite=True)
    config = SampleConfig(fp, mp, held_out, held_out, finetune_steps, seed, draw)
    loaded = load_space(space)
    path = _checkpoint(loaded, supernet)
    with going_on(lambda: _kept(file, loaded, load_samples)), progress_bar() as bar:
        task = bar.add_task("measuring", total=fp + mp + 2 * held_out)
        table = collect(
            loaded,
            path,
            images_of(loaded),
            config,
            file,
            jobs=jobs,
            on=measuring_device(on),
            callback=lambda done, _total: bar.update(task, completed=done),
        )
    if rank_of_environment() == 0:
        counts = ", ".join(f"{n} {name}" for name, n in table.counts().items())
        out.print(f"{counts}: {file}", soft_wrap=True)
        n = len(load_images(images_of(loaded)).validation)
        if len(table.X) and (line := few_images({"validation": (n, float(table.acc.mean()))})):
            say(line)


@samples_app.command("exhaust")
def samples_exhaust(
    file: Annotated[Path, typer.Option("--out", "-o", help="Where the table goes.")],
    space: Annotated[str, typer.Option(help="A preset or a TOML file.")] = "tiny",
    supernet: CheckpointOption = None,
    on: OnOption = None,
) -> None:
    """Measure every network of a small space; repeat the command to continue."""
    from apq_moo.space import all_networks, load_space

    check_output("networks", file, overwrite=True)
    loaded = load_space(space)
    _measure_all(loaded, all_networks(loaded), file, _checkpoint(loaded, supernet), on)


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


_PIPELINE = PipelineConfig("")


@app.command()
def pipeline(
    folder: Annotated[Path, typer.Option("--out", help="Where everything goes.")],
    space: SpaceOption = _PIPELINE.space,
    steps: Annotated[
        int, typer.Option(min=1, max=100_000_000, help="Training steps.")
    ] = _PIPELINE.steps,
    warmup_steps: WarmupOption = None,
    fp: Annotated[
        int, typer.Option(min=2, max=10_000_000, help="Full-precision samples.")
    ] = _PIPELINE.fp,
    mp: Annotated[
        int, typer.Option(min=2, max=10_000_000, help="Mixed-precision samples.")
    ] = _PIPELINE.mp,
    held_out: Annotated[
        int, typer.Option(min=3, max=1_000_000, help="Held-out samples of each.")
    ] = _PIPELINE.held_out,
    finetune_steps: Annotated[
        int,
        typer.Option(
            min=0, max=1_000_000, help="Quantisation-aware steps of each mixed-precision sample."
        ),
    ] = _PIPELINE.finetune_steps,
    draw: Annotated[
        str, typer.Option(help="How training draws subnets: `uniform`, or `sizes`: of all sizes.")
    ] = _PIPELINE.draw,
    algo: Annotated[str, typer.Option(help="Of the search.")] = _PIPELINE.algo,
    objectives: Annotated[str, typer.Option(help="Of the search.")] = ",".join(
        _PIPELINE.objectives
    ),
    device: DeviceOption = _PIPELINE.device,
    missing: MissingOption = _PIPELINE.missing,
    limit: LimitOption = None,
    budget: Annotated[int, typer.Option(help="Evaluations of the search.")] = _PIPELINE.budget,
    verify: Annotated[
        int,
        typer.Option(metavar="[K]", min=1, help="Measure K front members (10) on the supernet."),
    ] = _PIPELINE.verify,
    jobs: Annotated[
        int, typer.Option(min=1, max=MAX_JOBS, help="Processes that measure samples.")
    ] = _PIPELINE.jobs,
    seed: SeedOption = _PIPELINE.seed,
) -> None:
    """From raw images to a verified front; repeat the command to continue after an interruption."""
    from apq_moo.cli.run_commands import carry_out
    from apq_moo.data.assets import SUPERNET

    config = PipelineConfig(
        folder=folder,
        space=space,
        steps=steps,
        warmup_steps=warmup_steps,
        fp=fp,
        mp=mp,
        held_out=held_out,
        finetune_steps=finetune_steps,
        draw=draw,
        algo=algo,
        objectives=parse_objectives(objectives),
        device=device,
        missing=missing,
        limits=parse_limits(limit or ()),
        budget=budget,
        verify=verify,
        jobs=jobs,
        seed=seed,
    )

    def kept() -> str:
        if not (supernet := folder / SUPERNET).is_file():
            return _steps_kept(supernet, steps)
        return (
            f"finished stages, samples and evaluations are kept in {folder}: repeat the command to "
            "go on"
        )

    with going_on(kept), progress_bar() as bar:
        task = bar.add_task("")

        def begin(name: str) -> None:
            say(name, err)
            bar.reset(task, description=name, total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        finished = run(config, Listener(begin, progress, lambda text: say(text, err)))
    carry_out(finished)

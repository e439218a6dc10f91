"""Commands that train and measure subnets: ``supernet``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from apq_moo.cli.app import app, check_output, err, out, progress_bar, say
from apq_moo.cli.options import (
    DrawOption,
    InitOption,
    OnOption,
    SeedOption,
    SkipOption,
    SpaceOption,
    StreamOption,
    WarmupOption,
    measuring_device,
)
from apq_moo.cli.stopping import going_on
from apq_moo.defaults import DEFAULT_SPACE

if TYPE_CHECKING:
    from collections.abc import Callable

    from apq_moo.arrays import IntArray
    from apq_moo.data.samples import SampleTable
    from apq_moo.data.tables import AccuracyTable
    from apq_moo.space import Space

supernet_app = typer.Typer(no_args_is_help=True, help="Train and evaluate a supernet.")
app.add_typer(supernet_app, name="supernet")

CheckpointOption = Annotated[
    Path | None, typer.Option("--supernet", help="A trained supernet; default: shipped.")
]
TrainOnOption = Annotated[
    str, typer.Option("--on", help="Where torch trains: cpu, cuda or cuda:1.")
]


def supernet_of(space: Space, given: Path | None) -> Path:
    """The file of a space's supernet: the given one, or the one that ships."""
    from apq_moo.data.assets import SUPERNET, find_assets
    from apq_moo.space import superspace

    if space.spec.part_of:
        say(
            f"space {space.name!r} is part of {space.spec.part_of!r}: its networks are measured on "
            "that supernet",
            err,
        )
    return given or find_assets(superspace(space)).path(SUPERNET)


@supernet_app.command("train")
def supernet_train(
    file: Annotated[Path, typer.Option("--out", "-o", help="Where the supernet goes.")],
    space: SpaceOption = DEFAULT_SPACE,
    steps: Annotated[int, typer.Option(min=1, max=100_000_000, help="Optimiser steps.")] = 3600,
    warmup_steps: WarmupOption = None,
    batch_size: Annotated[int, typer.Option(min=1, max=100_000, help="Images of a step.")] = 128,
    accumulate: Annotated[
        int,
        typer.Option(
            min=1, max=100_000, help="Parts in which these pass through the network, for memory."
        ),
    ] = 1,
    random_subnets: Annotated[
        int, typer.Option(min=0, max=10_000, help="Random subnets of a step.")
    ] = 2,
    draw: DrawOption = "uniform",
    learning_rate: Annotated[float, typer.Option(min=1e-9, help="Its peak.")] = 3e-3,
    scale_rate: Annotated[
        str,
        typer.Option(help="How it grows with --batch-size: `none`, `linear` or `sqrt`."),
    ] = "none",
    reference_batch: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Images of a step that it is meant for.")
    ] = 256,
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
    precision: Annotated[
        str, typer.Option(help="Of torch's own operators: `float32` or `bf16`.")
    ] = "float32",
    sync_batch_norm: Annotated[
        bool,
        typer.Option(
            "--sync-batch-norm", help="Statistics of all processes' images, not of each share."
        ),
    ] = False,
    init: InitOption = None,
    stream: StreamOption = False,
    skip_unreadable: SkipOption = False,
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
        accumulation=accumulate,
        sync_batch_norm=sync_batch_norm,
        random_subnets=random_subnets,
        draw=draw,
        learning_rate=learning_rate,
        scale_rate=scale_rate,
        reference_batch=reference_batch,
        precision=precision,
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
    images = images_of(loaded, stream=stream, skip_unreadable=skip_unreadable)
    with going_on(lambda: steps_kept(file, steps)), progress_bar() as bar:
        task = bar.add_task("training", total=steps)
        seconds = train(
            loaded, images, config, file, lambda p: bar.update(task, completed=p.step),
            on=on, split=split, init=init,
            began=lambda begun: say(f"beginning with {begun}"),
        )  # fmt: skip
    if rank_of_environment() == 0:
        done = f"trained {steps} steps, the first {config.warmup} as a warm-up"
        out.print(f"{done}, in {seconds:.0f} s: {file}", soft_wrap=True)


def steps_kept(file: Path, steps: int) -> str:
    """How much of a training is kept, and how to go on with it."""
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
    stream: StreamOption = False,
    skip_unreadable: SkipOption = False,
    on: OnOption = None,
    seed: SeedOption = 0,
) -> None:
    """Show how well a supernet tells its subnets apart."""
    from apq_moo.data import images_of
    from apq_moo.pipeline.stages import evaluate
    from apq_moo.space import load_space

    loaded = load_space(space)
    path = supernet_of(loaded, supernet)
    with progress_bar() as bar:
        task = bar.add_task("measuring", total=2 * random)
        found = evaluate(
            loaded,
            path,
            images_of(loaded, stream=stream, skip_unreadable=skip_unreadable),
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
    stream: StreamOption = False,
    skip_unreadable: SkipOption = False,
    on: OnOption = None,
) -> None:
    """Measure the networks of a table that are not measured yet, and keep the results in it."""
    from apq_moo.data import images_of
    from apq_moo.data.tables import load_table
    from apq_moo.space import load_space

    check_output("networks", file, overwrite=True)
    loaded = load_space(space)
    images = images_of(loaded, stream=stream, skip_unreadable=skip_unreadable)
    X = load_table(file, loaded).X
    measure_all(loaded, X, file, supernet_of(loaded, supernet), images, on)


def measure_all(
    space: Space, X: IntArray, file: Path, supernet: Path, images: str, on: str | None
) -> None:
    """Measure networks, or what is left of them, into a table."""
    from apq_moo.data.tables import load_table
    from apq_moo.supernet.distributed import rank_of_environment
    from apq_moo.supernet.tabulate import tabulate

    with going_on(lambda: networks_kept(file, space, load_table)), progress_bar() as bar:
        task = bar.add_task("measuring", total=len(X))
        table = tabulate(
            space, supernet, images, X, file, on=measuring_device(on),
            callback=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    if rank_of_environment() == 0:
        seconds = table.provenance["seconds"]
        out.print(f"{len(X):,} networks, {seconds:.0f} s of measuring: {file}", soft_wrap=True)


def networks_kept(
    file: Path, space: Space, load: Callable[[Path, Space], SampleTable | AccuracyTable]
) -> str:
    """How many networks of a table are measured, and how to go on with it."""
    if not file.is_file():
        return "nothing is kept yet"
    table = load(file, space)
    n = len(table.X)
    return (
        f"{n - len(table.unmeasured()):,} of {n:,} networks are kept in {file}: "
        "repeat the command to go on"
    )

"""Commands that collect accuracies of subnets: ``samples``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apq_moo.cli.app import app, check_output, out, progress_bar, say
from apq_moo.cli.options import (
    DrawOption,
    OnOption,
    SeedOption,
    SkipOption,
    SpaceOption,
    StreamOption,
    measuring_device,
)
from apq_moo.cli.stopping import going_on
from apq_moo.cli.train_commands import CheckpointOption, measure_all, networks_kept, supernet_of
from apq_moo.defaults import DEFAULT_SPACE, MAX_JOBS

samples_app = typer.Typer(no_args_is_help=True, help="Collect accuracies of random subnets.")
app.add_typer(samples_app, name="samples")


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
    stream: StreamOption = False,
    skip_unreadable: SkipOption = False,
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
    path = supernet_of(loaded, supernet)
    images = images_of(loaded, stream=stream, skip_unreadable=skip_unreadable)
    with going_on(lambda: networks_kept(file, loaded, load_samples)), progress_bar() as bar:
        task = bar.add_task("measuring", total=fp + mp + 2 * held_out)
        table = collect(
            loaded,
            path,
            images,
            config,
            file,
            jobs=jobs,
            on=measuring_device(on),
            callback=lambda done, _total: bar.update(task, completed=done),
        )
    if rank_of_environment() == 0:
        counts = ", ".join(f"{n} {name}" for name, n in table.counts().items())
        out.print(f"{counts}: {file}", soft_wrap=True)
        n = len(load_images(images).validation)
        if len(table.X) and (line := few_images({"validation": (n, float(table.acc.mean()))})):
            say(line)


@samples_app.command("exhaust")
def samples_exhaust(
    file: Annotated[Path, typer.Option("--out", "-o", help="Where the table goes.")],
    space: Annotated[str, typer.Option(help="A preset or a TOML file.")] = "tiny",
    supernet: CheckpointOption = None,
    stream: StreamOption = False,
    skip_unreadable: SkipOption = False,
    on: OnOption = None,
) -> None:
    """Measure every network of a small space; repeat the command to continue."""
    from apq_moo.data import images_of
    from apq_moo.space import all_networks, load_space

    check_output("networks", file, overwrite=True)
    loaded = load_space(space)
    images = images_of(loaded, stream=stream, skip_unreadable=skip_unreadable)
    X = all_networks(loaded)
    measure_all(loaded, X, file, supernet_of(loaded, supernet), images, on)


@samples_app.command("add")
def samples_add(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs that measured.")
    ],
    file: Annotated[Path, typer.Option("--out", "-o", help="Where the larger table goes.")],
    samples: Annotated[
        Path | None,
        typer.Option(help="The table that they are added to; default: shipped."),
    ] = None,
    space: SpaceOption = DEFAULT_SPACE,
) -> None:
    """Add networks that searches have measured: predictors are fitted to them too."""
    from apq_moo.data.assets import SAMPLES, find_assets
    from apq_moo.data.samples import FOUND
    from apq_moo.space import load_space
    from apq_moo.study.known import add_measured

    check_output("networks", file, overwrite=True)
    loaded = load_space(space)
    table = add_measured(samples or find_assets(loaded).path(SAMPLES), runs, loaded)
    table.save(file)
    counts = table.counts()
    out.print(
        f"{counts['mp']:,} random networks at their bits and {counts[FOUND]:,} that searches "
        f"measured: {file}",
        soft_wrap=True,
    )
    say(f"next: apq-moo predictor fit NAME --samples {file} --space {space} -o FILE")

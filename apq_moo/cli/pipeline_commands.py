"""The command ``pipeline``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apq_moo.cli.app import app, err, progress_bar, say
from apq_moo.cli.options import (
    DeviceOption,
    InitOption,
    LimitOption,
    MissingOption,
    SeedOption,
    SkipOption,
    SpaceOption,
    StreamOption,
    WarmupOption,
    parse_limits,
)
from apq_moo.cli.stopping import going_on
from apq_moo.cli.train_commands import steps_kept
from apq_moo.defaults import MAX_JOBS
from apq_moo.pipeline import Listener, PipelineConfig, run
from apq_moo.study.config import parse_objectives

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
    init: InitOption = _PIPELINE.init,
    stream: StreamOption = _PIPELINE.stream,
    skip_unreadable: SkipOption = _PIPELINE.skip_unreadable,
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
        init=init,
        stream=stream,
        skip_unreadable=skip_unreadable,
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
            return steps_kept(supernet, steps)
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

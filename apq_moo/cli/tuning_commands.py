"""The command ``finetune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apq_moo.cli.app import app, check_output, progress, say
from apq_moo.cli.options import OnOption, SeedOption
from apq_moo.cli.stopping import going_on
from apq_moo.errors import UserError


@app.command()
def finetune(
    source: Annotated[
        str, typer.Argument(metavar="POLICY|RUN", help="A policy as JSON, or a run's folder.")
    ],
    file: Annotated[Path, typer.Option("--out", "-o", help="The network's file, .safetensors.")],
    steps: Annotated[int, typer.Option(min=1, max=100_000_000, help="Optimiser steps.")] = 2000,
    batch_size: Annotated[int, typer.Option(min=1, max=100_000, help="Images of a step.")] = 128,
    learning_rate: Annotated[float, typer.Option(min=1e-9, help="Its peak.")] = 5e-3,
    labels: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the loss by labels; the rest is the teacher's."),
    ] = 0.0,
    space: Annotated[
        str | None, typer.Option(help="Of a policy; default: the preset that it names.")
    ] = None,
    assets: Annotated[
        str | None, typer.Option(help="Folder made by `apq-moo pipeline`; default: shipped.")
    ] = None,
    on: OnOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Only go on with one that was interrupted.")
    ] = False,
    seed: SeedOption = 0,
) -> None:
    """Fine-tune a network at its bits; repeat the command to continue an interrupted one."""
    from apq_moo.deploy import choose
    from apq_moo.deploy.tuning import SUFFIX, TuningConfig
    from apq_moo.deploy.tuning import finetune as tune

    check_output("weights", file)
    unfinished = file.with_suffix(SUFFIX)
    if resume and not unfinished.is_file():
        raise UserError(f"nothing to resume: there is no {unfinished}; leave out --resume")
    config = TuningConfig(
        steps=steps, batch_size=batch_size, learning_rate=learning_rate, labels=labels, seed=seed
    )
    chosen = choose(source, space=space, assets=assets)

    def kept() -> str:
        if not unfinished.is_file():
            return "nothing is kept yet"
        return f"what was done is kept in {unfinished}: repeat the command to go on"

    with going_on(kept), progress("fine-tuning") as tell:
        found = tune(
            chosen.space, chosen.subnet, file, config, assets=chosen.assets, on=on, callback=tell
        )
    for line in found.lines():
        say(line)
    say(f"{file}: {found.seconds:.0f} s of fine-tuning")

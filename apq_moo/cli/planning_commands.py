"""What a training would cost: ``supernet plan``."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from apq_moo.cli.app import check_output, out, say
from apq_moo.cli.options import (
    DrawOption,
    JsonOption,
    OnOption,
    SpaceOption,
    WarmupOption,
    measuring_device,
)
from apq_moo.cli.train_commands import supernet_app
from apq_moo.defaults import DEFAULT_SPACE

if TYPE_CHECKING:
    from apq_moo.space import Space
    from apq_moo.supernet.planning import Assumptions, Figures, Plan


@supernet_app.command("plan")
def supernet_plan(
    space: SpaceOption = DEFAULT_SPACE,
    images: Annotated[
        str | None,
        typer.Option(
            metavar="N|NAME",
            show_default="the space's",
            help="Training images: how many, or an image set or folder that is counted.",
        ),
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, max=100_000, help="Devices that share a step.")] = 8,
    epochs: Annotated[
        float | None,
        typer.Option(min=0, max=1e6, show_default="120", help="Times that each image is seen."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=100_000_000, show_default="by --epochs", help="Optimiser steps."),
    ] = None,
    warmup_steps: WarmupOption = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1_000_000, help="Images of a step.")] = 2048,
    accumulate: Annotated[
        int, typer.Option(min=1, max=100_000, help="Passes in which a device takes its share.")
    ] = 1,
    random_subnets: Annotated[
        int, typer.Option(min=0, max=10_000, help="Random subnets of a step.")
    ] = 2,
    draw: DrawOption = "uniform",
    quantised_steps: Annotated[
        int, typer.Option(min=0, max=100_000_000, help="Last steps, with random bits.")
    ] = 0,
    precision: Annotated[
        str, typer.Option(help="Of torch's own operators: `float32` or `bf16`.")
    ] = "float32",
    figures: Annotated[
        Path | None, typer.Option(help="Figures or a plan of before, instead of measuring.")
    ] = None,
    measured_steps: Annotated[
        int, typer.Option(min=1, max=10_000, help="Passes of each phase to measure.")
    ] = 3,
    efficiency: Annotated[
        float,
        typer.Option(min=0, max=1, help="Assumed speed of --gpus over as many times one's."),
    ] = 0.9,
    watts: Annotated[
        float | None,
        typer.Option(
            min=0,
            show_default="700 a GPU, 150 a CPU",
            help="Power of a device with its share of the host.",
        ),
    ] = None,
    pue: Annotated[
        float, typer.Option(min=1, help="Power of the data centre over its computers'.")
    ] = 1.58,
    intensity: Annotated[float, typer.Option(min=0, help="kg of CO2e that a kWh causes.")] = 0.433,
    on: OnOption = None,
    as_json: JsonOption = False,
    file: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where the plan goes, as JSON.")
    ] = None,
) -> None:
    """Measure a few steps and say what a training would cost."""
    from apq_moo.errors import UserError
    from apq_moo.files import write_json
    from apq_moo.space import load_space
    from apq_moo.supernet.planning import Assumptions, check_feasible, plan, read_figures, steps_of
    from apq_moo.supernet.planning_figures import measure
    from apq_moo.supernet.recipe import TrainConfig

    check_output("plan", file)
    if steps is not None and epochs is not None:
        raise UserError(f"--steps {steps} and --epochs {epochs:g}: give one of them")
    if figures is not None and on is not None:
        raise UserError(f"--figures {figures} were measured before; leave out --on {on}")
    loaded = load_space(space)
    n = counted(images, loaded)
    whole = (
        steps if steps is not None else steps_of(120 if epochs is None else epochs, n, batch_size)
    )
    config = TrainConfig(
        steps=whole,
        warmup_steps=warmup_steps,
        batch_size=batch_size,
        accumulation=accumulate,
        random_subnets=random_subnets,
        draw=draw,
        quantised_steps=quantised_steps,
        precision=precision,
    )
    assumed = Assumptions(gpus, efficiency, watts, pue, intensity)
    check_feasible(config, n, gpus)
    if figures is not None:
        found = read_figures(figures, loaded, config)
    else:
        found = measure(
            loaded, config, on=measuring_device(on), gpus=gpus, measured_steps=measured_steps
        )
    made = plan(config, n, found, assumed)
    parts = {
        "plan": asdict(made),
        "assumed": asdict(assumed),
        "recipe": asdict(config),
        "figures": asdict(found),
    }
    if file is not None:
        write_json(file, parts)
    if as_json:
        say(json.dumps(parts))
    else:
        _show(made, found, assumed)


def counted(images: str | None, space: Space) -> int:
    """Training images: as many as a number says, or as an image set has.

    Raises:
        UserError: the number is not positive, or there is no such set.
    """
    from apq_moo.data import images_of
    from apq_moo.data.counting import training_images
    from apq_moo.errors import UserError

    if images is None:
        if not space.spec.images:
            raise UserError(f"space {space.name!r} names no image set; say how many: --images N")
        return training_images(images_of(space))
    digits = re.sub(r"(?<=[0-9])[,_](?=[0-9]{3})", "", images)
    if not digits.isdecimal():
        return training_images(images)
    if len(digits) > 12 or int(digits) < 1:
        raise UserError(f"--images {images}: write a number from 1 to 999999999999")
    return int(digits)


def _show(made: Plan, figures: Figures, assumed: Assumptions) -> None:
    from apq_moo.supernet.planning import WATTS

    memory = "not measured" if made.memory_gib is None else f"{made.memory_gib:.1f} GiB"
    gpu = figures.kind == "cuda"
    published = f" ({_short(made.co2e_kg_published)} by the paper's rate)" if gpu else ""
    rows = {
        "steps": f"{made.steps:,} of {made.batch_size:,} images ({made.epochs:.1f} epochs)",
        "images a second": _short(made.images_per_s),
        "days": _short(made.hours / 24),
        "GPU hours" if gpu else "CPU hours": _short(made.gpu_hours),
        "memory of a device": memory,
        "energy": f"{_short(made.kwh)} kWh",
        "CO2e": f"{_short(made.co2e_kg)} kg{published}",
    }
    table = Table(title=f"{made.images:,} images on {assumed.gpus} devices", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    out.print(table)
    each = ", ".join(
        f"{name} {_short(figures.batch / seconds)}" for name, seconds in figures.seconds.items()
    )
    watts = WATTS[figures.kind] if assumed.watts is None else assumed.watts
    say(
        f"measured on one {figures.device}: {figures.measured_steps} passes of {figures.batch} "
        f"random images for each phase; images a second: {each}"
    )
    say(
        f"assumed: {assumed.efficiency:g} of {assumed.gpus} times that on {assumed.gpus} devices, "
        f"{watts:g} W each, a data centre of {assumed.pue:g} times that, {assumed.kg_per_kwh:g} kg "
        "of CO2e a kWh; reading images is not counted"
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

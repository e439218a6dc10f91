"""Commands about search spaces of one's own: ``space``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apq_moo.cli.app import app, check_output, say
from apq_moo.cli.options import DeviceOption

space_app = typer.Typer(no_args_is_help=True, help="Make a search space for your own images.")
app.add_typer(space_app, name="space")


@space_app.command("new")
def space_new(
    images: Annotated[
        str, typer.Option(metavar="folder:PATH@SIZE|NAME", help="What its networks are to tell.")
    ],
    latency: Annotated[
        float | None, typer.Option(metavar="MS", help="What a network may take on --device.")
    ] = None,
    energy: Annotated[float | None, typer.Option(metavar="MJ", help="Likewise, of energy.")] = None,
    size: Annotated[
        float | None, typer.Option(metavar="KIB", help="And of weights at their bits.")
    ] = None,
    device: DeviceOption = "bitfusion",
    file: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The TOML file; default: by the name of the images."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier file.")] = False,
) -> None:
    """Write a space that fits your images and a budget, as a TOML file with comments."""
    from apq_moo.files import write_text
    from apq_moo.hardware import find_cost
    from apq_moo.pipeline.designing import design
    from apq_moo.pipeline.space_file import default_name, following, read_text, space_text

    path = file or Path(f"{default_name(images)}.toml")
    check_output("space", path, overwrite=overwrite)
    wished = {"latency": latency, "energy": energy, "size": size}
    limits = {name: limit for name, limit in wished.items() if limit is not None}
    found = design(images, limits, device)
    text = space_text(found, images, path.stem, path.parent)
    space = read_text(text, path)
    write_text(path, text)
    facts = found.facts
    say(
        f"{facts.size}x{facts.size} pixels, {facts.channels} channels, {facts.classes:,} classes, "
        f"{facts.train:,} images to train on: {space.count():.3g} networks"
    )
    for name, (low, high) in found.ranges.items():
        unit = find_cost(name).unit
        say(f"{name}: from about {low:.3g} to {high:.3g} {unit}, wished {limits[name]:g} {unit}")
    say(f"{path}")
    say("next:")
    for command, what in following(found, images, path).items():
        say(f"  {command}  # {what}")

"""Commands about image sets and their files: ``data``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apq_moo.cli.app import app, say, say_json
from apq_moo.cli.options import JsonOption
from apq_moo.errors import UserError

if TYPE_CHECKING:
    from apq_moo.data.inspecting import Inspection

data_app = typer.Typer(no_args_is_help=True, help="Find and download image sets.")
app.add_typer(data_app, name="data")


@data_app.command("list")
def data_list(as_json: JsonOption = False) -> None:
    """List the image sets by name, and where their files were found."""
    from apq_moo.data import IMAGES
    from apq_moo.data.listing import SYNTAX
    from apq_moo.data.sources import SOURCES

    sources = dict(SOURCES.usable())
    listed: list[dict[str, Any]] = []
    for name, _ in IMAGES.usable():
        if name not in SOURCES:
            listed.append({"name": name, "download": False, "found": None})
        elif name in sources:
            try:
                found = str(sources[name].find())
            except UserError:
                found = None
            listed.append({"name": name, "download": True, "found": found})
    if as_json:
        say_json(listed)
        return
    for entry in listed:
        where = entry["found"] or f"not found; apq-moo data download {entry['name']}"
        say(f"{entry['name']}: {where if entry['download'] else 'no files to download'}")
    say(
        f"{SYNTAX}: your own images, in PATH/train/<class> and PATH/val/<class>, or PATH a CSV file"
    )


@data_app.command("download")
def data_download(
    name: Annotated[str, typer.Argument(help="Of an image set, such as fashion-mnist or cifar10.")],
    folder: Annotated[
        Path | None, typer.Option(help="Where its files go; by default where they are looked for.")
    ] = None,
) -> None:
    """Download the files of an image set."""
    from apq_moo.data.sources import SOURCES, download_folder

    source = SOURCES.get(name)
    try:
        target = download_folder() if folder is None else folder.expanduser()
    except RuntimeError as error:  # of ~name, where there is no such user
        raise UserError(f"--folder {folder}: {error} Name a folder that can be made") from error
    source.download(target)
    say(f"{name}: {target}")
    try:
        found = source.find().resolve()
    except UserError:
        found = None
    if found is None or target.resolve() not in found.parents:
        say(f"set APQ_MOO_DATA={target.resolve()} to use it")


@data_app.command("check")
def data_check(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="Holds train, and val or test; or a CSV file of `file,class,split`.",
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Read all your own images in a folder and list what is there; exits with 2 if one is bad."""
    from apq_moo.data.folders import path_of
    from apq_moo.data.inspecting import inspect

    found = inspect(path_of(str(folder)))
    if as_json:
        say_json(found.to_dict())
    else:
        _tell(found)
    if found.unreadable:
        raise typer.Exit(2)


def _tell(found: Inspection) -> None:
    for split, counts in found.counts.items():
        each = ", ".join(f"{name} {n:,}" for name, n in counts.items())
        say(f"{split}: {sum(counts.values()):,} images of {len(counts)} classes: {each}")
    if found.sizes:
        smallest, largest = (
            extreme(found.sizes, key=lambda size: size[0] * size[1]) for extreme in (min, max)
        )
        often = max(sorted(found.sizes), key=lambda size: found.sizes[size])
        texts = [f"{width}x{height}" for width, height in (smallest, largest, often)]
        say(
            f"sizes: from {texts[0]} to {texts[1]} pixels, most often {texts[2]} "
            f"({found.sizes[often]:,} images); shorter side: median {found.shorter_side}"
        )
    if found.left_out:
        say(f"left out, since they are no images by their suffix: {len(found.left_out):,} files")
        for path in found.left_out:
            say(f"  {path}")
    say(f"unreadable: {len(found.unreadable):,}")
    for path, reason in found.unreadable.items():
        say(f"  {path}: {reason}")

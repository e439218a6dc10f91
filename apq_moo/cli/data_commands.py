"""Commands about image sets and their files: ``data``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apq_moo.cli.app import app, say
from apq_moo.errors import UserError

data_app = typer.Typer(no_args_is_help=True, help="Find and download image sets.")
app.add_typer(data_app, name="data")


@data_app.command("list")
def data_list() -> None:
    """List the image sets by name, and where their files were found."""
    from apq_moo.data import IMAGES
    from apq_moo.data.folders import SYNTAX
    from apq_moo.data.sources import SOURCES

    sources = dict(SOURCES.usable())
    for name, _ in IMAGES.usable():
        if name not in SOURCES:
            say(f"{name}: no files to download")
        elif name in sources:
            try:
                say(f"{name}: {sources[name].find()}")
            except UserError:
                say(f"{name}: not found; apq-moo data download {name}")
    say(f"{SYNTAX}: your own images, in PATH/train/<class> and PATH/val/<class>")


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

"""The command line's entry point, and what its commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from apq_moo import __version__
from apq_moo.errors import UserError

app = typer.Typer(
    name="apq-moo",
    help="Joint search for architecture, channel pruning and quantisation policy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

out = Console()
err = Console(stderr=True)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"apq-moo {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Joint search for architecture, channel pruning and quantisation policy."""


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress bar on the error stream; silent where that is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as bar:
        yield bar


def refuse_existing(*paths: Path | None) -> None:
    """Refuse to write over a file.

    Raises:
        UserError: one of them exists.
    """
    for path in paths:
        if path is not None and path.exists():
            raise UserError(f"{path} exists; remove it or name another file")


_DEFAULTS = {"--verify": "10"}
"""Options whose value may be left out."""


def _with_defaults(arguments: Sequence[str]) -> list[str]:
    """Fill in left-out values, so that ``--verify`` may stand alone."""
    filled = []
    for i, argument in enumerate(arguments):
        filled.append(argument)
        following = arguments[i + 1] if i + 1 < len(arguments) else "-"
        if argument in _DEFAULTS and following.startswith("-") and not following[1:].isdigit():
            filled.append(_DEFAULTS[argument])
    return filled


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake prints one line and exits with code 2."""
    # They register themselves.
    from apq_moo.cli import (  # noqa: F401
        bench_commands,
        data_commands,
        hardware_commands,
        measuring_commands,
        run_commands,
        train_commands,
    )

    given = _with_defaults(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=given, prog_name="apq-moo")
    except UserError as error:
        err.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("interrupted", markup=False)
        sys.exit(130)

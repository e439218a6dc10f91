"""The typer app, and what its commands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from apq_moo import __version__
from apq_moo.errors import UserError, escaped

app = typer.Typer(
    name="apq-moo",
    help="Joint search for architecture, channel pruning and quantisation policy.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)


FIRST_COMMANDS = {
    "apq-moo run": "search the space that ships; seconds",
    "apq-moo run --space digits --verify": "and measure the front on the supernet",
    "apq-moo deploy runs/NAME -o net": "from a run of digits to a network as ONNX",
    "apq-moo bench --space tiny --seeds 3 --budget 3000": "compare algorithms",
    "apq-moo pipeline --space digits --out runs/digits": "from raw images to a verified front",
}
"""What whoever names no command is shown."""


class _Console(Console):
    """Prints texts as they are, but for what a terminal would obey or that cannot be encoded."""

    def render_str(self, text: str, **options: Any) -> Text:
        """See the base class; also the cells of tables come here."""
        return super().render_str(escaped(text), **options)


out = _Console(markup=False, emoji=False)
err = _Console(stderr=True, markup=False, emoji=False)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"apq-moo {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Joint search for architecture, channel pruning and quantisation policy."""
    del version  # which its callback has printed
    if ctx.invoked_subcommand is None:
        say("apq-moo searches a network's architecture, channels and bits together. Begin with:")
        say("")
        width = max(map(len, FIRST_COMMANDS))
        for command, what in FIRST_COMMANDS.items():
            say(f"  {command:{width}}  {what}")
        say("")
        say("All commands: apq-moo --help; all options of one: apq-moo run --help")


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress bar on the error stream; silent where that is no terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as bar:
        yield bar


@contextmanager
def progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of one task, moved on by telling it ``(done, total)``."""
    with progress_bar() as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def say(text: str, console: Console = out) -> None:
    """Print a line as it is, for other programs to read."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def say_json(value: Any) -> None:
    """Print what a listing holds as JSON."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


_SUFFIXES = {
    "policy": (".json",),
    "released policy": (".json", ""),
    "space": (".toml",),
    "plan": (".json",),
    "weights": (".safetensors",),
    "exported": (".safetensors", ".onnx", ".pt2", ".c"),
    "networks": (".npz",),
    "costs": (".npz", ".parquet", ".json"),
    "figures": (".csv",),
    "table": (".csv", ".parquet"),
    "picture": (".png", ".svg", ".pdf"),
    "page": (".html", ".htm"),
    "Markdown": (".md", ".markdown"),
    "LaTeX": (".tex",),
}
"""By what a command writes into a file, how the file's name may end."""


def check_output(kind: str, path: Path | None, *, overwrite: bool | None = None) -> None:
    """Find out whether a command can write its file, before what goes into it is made.

    Args:
        kind: of :data:`_SUFFIXES`.
        path: the file; None where it was not asked for.
        overwrite: whether it may be there already; None where the command has no such option.

    Raises:
        UserError: its name is that of another kind of file, it exists, or it cannot be written.
    """
    from apq_moo.files import check_suffix, check_writable

    if path is None:
        return
    check_suffix(path, *_SUFFIXES[kind])
    if path.exists() and not overwrite:
        mend = "remove it" if overwrite is None else "add --overwrite to replace it"
        raise UserError(f"{path} exists; {mend} or name another file")
    check_writable(path)

"""The command line's entry point."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from apq_moo.cli.stopping import Stopped, stoppable
from apq_moo.errors import UserError, escaped, one_line, shown
from apq_moo.extras import EXTRAS, require

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
    """Run the command line.

    A user's mistake prints one line and exits with code 2, Ctrl-C with 130 and SIGTERM with 143.
    """
    if "WORLD_SIZE" in os.environ:  # of torchrun; torch, not imported yet, would log a page
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    given = _with_defaults(sys.argv[1:] if arguments is None else arguments)
    try:
        with stoppable(), _named():
            for argument in given:
                if "\0" in argument:
                    raise UserError(f"{shown(argument)}: no argument may hold a NUL; leave it out")
            code = _carried_out(given)
    except UserError as error:
        from apq_moo.cli.options import as_options

        sys.stderr.write(f"error: {_line(error, one_line(as_options(str(error))))}\n")
        sys.exit(2)
    except Stopped as stop:
        sys.stderr.write(f"{_line(stop, str(stop))}\n")
        sys.exit(128 + stop.number)
    sys.exit(code)


def _carried_out(arguments: Sequence[str]) -> int:
    """Carry out a command.

    Returns:
        Its exit code.

    Raises:
        UserError: there is no such command or option, or typer refuses a value.
    """
    from typer import BadParameter  # may take long enough to be stopped

    from apq_moo.cli.commands import command

    usage_error: type[BadParameter] = BadParameter.__mro__[1]  # which typer does not export
    try:
        return command()(args=arguments, prog_name="apq-moo", standalone_mode=False) or 0
    except usage_error as error:
        if not (message := error.format_message()):  # of a group, whose help was printed
            return 2
        of = error.ctx.command_path if error.ctx else "apq-moo"
        text = f"{message[0].lower()}{message[1:].rstrip('.')}{_value(error)}"
        raise UserError(f"{text} (see {of} --help)") from None


def _value(error: BaseException) -> str:
    """Which value typer refused, where what it says leaves that out, as pydantic's messages do."""
    details = getattr(error.__cause__ or error.__context__, "errors", None)
    return f", not {shown(details()[0]['input'])}" if callable(details) else ""


@contextmanager
def _named() -> Iterator[None]:
    """Turn a user's mistake into one: a file, a full GPU, a library that is not installed."""
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which may not be imported
            raise
        raise UserError(
            "the memory of the GPU is full; free what other processes hold of it, have less done "
            "at a time, or name another device with `--on`"
        ) from error
    except OSError as error:
        if not isinstance(error.filename, str):
            raise
        raise UserError(f"cannot use {error.filename}: {error.strerror}") from error
    except ImportError as error:
        library = (error.name or "").partition(".")[0]
        if library in EXTRAS:
            require(library, "this command")
        raise


def _line(stop: BaseException, message: str) -> str:
    """A message and its notes, see :func:`apq_moo.cli.stopping.going_on`."""
    return "; ".join((message, *map(escaped, getattr(stop, "__notes__", ()))))

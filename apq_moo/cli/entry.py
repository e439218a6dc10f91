"""The command line's entry point."""

from __future__ import annotations

import sys
from collections.abc import Sequence

# They register themselves.
from apq_moo.cli import (  # noqa: F401
    bench_commands,
    data_commands,
    hardware_commands,
    measuring_commands,
    run_commands,
    train_commands,
)
from apq_moo.cli.app import Stopped, app, err, say, stoppable
from apq_moo.cli.options import as_options
from apq_moo.errors import UserError

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
    given = _with_defaults(sys.argv[1:] if arguments is None else arguments)
    try:
        with stoppable():
            app(args=given, prog_name="apq-moo")
    except UserError as error:
        say(f"error: {as_options(_line(error))}", err)
        sys.exit(2)
    except Stopped as stop:
        say(_line(stop), err)
        sys.exit(128 + stop.number)


def _line(stop: BaseException) -> str:
    """Its message and its notes, see :func:`going_on`."""
    return "; ".join((str(stop), *getattr(stop, "__notes__", ())))

"""The one exception that a user's mistake raises, warnings, and how both show values."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A mistake in the caller's input.

    The message is one line that names the value, what was allowed, and how to mend it. It names
    arguments as in a call, ``budget=20``. The command line names its options instead, prints the
    message without a traceback and exits with code 2. Whatever it quotes, :func:`one_line` applies.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(str(message)))


_MAX_SHOWN = 120
_MAX_LENGTH = 300

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = _SHORT.maxdict = 8
_SHORT.maxstring = _SHORT.maxother = 60


def shown(value: object) -> str:
    """A value as messages show it: its ``repr`` on one line, cut short, whatever the value is.

    >>> shown(list(range(100)))
    '[0, 1, 2, 3, 4, 5, 6, 7, ...]'
    """
    try:
        text = " ".join(_SHORT.repr(value).splitlines())
    except ValueError:  # Python refuses to print integers of thousands of digits
        return f"<{type(value).__name__} too long to show>"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def escaped(text: str) -> str:
    r"""A text on one line, with what a terminal would not show, or would obey, as Python writes it.

    >>> escaped("a\nb\x1b[31m")
    'a b\\x1b[31m'
    """
    if text.isprintable():
        return text
    parts = (part if part.isprintable() else repr(part)[1:-1] for part in text.split())
    return " ".join(parts)


def one_line(text: str) -> str:
    r"""A text fit for a message: one line of at most 300 characters that a terminal can show.

    The middle of a longer one is left out: its beginning names the value, its end the mend.

    >>> one_line("a\nb\x1b[31m")
    'a b\\x1b[31m'
    """
    if len(text) > 8 * _MAX_LENGTH:  # so that little work is done on what is cut anyway
        text = f"{text[: 4 * _MAX_LENGTH]} {text[-4 * _MAX_LENGTH :]}"
    text = escaped(text)
    if len(text) > _MAX_LENGTH:
        text = f"{text[: _MAX_LENGTH // 2]} ... {text[5 - _MAX_LENGTH // 2 :]}"
    return text


_warned: set[str] = set()


def warn(text: str) -> None:
    """Print a warning as one line on the error stream, the same one only once a process."""
    if text not in _warned:
        _warned.add(text)
        sys.stderr.write(f"{one_line(f'warning: {text}')}\n")


@contextmanager
def reported() -> Iterator[None]:
    """Print a user's mistake as one line and exit with code 2; for scripts."""
    try:
        yield
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)

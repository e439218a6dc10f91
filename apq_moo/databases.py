"""SQLite files that hold results: opened so that nothing but data comes of them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from apq_moo.errors import UserError

WAIT_S = 60.0
"""For other processes that write to the file."""

_MAX_VALUE = 2**26
_STEPS = 100_000


@contextmanager
def database(
    path: str | Path,
    tables: Sequence[str],
    *,
    max_s: float | None = None,
    what: str = "",
    mend: str = "",
) -> Iterator[sqlite3.Connection]:
    """A connection; what is done with it counts when its block ends without an error.

    Args:
        path: the file; made if it is not there.
        tables: the statements that make its tables; a file that holds anything else, such as views
            or triggers, is refused.
        max_s: seconds that the block may take; a damaged file can keep a statement busy for ever.
        what: how messages name it, before its path.
        mend: what they end with.

    Raises:
        UserError: the file cannot be used, is damaged or of another kind, or the block takes more
            than ``max_s``.
    """
    try:
        with closing(sqlite3.connect(path, timeout=WAIT_S)) as connection, connection:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE)
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            if max_s is not None:
                end = time.monotonic() + max_s
                connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
            found = connection.execute("SELECT sql FROM sqlite_master").fetchall()
            if not found:
                for table in tables:
                    connection.execute(table)
            elif {_words(sql) for (sql,) in found} != {_words(table) for table in tables}:
                raise UserError(
                    f"cannot use {what}{path}: its tables are not those of this version{mend}"
                )
            yield connection
    except (OverflowError, UnicodeDecodeError, sqlite3.Error) as error:
        raise UserError(f"cannot use {what}{path}: {error}{mend}") from error


def _words(sql: object) -> str:
    return " ".join(str(sql).replace("IF NOT EXISTS ", "").split())

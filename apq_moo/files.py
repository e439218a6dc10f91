"""Reading and writing files: atomically, with checksums and with one-line errors."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import secrets
import stat
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import MISSING, fields
from importlib import resources
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any

from apq_moo.errors import UserError, shown

MAX_JSON = 2**24
"""Bytes of a JSON text; what it is read into may take thirty times as much."""

MAX_TOML = 2**18
MAX_ARRAYS = 2**28
"""Bytes of the arrays of one file."""

_MAX_DEPTH = 100
_MAX_DIGITS = 100
_MAX_LINES = 100_000
_MAX_DOTS = 200


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file atomically: yields a temporary path beside it, renamed to it on success.

    The temporary file exists, empty, and has the suffix of ``path``, by which some writers choose
    their format. Missing folders are made.

    Raises:
        UserError: the folder cannot be written to, or the disk is full. Whatever was at ``path``
            before is unharmed.
    """
    path = Path(path)
    temporary = path.parent / f".{secrets.token_hex(8)}{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)  # unlike a tempfile, under the user's umask
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _mode(path: str | Path) -> int:
    """A file's type and permissions; 0 where there is none."""
    try:
        return Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name
        raise UserError(f"cannot read {str(path)!r}: {error}") from error


def is_file(path: str | Path) -> bool:
    """Whether there is a file of a name that a user gave.

    Raises:
        UserError: nobody can tell: the name is too long, or a folder may not be searched.
    """
    return stat.S_ISREG(_mode(path))


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder of a name that a user gave; see :func:`is_file`."""
    return stat.S_ISDIR(_mode(path))


def refuse_links(*paths: Path) -> None:
    """Refuse to write where a folder from elsewhere has a link, which may lead out of it.

    Raises:
        UserError: one of the paths is a symbolic link.
    """
    for path in paths:
        if path.is_symlink():
            raise UserError(f"{path} is a link, and nothing is written through one; remove it")


@contextmanager
def locked(lock: Path, refusal: str) -> Iterator[None]:
    """Keep other processes out of what a lock file stands for; it is gone afterwards.

    Where the file system has no locks, or none can be made, nobody is kept out.

    Args:
        lock: the file.
        refusal: what a second process is told.

    Raises:
        UserError: another process holds the lock.
    """
    from filelock import FileLock, Timeout

    held = FileLock(lock, timeout=0, fallback_to_soft=False)
    try:
        held.acquire()
    except Timeout:
        raise UserError(refusal) from None
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        if held.is_locked:
            with suppress(OSError):
                lock.unlink()
        held.release()


def growing(path: str | Path) -> AbstractContextManager[None]:
    """Keep other processes from a file that one adds to for a while; see :func:`locked`."""
    path = Path(path)
    return locked(
        path.with_name(f".{path.name}.lock"),
        f"another process writes {path}; wait for its end, or name another file",
    )


def check_writable(path: str | Path) -> None:
    """Find out whether a file can be written, before what goes into it is made.

    Raises:
        UserError: it is a folder, or its folder cannot be made or written to.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=next(p for p in path.absolute().parents if p.exists())):
            pass
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def check_suffix(path: str | Path, *allowed: str) -> str:
    """The suffix of a file's name, in lower case.

    Args:
        path: the file.
        *allowed: its suffix is one of these.

    Raises:
        UserError: it is none of them.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in allowed:
        *others, last = (one or "no suffix" for one in allowed)
        known = f"{', '.join(others)} or {last}" if others else last
        raise UserError(f"{path}: name a file that ends in {known}")
    return suffix


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically (UTF-8; what that cannot encode is escaped).

    Raises:
        UserError: it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, value: object) -> None:
    """Write an indented JSON file atomically; see :func:`write_text`."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_bytes(path: str | Path, max_bytes: int = MAX_ARRAYS) -> bytes:
    """A file's contents.

    Raises:
        UserError: it is missing, unreadable or too large.
    """
    path = Path(path)
    try:
        with path.open("rb") as handle:
            content = handle.read(max_bytes + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the name
        raise UserError(f"cannot read {str(path)!r}: {error}") from error
    if len(content) > max_bytes:
        raise UserError(f"cannot read {path}: it has more than {max_bytes:,} bytes")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {shown(twice)} occurs twice")
    return found


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"an integer has {len(text)} digits")
    return int(text)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            member
            for nest in level
            for member in (nest.values() if isinstance(nest, dict) else nest)
            if isinstance(member, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"it is nested more than {_MAX_DEPTH} levels deep")


def parse_json(content: str | bytes, source: str) -> Any:
    """What a JSON text says.

    Args:
        content: the text.
        source: how messages name it.

    Raises:
        UserError: it is malformed, too long or nested too deeply, or an object has a key twice.
    """
    try:
        if len(content) > MAX_JSON:
            raise ValueError(f"it has more than {MAX_JSON:,} bytes")
        value = json.loads(content, object_pairs_hook=_unique, parse_int=_integer)
        if isinstance(value, dict | list):
            _check_depth(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{source} is not valid JSON: {error}") from error
    return value


def read_json(path: str | Path) -> Any:
    """Read a JSON file; see :func:`parse_json`.

    Raises:
        UserError: it is missing, unreadable or malformed.
    """
    return parse_json(read_bytes(path, MAX_JSON), str(path))


def read_csv(path: str | Path) -> dict[str, list[str]]:
    """The columns of a CSV file by the names in its first line.

    Raises:
        UserError: it is missing, unreadable, too large or malformed.
    """
    content = read_bytes(path, MAX_JSON)
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8"), newline=""))
        rows = list(islice(reader, _MAX_LINES + 1))
        if len(rows) > _MAX_LINES:
            raise ValueError(f"it has more than {_MAX_LINES:,} lines")
        names = rows[0] if rows else []
        if len(set(names)) < len(names):
            raise ValueError("a column occurs twice")
        if any(len(row) not in {len(names), 0} for row in rows):
            raise ValueError("its lines differ in length")
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is malformed: {error}") from error
    return {name: [row[i] for row in rows[1:] if row] for i, name in enumerate(names)}


def with_defaults(stored: Any, kind: type[Any]) -> Any:
    """Stored settings as today's code would have stored them.

    Args:
        stored: what ``asdict`` gave of a dataclass, perhaps in a version with fewer fields.
        kind: the dataclass, with defaults that mean what the earlier version did.

    Returns:
        The settings with the defaults of fields that they lack; anything but a dictionary as it is.
    """
    if not isinstance(stored, dict):
        return stored
    known = {f.name: f.default for f in fields(kind) if f.default is not MISSING}
    return {**known, **stored}


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UserError: it is missing, unreadable or malformed.
    """
    path = Path(path)
    content = read_bytes(path, MAX_TOML)
    try:
        if max(line.count(b".") for line in content.split(b"\n")) > _MAX_DOTS:
            raise ValueError(f"a line has more than {_MAX_DOTS} dots")
        found = tomllib.loads(content.decode("utf-8"))
        _check_depth(found)
        return found
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error


def shipped_toml(package: str, folder: str) -> dict[str, Path]:
    """The TOML files of a folder that comes with a package, by name."""
    found = (Path(str(entry)) for entry in (resources.files(package) / folder).iterdir())
    return {
        path.stem: path for path in sorted(found, key=attrgetter("stem")) if path.suffix == ".toml"
    }


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex.

    Raises:
        UserError: it is missing or unreadable.
    """
    try:
        with Path(path).open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot read {path}: {reason or error}") from error


def digest_of(value: object) -> str:
    """SHA-256 of a JSON-serialisable value's canonical form, in hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()

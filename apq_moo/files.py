"""Reading and writing files: atomically, with checksums and with one-line errors."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import tempfile
import tomllib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import MISSING, fields
from importlib import resources
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.errors import UserError, shown


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


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically (UTF-8).

    Raises:
        UserError: it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: object) -> None:
    """Write an indented JSON file atomically; see :func:`write_text`."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_bytes(path: Path) -> bytes:
    """A file's contents.

    Raises:
        UserError: it is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the name
        raise UserError(f"cannot read {str(path)!r}: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shown(twice)} occurs twice")
    return found


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is missing, unreadable or malformed, or an object has a key twice.
    """
    path = Path(path)
    content = read_bytes(path)
    try:
        return json.loads(content, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


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


def read_arrays(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of an ``.npz``; nothing in it is run.

    Raises:
        UserError: it is missing, unreadable or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            return dict(data)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"cannot read {path}: it is damaged ({error})") from error


def write_arrays(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an ``.npz`` atomically, compressed as fast as zlib can.

    Raises:
        UserError: it cannot be written.
    """
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bundle,
    ):
        for name, array in arrays.items():
            with bundle.open(f"{name}.npy", "w", force_zip64=True) as handle:
                np.lib.format.write_array(handle, np.asarray(array), allow_pickle=False)


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UserError: it is missing, unreadable or malformed.
    """
    path = Path(path)
    content = read_bytes(path)
    try:
        return tomllib.loads(content.decode("utf-8"))
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
    return hashlib.sha256(read_bytes(Path(path))).hexdigest()


def digest_of(value: object) -> str:
    """SHA-256 of a JSON-serialisable value's canonical form, in hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()

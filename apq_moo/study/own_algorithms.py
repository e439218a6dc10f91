"""Algorithms in files of the user's, which no package has to hold.

A file is run only where somebody names it, as ``FILE.py:ENTRY``. What is stored keeps its path, its
entry and its checksum; whoever goes on with that loads the same file again, and says so.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from apq_moo.algorithms import ALGORITHMS, AlgorithmEntry
from apq_moo.errors import UserError, shown, warn
from apq_moo.files import read_bytes
from apq_moo.study.config import AlgorithmFile

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_MAX_BYTES = 2**20
_named: set[AlgorithmFile] = set()


def load(reference: str) -> AlgorithmFile:
    """Load an algorithm from a file that the user names.

    Args:
        reference: ``FILE.py:ENTRY``, the name of an :class:`AlgorithmEntry` in it.

    Returns:
        Where it comes from, as it is stored; :func:`included` makes it usable.

    Raises:
        UserError: no such file, nothing of that name in it, it fails when it is run, or the name of
            its algorithm is taken or malformed.
    """
    path, _, name = reference.rpartition(":")
    if not path.endswith(".py") or not name:
        raise UserError(f"{reference}: write FILE.py:ENTRY, the name of an AlgorithmEntry in it")
    content = read_bytes(path, _MAX_BYTES)
    entry = _entry(path, name, content)
    checksum = hashlib.sha256(content).hexdigest()
    file = AlgorithmFile(path, name, checksum, entry.name, entry.swept)
    with ALGORITHMS.including({entry.name: entry}):  # refuses a name that is taken
        _named.add(file)
    return file


def included(file: AlgorithmFile) -> dict[str, AlgorithmEntry]:
    """The algorithm of a file that was loaded before, perhaps by another process.

    Returns:
        By its name, for :meth:`apq_moo.registry.Registry.including`.

    Raises:
        UserError: the file is gone, or has changed.
    """
    elsewhere = f"FOLDER/{Path(file.path).name}:{file.entry}"
    try:
        content = read_bytes(file.path, _MAX_BYTES)
    except UserError as error:
        raise UserError(
            f"the algorithm {file.name!r}: {error}; put it back, or name it as {elsewhere}, from "
            "where it lies now"
        ) from None
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise UserError(
            f"{file.path} has changed since {file.name!r} was begun: undo the change, name the old "
            f"file as {elsewhere}, or begin anew"
        )
    return {file.name: _entry(file.path, file.entry, content)}


@contextmanager
def usable(files: Mapping[str, AlgorithmFile], what: str) -> Iterator[None]:
    """Within, the algorithms of files can be looked up.

    A file that nobody has named in this process, but something that is stored, is warned of before
    it is run.

    Args:
        files: by the names of their algorithms.
        what: names what is stored.

    Raises:
        UserError: see :func:`included`; or a name is taken.
    """
    entries: dict[str, AlgorithmEntry] = {}
    for file in files.values():
        if file not in _named:
            warn(f"{what} names the algorithm file {file.path}, which is run")
        entries |= included(file)
    with ALGORITHMS.including(entries):
        yield


@lru_cache(maxsize=64)
def _entry(path: str, name: str, content: bytes) -> AlgorithmEntry:
    """What a file of that content defines; it is run once."""
    module = _run(path, content)
    found = vars(module).get(name)
    if not isinstance(found, AlgorithmEntry):
        known = [key for key, value in vars(module).items() if isinstance(value, AlgorithmEntry)]
        what = "is no AlgorithmEntry" if name in vars(module) else "is not in it"
        raise UserError(
            f"{path}:{name}: {shown(name)} {what}; AlgorithmEntry objects in it: "
            f"{', '.join(known) or 'none'}"
        )
    if not isinstance(found.name, str) or not _NAME.fullmatch(found.name):
        raise UserError(
            f"{path}:{name}: its name is {shown(found.name)}; use letters, digits, '.', '_' and '-'"
        )
    if found.reports_kept:
        raise UserError(
            f"{path}:{name}: with reports_kept=True whoever reads results would run the file; make "
            "it a plug-in (docs/extending.md)"
        )
    return found


@lru_cache(maxsize=64)
def _run(path: str, content: bytes) -> ModuleType:
    module = ModuleType(f"apq_moo_file_{hashlib.sha256(content).hexdigest()[:16]}")
    module.__file__ = path
    sys.modules[module.__name__] = module  # dataclasses and pickle look for it there
    try:
        exec(compile(content, path, "exec"), vars(module))  # noqa: S102 - the user named it
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        text = error.msg if isinstance(error, SyntaxError) else error
        raise UserError(
            f"{path} cannot be loaded: {type(error).__name__}: {text}{where}; repair it"
        ) from error
    return module

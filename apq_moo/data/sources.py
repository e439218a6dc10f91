"""Where the files of image sets are looked for, and how they are fetched."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory

from apq_moo.caching import cache_folder
from apq_moo.errors import UserError
from apq_moo.registry import Registry


@dataclass(frozen=True)
class Source:
    """The files of an image set.

    Attributes:
        find: the folder that holds them; raises a UserError if they are not here.
        download: fetches them to a folder, by default :func:`download_folder`.
    """

    find: Callable[[], Path]
    download: Callable[[Path], None]


SOURCES: Registry[Source] = Registry("data source")
"""Sources by the name of their image set, for sets whose files can be fetched."""


def given_folders() -> list[Path]:
    """The folders that ``$APQ_MOO_DATA`` names."""
    listed = os.environ.get("APQ_MOO_DATA", "").split(os.pathsep)
    return [Path(text) for text in listed if text]


def download_folder() -> Path:
    """Where downloaded files go, unless told otherwise: a folder of the cache.

    Raises:
        UserError: there is no cache.
    """
    return cache_folder() / "data"


def base_folders(*installed: Path) -> list[Path]:
    """Where files are looked for: what was given, where systems install them, what was fetched."""
    found = [*given_folders(), *installed]
    with suppress(UserError):
        found.append(download_folder())
    return found


def fetch(name: str, fill: Callable[[str], object], part: str, folder: str | Path | None) -> None:
    """Download files, so that a broken download leaves nothing behind.

    Args:
        name: the image set, as messages name it.
        fill: downloads to the folder whose path it gets, as torchvision's data sets do.
        part: the subfolder of it whose files are kept.
        folder: where ``part`` is to be, by default in the cache, where loaders
            look; files that are there already are replaced.

    Raises:
        UserError: the download fails, or the folder cannot be written to.
    """
    folder = (download_folder() if folder is None else Path(folder)).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".", dir=folder) as temporary:
            fill(temporary)
            (folder / part).mkdir(parents=True, exist_ok=True)
            for path in sorted(Path(temporary, part).iterdir()):
                path.replace(folder / part / path.name)
    except (
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
        HTTPException,
        tarfile.TarError,
        zlib.error,
    ) as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(
            f"cannot download {name} to {folder}: {text}; try again with a network, or set "
            "APQ_MOO_DATA to a folder that has its files"
        ) from error

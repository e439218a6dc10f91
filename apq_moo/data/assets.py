"""Folders of trained assets, shipped with the package or made by ``apq-moo pipeline``.

Such a folder holds ``manifest.json`` (which space, how it was made, checksums), and beside it
``supernet.safetensors``, ``samples.npz`` and ``predictors/<name>.safetensors``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from apq_moo.data import folders
from apq_moo.errors import UserError
from apq_moo.files import is_file, read_json, sha256, write_json
from apq_moo.reading import read
from apq_moo.space import Space, belonging, refuse_other_space

MANIFEST = "manifest.json"
SUPERNET = "supernet.safetensors"
SAMPLES = "samples.npz"
TABLE = "table.npz"
FORMAT = "apq-moo assets 1"


def predictor_file(name: str) -> str:
    """Where a predictor lies within a folder of assets."""
    return f"predictors/{name}.safetensors"


@dataclass(frozen=True)
class _File:
    sha256: str
    bytes: int | None = None


@dataclass(frozen=True)
class _Used:
    """What is made use of in a manifest."""

    files: dict[str, _File]
    images: str | None = None
    images_sha256: str | None = None
    accelerator: str | None = None
    seconds: dict[str, float] | None = None
    gpu_joules: dict[str, float] | None = None


@dataclass(frozen=True)
class Assets:
    """A folder of assets that belongs to a space.

    Attributes:
        folder: where it is.
        space: the space.
    """

    folder: Path
    space: Space

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What ``manifest.json`` says.

        Raises:
            UserError: it is missing, malformed, or of another space.
        """
        path = self.folder / MANIFEST
        if not is_file(path):
            raise UserError(
                f"space {self.space.name!r} has no assets in {self.folder}; make them with "
                f"`apq-moo pipeline {self.space.option} --out DIR` and pass assets=DIR"
            )
        manifest = read_json(path)
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise UserError(f"{path} is not a manifest of this version")
        if not isinstance(manifest.get("files"), dict):
            raise UserError(f"{path} lists no files")
        known = {item.name: manifest[item.name] for item in fields(_Used) if item.name in manifest}
        read(_Used, known, str(path), "it")
        refuse_other_space(manifest, self.space, path)
        return manifest

    def has(self, name: str) -> bool:
        """Whether the manifest lists a file."""
        return name in self.manifest["files"]

    def path(self, name: str) -> Path:
        """The path of a file, its checksum verified.

        Raises:
            UserError: the manifest does not list it, or it is missing, truncated or altered.
        """
        entry = self.manifest["files"].get(name)
        if entry is None:
            known = ", ".join(sorted(self.manifest["files"]))
            raise UserError(f"{self.folder} has no {name!r}; it has: {known}")
        path = self.folder / name
        if sha256(path) != entry["sha256"]:
            raise UserError(f"{path} is damaged: its checksum is not the manifest's")
        return path

    @property
    def images(self) -> str:
        """The name of the data set that the assets were made from.

        A folder that is no longer there may have moved together with the space's file.
        """
        return folders.at_hand(self._said("images"), self.space)

    def checksums(self) -> dict[str, str]:
        """SHA-256 of the images and of every file, as the manifest says."""
        listed = {name: entry["sha256"] for name, entry in self.manifest["files"].items()}
        return {"images": self._said("images_sha256"), **listed}

    def _said(self, name: str) -> str:
        found = self.manifest.get(name)
        if found is None:
            raise UserError(f"{self.folder / MANIFEST} does not say {name!r}")
        return str(found)


def find_assets(space: Space, folder: str | Path | Assets | None = None) -> Assets:
    """The assets of a space: in a given folder, else those shipped with the package.

    Args:
        space: the space.
        folder: where they are; assets that were found already come back as they are.

    Raises:
        UserError: there are none; see :attr:`Assets.manifest`.
    """
    if isinstance(folder, Assets):
        return folder
    shipped = Path(str(files("apq_moo") / "assets" / space.name))
    assets = Assets(shipped if folder is None else Path(folder), space)
    _ = assets.manifest
    return assets


def write_manifest(
    folder: str | Path, space: Space, names: list[str], **provenance: Any
) -> dict[str, Any]:
    """Write the manifest of a folder of assets.

    Args:
        folder: the folder.
        space: the space.
        names: files to list, relative to the folder.
        **provenance: how they were made (JSON).

    Raises:
        UserError: a file is missing, or the manifest cannot be written.
    """
    folder = Path(folder)
    listed = {
        name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}
        for name in names
    }
    manifest = {
        "format": FORMAT,
        **belonging(space),
        **provenance,
        "files": listed,
    }
    write_json(folder / MANIFEST, manifest)
    return manifest

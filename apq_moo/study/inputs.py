"""What a search is made from: digests that its record keeps, and copies of its space and device.

A space or a device is often a file of the user's, who edits it, moves it, or gives the results to
somebody without it. So a run's folder keeps a copy of such files, and whoever reads the run again
takes the copy where the file is no longer what it was. The copy of a space whose pictures lie
beside its file says where that was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from apq_moo.data import folders
from apq_moo.errors import UserError
from apq_moo.files import is_file, read_bytes, replacing, sha256
from apq_moo.hardware import Device, find_device
from apq_moo.hardware.finding import is_device_file
from apq_moo.space import Space, load_space, presets
from apq_moo.study.config import RunConfig

SPACE, DEVICE = "space", "device"
_PLACE = b"relative_to = "


def input_files(config: RunConfig) -> dict[str, Path]:
    """The files that describe the space and the device, where these are no names."""
    files = {}
    if config.space not in presets():
        files[SPACE] = Path(config.space)
    if is_device_file(config.device):
        files[DEVICE] = Path(config.device)
    return files


def keep_inputs(folder: Path, config: RunConfig) -> None:
    """Copy :func:`input_files` into a run's folder.

    Raises:
        UserError: one of them is missing, or the folder cannot be written to.
    """
    for name, file in input_files(config).items():
        content = _copy(name, file)
        with replacing(folder / f"{name}{file.suffix}") as temporary:
            temporary.write_bytes(content)


def _copy(name: str, file: Path) -> bytes:
    """A file as a run's folder keeps it; one that names others tells where it lay."""
    content = read_bytes(file)
    if name != SPACE:
        return content
    space = load_space(file)
    place, part_of = space.spec.relative_to, space.spec.part_of
    tells = place != str(file.parent.resolve())  # as in a copy of a copy
    relative = part_of not in ("", *presets()) and not Path(part_of).is_absolute()
    names = relative or folders.located(space) != space.spec.images
    if tells or not names or not place.isprintable():
        return content
    return _PLACE + json.dumps(place, ensure_ascii=False).encode() + b"\n" + content


def _original(file: Path) -> bytes:
    """What :func:`_copy` was made of."""
    content = read_bytes(file)
    return content.partition(b"\n")[2] if content.startswith(_PLACE) else content


def at_hand(folder: Path, config: RunConfig) -> RunConfig:
    """A run's configuration with its folder's copies of what is missing or changed."""
    changed: dict[str, Any] = {}
    for name, file in input_files(config).items():
        copy = folder / f"{name}{file.suffix}"
        if copy.is_file() and not _same(file, copy):
            changed[name] = str(copy)
    return replace(config, **changed)


def _same(file: Path, copy: Path) -> bool:
    try:
        return is_file(file) and _original(file) == _original(copy)
    except UserError:  # it may not be read, which is as if it were gone
        return False


def input_digests(config: RunConfig, space: Space, device: Device) -> dict[str, str]:
    """SHA-256 of a search's space and device; of a device that has none, its name.

    Args:
        config: the search.
        space: its space.
        device: its device.
    """
    file = is_device_file(config.device)
    of_device = sha256(config.device) if file else device.digest or config.device
    return {SPACE: space.digest, DEVICE: of_device}


def check_inputs(config: RunConfig, recorded: Mapping[str, str] | None, what: object) -> None:
    """Check that a search's space and device are those of its record.

    Args:
        config: the search.
        recorded: digests by name; those that are missing are not compared.
        what: names the run or benchmark, for the message.

    Raises:
        UserError: they are not, or cannot be read.
    """
    space, device = load_space(config.space), find_device(config.device, missing=config.missing)
    refuse_changes(input_digests(config, space, device), recorded, what)


def refuse_changes(
    found: Mapping[str, str], recorded: Mapping[str, str] | None, what: object
) -> None:
    """Refuse data whose digests are not those of a record.

    Args:
        found: digests of what is there now, by name.
        recorded: those of then; names that it lacks are not compared.
        what: names the run or benchmark, for the message.

    Raises:
        UserError: some differ; they are named.
    """
    recorded = recorded or {}
    changed = sorted(name for name in found if recorded.get(name, found[name]) != found[name])
    if changed:
        raise UserError(
            f"{what} was begun with other data: {', '.join(changed)} changed since; begin a new one"
        )

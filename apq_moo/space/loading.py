"""Finding spaces: the shipped presets, and users' own TOML files."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from apq_moo.errors import UserError, shown
from apq_moo.files import is_file, read_toml, shipped_toml
from apq_moo.space.space import Space
from apq_moo.space.spec import SpaceSpec


def presets() -> list[str]:
    """Names of the shipped spaces."""
    return list(shipped_toml("apq_moo.space", "presets"))


@cache
def _preset(name: str) -> Space:
    path = shipped_toml("apq_moo.space", "presets")[name]
    return Space(SpaceSpec.from_dict(read_toml(path), source=f"space {name!r}"))


def load_space(space: str | Path | Space) -> Space:
    """Find a space.

    Args:
        space: the name of a preset, the path of a TOML file, or a space (returned as it is).

    Raises:
        UserError: no such preset or file, or the file is malformed.
    """
    if isinstance(space, Space):
        return space
    if str(space) in presets():
        return _preset(str(space))
    path = Path(space)
    if path.suffix == ".toml" or is_file(path):
        return Space(SpaceSpec.from_dict(read_toml(path), source=str(path), path=path))
    known = ", ".join(presets())
    raise UserError(
        f"unknown space {shown(str(space))}; known: {known}, or the path of a TOML file"
    )

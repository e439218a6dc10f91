"""What files say of the space that they belong to, and how that differs from another one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from apq_moo.changes import changed
from apq_moo.errors import UserError, shown
from apq_moo.space.loading import load_space, presets
from apq_moo.space.space import Space

CONTENT = "space_content"
"""The entry that only says how spaces differ; earlier versions wrote none."""


def belonging(space: Space) -> dict[str, Any]:
    """The entries of a file that say which space it belongs to, fit for JSON."""
    return {"space": space.name, "digest": space.digest, CONTENT: space.spec.content}


def refuse_other_space(said: Mapping[str, Any], space: Space, what: object) -> None:
    """Refuse what belongs to another space.

    Args:
        said: what it says, see :func:`belonging`.
        space: this one.
        what: names it.

    Raises:
        UserError: the spaces differ; the first differences are named, where they are known.
    """
    if said.get("digest") == space.digest:
        return
    name, content = said.get("space"), said.get(CONTENT)
    if content is None and name in presets() and load_space(name).digest == said.get("digest"):
        content = load_space(name).spec.content
    how = "of the same name" if name == space.name else f"({shown(name)})"
    why = ""
    if isinstance(content, dict):
        then, now = (json.loads(json.dumps(each)) for each in (content, space.spec.content))
        why = f": {changed(then, now)}"
    raise UserError(f"{what} belongs to another space {how}, not to this {space.name!r}{why}")

"""How settings of now differ from those that something was begun with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeGuard

from apq_moo.errors import UserError, shown

_MOST = 2
_WIDTH = 30
_NOTHING = object()


def changes(then: object, now: object, place: str = "") -> Iterator[tuple[str, object, object]]:
    """Where two values of JSON differ.

    Args:
        then: one of them.
        now: the other.
        place: of both.

    Yields:
        Place (such as ``stages[1].kernels``), value then and value now. Lists of tables are gone
        into where both are as long.
    """
    if isinstance(then, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*now, *then]):
            inner = f"{place}.{key}" if place else str(key)
            yield from changes(then.get(key, _NOTHING), now.get(key, _NOTHING), inner)
    elif _tables(then) and _tables(now) and len(then) == len(now):
        for i, (a, b) in enumerate(zip(then, now, strict=True)):
            yield from changes(a, b, f"{place}[{i}]")
    elif then != now:
        yield place, then, now


def _tables(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and any(isinstance(member, dict) for member in value)


def changed(then: Any, now: Any) -> str:
    """What is told of the first differences.

    >>> changed({"fp": 10, "draw": "uniform"}, {"fp": 20, "draw": "sizes"})
    "fp was 10, is 20; draw was 'uniform', is 'sizes'"
    """
    found = list(changes(then, now))
    texts = [f"{place or 'it'} was {_said(a)}, is {_said(b)}" for place, a, b in found[:_MOST]]
    if len(found) > _MOST:
        texts.append(f"{len(found) - _MOST} more differ")
    return "; ".join(texts)


def _said(value: object) -> str:
    if value is _NOTHING:
        return "not there"
    if _tables(value):
        return f"{len(value)} tables"
    text = shown(value)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def refuse_other_settings(what: object, then: Any, now: Any, mend: str) -> None:
    """Refuse to go on with what was begun with other settings.

    Args:
        what: a file or a folder.
        then: its settings, fit for JSON.
        now: today's.
        mend: what else can be done than to repeat those.

    Raises:
        UserError: they differ.
    """
    then, now = (json.loads(json.dumps(settings)) for settings in (then, now))
    if then != now:
        raise UserError(
            f"{what} was begun with other settings ({changed(then, now)}); repeat those, or {mend}"
        )

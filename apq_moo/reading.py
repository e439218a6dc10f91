"""Reading settings: what TOML or JSON gave, checked against the fields of a dataclass.

A field's type says what its value must be; ``Annotated`` says it more closely. Every message is one
line that names the key, as in ``stages[0].width must be an integer from 1 to 65536, not 0``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from apq_moo.errors import UserError, shown

T = TypeVar("T")


@dataclass(frozen=True)
class Must:
    """What a value must be.

    Attributes:
        be: in words.
        holds: whether a value is that.
    """

    be: str
    holds: Callable[[Any], bool]


def integer(low: int, high: int) -> Must:
    """An integer (and no boolean) within bounds."""
    return Must(
        f"an integer from {low} to {high}",
        lambda value: type(value) is int and low <= value <= high,
    )


def number(low: float, high: float) -> Must:
    """A number within bounds."""
    return Must(f"a number from {low:g} to {high:g}", lambda value: _is_number(value, low, high))


def ascending(low: int, high: int) -> Must:
    """A list of options: distinct integers within bounds."""
    return Must(
        f"a non-empty, ascending list of integers from {low} to {high}",
        lambda value: (
            isinstance(value, list)
            and value != []
            and all(map(integer(low, high).holds, value))
            and all(a < b for a, b in pairwise(value))
        ),
    )


def _is_number(
    value: Any, low: float = -sys.float_info.max, high: float = sys.float_info.max
) -> bool:
    return type(value) in (int, float) and low <= value <= high


_PLAIN = {
    int: Must("an integer", lambda value: type(value) is int),
    float: Must("a number", _is_number),
    str: Must("a text", lambda value: isinstance(value, str)),
    tuple: Must("a list", lambda value: isinstance(value, list)),
    dict: Must("a table", lambda value: isinstance(value, dict)),
}


class _Type:
    """What a hint says: a type, that of its members, what values must be, whether None is one."""

    def __init__(self, hint: Any) -> None:
        several = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        hint = next(one for one in several if one is not NoneType)
        bare, *musts = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        self.kind: Any = get_origin(bare) or bare
        members = get_args(bare)
        self.member = _Type(members[self.kind is dict]) if members else None
        self.musts = musts or [_PLAIN[self.kind]] if self.kind in _PLAIN else musts
        self.plain = self.member is None and self.kind is not float and not is_dataclass(self.kind)
        self.nullable = NoneType in several


@cache
def _fields(kind: type[Any]) -> dict[str, tuple[_Type, bool, bool]]:
    """Of each field: its type, whether it has no default, and whether it has one but None."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for item in fields(kind):
        needed = item.default is MISSING and item.default_factory is MISSING
        found[item.name] = _Type(hints[item.name]), needed, item.default is not None
    return found


_KEY, _TABLE = "\0", "\1"
"""Stand for where something is wrong until the whole path is known; no ``repr`` has them."""


class _Refusal(Exception):  # noqa: N818
    place = ""


def read(
    kind: type[T], data: Any, source: str, what: str = "the file", *, complete: bool = False
) -> T:
    """Make a dataclass of parsed TOML or JSON.

    Args:
        kind: the dataclass; fields with a default may be left out. Its fields are integers, finite
            numbers, texts, dataclasses, and tuples and dictionaries of these; or None where that is
            one of their types.
        data: a table, as a dictionary.
        source: how messages name where it comes from.
        what: how messages name the table itself.
        complete: whether fields with a default other than None must be given too.

    Raises:
        UserError: it is no table, lacks a key, has an unknown one, or a value is not what its field
            must be.
    """
    try:
        return _table(kind, data, complete)
    except _Refusal as refusal:
        key = refusal.place.removeprefix(".")
        table = key if key.endswith("]") else f"[{key}]" if key else what
        text = str(refusal).replace(_KEY, key).replace(_TABLE, table)
        raise UserError(f"{source}: {text}") from None


def _table(kind: type[T], data: Any, complete: bool = False) -> T:
    if not isinstance(data, dict):
        raise _Refusal(f"{_TABLE} must be a table, not {shown(data)}")
    known = _fields(kind)  # type: ignore[arg-type]
    if not data.keys() <= known.keys():
        unknown = shown(min(data.keys() - known.keys(), key=str))
        raise _Refusal(f"unknown key {unknown} in {_TABLE}; known: {', '.join(known)}")
    found = {}
    for name, (of, needed, telling) in known.items():
        try:
            if name in data:
                found[name] = _value(of, data[name])
            elif needed or (complete and telling):
                be = of.musts and of.musts[0].be
                raise _Refusal(
                    f"{_KEY} must be {be}, but is missing" if be else f"a {_TABLE} table is needed"
                )
        except _Refusal as refusal:
            refusal.place = f".{name}{refusal.place}"
            raise
    return kind(**found)


def _value(of: _Type, value: Any) -> Any:
    if value is None and of.nullable:
        return None
    for must in of.musts:
        if not must.holds(value):
            raise _Refusal(f"{_KEY} must be {must.be}, not {shown(value)}")
    if of.plain:
        return value
    if of.kind is float:
        return float(value)
    if of.member is None:
        return _table(of.kind, value)
    found = {}
    for place, item in value.items() if of.kind is dict else enumerate(value):
        try:
            found[place] = _value(of.member, item)
        except _Refusal as refusal:
            step = f".{shown(place)[1:-1]}" if of.kind is dict else f"[{place}]"
            refusal.place = step + refusal.place
            raise
    return found if of.kind is dict else tuple(found.values())

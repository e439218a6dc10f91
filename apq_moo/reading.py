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


def is_integer(value: object, low: int, high: int) -> bool:
    """Whether a value is an integer (and no boolean) within bounds."""
    return type(value) is int and low <= value <= high


def integer(low: int, high: int) -> Must:
    """An integer within bounds."""
    return Must(f"an integer from {low} to {high}", lambda value: is_integer(value, low, high))


def number(low: float, high: float) -> Must:
    """A number within bounds."""
    return Must(f"a number from {low:g} to {high:g}", lambda value: _is_number(value, low, high))


def ascending(low: int, high: int) -> Must:
    """A list of options: distinct integers within bounds."""
    return Must(
        f"a non-empty, ascending list of integers from {low} to {high}",
        lambda value: (
            isinstance(value, list)
            and bool(value)
            and all(is_integer(item, low, high) for item in value)
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


@cache
def _of(hint: Any) -> tuple[Any, Any, tuple[Must, ...]]:
    """The type of a hint, that of its members, and what its values must be."""
    bare, *musts = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    kind = get_origin(bare) or bare
    members = get_args(bare)
    if kind in _PLAIN and not musts:
        musts = [_PLAIN[kind]]
    return kind, members[kind is dict] if members else None, tuple(musts)


@cache
def _fields(kind: type[Any]) -> dict[str, tuple[Any, bool, bool]]:
    """Of each field: its type without None, whether it may be None, whether it must be given."""
    found = {}
    hints = get_type_hints(kind, include_extras=True)
    for item in fields(kind):
        hint = hints[item.name]
        several = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        hint = next(one for one in several if one is not NoneType)
        # No file says None of a table: it leaves the table out.
        nullable = NoneType in several and not is_dataclass(hint)
        needed = item.default is MISSING and item.default_factory is MISSING
        found[item.name] = hint, nullable, needed
    return found


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
        complete: whether fields with a default must be given too.

    Raises:
        UserError: it is no table, lacks a key, has an unknown one, or a value is not what its field
            must be.
    """
    return _table(kind, data, source, what, "", complete)


def _table(
    kind: type[T], data: Any, source: str, what: str, path: str, complete: bool = False
) -> T:
    if not isinstance(data, dict):
        raise UserError(f"{source}: {what} must be a table, not {shown(data)}")
    known = _fields(kind)
    if data.keys() - known.keys():
        unknown = min(data.keys() - known.keys(), key=str)
        raise UserError(
            f"{source}: unknown key {shown(unknown)} in {what}; known: {', '.join(known)}"
        )
    found = {}
    for name, (hint, nullable, needed) in known.items():
        where = f"{path}.{name}" if path else name
        if name in data:
            value = data[name]
            found[name] = None if nullable and value is None else _value(hint, value, source, where)
        elif needed or complete:
            _, _, musts = _of(hint)
            lacking = f"{where} must be {musts[0].be}, but is missing" if musts else ""
            raise UserError(f"{source}: {lacking or f'a [{where}] table is needed'}")
    return kind(**found)


def _value(hint: Any, value: Any, source: str, where: str) -> Any:
    kind, member, musts = _of(hint)
    for must in musts:
        if not must.holds(value):
            raise UserError(f"{source}: {where} must be {must.be}, not {shown(value)}")
    if is_dataclass(kind):
        what = where if where.endswith("]") else f"[{where}]"
        return _table(kind, value, source, what, where)  # type: ignore[arg-type]
    if kind is tuple:
        return tuple(_value(member, item, source, f"{where}[{i}]") for i, item in enumerate(value))
    if kind is dict:
        return {key: _value(member, item, source, f"{where}.{key}") for key, item in value.items()}
    return float(value) if kind is float else value

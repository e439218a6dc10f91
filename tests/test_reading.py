"""Settings from files: what a dataclass's fields accept, and one line for whatever is wrong."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apq_moo.errors import UserError
from apq_moo.reading import Must, ascending, integer, number, read

WIDTH = Annotated[int, integer(1, 64), Must("even", lambda width: width % 2 == 0)]


@dataclass(frozen=True)
class Part:
    width: WIDTH
    options: Annotated[tuple[int, ...], ascending(2, 16)] = (8,)


@dataclass(frozen=True)
class File:
    name: str
    share: Annotated[float, number(0, 1)]
    first: Part
    parts: tuple[Part, ...] = ()
    sizes: tuple[float, ...] = ()
    limits: dict[str, float] = field(default_factory=dict)
    known: dict[str, Part] = field(default_factory=dict)
    owner: str | None = None
    last: Part | None = None
    count: int = 3
    rest: Any = None


GOOD = {"name": "x", "share": 1, "first": {"width": 2}}


def message_of(data, **options):
    with pytest.raises(UserError) as caught:
        read(File, data, "my.toml", **options)
    message = str(caught.value)
    assert message.startswith("my.toml: ")
    assert len(message.splitlines()) == 1
    return message.removeprefix("my.toml: ")


def test_every_kind_of_field():
    found = read(
        File,
        {
            **GOOD,
            "parts": [{"width": 4, "options": [2, 3]}, {"width": 6}],
            "sizes": [1, 2.5],
            "limits": {"latency": 1},
            "known": {"a": {"width": 8}},
            "owner": None,
            "last": None,
            "rest": [{"any": "thing"}],
        },
        "my.toml",
    )
    assert found == File(
        name="x",
        share=1.0,
        first=Part(2),
        parts=(Part(4, (2, 3)), Part(6)),
        sizes=(1.0, 2.5),
        limits={"latency": 1.0},
        known={"a": Part(8)},
        rest=[{"any": "thing"}],
    )
    for value in (found.share, found.sizes[0], found.limits["latency"]):
        assert type(value) is float


def test_what_is_left_out_has_its_default():
    assert read(File, GOOD, "my.toml") == File("x", 1.0, Part(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "name must be a text, not 3"),
        ({"share": 1.5}, "share must be a number from 0 to 1, not 1.5"),
        ({"share": math.nan}, "share must be a number from 0 to 1, not nan"),
        ({"share": True}, "share must be a number from 0 to 1, not True"),
        ({"first": 3}, "[first] must be a table, not 3"),
        ({"first": {}}, "first.width must be an integer from 1 to 64, but is missing"),
        ({"first": {"width": 65}}, "first.width must be an integer from 1 to 64, not 65"),
        ({"first": {"width": 3}}, "first.width must be even, not 3"),
        ({"first": {"depth": 3}}, "unknown key 'depth' in [first]; known: width, options"),
        ({"parts": {}}, "parts must be a list, not {}"),
        ({"parts": [{"width": 2}, 4]}, "parts[1] must be a table, not 4"),
        (
            {"parts": [{"width": 2, "x\ny": 1}]},
            r"unknown key 'x\ny' in parts[0]; known: ",
        ),
        (
            {"parts": [{"width": 2, "options": [3, 2]}]},
            "parts[0].options must be a non-empty, ascending list of integers from 2 to 16, "
            "not [3, 2]",
        ),
        ({"sizes": [1, "2"]}, "sizes[1] must be a number, not '2'"),
        ({"sizes": [10**400]}, "sizes[0] must be a number, not 1000000"),
        ({"limits": [1]}, "limits must be a table, not [1]"),
        ({"limits": {"a\nb": math.inf}}, r"limits.a\nb must be a number, not inf"),
        ({"known": {"a": {"width": 0}}}, "known.a.width must be an integer from 1 to 64, not 0"),
        ({"owner": 3}, "owner must be a text, not 3"),
        ({"last": 3}, "[last] must be a table, not 3"),
        ({"count": True}, "count must be an integer, not True"),
        ({"count": 2.0}, "count must be an integer, not 2.0"),
        ({"zeta": 1, 5: 1, "alpha": 1}, "unknown key 5 in the file; known: name, share, first"),
    ],
)
def test_what_a_value_must_be(change, message):
    assert message_of(GOOD | change).startswith(message)


@pytest.mark.parametrize("key", ["name", "share", "first"])
def test_what_is_missing(key):
    wanted = {
        "name": "name must be a text, but is missing",
        "share": "share must be a number from 0 to 1, but is missing",
        "first": "a [first] table is needed",
    }
    data = {name: value for name, value in GOOD.items() if name != key}
    assert message_of(data) == wanted[key]


def test_a_record_must_be_complete():
    whole = {**asdict(File("x", 1.0, Part(2, ())))}
    assert message_of(GOOD, what="its entries", complete=True) == (
        "parts must be a list, but is missing"
    )
    given = {"parts": [], "sizes": [], "limits": {}, "known": {}, "count": 3}
    assert read(File, GOOD | given, "my.toml", complete=True) == File("x", 1.0, Part(2))
    assert message_of([], what="its entries") == "its entries must be a table, not []"
    assert "unknown key 'b' in its entries" in message_of(whole | {"b": 1}, what="its entries")


@pytest.mark.parametrize("data", [None, [], "x", 3, math.nan])
def test_a_file_is_a_table(data):
    assert message_of(data).startswith("the file must be a table, not ")


def test_integers_are_no_booleans_and_no_floats():
    holds = integer(0, 3).holds
    assert holds(3)
    assert not any(map(holds, (True, 3.0, "3", None, 4, -1)))


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=300)
@given(junk | st.dictionaries(st.sampled_from([*GOOD, "parts", "limits", "known", "last"]), junk))
def test_no_input_raises_anything_else(data):
    try:
        read(File, data, "my.toml")
        message = ""
    except UserError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1
    assert len(message) < 500

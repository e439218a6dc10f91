"""docs/spaces.md names every key of a space's file, as the reader reads it."""

import re
import shlex
import tomllib
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from PIL import Image

from apq_moo.cli import main
from apq_moo.errors import UserError
from apq_moo.reading import Must
from apq_moo.space import Space, SpaceSpec, load_space
from apq_moo.space import spec as reader

PAGE = Path(__file__).parent.parent / "docs" / "spaces.md"
TABLES = {
    "Every key": (reader._File, ()),
    "Bits": (reader._Bits, ("bits",)),
    "Stem, first block, feature mix": (reader._Layer, ("stem",)),
    "Stages": (reader.Stage, ("stages", 0)),
    "Forbidden": (reader._Rule, ("forbidden", 0)),
}
"""By its section: the class that holds a table's keys, and where the table stands in a file."""


def section(title):
    parts = re.split(r"^#+ ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (found,) = [part for part in parts if part.startswith(f"{title}\n")]
    return found


def rows(title):
    """Key, rule, default and example of each row."""
    lines = [line for line in section(title).splitlines() if line.startswith("| `")]
    cells = [re.split(r"(?<!\\)\s*\|\s*", line.strip("| \n")) for line in lines]
    return {row[0].strip("`"): (row[1], row[2].strip("`"), row[3].strip("`")) for row in cells}


def whole():
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return tomllib.loads(text)


def musts(kind):
    """What each key must be, by the reader's annotations."""
    found = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        of = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        found[name] = [must.be for must in of if isinstance(must, Must)]
    return found


KEYS = [(title, key) for title in TABLES for key in rows(title)]


@pytest.mark.parametrize("title", TABLES)
def test_the_keys_are_those_of_the_reader(title):
    kind, _ = TABLES[title]
    assert set(rows(title)) == {item.name for item in fields(kind)}


def test_every_table_of_the_reader_has_a_section():
    nested = set()
    for hint in get_type_hints(reader._File).values():
        nested |= {of for of in (hint, *get_args(hint)) if is_dataclass(of)}
    assert nested == {kind for kind, _ in TABLES.values()} - {reader._File} | {reader._Mix}
    assert [item.name for item in fields(reader._Mix)] == ["channels"]


def rule_of(title, key):
    rule = rows(title)[key][0]
    if same := re.fullmatch(r"as `(\w+)`", rule):
        rule = rows(title)[same[1]][0]
    return rule


@pytest.mark.parametrize(("title", "key"), KEYS)
def test_rules_and_defaults_are_those_of_the_reader(title, key):
    kind, _ = TABLES[title]
    for be in musts(kind)[key]:
        assert be in rule_of(title, key)
    default = {item.name: item.default for item in fields(kind)}[key]
    told = rows(title)[key][1]
    if told in {"those of the file", "that of the file"}:
        assert key in rows("Every key")
    elif (title, key) == ("Stages", "stride"):
        assert told == "1"  # filled in before the reader looks; see the test below
    elif (title, key) == ("Every key", "stages"):
        assert told == "needed"  # an empty list is refused
    elif default is MISSING:
        assert told == "needed"
    else:
        words = {(): "any" if title == "Forbidden" else "[]", None: "none", "": '""'}
        assert told == words.get(default, str(default))


def table_of(data, place):
    for step in place:
        data = data[step]
    return data


@pytest.mark.parametrize(("title", "key"), KEYS)
def test_every_example_is_read(title, key):
    _, place = TABLES[title]
    _, default, example = rows(title)[key]
    (name, value), = tomllib.loads(example).items()  # fmt: skip
    assert name == key
    assert repr(value).replace("'", '"') != default
    data = whole()
    table_of(data, place)[key] = value
    Space(SpaceSpec.from_dict(data))


@pytest.mark.parametrize(("title", "key"), KEYS)
def test_a_mistake_is_answered_with_the_rule(title, key):
    _, place = TABLES[title]
    data = whole()
    wrong = -1 if key in {"name", "images", "part_of", "relative_to"} else "?"
    table_of(data, place)[key] = wrong
    if key in {"kernels", "expand"} and not place:  # as in a stage, where it is wrong
        title, place = "Stages", ("stages", 0)
    if title == "Forbidden":
        wrong = [wrong]  # what stands alone is a list of one
    where = "".join(f"[{step}]" if type(step) is int else f".{step}" for step in (*place, key))[1:]
    with pytest.raises(UserError) as caught:
        SpaceSpec.from_dict(data, source="my.toml")
    message = str(caught.value)
    head, _, rest = message.removeprefix("my.toml: ").partition(" must be ")
    assert head in {where, f"[{where}]"}
    be, _, value = rest.rpartition(", not ")
    assert be in rule_of(title, key)
    assert value == repr(wrong)


def test_what_a_stage_leaves_out():
    data = whole()
    del data["stages"][0]["stride"]
    spec = SpaceSpec.from_dict(data)
    assert spec.stages[0].stride == 1
    assert (spec.stages[0].kernels, spec.stages[1].kernels) == ((3, 5), (3, 5, 7))
    del data["kernels"]
    with pytest.raises(UserError, match=r"stages\[0\]\.kernels must be"):
        SpaceSpec.from_dict(data)


def test_the_whole_file_leaves_out_two_keys_only():
    assert set(rows("Every key")) - set(whole()) == {"part_of", "relative_to"}
    Space(SpaceSpec.from_dict(whole()))


def test_the_channels_of_the_page():
    data = whole()
    data["expand"] = [4, 6]
    plan = Space(SpaceSpec.from_dict(data)).plans[1]
    assert plan.c_in == 24
    *first, last = plan.options["channels"]
    assert f"give {', '.join(map(str, first))} and {last}\n" in section("Stages")


def test_the_command_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for split, n in (("train", 5), ("val", 1)):
        for name in "ab":
            Path("flowers", split, name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(Path("flowers", split, name, f"{i}.png"))
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    with pytest.raises(SystemExit) as stop:
        main(shlex.split(block)[1:])
    assert not stop.value.code
    assert load_space("flowers.toml").spec.classes == 2

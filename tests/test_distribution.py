"""What checks the release refuses what it should; ``make dist`` runs it on what was built."""

import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location(
    "distribution", Path(__file__).parent / "distribution.py"
)
distribution = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(distribution)

README = b"License-Expression: Apache-2.0\n\n" + b"text " * 300


@pytest.fixture
def wheel(monkeypatch):
    """Files of a wheel in which nothing is wrong."""
    monkeypatch.setattr(distribution, "packaged", lambda: {"apq_moo/a.py", "apq_moo/b.toml"})
    licence = (distribution.ROOT / "LICENSE").read_bytes()
    about = {"a.dist-info/METADATA": README, "a.dist-info/licenses/LICENSE": licence}
    return {"apq_moo/a.py": b"", "apq_moo/b.toml": b"", **about}


def test_what_is_whole_passes(wheel):
    distribution.check_contents(wheel)
    distribution.check_paths(wheel)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"apq_moo/b.toml": None}, r"lacks \['apq_moo/b.toml'\]"),
        ({"tests/test_a.py": b""}, r"holds \['tests/test_a.py'\]"),
        ({"a.dist-info/METADATA": README.replace(b"Apache", b"MIT")}, "MIT-2.0"),
        ({"a.dist-info/METADATA": README[:60]}, "not the README"),
        ({"a.dist-info/licenses/LICENSE": b"mine"}, "licence"),
    ],
)
def test_what_is_not_is_refused(wheel, change, words):
    files = {name: of for name, of in {**wheel, **change}.items() if of is not None}
    with pytest.raises(AssertionError, match=words):
        distribution.check_contents(files)


def test_paths_of_this_machine_are_refused(wheel):
    place = str(distribution.ROOT.resolve()).encode()
    distribution.check_paths({"a": place + b"-elsewhere"})
    with pytest.raises(AssertionError, match="a names"):
        distribution.check_paths({**wheel, "a": b"x " + place + b"/b"})


def test_data_of_the_package_are_among_what_is_packaged():
    found = distribution.packaged()
    assert {
        "apq_moo/cli/entry.py",
        "apq_moo/problems/bounds.json",
        "apq_moo/space/presets/digits.toml",
        "apq_moo/assets/digits/manifest.json",
        "apq_moo/hardware/machines/bitfusion.toml",
    } <= found
    assert distribution.first_command() == [
        "apq-moo", "run", "--algo", "apq-ga", "--objectives", "acc,latency"
    ]  # fmt: skip

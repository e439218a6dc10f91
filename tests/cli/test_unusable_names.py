"""Names under which nothing can be found or made: one line that says why, in every command."""

import ctypes
import os
import struct
import sys

import pytest

SYSCALL = {"capget": 125, "capset": 126}
"""Of Linux on x86-64."""
SEARCHING = 1 << 1 | 1 << 2
"""The capabilities by which root reads and searches whatever it likes."""


@pytest.fixture
def ordinary():
    """Lets root be refused as others are."""
    if os.geteuid():
        yield
        return
    if not sys.platform.startswith("linux") or os.uname().machine != "x86_64":
        pytest.skip("root may do anything here")
    call = ctypes.CDLL(None, use_errno=True).syscall
    header = struct.pack("Ii", 0x20080522, 0)
    before = ctypes.create_string_buffer(24)
    assert call(SYSCALL["capget"], header, before) == 0
    effective, *others = struct.unpack("6I", before.raw)
    assert call(SYSCALL["capset"], header, struct.pack("6I", effective & ~SEARCHING, *others)) == 0
    yield
    assert call(SYSCALL["capset"], header, before.raw) == 0


NAMES = {
    "long": ("p" * 300, "File name too long"),
    "deep": ("d/" * 2100 + "p", "File name too long"),
    "null": ("a\0b", "NUL"),
    "locked": ("locked/p", "Permission denied"),
    "below": ("t.json/p", ""),
}
COMMANDS = [
    "run --space {}",
    "run --space {}.toml",
    "run --device {}.toml",
    "run --device {}.json",
    "run --device {}.npz",
    "run --device {}.parquet",
    "run --predictor {}",
    "run --predictor {}.pt",
    "run --assets {}",
    "run --assets {} --predictor supernet",
    "run --warm-start {}",
    "run --warm-start {}.csv",
    "run --warm-start {}.json",
    "run --out {}",
    "run --out {} --overwrite",
    "run --resume {}",
    "pick {}",
    "pick r --max latency=9 -o {}.json",
    "pick r --max latency=9 -o {}.json --overwrite",
    "report {}",
    "report r -o {}.html",
    "report r -o {}.html --overwrite",
    "report r --markdown {}.md",
    "report r --latex {}.tex",
    "plot {} -o p.png",
    "plot r -o {}.png",
    "audit {} --on cpu",
    "bench --plan {}",
    "bench --plan {}.toml",
    "bench --space {}.toml --out b",
    "bench --space {} --out b",
    "bench --space digits --device {}.toml --out b",
    "bench --space digits --predictor {} --out b",
    "bench --space digits --out {}",
    "bench --resume {}",
    "pipeline --out {}",
    "pipeline --out q --space {}",
    "pipeline --out q --device {}.npz",
    "data download fashion-mnist --folder {}",
    "data download cifar10 --folder {}",
    "device show {}.toml",
    "device show {}.json",
    "lut build -o {}.npz",
    "lut build -o t.npz --space {}",
    "lut build -o t.npz --device {}.npz",
    "lut import {}.json -o t.npz",
    "lut import {}.npz -o t.npz",
    "lut import t.json -o {}.npz",
    "lut import t.json -o t.npz --space {}",
    "lut show {}.json",
    "lut show {}.npz",
    "lut plot -o {}.png",
    "lut plot -o p.png --subnet {}.json",
    "lut validate {}.npz",
    "lut validate t.json --space {}",
    "lut measure -o {}.npz",
    "lut measure -o t.npz --space {}",
    "supernet train -o {}.safetensors",
    "supernet train -o s.safetensors --space {}",
    "supernet eval --supernet {} --on cpu",
    "supernet eval --space {}",
    "supernet measure {}.npz --on cpu",
    "samples collect -o {}.npz --on cpu",
    "samples collect -o s.npz --supernet {} --on cpu",
    "samples exhaust -o {}.npz --space tiny --on cpu",
    "samples add {} -o s.npz",
    "samples add r -o {}.npz",
    "samples add r -o s.npz --samples {}",
    "predictor fit mlp -o {}.safetensors",
    "predictor fit mlp -o p.safetensors --samples {}",
    "predictor compare --samples {}",
    "predictor compare --out {}.csv",
    "predictor compare --picture {}.png",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small run and a table, once."""
    from apq_moo.cli import main

    folder = tmp_path_factory.mktemp("made")
    options = "--objectives latency,macs --budget 100 --algo random --space digits"
    for command in (f"run {options} --out {folder / 'r'}", f"lut build -o {folder / 't.json'}"):
        with pytest.raises(SystemExit) as stop:
            main(command.split())
        assert not stop.value.code
    return folder


CASES = [
    pytest.param(command, name, marks=[pytest.mark.slow] if (i - j) % len(NAMES) else [])
    for i, command in enumerate(COMMANDS)
    for j, name in enumerate(NAMES)
]
"""Every command with one kind of name; with the others among the slow tests."""


@pytest.mark.parametrize(("command", "name"), CASES)
def test_one_line_says_why(refused, made, tmp_path, command, name, request):
    for file in ("r", "t.json"):
        (tmp_path / file).symlink_to(made / file)
    if name == "locked":
        request.getfixturevalue("ordinary")
        (tmp_path / "locked").mkdir(mode=0)
    text, why = NAMES[name]
    line = refused(*(word.format(text) for word in command.split()))
    assert why in line
    assert len(line) <= 300 + len("error: ")


@pytest.mark.parametrize("variable", ["APQ_MOO_DATA", "APQ_MOO_CACHE"])
@pytest.mark.parametrize("name", ["long", "locked", "below"])
def test_folders_that_the_environment_names(call, tmp_path, monkeypatch, variable, name, request):
    (tmp_path / "t.json").touch()
    if name == "locked":
        request.getfixturevalue("ordinary")
        (tmp_path / "locked").mkdir(mode=0)
    for command in ("data list", "supernet measure t.json --space tiny"):
        with monkeypatch.context() as within:
            within.setenv(variable, NAMES[name][0])
            outcome = call(*command.split())
        assert outcome.code in {0, 2}
        assert len(outcome.err.splitlines()) == (outcome.code == 2)

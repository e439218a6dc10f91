"""Networks on an emulated Cortex-M4."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from apq_moo.benchmarks.experiments import microcontroller
from apq_moo.cli import main
from apq_moo.data import load_images
from apq_moo.data.assets import SUPERNET, find_assets
from apq_moo.deploy import cut_out, execute
from apq_moo.deploy.c import c_source
from apq_moo.deploy.c_program import as_bytes, of_bytes
from apq_moo.errors import UserError
from apq_moo.hardware import cost_table
from apq_moo.space import Space, Subnet, load_space
from apq_moo.study.folder import RunFolder
from apq_moo.supernet.checkpoint import load_supernet

DOCS = Path(__file__).parents[2] / "docs"

on_board = pytest.mark.skipif(
    bool(microcontroller.missing()),
    reason=f"not installed: {', '.join(microcontroller.missing())}",
)


@pytest.fixture(scope="module")
def digits():
    """The space, its supernet and its images."""
    space = load_space("digits")
    supernet, _ = load_supernet(find_assets(space).path(SUPERNET), space)
    return space, supernet, load_images("digits")


def cut(digits, genotype):
    space, supernet, images = digits
    (subnet,) = space.decode(genotype[None])
    return cut_out(supernet, subnet, images)


@pytest.mark.slow
@on_board
def test_classes_and_logits_on_the_board(digits):
    space, _, images = digits
    network = cut(digits, space.smallest())
    pictures = as_bytes(images.test.images[:50])
    found = microcontroller.emulate(network, pictures)
    wanted = execute(network, of_bytes(pictures))
    np.testing.assert_array_equal(found.logits, wanted)
    np.testing.assert_array_equal(found.classes, wanted.argmax(1))
    made = c_source(network)
    assert 0 <= found.arena_bytes - made.arena_bytes < 4
    assert made.weight_bytes + 4000 < found.flash_bytes < made.weight_bytes + 8000
    assert 200 < found.stack_bytes < 1024
    macs = 1e6 * cost_table(space, "macs")(space.smallest()[None])[0]
    assert (found.instructions > 10 * macs).all()
    assert (found.instructions < 40 * macs).all()
    small = microcontroller.emulate(network, pictures[:2], "-Os")
    np.testing.assert_array_equal(small.logits, wanted[:2])
    assert small.flash_bytes < found.flash_bytes


@pytest.mark.slow
@on_board
def test_members_of_a_front(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = ["--algo", "random", "--objectives", "acc,size", "--budget", "200"]
    with pytest.raises(SystemExit, match="0"):
        main(["run", "--space", "digits", *given, "--out", "r"])
    capsys.readouterr()
    microcontroller.main(
        ["r", "--members", "2", "--images", "3", "--test", "200", "--out", "m.json"]
    )
    rows = json.loads(Path("m.json").read_text())["members"]
    assert capsys.readouterr().out.splitlines() == microcontroller.table(rows)[2:]
    assert [(row["images"], row["images_on_board"]) for row in rows] == [(200, 3)] * 2
    assert rows[0]["weight_bytes"] < rows[1]["weight_bytes"]
    for row, (subnet, values) in zip(
        rows, microcontroller.members(RunFolder.open("r"), 2), strict=True
    ):
        assert Subnet.from_dict(row["subnet"]) == subnet
        assert row["objectives"] == values
        assert row["weight_bytes"] == pytest.approx(1024 * values["size"], abs=30)


def test_a_board_needs_its_tools(digits, monkeypatch):
    monkeypatch.setenv("PATH", "")
    network = cut(digits, digits[0].smallest())
    with pytest.raises(UserError, match="arm-none-eabi-gcc and qemu-system-arm not here: install"):
        microcontroller.emulate(network, as_bytes(digits[2].test.images[:1]))


@pytest.mark.parametrize("name", ["digits", "fashion"])
def test_the_table_of_the_page_is_that_of_its_file(name):
    """And weights and arenas were what the objectives say."""
    rows = json.loads((DOCS / "data" / f"{name}-microcontroller.json").read_text())["members"]
    assert len(rows) == 4
    assert "\n".join(microcontroller.table(rows)) in (DOCS / "deploy.md").read_text()
    for row in rows:
        space = Space(replace(load_space(name).spec, between_bits=row["between_bits"]))
        X = space.encode([Subnet.from_dict(row["subnet"])])
        for quantity, part in (("size", "weight_bytes"), ("memory", "arena_bytes")):
            assert row[part] == pytest.approx(1024 * cost_table(space, quantity)(X)[0], rel=0.02)

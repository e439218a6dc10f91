"""The commands ``device`` and ``lut``, searches on tables, and breakdowns."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apq_moo.hardware import cost_table, find_device, read_table
from apq_moo.hardware.breakdown import breakdown
from apq_moo.hardware.measuring.backends import BACKENDS
from apq_moo.space import Subnet, load_space

SMALL = ("--budget", "1200", "--sweep", "1", "--pop-size", "50")


@pytest.fixture
def table(call, tmp_path):
    """The costs of digits on the published accelerator, in a file."""
    assert call("lut", "build", "--space", "digits", "-o", "bf.npz").code == 0
    return tmp_path / "bf.npz"


def test_devices_are_listed_and_shown(call):
    outcome = call("device", "list")
    assert outcome.code == 0
    names = [line.partition(":")[0] for line in outcome.out.splitlines()]
    assert names == ["bitfusion", "bitfusion-edge", "bitfusion-large"]
    shown = call("device", "show", "bitfusion-edge").out.splitlines()
    assert "rows: 8" in shown
    assert "precisions: 2 4 8" in shown
    assert "clock_khz: 200000.0" in shown


def test_a_users_accelerator(call, refused, tmp_path):
    source = Path(find_device.__code__.co_filename).parent / "machines" / "bitfusion.toml"
    text = source.read_text()
    mine = tmp_path / "mine.toml"
    text = text.replace('"bitfusion"', '"mine"')
    mine.write_text(text.replace("clock_mhz = 500", "clock_mhz = 250"))
    assert "name: mine" in call("device", "show", "mine.toml").out
    space = load_space("digits")
    X = space.sample(20, np.random.default_rng(0))
    slow, fast = (cost_table(space, "latency", device)(X) for device in (mine, "bitfusion"))
    np.testing.assert_allclose(slow, 2 * fast)
    assert call("run", "--device", "mine.toml", *SMALL, "--out", "r").code == 0
    mine.write_text(text.replace("weight_kib = 64", "weight_kib = 0.05"))
    line = refused("run", "--device", "mine.toml", *SMALL, "--out", "r2")
    assert "no network of space 'digits' can run" in line
    mine.write_text(text.replace("rows = 16", "rows = 0"))
    assert "rows must be an integer from 1 to 4096, not 0" in refused("device", "show", "mine.toml")
    assert not Path("r2").exists()


@pytest.mark.parametrize("suffix", ["json", "npz", "parquet"])
def test_searching_on_a_table_is_searching_on_its_device(call, suffix):
    assert call("lut", "build", "--space", "digits", "-o", f"t.{suffix}").code == 0
    given = ("--device", f"t.{suffix}", "--missing", "infeasible")
    assert call("run", *given, *SMALL, "--out", "table").code == 0
    assert call("run", *SMALL, "--out", "device").code == 0
    fronts = [Path(name, "front.csv").read_text().splitlines() for name in ("table", "device")]
    assert len(fronts[0]) == len(fronts[1]) > 3
    for mine, theirs in zip(*fronts, strict=True):
        assert mine.partition('"')[2] == theirs.partition('"')[2]


def test_a_changed_table_changes_no_run(call, refused, table):
    """The search goes on with the folder's copy; one whose copy was changed is refused."""
    assert call("run", "--device", table, *SMALL, "--out", "r").code == 0
    front = Path("r/front.csv").read_bytes()
    unfinished = json.loads(Path("r/run.json").read_text()) | {"status": "unfinished"}
    table.unlink()
    call("lut", "build", "--space", "digits", "--device", "bitfusion-edge", "-o", "bf.npz")
    Path("r/run.json").write_text(json.dumps(unfinished))
    assert call("run", "--resume", "r").code == 0
    assert Path("r/front.csv").read_bytes() == front
    Path("r/run.json").write_text(json.dumps(unfinished))
    Path("r/device.npz").write_bytes(Path("bf.npz").read_bytes())
    assert "begun with other data: device changed since" in refused("run", "--resume", "r")


def test_missing_layers_are_named_or_infeasible(call, refused, tmp_path):
    assert call("lut", "build", "--space", "imagenet", "-o", "all.json").code == 0
    data = json.loads(Path("all.json").read_text())
    assert len(data) == 6569
    key = "(96, 456, 14, 1, 1, 0, 1)-W4A4"
    del data[key]
    Path("some.json").write_text(json.dumps(data))
    given = ("--space", "imagenet", "--objectives", "latency,energy", "--device", "some.json")
    line = refused("run", *given, *SMALL)
    assert f"some.json lacks {key}" in line
    assert "--missing infeasible" in line
    outcome = call("run", *given, *SMALL, "--missing", "infeasible", "--out", "r")
    assert outcome.code == 0
    assert "missing must be error or infeasible" in refused("run", *given, "--missing", "ignore")
    validated = call("lut", "validate", "some.json", "--space", "imagenet")
    assert validated.code == 1
    assert "missing layers: 1" in validated.out
    assert key in validated.out
    good = call("lut", "validate", "all.json", "--space", "imagenet")
    assert good.code == 0
    assert "layers that imagenet needs: 6,567" in good.out
    assert "missing layers: 0" in good.out
    assert re.search(r"sums of their layers to \d\.\de-1\d", good.out)


def test_values_that_are_no_costs(call, refused):
    assert call("lut", "build", "--space", "digits", "-o", "t.json").code == 0
    data = json.loads(Path("t.json").read_text())
    keys = list(data)[3:6]
    for key, value in zip(keys, (0, -1.5, float("nan")), strict=True):
        data[key]["latency"] = value
    Path("bad.json").write_text(json.dumps(data))
    outcome = call("lut", "validate", "bad.json")
    assert outcome.code == 1
    assert "values that are no costs: 3" in outcome.out
    assert all(key in outcome.out for key in keys)
    line = refused("run", "--device", "bad.json", *SMALL)
    assert f"{keys[0]} has latency 0; costs must be positive (and 2 more: see lut validate)" in line
    assert f"{keys[0]} has latency 0" in refused("lut", "import", "bad.json", "-o", "x.npz")
    assert not Path("x.npz").exists()


def test_tables_are_imported_and_shown(call, refused, table):
    assert call("lut", "import", table, "-o", "t.parquet", "--space", "digits").code == 0
    first, second = read_table(table), read_table("t.parquet")
    assert first.names == second.names
    for cost, values in first.values.items():
        np.testing.assert_array_equal(values, second.values[cost])
    outcome = call("lut", "show", "t.parquet", "--layer", "(8, 32, 8", "--rows", "2")
    assert outcome.code == 0
    assert "latency: ms" in outcome.out
    assert "device.clock_khz: 500000.0" in outcome.out
    assert outcome.out.count("(8, 32, 8") == 2
    assert "more rows" in outcome.out
    assert "no layer whose name contains 'x'" in refused("lut", "show", "t.parquet", "--layer", "x")
    assert "exists; remove it" in refused("lut", "import", table, "-o", "t.parquet")
    assert "lacks" in refused("lut", "import", table, "-o", "y.npz", "--space", "imagenet")
    assert not Path("y.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("lut", "build", "-o", "t.csv"), "name a file that ends in .npz, .parquet or .json"),
        (("lut", "build", "--device", "abacus", "-o", "t.npz"), "unknown device 'abacus'; known:"),
        (("lut", "build", "--device", "no.toml", "-o", "t.npz"), "cannot read no.toml: No such"),
        (("lut", "show", "no.npz"), "cannot read no.npz: No such file"),
        (("lut", "measure", "--backend", "tvm", "-o", "t.npz"), "unknown backend 'tvm'; known:"),
        (("lut", "measure", "-o", "t.json"), "no place for spread and provenance"),
        (("lut", "measure", "-o", "t.npz", "--precision", "2"), "write a fraction, such as 0.02"),
        (("lut", "plot", "-o", "x.gif"), "name a file that ends in .png, .svg or .pdf"),
        (("lut", "plot", "-o", "x.png", "--layer", "stem"), "write block<number>.<part>"),
        (("lut", "plot", "-o", "x.png", "--layer", "block99.expand"), "blocks are 0 to 7"),
        (("lut", "plot", "-o", "x.png", "--layer", "block1.pool"), "use expand, depthwise, proj"),
        (
            ("lut", "plot", "-o", "x.png", "--layer", "block1.depthwise", "--kernel", "4"),
            "kernel 4 is not offered; use 3, 5, 7",
        ),
        (("lut", "plot", "-o", "x.png", "--subnet", "mine"), "write largest, smallest, or a .json"),
        (("device", "show", "no.json"), "cannot read no.json"),
        (("run", "--device", "no.npz"), "cannot read no.npz: No such file"),
        (("run", "--device", "t.txt"), "unknown device 't.txt'; known: bitfusion"),
    ],
)
def test_mistakes_are_answered_in_one_line(refused, arguments, words):
    before = sorted(Path().iterdir())
    assert words in refused(*arguments)
    assert sorted(Path().iterdir()) == before


def test_energy_of_a_device_that_gives_none(refused, call, table):
    data = {
        name: {"latency": costs["latency"]}
        for name, costs in json.loads(_as_json(call, table)).items()
    }
    Path("latency.json").write_text(json.dumps(data))
    line = refused("run", "--device", "latency.json", "--objectives", "acc,energy")
    assert line == "error: device latency.json gives latency; not energy"


def _as_json(call, table):
    assert call("lut", "import", table, "-o", "as.json").code == 0
    return Path("as.json").read_text()


@pytest.mark.usefixtures("hurried")
def test_measured_on_this_machine(call, refused):
    """From measuring to a search: 8 bits are offered, networks are predicted and corrected."""
    outcome = call("lut", "measure", "--space", "digits", "--precision", "0.2", "-o", "cpu.npz")
    assert outcome.code == 0, outcome
    assert re.search(r"\d+ layers of digits in \d+ s: cpu.npz", outcome.out)
    validated = call("lut", "validate", "cpu.npz", "--end-to-end", "8")
    assert validated.code == 0, validated
    assert "not offered to searches: W3A3" in validated.out
    assert "8 networks: Kendall tau" in validated.out
    table = read_table("cpu.npz")
    correction = table.corrections["latency"]
    assert correction.networks == 8
    assert len(table.provenance["end_to_end"]["measured_ms"]) == 8
    assert "corrected for whole networks" in call("lut", "show", "cpu.npz").out
    run = call("run", "--device", "cpu.npz", *SMALL, "--out", "r", "--breakdown", "0")
    assert run.code == 0, run
    assert "not offered, since cpu.npz does not run them: w_pw 3, 4, 6; a_pw 3, 4, 6" in " ".join(
        run.err.split()
    )
    rows = Path("r/front.csv").read_text()
    assert set(re.findall(r'"w_pw"": (\d+)', rows)) == {"8"}
    assert Image.open("r/breakdown-0.png").size[0] > 500
    assert "at least 5 networks" in refused("lut", "validate", "cpu.npz", "--end-to-end", "2")
    assert call("lut", "build", "--space", "digits", "-o", "bf.npz").code == 0
    line = refused("lut", "validate", "bf.npz", "--end-to-end", "8")
    assert "was not measured by lut measure" in line


def test_another_machines_table_is_not_validated_here(call, refused):
    from dataclasses import replace

    from apq_moo.hardware import write_table
    from apq_moo.hardware.measuring.layers import measure_layers
    from apq_moo.hardware.measuring.timing import Rule

    rule = Rule(precision=0.5, observations=6, max_s=0.001, warm_up_s=0, block_ms=0.01)
    backend = BACKENDS.get("onnxruntime")(1, "cpu")
    table = measure_layers(load_space("digits"), backend, Path("here.npz"), rule=rule)
    record = dict(table.provenance)
    record["measured"] = {**record["measured"], "processor": "abacus"}
    write_table("there.npz", replace(table, provenance=record))
    line = refused("lut", "validate", "there.npz", "--end-to-end", "8")
    assert "was measured with processor abacus, and here it is" in line


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_pictures_are_drawn(call, suffix):
    assert call("lut", "plot", "-o", f"n.{suffix}").code == 0
    given = ("--layer", "block1.depthwise", "--kernel", "5")
    assert call("lut", "plot", *given, "-o", f"l.{suffix}").code == 0
    for name in ("n", "l"):
        content = Path(f"{name}.{suffix}").read_bytes()
        assert content.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix])
    if suffix == "svg":
        assert b"block1.depthwise" in Path("n.svg").read_bytes()


def test_breakdowns_add_up_to_the_front(call, refused):
    assert call("run", *SMALL, "--out", "r").code == 0
    outcome = call("run", "--resume", "r", "--breakdown", "1")
    assert outcome.code == 0
    assert "drawn in r/breakdown-1.png" in outcome.out
    row = Path("r/front.csv").read_text().splitlines()[2]
    latency = float(row.split(",")[1])
    subnet = Subnet.from_dict(json.loads(row.partition('"')[2][:-1].replace('""', '"')))
    found = breakdown(load_space("digits"), subnet, "latency")
    assert sum(found.values()) == pytest.approx(latency)
    for part, value in found.items():
        assert re.search(rf"{re.escape(part)} .* {value:.4g} ", outcome.out)
    front = len(Path("r/front.csv").read_text().splitlines()) - 1
    line = refused("run", "--resume", "r", "--breakdown", "999")
    assert line == f"error: --breakdown 999: the front has {front} rows, numbered from 0"


def test_macs_and_memory_are_objectives_and_limits(call, refused):
    given = ("--objectives", "acc,macs", "--max", "memory=0.9", *SMALL)
    assert call("run", *given, "--out", "r").code == 0
    space = load_space("digits")
    lines = Path("r/front.csv").read_text().splitlines()[1:]
    subnets = [json.loads(line.partition('"')[2][:-1].replace('""', '"')) for line in lines]
    X = space.encode(subnets)
    assert (cost_table(space, "memory")(X) <= 0.9).all()
    np.testing.assert_allclose(
        cost_table(space, "macs")(X), [float(line.split(",")[1]) for line in lines]
    )
    assert "memory <= 0.1 KiB" in refused("run", "--max", "memory=0.1", *SMALL)

"""Accelerators as files, and devices by name or path."""

import copy
import tomllib
from importlib.resources import files
from math import sqrt

import numpy as np
import pytest

from apq_moo.errors import UserError
from apq_moo.hardware import (
    DEVICES,
    QUANTITIES,
    Accelerator,
    ArrayDevice,
    Device,
    Quantity,
    cost_table,
    find_device,
    load_accelerator,
)
from apq_moo.hardware.accelerator import machines
from apq_moo.problems import APQProblem
from apq_moo.space import load_space

TEXT = (files("apq_moo.hardware") / "machines" / "bitfusion.toml").read_text()
DATA = tomllib.loads(TEXT)
SRAM = {"weight": "weight_bits", "activation": "activation_bits", "output": "output_bits"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))


def machine(name):
    return find_device(name).machine


def test_all_shipped_machines_are_devices():
    assert machines() == ["bitfusion", "bitfusion-edge", "bitfusion-large"]
    assert set(machines()) <= set(DEVICES)
    for name in machines():
        assert machine(name).name == name == find_device(name).name
        assert find_device(name) is find_device(name)
        assert len(machine(name).description.splitlines()) == 1


def test_the_published_machine_has_the_fitted_constants():
    assert machine("bitfusion") == Accelerator(
        name="bitfusion",
        description=machine("bitfusion").description,
        rows=16,
        columns=32,
        precisions=(2, 4, 8),
        accumulator_bits=32,
        clock_khz=500_000,
        activation_bits=131_072,
        weight_bits=262_144,
        output_bits=65_536,
        dram_bits=192,
        core_nj=0.4766518,
        static_nj=0.433014704,
        dram_nj=0.015,
        weight_read_nj=2.136565625e-5,
        weight_write_nj=2.891615625e-5,
        activation_read_nj=5.9474375e-5,
        activation_write_nj=1.137040625e-4,
        output_nj=9.250146875e-5,
    )


@pytest.mark.parametrize(
    ("name", "units", "area", "sram", "megahertz", "dram_nj"),
    [("bitfusion-edge", 1 / 4, 1 / 4, 24 / 96, 200, 0.015),
     ("bitfusion-large", 4, 16, 768 / 96, 800, 0.004)],
)  # fmt: skip
def test_variants_follow_from_the_published_machine(name, units, area, sram, megahertz, dram_nj):
    """The rules written in their files, with the published machine's numbers."""
    base, found = machine("bitfusion"), machine(name)
    assert found.rows * found.columns == units * base.rows * base.columns
    assert found.weight_bits + found.activation_bits == sram * 96 * 1024 * 8 / 2
    assert found.core_nj == pytest.approx(area * 0.4766518, rel=1e-6)
    leakage_mw = sram * 179.468576 + area * 37.038776
    assert found.static_nj == pytest.approx(leakage_mw * 1e-3 / (megahertz * 1e6) * 1e9, rel=1e-5)
    assert found.clock_khz == 1000 * megahertz
    assert found.dram_nj == dram_nj
    for field in ("weight_read", "weight_write", "activation_read", "activation_write", "output"):
        size = SRAM[field.partition("_")[0]]
        factor = sqrt(getattr(found, size) / getattr(base, size))
        expected = factor * getattr(base, f"{field}_nj")
        assert getattr(found, f"{field}_nj") == pytest.approx(expected, rel=1e-6), field


def test_operands_take_the_next_wider_precision():
    large = machine("bitfusion-large")
    bits = np.array([2, 3, 4, 5, 8, 9, 16])
    np.testing.assert_array_equal(large.operand_bits(bits), [2, 4, 4, 8, 8, 16, 16])
    w, a = np.array([2, 4, 16, 8]), np.array([2, 16, 16, 3])
    np.testing.assert_array_equal(large.parallelism(w, a), [64, 4, 1, 8])


def test_a_file_is_the_machine_it_describes(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    assert load_accelerator(path) == machine("bitfusion")
    space = load_space("digits")
    X = space.sample(50, np.random.default_rng(0))
    X = X[np.isfinite(cost_table(space, "energy")(X))]
    for device in (path, str(path), ArrayDevice(load_accelerator(path))):
        np.testing.assert_array_equal(
            cost_table(space, "energy", device)(X), cost_table(space, "energy")(X)
        )
    path.write_text(TEXT.replace("dram_bit = 0.015", "dram_bit = 0.03"))
    dearer = cost_table(space, "energy", path)(X)
    assert (dearer > cost_table(space, "energy")(X)).all()
    problem = APQProblem(space, ("energy",), device=path)
    np.testing.assert_array_equal(problem.evaluate_raw(X)["energy"], dearer)


MALFORMED = [
    (("name",), None, "name must be one line of text, but is missing"),
    (("name",), "", "name must be one line of text, not ''"),
    (("name",), "a\nb", "name must be one line of text"),
    (("name",), 3, "name must be one line of text, not 3"),
    (("description",), ["x"], "description must be one line of text"),
    (("rows",), 0, "rows must be an integer from 1 to 4096, not 0"),
    (("rows",), 16.0, "rows must be an integer"),
    (("rows",), True, "rows must be an integer"),
    (("columns",), 10**40, "columns must be an integer from 1 to 4096"),
    (("columns",), None, "columns must be an integer from 1 to 4096, but is missing"),
    (("precisions",), [], "precisions must be a non-empty, ascending list of 2, 4, 8, 16, not []"),
    (("precisions",), [8, 4], "precisions must be"),
    (("precisions",), [4, 4], "precisions must be"),
    (("precisions",), [3], "precisions must be"),
    (("precisions",), [2.0], "precisions must be"),
    (("precisions",), 8, "precisions must be"),
    (("accumulator_bits",), 7, "accumulator_bits must be an integer from 8 to 64, not 7"),
    (("clock_mhz",), 0, "clock_mhz must be a number from 0.001 to 100000, not 0"),
    (("clock_mhz",), float("nan"), "clock_mhz must be a number"),
    (("clock_mhz",), float("inf"), "clock_mhz must be a number"),
    (("clock_mhz",), "fast", "clock_mhz must be a number from 0.001 to 100000, not 'fast'"),
    (("memory",), None, "a [memory] table is needed"),
    (("memory",), 4, "[memory] must be a table, not 4"),
    (("memory", "weight_kib"), -1, "memory.weight_kib must be a number from"),
    (("memory", "weight_kib"), None, "memory.weight_kib must be a number from"),
    (("memory", "output_kib"), True, "memory.output_kib must be a number from"),
    (("memory", "dram_bits_per_cycle"), 0, "memory.dram_bits_per_cycle must be an integer"),
    (("memory", "cache"), 1, "unknown key 'cache' in [memory]; known: activation_kib"),
    (("energy_nj", "dram_bit"), -0.1, "energy_nj.dram_bit must be a number from 0 to 1e+06"),
    (("energy_nj", "core_cycle"), None, "energy_nj.core_cycle must be a number"),
    (("energy_nj",), [], "[energy_nj] must be a table, not []"),
    (("speed",), 1, "unknown key 'speed' in the file; known: name, description"),
]


@pytest.mark.parametrize(("path", "value", "message"), MALFORMED)
def test_malformed_machines_are_refused(path, value, message):
    data = copy.deepcopy(DATA)
    *outer, last = path
    table = data
    for key in outer:
        table = table[key]
    if value is None:
        del table[last]
    else:
        table[last] = value
    with pytest.raises(UserError) as caught:
        Accelerator.from_dict(data, source="mine.toml")
    assert str(caught.value).startswith(f"mine.toml: {message}")
    assert len(str(caught.value).splitlines()) == 1


def test_malformed_machines_are_refused_from_their_files(tmp_path):
    path = tmp_path / "mine.toml"
    for old, new, words in [
        ("clock_mhz = 500", "clock_mhz = nan", "clock_mhz must be a number from 0.001 to 100000"),
        ("dram_bit = 0.015", "", "energy_nj.dram_bit must be a number from 0 to 1e+06, but is mis"),
        ("rows = 16", "rows = 16\nrows = 8", "is not valid TOML: Cannot overwrite a value"),
    ]:
        path.write_text(TEXT.replace(old, new))
        for read in (load_accelerator, find_device, lambda p: APQProblem("digits", device=p)):
            with pytest.raises(UserError) as caught:
                read(path)
            assert str(caught.value).startswith(str(path))
            assert words in str(caught.value)
            assert len(str(caught.value).splitlines()) == 1


def test_a_machine_that_holds_no_tile_says_so(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TEXT.replace("activation_kib = 32", "activation_kib = 0.02"))
    for space in ("digits", "imagenet"):
        with pytest.raises(UserError, match=f"no network of space '{space}' can run"):
            APQProblem(space, ("latency",), device=path)


def test_other_devices_may_give_other_costs(monkeypatch):
    """A device of one's own, with a cost that the package does not know."""

    class Abacus(Device):
        name = "abacus"
        units = {"beads": "1"}  # noqa: RUF012

        def layer_costs(self, layers):
            return {"beads": np.array([float(layer.c_out) for layer in layers])}

    monkeypatch.setitem(DEVICES._items, "abacus", Abacus)
    monkeypatch.setitem(QUANTITIES._items, "beads", Quantity("beads", "1", "beads moved"))
    space = load_space("digits")
    X = space.sample(5, np.random.default_rng(0))
    problem = APQProblem(space, ("beads", "params"), device="abacus")
    expected = [sum(layer.c_out for layer in space.layers(subnet)) for subnet in space.decode(X)]
    np.testing.assert_array_equal(problem.evaluate_raw(X)["beads"], expected)
    with pytest.raises(UserError, match="device abacus gives beads; not latency"):
        APQProblem(space, ("latency",), device="abacus")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (
            "abacus",
            "unknown device 'abacus'; known: bitfusion, bitfusion-edge, bitfusion-large, or",
        ),
        ("no.toml", "cannot read no.toml: No such file"),
        ("no.json", "cannot read no.json: No such file"),
        ("x\0.toml", "cannot read "),
        ("x\0.npz", "cannot read "),
        ("x" * 5000 + ".json", "cannot read "),
        ("x" * 5000, "unknown device "),
    ],
)
def test_unknown_devices_are_refused(device, message):
    with pytest.raises(UserError) as caught:
        find_device(device)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value).splitlines()) == 1

"""Tables of layer costs: files, devices made of them, and compiled tables kept on disk."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from apq_moo.errors import UserError
from apq_moo.files import read_json
from apq_moo.hardware import (
    ArrayDevice,
    LayerTable,
    TableDevice,
    compiled,
    cost_table,
    feasible_options,
    find_device,
    read_table,
    write_table,
)
from apq_moo.hardware.checking import check_table
from apq_moo.hardware.layer_set import layer_set
from apq_moo.hardware.layer_table import Correction, build, parse_key
from apq_moo.problems import APQProblem
from apq_moo.space import load_space

KEY = "(96, 456, 14, 1, 1, 0, 1)-W4A4"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))
    compiled.device_tables.cache_clear()


@pytest.fixture(scope="module")
def bitfusion():
    return find_device("bitfusion")


@pytest.fixture(scope="module")
def digits(bitfusion):
    return build(load_space("digits"), bitfusion, {"device": "bitfusion"})


@pytest.fixture(scope="module")
def imagenet(bitfusion):
    return build(load_space("imagenet"), bitfusion, {})


def lookup(table, name, cost):
    return float(table.values[cost][table.names.index(name)])


def drop(table, name):
    keep = [i for i, row in enumerate(table.names) if row != name]
    return replace(
        table,
        names=tuple(table.names[i] for i in keep),
        components=tuple(table.components[i] for i in keep),
        values={cost: values[keep] for cost, values in table.values.items()},
    )


# -- what is built ---------------------------------------------------------------------------------


def test_the_published_file_is_built(imagenet, tmp_path):
    """Its 6,569 keys; beside the tests of single layers stand the tests of their values."""
    write_table(tmp_path / "t.json", imagenet)
    data = read_json(tmp_path / "t.json")
    assert len(data) == 6569
    depthwise = [key for key in data if key[0] == "(" and parse_key(key)[6] > 1]
    assert len(depthwise) == 3552
    assert len(data) - len(depthwise) - 2 == 3015
    assert set(data) - set(imagenet.names) == {"head", "tail"}
    assert not any(re.search(r", 7, [12], 3, \d+\)-W\dA4$", key) for key in data)


@pytest.mark.parametrize("suffix", ["json", "npz", "parquet"])
@pytest.mark.parametrize("name", ["digits", "imagenet"])
def test_a_table_costs_as_its_device(name, suffix, tmp_path, bitfusion):
    space = load_space(name)
    path = tmp_path / f"t.{suffix}"
    write_table(path, build(space, bitfusion, {}))
    device = find_device(path, missing="infeasible")
    for cost in ("latency", "energy"):
        mine, theirs = (cost_table(space, cost, model) for model in (device, bitfusion))
        assert mine.fixed == pytest.approx(theirs.fixed, rel=1e-14)
        for b, (found, expected) in enumerate(zip(mine.blocks, theirs.blocks, strict=True)):
            rows = space.allowed(b)
            np.testing.assert_allclose(found[rows], expected[rows], rtol=1e-14)


def test_forbidden_layers_are_not_missing(imagenet, tmp_path):
    """The published table has no 7x7 layer at 4-bit activations, and no network needs one."""
    write_table(tmp_path / "t.json", imagenet)
    table = read_table(tmp_path / "t.json")
    assert isinstance(find_device(tmp_path / "t.json"), TableDevice)
    report = check_table(table, load_space("imagenet"), "t.json")
    assert (report.needed, report.missing, report.problems) == (6567, [], [])
    assert report.good
    assert report.additivity < 1e-14
    APQProblem("imagenet", ("latency", "energy"), device=tmp_path / "t.json")


# -- what is lacking -------------------------------------------------------------------------------


def test_a_missing_layer_is_named(imagenet):
    space = load_space("imagenet")
    some = drop(imagenet, KEY)
    with pytest.raises(UserError) as caught:
        cost_table(space, "latency", TableDevice(some, "mine"))
    assert str(caught.value).startswith(f"mine lacks {KEY} (block")
    assert "other layers" not in str(caught.value)
    report = check_table(some, space, "mine")
    assert [layer.key for layer in report.missing] == [KEY]
    assert not report.good
    fewer = drop(some, "(96, 448, 14, 1, 1, 0, 1)-W6A6")
    with pytest.raises(UserError, match="and 1 other layers; add them"):
        cost_table(space, "latency", TableDevice(fewer, "mine"))


def test_missing_layers_may_be_infeasible(imagenet):
    """Exactly the configurations that use the layer cost inf."""
    space = load_space("imagenet")
    whole = cost_table(space, "latency", TableDevice(imagenet, "all"))
    some = TableDevice(drop(imagenet, KEY), "some", missing="infeasible")
    lacking = cost_table(space, "latency", some)
    uses = 0
    for b, plan in enumerate(space.plans):
        genes = space.block_genes(b, np.arange(space.block_sizes[b]))
        options = [np.array(plan.options[name])[genes[:, f]] for f, name in
                   enumerate(("kernel", "channels", "w_pw", "a_pw"))]  # fmt: skip
        at_4 = (options[2] == 4) & (options[3] == 4)
        expand = (plan.c_in, plan.size) == (96, 14) and at_4 & (options[1] == 456)
        project = (plan.c_out, plan.size_out) == (456, 14)
        gone = np.zeros(len(genes), dtype=bool) | expand | project
        np.testing.assert_array_equal(lacking.blocks[b], np.where(gone, np.inf, whole.blocks[b]))
        uses += int(gone.sum())
    assert uses > 0


def test_bits_that_a_table_does_not_know_are_not_offered(digits):
    at_8 = [i for i, name in enumerate(digits.names) if name.endswith("-W8A8")]
    table = LayerTable(
        names=tuple(digits.names[i] for i in at_8),
        components=tuple(digits.components[i] for i in at_8),
        units=digits.units,
        values={cost: values[at_8] for cost, values in digits.values.items()},
    )
    space = load_space("digits")
    latency = cost_table(space, "latency", TableDevice(table, "int8"))
    for b, mask in enumerate(feasible_options(space, [latency])):
        assert (space.block_genes(b, np.flatnonzero(mask))[:, 2:] == 3).all()
    report = check_table(table, space, "int8")
    assert report.missing == []
    assert len(report.unsupported) == 15
    assert report.good


def test_integers_that_are_slower_than_floats_are_told():
    """The same layers, each at half as much again in integers."""
    space = load_space("digits")
    layers = space.layers(space.decode(space.largest())[0])
    at = {bits: [replace(layer, w_bits=bits, a_bits=bits) for layer in layers] for bits in (8, 32)}
    keys = {layer.key: 3.0 if bits == 8 else 2.0 for bits in at for layer in at[bits]}
    values = {"latency": np.array(list(keys.values()))}
    table = LayerTable(tuple(keys), ("block",) * len(keys), {"latency": "ms"}, values)
    assert check_table(table, space, "mine").integers == pytest.approx(1.5)
    at_8 = np.flatnonzero(values["latency"] == 3.0)
    names = tuple(table.names[i] for i in at_8)
    values = {"latency": np.full(len(names), 3.0)}
    fewer = LayerTable(names, ("block",) * len(names), {"latency": "ms"}, values)
    assert check_table(fewer, space, "mine").integers is None


def test_a_table_of_another_space_is_refused(digits, imagenet):
    device = TableDevice(imagenet, "imagenet.json")
    with pytest.raises(UserError, match=r"imagenet.json lacks \(8, 8, 8, 1, .* other layers"):
        cost_table(load_space("digits"), "latency", device)
    with pytest.raises(UserError, match=r"digits\.npz lacks"):
        cost_table(load_space("imagenet"), "latency", TableDevice(digits, "digits.npz"))


def test_head_without_tail_is_refused(imagenet, tmp_path):
    write_table(tmp_path / "t.json", imagenet)
    data = read_json(tmp_path / "t.json")
    del data["tail"]
    (tmp_path / "t.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match="has 'head', but lacks 'tail'"):
        APQProblem("imagenet", ("latency",), device=tmp_path / "t.json")


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "latency 0"), (-2.0, "latency -2"), (np.nan, "latency nan")],
)
def test_values_that_are_no_costs_are_refused(digits, value, words):
    values = digits.values["latency"].copy()
    values[5] = value
    table = replace(digits, values=digits.values | {"latency": values})
    assert table.problems() == [f"{digits.names[5]} has {words}; costs must be positive"]
    with pytest.raises(UserError, match=re.escape(f"mine: {digits.names[5]} has {words}; costs")):
        TableDevice(table, "mine")


def test_fixed_layers_must_run(imagenet, tmp_path):
    write_table(tmp_path / "t.json", imagenet)
    table = read_table(tmp_path / "t.json")
    table.values["latency"][table.names.index("head")] = np.inf
    assert table.problems() == ["head has latency inf; costs must be positive"]
    with pytest.raises(UserError, match="mine: head has latency inf"):
        TableDevice(table, "mine")


# -- files -----------------------------------------------------------------------------------------


@pytest.fixture
def rich(digits):
    """A table with everything that the own format holds."""
    rng = np.random.default_rng(0)
    return replace(
        digits,
        spread={"latency": rng.random(len(digits))},
        repeats=rng.integers(1, 99, len(digits)),
        constant={"latency": 0.125},
        corrections={"latency": Correction(1.1, -0.01, 30, 0.93, 12.0, 1.5)},
        provenance={"processor": "abacus", "versions": {"python": "3"}, "list": [1, 2.5, None]},
    )


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_own_files_keep_everything(rich, suffix, tmp_path):
    path = tmp_path / f"t.{suffix}"
    write_table(path, rich)
    found = read_table(path)
    for field in ("names", "components", "units", "constant", "bits", "corrections", "provenance"):
        assert getattr(found, field) == getattr(rich, field), field
    for field in ("values", "spread"):
        mine, theirs = getattr(found, field), getattr(rich, field)
        assert mine.keys() == theirs.keys()
        for cost, values in theirs.items():
            np.testing.assert_array_equal(mine[cost], values)
    np.testing.assert_array_equal(found.repeats, rich.repeats)
    assert np.isinf(found.values["latency"]).any()  # layers that cannot run stay in
    assert [item.name for item in tmp_path.iterdir() if item.is_file()] == [path.name]


def test_published_files_keep_costs(rich, tmp_path):
    """Infeasible layers are left out; the fixed layers and the constant are summed up."""
    write_table(tmp_path / "t.json", rich)
    found = read_table(tmp_path / "t.json")
    for cost in ("latency", "energy"):
        rows = dict(zip(rich.names, rich.values[cost], strict=True))
        blocks = {
            name: value
            for (name, value), component in zip(rows.items(), rich.components, strict=False)
            if component == "block" and np.isfinite(value)
        }
        mine = dict(zip(found.names, found.values[cost], strict=True))
        assert {name: mine[name] for name in blocks} == blocks
        fixed = {
            component: value
            for component, value in zip(rich.components, rich.values[cost], strict=True)
            if component != "block"
        }
        constant = 0.125 if cost == "latency" else 0.0
        assert mine["head"] == pytest.approx(fixed["stem"] + constant)
        assert mine["tail"] == pytest.approx(fixed["classifier"])
        assert len(mine) == len(blocks) + 2


def test_corrections_hold_for_sums(rich):
    space = load_space("digits")
    plain = replace(rich, corrections={}, constant={})
    X = space.sample(50, np.random.default_rng(0))
    X = X[np.isfinite(cost_table(space, "latency", TableDevice(plain, "a"))(X))]
    for cost, scale, offset in (("latency", 1.1, 1.1 * 0.125 - 0.01), ("energy", 1, 0)):
        sums = cost_table(space, cost, TableDevice(plain, "a"))(X)
        found = cost_table(space, cost, TableDevice(rich, "b"))(X)
        np.testing.assert_allclose(found, scale * sums + offset, rtol=1e-12)


def test_other_units_are_refused(rich, tmp_path):
    path = tmp_path / "t.npz"
    write_table(path, replace(rich, units={"latency": "us", "energy": "mJ"}))
    with pytest.raises(UserError, match="latency must be in ms, not in 'us'"):
        read_table(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "expected an object from layers to their costs"),
        ("{}", "expected an object"),
        ('{"x": {"latency": 1}}', "'x' is no layer; write (c_in, c_out, size"),
        ('{"head": {"speed": 1}}', "'head' has no latency and no energy"),
        ('{"head": 3}', "'head' has no latency and no energy"),
        ('{"head": {"latency": "1"}}', "the latency of 'head' must be a number, not '1'"),
        ('{"head": {"latency": true}}', "the latency of 'head' must be a number, not True"),
        ('{"head": {"latency": 1' + "0" * 400 + "}}", "an integer has 401 digits"),
        ('{"head": {"latency": 1}, "tail": {"energy": 1}}', "'tail' must have latency"),
        (
            '{"head": {"latency": 1, "energy": 1}, "tail": {"energy": 1}}',
            "'tail' must have latency",
        ),
        (f'{{"{KEY[:-4]}W0A4": {{"latency": 1}}}}', "bits must lie between 1 and 64, not W0A4"),
        ('{"head": {"latency": 1}, "head": {"latency": 2}}', "the key 'head' occurs twice"),
        ('{"head": {"latency": 1', "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
    ],
)
def test_malformed_published_files(text, words, tmp_path):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(UserError) as caught:
        read_table(tmp_path / "t.json")
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# -- compiled tables on disk -----------------------------------------------------------------------


def cached(tmp_path):
    return sorted((tmp_path / "cache" / "tables").glob("*"))


def fresh(space, device):
    compiled.device_tables.cache_clear()
    return compiled.device_tables(space, device)


def same(first, second):
    return all(
        first[name].fixed == second[name].fixed
        and all(map(np.array_equal, first[name].blocks, second[name].blocks))
        for name in first
    )


def test_tables_are_read_back_from_the_disk(tmp_path, bitfusion, monkeypatch):
    space = load_space("imagenet")
    made = fresh(space, bitfusion)
    (path,) = cached(tmp_path)
    monkeypatch.setattr(ArrayDevice, "layer_costs", None)
    assert same(fresh(space, bitfusion), made)
    monkeypatch.undo()
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))
    content = path.read_bytes()
    for damaged in (content[:1000], b"", content[:5000] + b"\0" * 100 + content[5100:], b"x" * 99):
        path.write_bytes(damaged)
        assert same(fresh(space, bitfusion), made)
        assert path.read_bytes() == content


def test_each_device_and_space_has_its_own_file(tmp_path, bitfusion):
    digits, imagenet = load_space("digits"), load_space("imagenet")
    machine = bitfusion.machine
    devices = [
        bitfusion,
        ArrayDevice(replace(machine, static_nj=0.5)),
        find_device("bitfusion-edge"),
    ]
    energies = [fresh(digits, device)["energy"].fixed for device in devices]
    fresh(imagenet, bitfusion)
    fresh(digits, bitfusion)
    assert len(cached(tmp_path)) == 4
    assert len(set(energies)) == 3
    assert energies == [fresh(digits, device)["energy"].fixed for device in devices]


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch, bitfusion):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "file"))
    space = load_space("digits")
    assert fresh(space, bitfusion)["latency"].fixed > 0


def test_tables_of_files_are_not_cached(tmp_path, digits):
    fresh(load_space("digits"), TableDevice(digits, "mine"))
    assert cached(tmp_path) == []


# -- layers of a space -----------------------------------------------------------------------------


def test_needed_layers_by_going_through_configurations():
    space = load_space(Path(__file__).parents[1] / "problems" / "tiny.toml")
    found = layer_set(space)
    needed = {found.distinct[i].key for i in np.flatnonzero(found.needed())}
    expected = set()
    for b in range(space.n_blocks):
        for subnet in space.decode(_with_block(space, b)):
            expected |= {x.key for x in space.layers(subnet) if x.component == "block"}
    assert needed == expected
    assert len(needed) < len(found.distinct)  # 5x5 at 4 bits is forbidden


def _with_block(space, b):
    """The largest network, with every allowed configuration of one block, and a cheap rest."""
    rows = np.repeat(space.largest()[None], len(space.allowed(b)), axis=0)
    for other in range(space.n_blocks):
        rows[:, space.block_columns[other]] = space.block_genes(other, space.allowed(other)[0])
    rows[:, space.block_columns[b]] = space.block_genes(b, space.allowed(b))
    return rows

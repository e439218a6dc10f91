"""QONNX: levels node by node by the ``qonnx`` package, bit operations, and what readers take."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from apq_moo.cli import main
from apq_moo.deploy import (
    Grid,
    check,
    cut_out,
    deploying,
    equal_sums,
    execute,
    export,
    power_of_two,
    reader_misfits,
)
from apq_moo.deploy.executing import convolve
from apq_moo.deploy.exporting import FORMATS, format_of
from apq_moo.deploy.integers import HALF
from apq_moo.deploy.parity import compare_levels, grids, levels_of
from apq_moo.deploy.qonnx_files import load_qonnx, qonnx_model, qonnx_policy, save_qonnx
from apq_moo.deploy.qonnx_graph import clipped, saturates
from apq_moo.deploy.qonnx_readers import reader_lines
from apq_moo.deploy.qonnx_reporting import export_lines
from apq_moo.deploy.qonnx_running import bit_operations, qonnx_levels, qonnx_parity, run_qonnx
from apq_moo.deploy.steps import is_power_of_two
from apq_moo.deploy.storage import digest_of_network, save_network
from apq_moo.errors import UserError
from apq_moo.hardware import QUANTITIES

try:
    import qonnx.core.onnx_exec  # noqa: F401
except ImportError as error:
    LACKING = str(error)
else:
    LACKING = ""

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"
FITTING = ["FINN: fits", "hls4ml: fits, as apq_moo.deploy.hls4ml_model reads the file"]
executed = pytest.mark.skipif(bool(LACKING), reason=f"qonnx cannot be imported: {LACKING}")


# -- executed node by node -------------------------------------------------------------------------


@executed
@pytest.mark.parametrize("between", [8, 16, 32])
def test_powers_of_two_are_exact(nets, pictures, between, networks):
    """Every level and every logit, of all bits, kinds of layers and forms between blocks."""
    net = nets[between]
    for subnet in networks(net.space, 1, 5)[1:]:
        network = power_of_two(cut_out(net, subnet, pictures))
        images = pictures.test.images[:24]
        parity, _ = qonnx_parity(network, qonnx_model(network), images, execute(network, images))
        assert parity.exact
        assert parity.largest_level == 0
        assert parity.level_images == parity.same_class == 24


@executed
def test_sums_that_single_precision_does_not_hold(wide):
    """Beyond 2^24 sums of floats are no longer exact: relative errors of single precision."""
    network, images = wide
    found, _ = run_qonnx(qonnx_model(power_of_two(network)), images)
    np.testing.assert_allclose(found, execute(power_of_two(network), images), rtol=1e-3)


def stored(network, levels):
    """What each layer reads, from levels of the places."""
    given, held = None, None
    for layer in network.layers:
        if layer.shape.opens_shortcut:
            held = given
        yield layer, given, held
        if layer.shape.leaves_block:
            place = "total" if layer.total is not None else "output"
            grid = getattr(layer, place)
            if grid is not None:
                given = levels[f"{layer.shape.part}.{place}"] * np.float32(grid.step)
        else:
            given = None


@executed
@pytest.mark.parametrize("which", [0, 1, 2])
def test_levels_differ_by_one_at_ties_alone(trained, image_set, which, networks):
    """From what ``qonnx`` itself gave to a layer, each next level is the package's.

    It is another one by 1 where the value in units of the step is a tie but for roundings of
    single precision; nowhere else, and nowhere by more.
    """
    network = cut_out(trained, networks(trained.space, 1, 3)[which], image_set)
    images = image_set.test.images[:64]
    found = qonnx_levels(network, qonnx_model(network), images)
    _, levels = levels_of(network, images)
    assert found.keys() == levels.keys() == grids(network).keys()
    differ = total = 0

    def compared(place, grid, value):
        nonlocal differ, total
        scaled = np.clip(value.astype(np.float64) / grid.step, grid.low, grid.high)
        off = np.abs(found[place] - grid.levels(value.astype(np.float32)))
        assert off.max() <= 1
        ties = np.abs(np.abs(scaled - np.floor(scaled)) - 0.5)
        assert (ties[off > 0] < 2e-5 * (1 + np.abs(scaled[off > 0]))).all()
        differ, total = differ + int((off > 0).sum()), total + off.size

    for layer, _, held in stored(network, found):
        if layer.shape.bias:
            continue
        value = convolve(layer, found[layer.name]) * layer.gain + layer.bias
        value = np.clip(value, 0, 6) if layer.shape.activation else value
        if layer.output is not None:
            compared(f"{layer.shape.part}.output", layer.output, value)
        if layer.total is not None:
            kept = found[f"{layer.shape.part}.output"] * np.float32(layer.output.step)
            compared(f"{layer.shape.part}.total", layer.total, kept + held)
    assert total > 10_000
    assert differ / total < 1e-3
    parity = compare_levels(levels, found)
    assert parity.off_by_one < 0.01


@executed
def test_classes_of_trained_networks(trained, image_set, networks):
    images = image_set.test.images[:300]
    for subnet in networks(trained.space, 1, 3):
        network = cut_out(trained, subnet, image_set)
        wanted = execute(network, images)
        parity, logits = qonnx_parity(network, qonnx_model(network), images, wanted)
        assert parity.same_class >= 299
        assert np.median(np.abs(logits - wanted)) < 1e-5


@executed
def test_bit_operations_are_the_objective(nets, trained, image_set, pictures, networks):
    """Multiply-accumulates x bits of weights x bits of inputs, zeros included."""
    bitops = QUANTITIES.get("bitops").layer_costs
    for net, images, between in [(trained, image_set, 8), (nets[16], pictures, 16)]:
        for subnet in networks(net.space, 1, 9)[::2]:
            network = cut_out(net, subnet, images)
            assert network.between_bits == between
            found = bit_operations(qonnx_model(network))
            shapes = [layer.shape for layer in network.layers]
            assert found == sum(shape.macs * shape.w_bits * shape.a_bits for shape in shapes)
            assert found == pytest.approx(1e9 * bitops(shapes).sum(), rel=1e-12)


# -- graphs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("between", [8, 16, 32])
def test_what_quantisers_say(nets, pictures, between, networks):
    network = cut_out(nets[between], networks(nets[between].space, 1, 1)[2], pictures)
    graph = onnx.load_from_string(qonnx_model(network)).graph
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    places, by_output = grids(network), {node.output[0]: node for node in graph.node}
    for place, grid in places.items():
        node = by_output[place]
        scale, zero, bits = (constants[name] for name in node.input[1:])
        assert (node.op_type, node.domain) == ("Quant", "qonnx.custom_op.general")
        assert (float(scale), float(zero), int(bits)) == (grid.step, 0, grid.bits)
        told = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        assert told == {"signed": grid.low < 0, "narrow": 0, "rounding_mode": b"ROUND"}
    for layer in network.layers:
        node = by_output[f"{layer.name}.levels"]
        scale, zero, bits = (constants[name] for name in node.input[1:])
        assert (float(scale), float(zero), int(bits)) == (1, 0, layer.shape.w_bits)
        told = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        assert told == {"signed": 1, "narrow": 1, "rounding_mode": b"ROUND"}
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("Quant") == len(places) + len(network.layers)
    assert kinds.count("Conv") + kinds.count("MatMul") == len(network.layers)
    assert (kinds.count("Cast") > 0) == (between == HALF)
    named = {info.name for info in (*graph.value_info, *graph.output)}
    assert {output for node in graph.node for output in node.output} == named


def test_a_relu6_is_a_relu_where_its_reader_saturates(nets, pictures, with_shortcuts):
    assert saturates(Grid(6 / 255, 0, 8))
    assert saturates(Grid(4 / 255, 0, 8))
    assert not saturates(Grid(6.1 / 255, 0, 8))
    network = with_shortcuts(nets[8], pictures)
    relus = [layer for layer in network.layers if layer.shape.activation]
    kinds = [node.op_type for node in onnx.load_from_string(qonnx_model(network)).graph.node]
    assert kinds.count("Relu") + kinds.count("Clip") == len(relus)
    assert kinds.count("Clip") == len(clipped(network))
    assert clipped(power_of_two(network)) == []
    first = network.layers[0]
    wider = replace(first, output=replace(first.output, step=float(np.float32(7 / 255))))
    assert first.name in clipped(replace(network, layers=(wider, *network.layers[1:])))


@executed
def test_zero_points(nets, pictures, with_shortcuts):
    """Of ranges that are neither unsigned nor two's complement, but for rare ties."""
    network = power_of_two(with_shortcuts(nets[8], pictures))
    layers = [
        replace(layer, input=replace(layer.input, low=layer.input.low // 4 * 2))
        for layer in network.layers
    ]
    network = replace(network, layers=tuple(layers))
    assert any(grid.low not in (0, -(2 ** (grid.bits - 1))) for grid in grids(network).values())
    images = pictures.test.images[:24]
    found = qonnx_levels(network, qonnx_model(network), images)
    parity = compare_levels(levels_of(network, images)[1], found)
    assert parity.off_by_one < 1e-3
    assert all("zero point other than 0" in " ".join(x) for x in reader_misfits(network).values())


# -- powers of two ---------------------------------------------------------------------------------


@pytest.mark.parametrize("between", [8, 32])
def test_powers_of_two(nets, pictures, between, with_shortcuts):
    network = with_shortcuts(nets[between], pictures)
    found = power_of_two(network)
    assert found.subnet == network.subnet
    before, after = grids(network), grids(found)
    assert before.keys() == after.keys()
    assert all(is_power_of_two(grid.step) for grid in after.values())
    assert not any(is_power_of_two(step) for step in (0.75, 3.0, 1 / 255))
    for place, grid in before.items():
        assert (after[place].low, after[place].bits) == (grid.low, grid.bits)
        ratio = after[place].step / grid.step
        assert ratio < 2.0**0.5 + 1e-9 or place.endswith(("output", "total"))
    for old, new in zip(network.layers, found.layers, strict=True):
        np.testing.assert_array_equal(old.weight, new.weight)
        np.testing.assert_array_equal(old.bias, new.bias)
        np.testing.assert_allclose(old.weight_step, new.weight_step, rtol=1e-6)
    again = power_of_two(found)
    assert digest_of_network(again) == digest_of_network(found)


def test_sums_of_one_scale(nets, pictures, networks, with_shortcuts):
    """The larger one, but where a ReLU6 would no longer be the saturation of a quantiser."""
    network = with_shortcuts(nets[8], pictures)
    found = equal_sums(network)
    assert found.subnet == network.subnet
    assert clipped(found) == clipped(network)
    sums, stored, held = 0, None, None
    for old, new in zip(network.layers, found.layers, strict=True):
        if old.shape.opens_shortcut:
            held = stored
        if old.shape.closes_shortcut:
            assert new.output.step == held[1].step
            larger = max(old.output.step, held[0].step)
            assert new.output.step in (larger, float(np.float32(6 / 255)))
            sums += 1
        if old.output is not None:
            stored = old.total or old.output, new.total or new.output
        assert new.input == old.input
        np.testing.assert_array_equal(new.gain, old.gain)
    assert sums > 2
    assert digest_of_network(equal_sums(found)) == digest_of_network(found)
    first = network.layers[0]
    beyond = replace(first, output=replace(first.output, step=float(np.float32(7 / 255))))
    beyond = replace(network, layers=(beyond, *network.layers[1:]))
    assert clipped(beyond) == ["stem", *clipped(network)]
    assert clipped(equal_sums(beyond)) == []
    assert equal_sums(beyond).layers[0].output.step == float(np.float32(6 / 255))
    without = cut_out(nets[32], networks(nets[32].space, 0, 0)[1], pictures)
    assert digest_of_network(equal_sums(without)) == digest_of_network(without)


def test_what_powers_of_two_cost(trained, image_set, networks):
    """Accuracy on the test images; less than a point on average, see docs/deploy.md."""
    labels, lost = image_set.test.labels[:1200], []
    for subnet in networks(trained.space, 3, 2)[1:]:
        network = cut_out(trained, subnet, image_set)
        right = [
            100 * np.mean(execute(each, image_set.test.images[:1200]).argmax(1) == labels)
            for each in (network, power_of_two(network))
        ]
        lost.append(right[0] - right[1])
    assert max(lost) < 4
    assert np.mean(lost) < 2


# -- files -----------------------------------------------------------------------------------------


CHANGES = {"equal_sums": equal_sums, "power_of_two": power_of_two}


@pytest.mark.parametrize("change", [None, *CHANGES])
@pytest.mark.parametrize("between", [8, 16])
def test_files_give_the_network_and_its_policy(nets, pictures, between, change, tmp_path, networks):
    net, path = nets[between], tmp_path / "n.qonnx.onnx"
    for subnet in networks(net.space, 1, 7):
        network = cut_out(net, subnet, pictures)
        export(network, path, **({change: True} if change else {}))
        found = load_qonnx(path)
        wanted = CHANGES[change](network) if change else network
        assert digest_of_network(found.network) == digest_of_network(wanted)
        assert qonnx_policy(found) == FORMATS["qonnx"].policy(path) == subnet
        metadata = {item.key: item.value for item in onnx.load(path).metadata_props}
        assert json.loads(metadata["policy"]) == subnet.to_dict()
        bits = {x.name: [x.shape.w_bits, x.shape.a_bits] for x in network.layers}
        assert json.loads(metadata["bits"]) == bits


def test_the_policy_is_read_from_the_graph(trained, image_set, networks):
    """From another network's graph another one, whatever the metadata say."""
    a, b = networks(trained.space, 0, 0)
    file = replace_model(cut_out(trained, a, image_set), cut_out(trained, b, image_set))
    assert qonnx_policy(file) == b != a


def replace_model(network, other):
    from apq_moo.deploy.qonnx_files import QonnxFile

    return QonnxFile(network, qonnx_model(other))


def test_files_that_are_not_what_they_should_be(trained, image_set, tmp_path, networks):
    path = tmp_path / "n.qonnx.onnx"
    network = cut_out(trained, networks(trained.space, 0, 0)[0], image_set)
    save_qonnx(path, network)
    good = path.read_bytes()

    def refused(data):
        path.write_bytes(data)
        with pytest.raises(UserError) as caught:
            load_qonnx(path)
        assert str(path) in str(caught.value)
        return str(caught.value)

    def altered(change):
        model = onnx.load_from_string(good)
        change(model)
        return refused(model.SerializeToString())

    def stored(model, name):
        return next(item for item in model.graph.initializer if item.name == name)

    def weight(value):
        def change(model):
            item = stored(model, "stem.weight")
            values = onnx.numpy_helper.to_array(item).copy()
            values.flat[0] = value
            item.raw_data = values.tobytes()

        return change

    def bits(model):
        node = next(node for node in model.graph.node if node.output[0] == "block0.expand")
        stored(model, node.input[3]).raw_data = np.float32(5).tobytes()

    assert "damaged, or no ONNX file" in refused(good[:-20])
    assert "do not match their checksum" in altered(weight(0 if network.layers[0].weight.flat[0]
                                                           else 1))  # fmt: skip
    for value in (0.5, np.nan, np.inf, 128):
        assert "its tensors are malformed" in altered(weight(value))
    assert "has been altered" in altered(bits)
    assert "has been altered" in altered(lambda model: model.graph.node[3].input.append("x"))
    assert "was not exported by apq-moo" in altered(lambda model: model.ClearField(
        "metadata_props"))  # fmt: skip
    export(network, tmp_path / "n.onnx")
    other = (tmp_path / "n.onnx").read_bytes()
    assert "in another format or by another version" in refused(other)
    path.unlink()
    with pytest.raises(UserError, match="cannot read"):
        load_qonnx(path)


def test_formats_by_two_suffixes(trained, image_set, tmp_path, networks):
    assert format_of("x.qonnx.onnx") is FORMATS["qonnx"]
    assert format_of("x.onnx") is FORMATS["onnx"]
    network = cut_out(trained, networks(trained.space, 0, 0)[0], image_set)
    for path, options, message in [
        ("x.onnx", {"format": "qonnx"}, r"files of format 'qonnx' end in \.qonnx\.onnx"),
        ("x.qonnx.onnx", {"format": "onnx"}, r"files of format 'onnx' end in \.onnx"),
        ("x.onnx", {"power_of_two": True}, "power_of_two=True is for QONNX alone"),
        ("x.c", {"equal_sums": True}, "equal_sums=True is for QONNX alone"),
        ("x.qonnx.onnx", {"arithmetic": "fused"}, "only ONNX has"),
        ("x.qonnx.onnx", {"native_int4": True}, "only ONNX has"),
    ]:
        with pytest.raises(UserError, match=message):
            export(network, tmp_path / path, **options)


# -- checks and commands ---------------------------------------------------------------------------


@pytest.fixture
def few(image_set):
    """A part of the images, with their name and checksum."""

    def part(split):
        return split[:100]

    found = replace(image_set, validation=part(image_set.validation), test=part(image_set.test))
    vars(found)["checksum"] = image_set.checksum
    return found


def test_files_are_checked(trained, image_set, few, tmp_path, monkeypatch, networks):
    network = cut_out(trained, networks(trained.space, 0, 0)[0], image_set)
    path = tmp_path / "n.qonnx.onnx"
    export(network, path, power_of_two=True)
    if not LACKING:
        found = check(path, few)
        assert found.form == "QONNX with scales that are powers of two"
        (ran,) = found.runs
        assert ran.parity.exact
        assert ran.accuracy == found.accuracy["test"]
        assert "qonnx" in found.lines()[2]
        assert all(len(line) < 200 for line in found.lines())
    from apq_moo.deploy import qonnx_running

    monkeypatch.setattr(qonnx_running, "version", lambda: None)
    found = check(path, few)
    assert found.runs == ()
    assert "not run, since qonnx is not here" in found.lines()[0]


def test_a_network_is_deployed(trained, image_set, few, tmp_path, monkeypatch, networks):
    network = cut_out(trained, networks(trained.space, 0, 0)[0], image_set, {"images": "digits"})
    monkeypatch.setattr(deploying, "images_for", lambda _network: few)
    monkeypatch.setattr(deploying, "cut_out_of_assets", lambda *_: network)
    chosen = deploying.Chosen(trained.space, network.subnet, None, {})
    report = deploying.deploy(chosen, tmp_path, ["qonnx"])
    assert report["files"]["net.qonnx.onnx"]["bytes"] == len(qonnx_model(network))
    assert load_qonnx(tmp_path / "net.qonnx.onnx").network.subnet == network.subnet


def test_without_the_package(trained, image_set, monkeypatch, networks):
    network = cut_out(trained, networks(trained.space, 0, 0)[0], image_set)
    monkeypatch.setitem(sys.modules, "qonnx.core.modelwrapper", None)
    with pytest.raises(UserError, match=r"pip install 'apq-moo\[qonnx\]'"):
        run_qonnx(qonnx_model(network), image_set.test.images[:1])


def test_what_an_export_says(trained, image_set, few, tmp_path, capsys, monkeypatch, networks):
    network = cut_out(trained, networks(trained.space, 0, 0)[0], image_set, {"images": "digits"})
    save_network(tmp_path / "n.safetensors", network)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        return stop.value.code or 0, capsys.readouterr()

    code, text = call("export", "n.safetensors", "-o", "n.qonnx.onnx", "--format", "qonnx")
    size = (tmp_path / "n.qonnx.onnx").stat().st_size
    lines = text.out.splitlines()
    assert code == 0
    assert lines[0] == f"n.qonnx.onnx: {size:,} bytes"
    assert lines[1:] == reader_lines(network)
    assert lines[1] == "FINN: fits"
    code, text = call("export", "n.safetensors", "-o", "p.onnx", "--power-of-two")
    assert code == 2
    assert "--power-of-two is for QONNX alone" in text.err
    lines = export_lines(network, power_of_two=True, images=few)
    assert lines[0].startswith("powers of two as scales: ")
    assert lines[0].endswith(" now")
    assert lines[1:] == reader_lines(power_of_two(network))
    lines = export_lines(network, equal_sums=True, images=few)
    assert lines[0].startswith("one scale for both operands of a sum: ")
    assert lines[1] == "FINN: fits"
    nowhere = replace(network, origin={})
    lines = export_lines(nowhere, power_of_two=True)
    assert "not compared on images: the network does not say which" in lines[0]

"""ONNX: the package's own logits to the last bit, or integer kernels and what they lose."""

import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from apq_moo.deploy import Grid, IntegerLayer, IntegerNetwork, cut_out, execute
from apq_moo.deploy.onnx_files import OnnxFile, load_onnx, onnx_model, save_onnx
from apq_moo.deploy.onnx_fused import biases_lost
from apq_moo.deploy.onnx_parity import onnx_parity
from apq_moo.deploy.onnx_runtime import kernels, latency_ms, run, with_outputs
from apq_moo.deploy.parity import grids, levels_of
from apq_moo.deploy.readback import onnx_policy, weight_bits
from apq_moo.deploy.storage import digest_of_network
from apq_moo.errors import UserError
from apq_moo.hardware.measuring.onnx_models import network_model
from apq_moo.space import Layer

FORMS = [("exact", False), ("exact", True), ("fused", False)]
STAGES = {"space_content": {"stages": []}}


# -- one layer at a time, by onnx's own numpy ------------------------------------------------------


@st.composite
def small_networks(draw):
    """One layer of any kind and a classifier; numbers are such that ties occur exactly."""
    bits = st.integers(2, 8)
    depthwise = draw(st.booleans())
    c_in = draw(st.integers(1, 3))
    layer = Layer(
        "stem", c_in, c_in if depthwise else draw(st.integers(1, 4)), draw(st.integers(3, 5)),
        draw(st.sampled_from([1, 3, 5])), draw(st.integers(1, 2)), c_in if depthwise else 1,
        draw(bits), draw(bits), activation=draw(st.sampled_from(["relu6", None])),
        between_bits=draw(st.sampled_from([8, 16, 32])),
    )  # fmt: skip
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    last = Layer("classifier", layer.c_out, 3, 1, 1, 1, 1, 8, draw(bits), True, activation=None)

    def grid(bits):
        low = -int(rng.integers(0, 2**bits)) if rng.random() < 0.5 else 0
        step = 2.0 ** rng.integers(-4, 1)
        return Grid(float(np.float32(step if rng.random() < 0.5 else step * rng.random() + 1e-3)),
                    low, bits)  # fmt: skip

    def tensors(shape):
        top = 2 ** (shape.w_bits - 1) - 1
        size = (shape.c_out, shape.c_in // shape.groups, shape.kernel, shape.kernel)
        gain = 2.0 ** rng.integers(-9, 0, shape.c_out)
        gain[rng.random(shape.c_out) < 0.2] = 0
        if rng.random() < 0.5:
            gain = gain * rng.random(shape.c_out)
        bias = rng.integers(-40, 40, shape.c_out) / 16
        weight = rng.integers(-top, top + 1, size).astype(np.int8)
        return weight, gain.astype(np.float32), bias.astype(np.float32)

    output = grid(8) if layer.between_bits == 8 else None
    layers = (
        IntegerLayer(layer, None, *tensors(layer), grid(layer.a_bits), output),
        IntegerLayer(last, None, *tensors(last), grid(last.a_bits)),
    )
    images = rng.integers(0, 17, (2, c_in, layer.size, layer.size)) / np.float32(16)
    return IntegerNetwork(layers, ("a", "b", "c"), "any", STAGES), images.astype(np.float32)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(small_networks())
def test_every_level_by_the_reference_evaluator(given):
    network, images = given
    wanted, levels = levels_of(network, images)
    model = with_outputs(onnx_model(network), list(levels))
    found = dict(
        zip(["logits", *levels], ReferenceEvaluator(onnx.load_from_string(model)).run(
            ["logits", *levels], {"image": images}), strict=True)
    )  # fmt: skip
    np.testing.assert_array_equal(found["logits"], wanted)
    for place, grid in grids(network).items():
        inside = found[place].transpose(0, 2, 3, 1).astype(int) + grid.low
        np.testing.assert_array_equal(inside, levels[place])


def test_ties_are_rounded_to_even_levels():
    """A tie in the scaled value, which a division by the step would not have met."""
    (stem, last) = (
        Layer("stem", 1, 1, 1, 1, 1, 1, 8, 8, activation=None, between_bits=32),
        Layer("classifier", 1, 2, 1, 1, 1, 1, 8, 8, True, activation=None),
    )
    one = np.ones((1, 1, 1, 1), np.int8), np.ones(1, np.float32), np.zeros(1, np.float32)
    two = np.ones((2, 1, 1, 1), np.int8), np.ones(2, np.float32), np.zeros(2, np.float32)
    found = set()
    for number in range(1, 400):
        step = float(np.float32(number / 997))
        layers = (
            IntegerLayer(stem, None, *one, Grid(step, 0, 8)),
            IntegerLayer(last, None, *two, Grid(1.0, 0, 8)),
        )
        network = IntegerNetwork(layers, ("a", "b"), "any", STAGES)
        x = (np.arange(1, 250, 2, dtype=np.float32) / 2 * np.float32(step)).reshape(-1, 1, 1, 1)
        divided = np.rint(x / np.float32(step))
        multiplied = np.rint(x * layers[0].input.inverse)
        if (differ := (divided != multiplied).ravel()).any():
            (logits,) = run(onnx_model(network), x[differ])
            np.testing.assert_array_equal(logits[:, 0], multiplied.ravel()[differ])
            found.add(number)
            if len(found) == 3:
                break
    assert len(found) == 3


# -- whole networks by ONNX Runtime ----------------------------------------------------------------


def parities(network, images, form=("exact", False), levels=("none", "basic", "all")):
    arithmetic, native = form
    model = onnx_model(network, arithmetic, native_int4=native)
    wanted = execute(network, images)
    return [onnx_parity(network, model, images, level, wanted)[0] for level in levels]


def test_exact_logits_of_trained_networks(trained, image_set, networks):
    for subnet in networks(trained.space, 1, 3)[1:]:
        network = cut_out(trained, subnet, image_set)
        images = image_set.test.images[:300]
        found = parities(network, images)
        for parity in found:
            assert parity.exact
            assert parity.same_class == parity.images == 300
        assert found[0].level_images == 64


@pytest.mark.slow
def test_exact_classes_of_many_trained_networks(trained, image_set, networks):
    """On all test images, without any optimisation and with all."""
    for subnet in networks(trained.space, 48, 4):
        network = cut_out(trained, subnet, image_set)
        for parity in parities(network, image_set.test.images, levels=["none", "all"]):
            assert parity.exact


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("between", [8, 16, 32])
def test_exact_logits_of_all_layers_and_bits(nets, pictures, between, native, networks):
    net = nets[between]
    levels = ["all"] if native else ["none", "basic", "all"]
    for subnet in networks(net.space, 1, 5)[1:]:
        network = cut_out(net, subnet, pictures)
        for parity in parities(network, pictures.test.images[:48], ("exact", native), levels):
            assert parity.exact


def test_sums_that_single_precision_does_not_hold(wide):
    """Without saturation."""
    network, images = wide
    assert kernels(onnx_model(network), "none")["ConvInteger"] == 1
    for parity in parities(network, images):
        assert parity.exact


def test_integer_kernels(trained, image_set, networks):
    """All convolutions but the classifier run as integers; classes change on few images."""
    images, labels = image_set.test.images[:800], image_set.test.labels[:800]
    lost = []
    for subnet in networks(trained.space, 2, 6)[1:]:
        network = cut_out(trained, subnet, image_set)
        model = onnx_model(network, "fused")
        assert kernels(model)["QLinearConv"] == len(network.layers) - 1
        assert biases_lost(network) < 0.02
        wanted = execute(network, images)
        same = [onnx_parity(network, model, images, level, wanted) for level in ("none", "all")]
        for parity, logits in same:
            assert parity.same_class > 0.95 * len(images)
            lost.append(100 * np.mean(wanted.argmax(1) == labels))
            lost[-1] -= 100 * np.mean(logits.argmax(1) == labels)
        # What an optimisation fuses, it computes as it stands.
        assert (same[0][1].argmax(1) == same[1][1].argmax(1)).mean() > 0.995
    assert abs(np.mean(lost)) < 0.3


def test_channels_without_a_gain(nets, pictures, networks):
    """Their biases stay what they are, although no step is small enough for them."""
    net = nets[8]
    network = cut_out(net, networks(net.space, 0, 0)[1], pictures)
    assert sum(int((layer.gain == 0).sum()) for layer in network.layers) > 10
    parity, _ = onnx_parity(
        network, onnx_model(network, "fused"), pictures.test.images, "none",
        execute(network, pictures.test.images),
    )  # fmt: skip
    assert parity.same_class > 80


def test_times():
    from apq_moo.hardware.measuring.onnx_models import trivial_model

    short, long = (trivial_model(n) for n in (2, 400))
    image = np.ones(1, np.float32)
    assert 0 < latency_ms(short, image) < latency_ms(long, image, "none")


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("between", [8, 16])
@pytest.mark.parametrize(("arithmetic", "native"), FORMS)
def test_files_give_the_network_and_its_policy(
    nets, pictures, between, arithmetic, native, tmp_path, networks
):
    net = nets[between]
    for subnet in networks(net.space, 1, 7):
        network = cut_out(net, subnet, pictures)
        save_onnx(tmp_path / "n.onnx", network, arithmetic, native_int4=native)
        found = load_onnx(tmp_path / "n.onnx")
        assert digest_of_network(found.network) == digest_of_network(network)
        assert (found.arithmetic, found.native_int4) == (arithmetic, native)
        assert onnx_policy(found) == subnet
        onnx.checker.check_model(onnx.load(tmp_path / "n.onnx"), full_check=True)


def test_the_policy_is_read_from_the_graph(trained, image_set, networks):
    """From another network's graph another one, whatever the metadata say."""
    a, b = networks(trained.space, 0, 0)
    network = cut_out(trained, a, image_set)
    other = onnx_model(cut_out(trained, b, image_set))
    assert onnx_policy(OnnxFile(network, "exact", False, other)) == b != a


def test_bits_of_weights():
    for bits in range(2, 9):
        top = 2 ** (bits - 1) - 1
        levels = np.array([-top, 0, 1, top])
        assert weight_bits(levels) == weight_bits(levels * 2 ** (8 - bits)) == bits


def test_nibbles_take_half_a_byte(trained, image_set, networks):
    subnet = networks(trained.space, 0, 0)[1]
    blocks = tuple(replace(block, w_pw=3, w_dw=4) for block in subnet.blocks)
    network = cut_out(trained, replace(subnet, blocks=blocks), image_set)
    small = sum(layer.weight.size for layer in network.layers if layer.shape.w_bits <= 4)
    plain, native = (len(onnx_model(network, native_int4=native)) for native in (False, True))
    assert plain - native == pytest.approx(small / 2, rel=0.02)
    with pytest.raises(UserError, match="runtimes fuse no 4-bit integers"):
        onnx_model(network, "fused", native_int4=True)
    with pytest.raises(UserError, match="write exact or fused"):
        onnx_model(network, "other")


def test_files_that_are_not_what_they_should_be(trained, image_set, tmp_path, networks):
    path = tmp_path / "n.onnx"
    save_onnx(path, cut_out(trained, networks(trained.space, 0, 0)[0], image_set))
    good = path.read_bytes()

    def refused(data):
        path.write_bytes(data)
        with pytest.raises(UserError) as caught:
            load_onnx(path)
        assert str(path) in str(caught.value)
        return str(caught.value)

    assert "damaged, or no ONNX file" in refused(good[:-20])
    assert "damaged, or no ONNX file" in refused(b"\x89PNG" + good)
    model = onnx.load_from_string(good)
    weight = next(item for item in model.graph.initializer if item.name == "stem.weight")
    weight.raw_data = bytes([weight.raw_data[0] ^ 1, *weight.raw_data[1:]])
    assert "do not match their checksum" in refused(model.SerializeToString())
    model = onnx.load_from_string(good)
    next(node for node in model.graph.node if node.op_type == "Clip").input[2] = "c0"
    assert "has been altered" in refused(model.SerializeToString())
    model = onnx.load_from_string(good)
    gain = next(item for item in model.graph.initializer if item.name == "stem.gain")
    gain.raw_data = np.full(8, -1, np.float32).tobytes()
    assert "negative or not finite" in refused(model.SerializeToString())
    del model.metadata_props[:]
    assert "was not exported by apq-moo" in refused(model.SerializeToString())
    onnx.helper.set_model_props(model, {"apq_moo": '{"format": "apq-moo onnx 99"}'})
    assert "another version" in refused(model.SerializeToString())
    path.unlink()
    with pytest.raises(UserError, match="cannot read"):
        load_onnx(path)


def test_old_and_missing_runtimes(monkeypatch):
    from apq_moo.hardware.measuring.onnx_models import trivial_model

    monkeypatch.setattr(onnxruntime, "__version__", "1.17.3")
    with pytest.raises(UserError, match=r"onnxruntime 1\.17\.3 is too old: 1\.18 is the first"):
        run(trivial_model(1), np.ones(1, np.float32))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'apq-moo\[onnx\]'"):
        run(trivial_model(1), np.ones(1, np.float32))
    monkeypatch.undo()
    with pytest.raises(UserError, match="refuses the model"):
        run(b"no model", np.ones(1, np.float32))


def test_measured_networks_run_the_kernels_of_deployed_ones(digits, trained, image_set, networks):
    """So that tables promise what an exported network takes, at 8 bits, whatever its weights.

    But for what a block stores at the very scale at which the next one reads it.
    """
    X = np.array(digits.encode([subnet.to_dict() for subnet in networks(digits, 3, 5)]))
    X[:, digits.bit_columns] = digits.largest()[digits.bit_columns]
    for subnet in digits.decode(digits.canonical(X)):
        network = cut_out(trained, subnet, image_set)
        measured = kernels(network_model(digits, subnet))
        deployed = kernels(onnx_model(network, "fused"))
        pairs = zip(network.layers, network.layers[1:-1], strict=False)
        equal = sum((a.total or a.output) == b.input for a, b in pairs if b.shape.signed)
        rounded = {"QuantizeLinear": equal, "DequantizeLinear": equal}
        assert measured - deployed == Counter({kind: n for kind, n in rounded.items() if n})
        assert not deployed - measured

"""Models of layers and networks for ONNX Runtime: torch agrees, integers stay integers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import load_from_string as load_onnx
from onnx import numpy_helper

from apq_moo.hardware.measuring import onnx_models
from apq_moo.hardware.measuring.backends import BACKENDS
from apq_moo.hardware.measuring.onnx_graph import INPUT, OUTPUT
from apq_moo.space import Layer


def by_torch(model, image):
    """Run the nodes of an ONNX model one by one with torch's operators, without any fusion."""
    graph = load_onnx(model).graph
    values = {item.name: torch.tensor(numpy_helper.to_array(item)) for item in graph.initializer}
    values[INPUT] = image
    for node in graph.node:
        a = [values[name] for name in node.input]
        options = {item.name: item.ints or item.i for item in node.attribute}
        match node.op_type:
            case "QuantizeLinear":
                y = torch.round(a[0] / a[1]).add(a[2]).clamp(0, 255).to(torch.uint8)
            case "DequantizeLinear":
                shape = [-1] + [1] * (a[0].ndim - 1) if a[1].ndim else []
                y = (a[0].float() - a[2].float().reshape(shape)) * a[1].reshape(shape)
            case "Conv":
                y = torch.conv2d(
                    *a,
                    stride=list(options["strides"]),
                    padding=list(options["pads"])[:2],
                    groups=options["group"],
                )
            case "Clip":
                y = a[0].clamp(a[1], a[2])
            case "Flatten":
                y = a[0].flatten(1)
            case "Transpose":
                y = a[0].permute(*options["perm"])
            case "Add":
                y = a[0] + a[1]
            case "GlobalAveragePool":
                y = a[0].mean((2, 3), keepdim=True)
            case kind:
                raise AssertionError(kind)
        values[node.output[0]] = y
    return values[OUTPUT]


def saturates():
    """Whether 8-bit products saturate, as ONNX Runtime's do on x86 processors without VNNI."""
    flags = Path("/proc/cpuinfo")
    text = flags.read_text(encoding="utf-8") if flags.is_file() else ""
    return "avx2" in text and "vnni" not in text


WITHOUT_VNNI = "this processor lacks VNNI: ONNX Runtime's 8-bit sums saturate here"


@pytest.mark.parametrize("bits", [8, 32])
@pytest.mark.parametrize(
    "layer",
    [
        Layer("block", 8, 24, 9, 1, 1, 1, 8, 8),
        Layer("block", 16, 16, 9, 5, 2, 16, 8, 8),
    ],
    ids=lambda layer: layer.name,
)
def test_layer_models_compute_the_layer(layer, bits):
    if bits == 8 and saturates():
        pytest.skip(WITHOUT_VNNI)
    layer = replace(layer, w_bits=bits, a_bits=bits)
    model = onnx_models.layer_model(layer)
    session = BACKENDS.get("onnxruntime")(1, "cpu").session(model)
    rng = np.random.default_rng(0)
    shape = (1, layer.c_in, layer.size, layer.size)
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    image = image.transpose(0, 2, 3, 1).copy() if bits == 8 else image.astype(np.float32) / 50
    (found,) = session.run(None, {INPUT: image})
    expected = by_torch(model, torch.tensor(image)).numpy()
    out_shape = (1, layer.c_out, layer.size_out, layer.size_out)
    assert found.shape == (out_shape if bits == 32 else (1, *out_shape[2:], layer.c_out))
    assert len(np.unique(found)) > 10
    if bits == 8:
        assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
    else:
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_network_models_hold_the_networks_layers(small):
    space = small(between=32)
    for subnet in space.decode(space.sample(6, np.random.default_rng(0))):
        model = onnx_models.network_model(space, subnet)
        nodes = load_onnx(model).graph.node
        convs = [node for node in nodes if node.op_type == "Conv"]
        layers = space.layers(subnet)
        sizes = {item.name: list(item.dims) for item in load_onnx(model).graph.initializer}
        made = {node.output[0]: node for node in nodes}

        def weights(conv, made=made, sizes=sizes):
            name = conv.input[1]
            return sizes.get(name) or sizes[made[name].input[0]]

        assert [weights(conv) for conv in convs] == [
            [layer.c_out, layer.c_in // layer.groups, layer.kernel, layer.kernel]
            for layer in layers
        ]
        integer = [conv.input[1] in made for conv in convs]
        assert integer == [layer.w_bits == 8 for layer in layers]
        quantised = [made.get(conv.input[0]) for conv in convs]
        assert [node is not None and node.op_type == "DequantizeLinear" for node in quantised] == [
            layer.a_bits == 8 for layer in layers
        ]
        # The first block and every block without stride whose width stays add their input.
        blocks = space.active(space.encode([subnet]))[0]
        adds = 1 + sum(space.plans[b].has_shortcut for b in np.flatnonzero(blocks))
        assert sum(node.op_type == "Add" for node in nodes) == adds


@pytest.mark.skipif(saturates(), reason=WITHOUT_VNNI)
def test_network_models_run_as_their_nodes_say(small):
    space = small()
    image = np.random.default_rng(1).random((1, 3, 10, 10), dtype=np.float32)
    for subnet in space.decode(space.sample(4, np.random.default_rng(1))):
        model = onnx_models.network_model(space, subnet)
        (found,) = BACKENDS.get("onnxruntime")(1, "cpu").session(model).run(None, {"image": image})
        expected = by_torch(model, torch.tensor(image)).numpy()
        assert found.shape == (1, 5)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found / scale, expected / scale, atol=0.05)


def kernels_run(model, tmp_path):
    """The operators that ONNX Runtime makes of a model."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    graph = load_onnx((tmp_path / "optimised.onnx").read_bytes()).graph
    return [node.op_type for node in graph.node]


@pytest.mark.parametrize("groups", [1, 16])
def test_int8_layers_run_as_integer_kernels(groups, tmp_path):
    layer = Layer("block", 16, 16, 9, 3, 1, groups, 8, 8)
    assert kernels_run(onnx_models.layer_model(layer), tmp_path) == ["QLinearConv"]
    layer = replace(layer, w_bits=32, a_bits=32)
    # Alone, a layer needs the runtime's own layout of floats made and unmade.
    kinds = kernels_run(onnx_models.layer_model(layer), tmp_path)
    assert [kind for kind in kinds if not kind.startswith("Reorder")] in (["Conv"], ["FusedConv"])


def test_int8_networks_run_as_integer_kernels(tmp_path, small):
    space = small((8,))
    subnet = space.decode(space.largest())[0]
    kinds = kernels_run(onnx_models.network_model(space, subnet), tmp_path)
    assert kinds.count("QLinearConv") == len(space.layers(subnet)) - 1
    assert kinds.count("Conv") == 1  # the classifier, whose logits are floats
    assert kinds.count("QLinearAdd") == 1 + sum(plan.has_shortcut for plan in space.plans) == 4
    assert kinds.count("Transpose") <= 2
    # Of the image, and of what a block stores as a convolution reads it, at another scale.
    reads = [layer for layer in space.layers(subnet)[1:] if layer.signed and not layer.bias]
    assert kinds.count("QuantizeLinear") == 1 + len(reads) == 6

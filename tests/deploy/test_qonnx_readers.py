"""What breaks networks for FINN and hls4ml, which read QONNX, and both themselves."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from apq_moo.deploy import (
    Grid,
    cut_out,
    equal_sums,
    execute,
    export,
    hls4ml_model,
    power_of_two,
    reader_misfits,
)
from apq_moo.deploy.integers import IntegerNetwork
from apq_moo.deploy.parity import grids
from apq_moo.deploy.qonnx_files import qonnx_model
from apq_moo.deploy.qonnx_readers import _meets_tie, reader_lines

try:
    import qonnx.core.onnx_exec  # noqa: F401
except ImportError as error:
    LACKING = str(error)
else:
    LACKING = ""

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"
FITTING = ["FINN: fits", "hls4ml: fits, as apq_moo.deploy.hls4ml_model reads the file"]
executed = pytest.mark.skipif(bool(LACKING), reason=f"qonnx cannot be imported: {LACKING}")


def test_what_breaks_readers(nets, pictures, with_shortcuts):
    network = with_shortcuts(nets[8], pictures)
    found = reader_misfits(network)
    assert any("operands of different scales" in text for text in found["FINN"])
    assert not any("scales" in text and "power" in text for text in found["FINN"])
    assert any("scales (stem and others) are no power of two" in x for x in found["hls4ml"])
    assert reader_lines(equal_sums(network))[0] == "FINN: fits"
    fitting = power_of_two(network)
    assert reader_lines(fitting)[1] == FITTING[1]
    (tied,) = reader_misfits(fitting)["FINN"]
    assert tied.endswith(" meet exact ties, which it rounds up and not to even")
    fitting = untied(fitting)
    assert reader_lines(fitting) == FITTING

    def said(change, first=0):
        layers = list(fitting.layers)
        layers[first] = change(layers[first])
        return dict(reader_misfits(replace(fitting, layers=tuple(layers))))

    zero, *_ = said(lambda x: replace(x, gain=np.where(np.arange(8) == 1, 0, x.gain)))["FINN"]
    assert zero == "1 layer (stem) has channels with a gain of 0"
    both = said(lambda x: replace(x, output=replace(x.output, step=2.0**-5)))
    assert "1 ReLU6 (stem) needs a Clip at 6" in both["FINN"]
    assert both["hls4ml"] == ("1 ReLU6 (stem) needs a Clip at 6",)
    both = said(lambda x: replace(x, input=replace(x.input, low=-3)))
    assert both == dict.fromkeys(
        ("FINN", "hls4ml"), ("1 quantiser (stem) has a zero point other than 0",)
    )
    for between in (16, 32):
        told = reader_misfits(power_of_two(with_shortcuts(nets[between], pictures)))
        assert all(f"blocks store floats of {between} bits" in each for each in told.values())
    wide = wider_depthwise()
    assert "1 layer (stem) has more channels out than in" in reader_misfits(wide)["FINN"]
    assert all(len(line) < 300 for line in reader_lines(network))


@executed
def test_models_for_hls4ml(nets, pictures, tmp_path, networks):
    """Channels come last, and nothing is transposed before the pooling but its sizes."""
    path = tmp_path / "n.qonnx.onnx"
    network = cut_out(nets[8], networks(nets[8].space, 0, 0)[0], pictures)
    export(network, path, power_of_two=True)
    model = hls4ml_model(path)
    kinds = [node.op_type for node in model.graph.node]
    assert "Transpose" not in kinds
    assert kinds.count("Conv") == len(network.layers) - 1
    domains = {node.domain for node in model.graph.node if node.op_type == "Conv"}
    assert domains == {"qonnx.custom_op.channels_last"}
    assert model.get_tensor_shape(model.graph.input[0].name) == [1, 9, 9, 3]
    (pooling,) = model.get_nodes_by_op_type("GlobalAveragePool")
    size = network.layers[-2].shape.size_out
    assert model.get_tensor_shape(pooling.input[0]) == [1, 24, size, size]


def test_hls4ml_itself(trained, image_set, tmp_path, monkeypatch, networks):
    """Its program for a processor gives the same logits, but for the last bits of a float.

    What the page on deployment says is run; compiling takes some seconds.
    """
    pytest.importorskip("hls4ml", reason="hls4ml is not installed")
    network = cut_out(trained, networks(trained.space, 0, 0)[0], image_set)
    export(network, tmp_path / "shifts.qonnx.onnx", power_of_two=True)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(import hls4ml.*?)```", PAGE.read_text(), flags=re.DOTALL)
    names = {}
    exec(compile(code, "deploy.md", "exec"), names)  # noqa: S102
    names["program"].compile()
    images = image_set.test.images[:50]
    logits = names["program"].predict(np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(logits, execute(power_of_two(network), images), atol=1e-5)


def untied(network):
    """All that is stored has one step, which readers do not exceed, so that there are no ties."""
    layers, stored = [], False
    for layer in network.layers:
        change = {
            name: replace(grid, step=2.0**-6)
            for name in ("output", "total")
            if (grid := getattr(layer, name)) is not None
        }
        if stored:
            change["input"] = replace(layer.input, step=2.0**-20 if layer.shape.bias else 2.0**-6)
        layers.append(replace(layer, **change))
        stored = layer.output is not None
    return replace(network, layers=tuple(layers))


def test_ties():
    """Multiples of 1 that are right between two levels, the lower one of which is even."""
    levels = np.arange(-8, 8)
    for step, bits, tied in [
        (2.0, 3, True),  # 1 between 0 and 2
        (1.0, 4, False),
        (0.5, 8, False),
        (3.0, 3, False),  # thirds have no halves
        (6.0, 2, True),  # -9 would be, and 3 is
        (float(np.float32(0.1)), 8, False),
    ]:
        grid = Grid(step, -(2 ** (bits - 1)), bits)
        up = np.clip(np.floor(levels / np.float64(step) + 0.5), grid.low, grid.high)
        assert (grid.levels(levels.astype(np.float32)) != up).any() == tied
        assert _meets_tie(levels, 1.0, grid) == tied
    assert not _meets_tie(np.array([5]), 1.0, Grid(2.0, 0, 1))  # beyond the levels
    assert not _meets_tie(np.array([3]), 1.0, Grid(2.0, 0, 4))  # between 1 and 2, which is even
    assert _meets_tie(np.array([2]), 1.0, Grid(1.0, 0, 4), pixels=4)  # a mean of 0.5


@executed
def test_finn_itself(trained, image_set, networks):
    """Its thresholds give the same logits, with shortcuts whose sums have one scale."""
    conversion = pytest.importorskip(
        "finn.transformation.qonnx.convert_qonnx_to_finn", reason="FINN is not installed"
    )
    network = equal_sums(cut_out(trained, networks(trained.space, 1, 1)[2], image_set))
    assert any(layer.total is not None for layer in network.layers)
    assert reader_misfits(network)["FINN"] == ()
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.util.cleanup import cleanup_model

    model = cleanup_model(ModelWrapper(onnx.load_from_string(qonnx_model(network))))
    model = model.transform(conversion.ConvertQONNXtoFINN())
    kinds = [node.op_type for node in model.graph.node]
    assert "Quant" not in kinds
    assert kinds.count("MultiThreshold") == len(grids(network))
    images = image_set.test.images[:10]
    name = model.graph.input[0].name
    for image, wanted in zip(images, execute(network, images), strict=True):
        (logits,) = execute_onnx(model, {name: image[None]}).values()
        np.testing.assert_allclose(logits[0], wanted, atol=1e-4)


def wider_depthwise():
    """A depthwise layer of two filters for each channel."""
    from apq_moo.deploy import IntegerLayer
    from apq_moo.space import Layer

    shapes = (
        Layer("stem", 3, 6, 4, 3, 1, 3, 8, 8, activation=None, between_bits=8),
        Layer("classifier", 6, 2, 1, 1, 1, 1, 8, 8, True, activation=None),
    )
    rng = np.random.default_rng(0)
    layers = [
        IntegerLayer(
            shape, None,
            rng.integers(-9, 9, (shape.c_out, shape.c_in // shape.groups, *2 * [shape.kernel]))
            .astype(np.int8),
            np.full(shape.c_out, 2.0**-9, np.float32), np.zeros(shape.c_out, np.float32),
            Grid(2.0**-6, 0, 8), Grid(2.0**-4, -128, 8) if shape.between_bits else None,
        )
        for shape in shapes
    ]  # fmt: skip
    origin = {"space_content": {"stages": []}}
    return IntegerNetwork(tuple(layers), ("a", "b"), "any", origin)

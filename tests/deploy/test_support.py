"""The table of docs/deploy.md: what runs at which bits, and how."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from apq_moo.deploy import cut_out, execute, power_of_two
from apq_moo.deploy.c import c_source, packed_bytes
from apq_moo.deploy.onnx_files import onnx_model
from apq_moo.deploy.onnx_runtime import kernels, run
from apq_moo.deploy.qonnx_files import qonnx_model
from apq_moo.deploy.qonnx_running import run_qonnx
from apq_moo.deploy.torch_program import TorchNetwork

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"
HEAD = [
    "| bits | ONNX exact | with `--native-int4` | ONNX fused | torch | C | QONNX |",
    "|---|---|---|---|---|---|---|",
]


def row(net, pictures, bits):
    """What is said of one bit-width."""
    subnet = net.space.decode(net.space.smallest()[None])[0]
    blocks = [replace(b, w_pw=bits, a_pw=bits, w_dw=bits, a_dw=bits) for b in subnet.blocks]
    network = cut_out(net, replace(subnet, blocks=tuple(blocks)), pictures)
    images = pictures.test.images[:32]
    wanted = execute(network, images)

    def logits(found):
        return "same logits, in floats" if (found == wanted).all() else "other logits"

    exact = [onnx_model(network, native_int4=native) for native in (False, True)]
    cells = [logits(run(model, images, "all")[0]) for model in exact]
    inside = [layer.shape for layer in network.layers if layer.shape.block is not None]
    if bits <= 4:
        assert len(exact[0]) - len(exact[1]) == pytest.approx(
            sum(layer.weights for layer in inside) / 2, abs=150
        )
        cells[1] += ", 2 weights a byte"
    else:
        assert abs(len(exact[0]) - len(exact[1])) < 10
        cells[1] = "as exact"
    used = kernels(onnx_model(network, "fused"))
    fused = f"{used['QLinearConv']} of {used['QLinearConv'] + used['Conv']} as integers"
    with torch.no_grad():
        program = logits(TorchNetwork(network)(torch.from_numpy(images)).numpy())
    assert c_source(network).header
    packed = sum(map(packed_bytes, inside)) / sum(layer.weights for layer in inside)
    assert packed == pytest.approx(bits / 8, rel=0.02)
    integers = f"integers of {bits} bits"
    quantisers = by_qonnx(network, images)
    return f"| {bits} | {' | '.join([*cells, fused, program, integers, quantisers])} |"


def by_qonnx(network, images):
    """What the ``qonnx`` package gives; taken for granted where it is not installed."""
    if find_spec("qonnx") is not None:
        found, _ = run_qonnx(qonnx_model(network), images)
        assert (found.argmax(1) == execute(network, images).argmax(1)).all()
        changed = power_of_two(network)
        found, _ = run_qonnx(qonnx_model(changed), images)
        assert (found == execute(changed, images)).all()
    return "same classes; same logits with `--power-of-two`"


def test_what_runs_at_which_bits(nets, pictures):
    rows = [row(nets[8], pictures, bits) for bits in range(2, 9)]
    assert "\n".join([*HEAD, *rows]) in PAGE.read_text()

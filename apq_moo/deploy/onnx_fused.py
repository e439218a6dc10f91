"""An integer network as an ONNX graph whose convolutions runtimes turn into integer kernels.

Batch norms are folded into the steps of the weights, and biases are integers at the step of the
sum, as such kernels want them. Weights and inputs of fewer than 8 bits become multiples that fill 8
bits, which changes nothing but makes that step, and so the rounding of the bias, finer. What is
lost is that rounding, and a level now and then where two ways to compute one number fall on either
side of a tie.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from apq_moo.deploy.integers import MOST_BITS, SINGLE, Grid, IntegerLayer, IntegerNetwork
from apq_moo.hardware.measuring.onnx_graph import Quantiser
from apq_moo.hardware.measuring.onnx_models import QdqGraph, Tensors, qdq_graph

_MOST_BIAS = 2**30
_LEAST_STEP = 1e-30


def fused_graph(network: IntegerNetwork) -> QdqGraph:
    """The graph of a network, from images to logits."""
    return qdq_graph([_tensors(layer) for layer in network.layers])


def _tensors(layer: IntegerLayer) -> Tensors:
    finer = 2 ** (MOST_BITS - layer.shape.w_bits)
    multiple = 255 // (layer.input.high - layer.input.low)
    entering = np.float32(layer.input.step) / np.float32(multiple)
    wanted = layer.weight_step / finer
    # A channel whose step is next to nothing gets one at which its bias is an integer.
    least = np.abs(layer.bias.astype(np.float64)) / (_MOST_BIAS * float(entering))
    step = np.maximum(wanted, np.maximum(least, _LEAST_STEP))
    weight = np.rint(layer.weight * (finer * wanted / step)[:, None, None, None])
    scale = step.astype(np.float32)
    bias = np.rint(layer.bias / (scale * entering).astype(np.float64))
    activation = layer.shape.activation is not None
    return Tensors(
        layer.shape,
        weight.astype(np.int8),
        scale,
        bias.astype(np.int32),
        _quantiser(layer.input),
        None if layer.output is None else _quantiser(layer.output, clip=activation),
        None if layer.total is None else _quantiser(layer.total),
        multiple,
    )


def coarser(layer: IntegerLayer) -> bool:
    """Whether this form rounds weights: of channels that give next to nothing but a bias."""
    finer = 2 ** (MOST_BITS - layer.shape.w_bits)
    return bool((_tensors(layer).weight != layer.weight.astype(np.int64) * finer).any())


def _quantiser(grid: Grid, *, clip: bool = False) -> Quantiser:
    """How values become integers; ``clip`` makes a ReLU6 of it."""
    high = grid.high
    if clip:
        high = min(high, int(grid.levels(np.array([6], dtype=np.float32))[0]))
    return Quantiser(np.float32(grid.step), -grid.low, high - grid.low)


def biases_lost(network: IntegerNetwork) -> float:
    """The largest rounding of a bias, in steps of what its layer's input is rounded to by then.

    How much of a level the integer biases of this form move what the next layer reads.
    """
    worst = 0.0
    for layer, following in zip(network.layers[:-1], network.layers[1:], strict=True):
        tensors = _tensors(layer)
        assert tensors.read is not None
        unit: NDArray[np.float64] = (tensors.scale * tensors.read.scale).astype(np.float64)
        lost = np.abs(tensors.bias * unit - layer.bias).max()
        worst = max(worst, float(lost) / (layer.output or following.input).step)
    return worst


def float_graph(network: IntegerNetwork) -> QdqGraph:
    """The same network without a rounding, in single precision: what its speed is compared with."""
    return qdq_graph([_floats(layer) for layer in network.layers])


def _floats(layer: IntegerLayer) -> Tensors:
    step = layer.weight_step.astype(np.float32)
    shape = layer.shape
    if shape.leaves_block:
        shape = replace(shape, between_bits=SINGLE)
    return Tensors(shape, layer.weight * step[:, None, None, None], step, layer.bias, None)

"""An integer network as an ONNX graph that gives the same logits, to the last bit.

Activations and weights are dequantised with a scale of 1: a convolution sums whole floats, which is
exact, and the gains and biases behind it are nodes of their own, so that every rounding is the
package's. The inverse of a step is multiplied with before QuantizeLinear, which would divide. No
optimisation of ONNX Runtime changes a result, since none reorders what is rounded.

Where sums may pass 2^24, which single precision does not hold, ConvInteger adds them up; both of
its operands are unsigned, whose products no processor saturates.
"""

from __future__ import annotations

import numpy as np

from apq_moo.deploy.integers import HALF, Grid, IntegerLayer, IntegerNetwork
from apq_moo.hardware.measuring.onnx_graph import INPUT, Graph, Quantiser, attributes

_EXACT = 2**24
_NIBBLE = 4


def exact_graph(network: IntegerNetwork, *, native_int4: bool) -> Graph:
    """The graph of a network, from images to logits.

    Args:
        network: any.
        native_int4: whether weights of up to 4 bits are stored two a byte.
    """
    graph = Graph()
    x = held = INPUT
    for layer in network.layers:
        if layer.shape.opens_shortcut:
            held = x
        if layer.shape.bias:
            x = _pooled(graph, x)
        levels = _levels(graph, x, layer.input, layer.name)
        x = _sums(graph, layer, levels, native_int4=native_int4)
        shape = (1, -1, 1, 1)
        x = graph.add("Mul", x, graph.constant(layer.gain.reshape(shape), f"{layer.name}.gain"))
        x = graph.add("Add", x, graph.constant(layer.bias.reshape(shape), f"{layer.name}.bias"))
        if layer.shape.activation is not None:
            ends = (graph.constant(np.float32(end)) for end in (0, 6))
            x = graph.add("Clip", x, *ends)
        x = _stored(graph, layer, x, held)
    graph.add("Flatten", x)
    return graph


def _quantiser(grid: Grid) -> Quantiser:
    return Quantiser(np.float32(1), -grid.low, grid.high - grid.low)


def _levels(graph: Graph, x: str, grid: Grid, name: str) -> str:
    """The levels of a value, as unsigned integers."""
    scaled = graph.add("Mul", x, graph.constant(grid.inverse))
    return graph.quantise(scaled, _quantiser(grid), name)


def _rounded(graph: Graph, x: str, grid: Grid, name: str) -> str:
    """What a value is stored as."""
    levels = graph.dequantise(_levels(graph, x, grid, name), _quantiser(grid))
    return graph.add("Mul", levels, graph.constant(np.float32(grid.step)))


def _sums(graph: Graph, layer: IntegerLayer, levels: str, *, native_int4: bool) -> str:
    """Sums of levels times weights."""
    shape, name = layer.shape, f"{layer.name}.weight"
    if layer.largest_sum > _EXACT:
        weight = graph.constant((layer.weight.astype(np.int16) + 128).astype(np.uint8), name)
        zeros = (graph.constant(np.uint8(zero)) for zero in (-layer.input.low, 128))
        sums = graph.add("ConvInteger", levels, weight, *zeros, **attributes(shape))
        return graph.add("Cast", sums, to=1)
    if native_int4 and shape.w_bits <= _NIBBLE:
        weight = graph.nibbles(layer.weight, name)
    else:
        weight = graph.constant(layer.weight, name)
    weight = graph.add("DequantizeLinear", weight, graph.constant(np.float32(1)))
    return graph.add(
        "Conv", graph.dequantise(levels, _quantiser(layer.input)), weight, **attributes(shape)
    )


def _stored(graph: Graph, layer: IntegerLayer, x: str, held: str) -> str:
    part = layer.shape.part
    if layer.output is not None:
        x = _rounded(graph, x, layer.output, f"{part}.output")
    if layer.shape.closes_shortcut:
        x = graph.add("Add", x, held)
    if layer.total is not None:
        x = _rounded(graph, x, layer.total, f"{part}.total")
    if layer.shape.between_bits == HALF:
        x = graph.add("Cast", graph.add("Cast", x, to=10), to=1)
    return x


def _pooled(graph: Graph, x: str) -> str:
    """The mean over the pixels, in double precision."""
    double = graph.add("Cast", x, to=11)
    axes = graph.constant(np.array([2, 3]))
    return graph.add("Cast", graph.add("ReduceMean", double, axes, keepdims=1), to=1)

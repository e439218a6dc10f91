"""Integer networks whose activations have steps that are powers of two, as shifts in hardware want.

Weights keep their levels, since what a sum stands for is a gain of its own. A step becomes the
power of two that is nearest on the scale of logarithms; the next smaller one behind a ReLU6 where
it would reach beyond 6, so that saturation goes on to do the clipping. Both operands of a
shortcut's sum get the larger of their steps that this allows, so that their levels can be added as
they are.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from apq_moo.deploy.integers import Grid, IntegerLayer, IntegerNetwork
from apq_moo.deploy.qonnx_graph import saturates

_Place = tuple[int, str]


def is_power_of_two(step: float) -> bool:
    """Whether a step is one."""
    return math.frexp(step)[0] == 0.5


def power_of_two(network: IntegerNetwork) -> IntegerNetwork:
    """A network with powers of two as steps, which computes something else.

    Args:
        network: any; it is left as it is.
    """
    grids = _nearest(network)
    _joined(network, grids)
    layers = []
    for number, layer in enumerate(network.layers):
        entering = grids[number, "input"]
        gain = layer.gain.astype(np.float64) * (entering.step / layer.input.step)
        output, total = (grids.get((number, name)) for name in ("output", "total"))
        layers.append(
            replace(layer, gain=gain.astype(np.float32), input=entering, output=output, total=total)
        )
    return replace(network, layers=tuple(layers))


def _nearest(network: IntegerNetwork) -> dict[_Place, Grid]:
    """The grids of a network, each with the power of two that is nearest."""
    found: dict[_Place, Grid] = {}
    before: IntegerLayer | None = None
    for number, layer in enumerate(network.layers):
        bounded = before is not None and before.shape.activation is not None
        found[number, "input"] = _rounded(layer.input, within_six=bounded)
        if layer.output is not None:
            bounded = layer.shape.activation is not None
            found[number, "output"] = _rounded(layer.output, within_six=bounded)
        if layer.total is not None:
            found[number, "total"] = _rounded(layer.total, within_six=False)
        before = layer
    return found


def _rounded(grid: Grid, *, within_six: bool) -> Grid:
    found = replace(grid, step=2.0 ** round(math.log2(grid.step)))
    return _within_six(found) if within_six else found


def _within_six(grid: Grid) -> Grid:
    """A grid that does the clipping of a ReLU6."""
    while not saturates(grid):
        grid = replace(grid, step=grid.step / 2)
    return grid


def _joined(network: IntegerNetwork, grids: dict[_Place, Grid]) -> None:
    """Give both operands of each sum the larger of their steps."""
    stored: _Place | None = None
    held: _Place | None = None
    for number, layer in enumerate(network.layers):
        if layer.shape.opens_shortcut:
            held = stored
        if layer.shape.closes_shortcut and held is not None and layer.output is not None:
            both = (number, "output"), held
            step = max(grids[place].step for place in both)
            for place in both:
                grids[place] = replace(grids[place], step=step)
            if network.layers[held[0]].shape.activation is not None:
                grids[held] = _within_six(grids[held])
                grids[both[0]] = replace(grids[both[0]], step=grids[held].step)
        if layer.output is not None:
            stored = number, "total" if layer.total is not None else "output"

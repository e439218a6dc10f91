"""Integer networks with other steps of activations, as hardware wants them.

Both operands of a shortcut's sum may get one step, so that their levels are added as they are: the
larger one of theirs; or all steps become powers of two, which are shifts: those that are nearest on
the scale of logarithms. Behind a ReLU6 a step becomes so small that saturation goes on to do the
clipping. Weights keep their levels, since what a sum stands for is a gain of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from apq_moo.deploy.integers import Grid, IntegerNetwork
from apq_moo.deploy.qonnx_graph import clipped, saturates

_Place = tuple[int, str]


def is_power_of_two(step: float) -> bool:
    """Whether a step is one."""
    return math.frexp(step)[0] == 0.5


def power_of_two(network: IntegerNetwork) -> IntegerNetwork:
    """A network with powers of two as steps, also one for both operands of a shortcut's sum.

    It computes something else.

    Args:
        network: any; it is left as it is.
    """
    grids = _own(network)
    for (number, name), grid in grids.items():
        found = replace(grid, step=2.0 ** round(math.log2(grid.step)))
        grids[number, name] = _halved(found) if _behind_relu6(network, number, name) else found
    _join(network, grids, _halved)
    return _with(network, grids)


def equal_sums(network: IntegerNetwork) -> IntegerNetwork:
    """A network in which both operands of each shortcut's sum have one step.

    And no range behind a ReLU6 reaches beyond 6, which it may after fine-tuning. The network
    computes something else.

    Args:
        network: any; it is left as it is.
    """
    grids, clips = _own(network), clipped(network)
    for number, layer in enumerate(network.layers):
        if layer.name in clips:
            place = (number + 1, "input") if layer.output is None else (number, "output")
            grids[place] = _up_to_six(grids[place])
    _join(network, grids, _up_to_six)
    return _with(network, grids)


def changed(network: IntegerNetwork, *, powers: bool, sums: bool) -> IntegerNetwork:
    """A network after :func:`power_of_two` or :func:`equal_sums`; itself if neither is wanted."""
    if powers:
        return power_of_two(network)
    return equal_sums(network) if sums else network


def _own(network: IntegerNetwork) -> dict[_Place, Grid]:
    """The grids of a network, by the number of the layer and the name of its field."""
    return {
        (number, name): grid
        for number, layer in enumerate(network.layers)
        for name in ("input", "output", "total")
        if (grid := getattr(layer, name)) is not None
    }


def _behind_relu6(network: IntegerNetwork, number: int, name: str) -> bool:
    """Whether what a grid rounds comes out of a ReLU6, or is a mean of that."""
    layer = network.layers[number - 1 if name == "input" else number]
    return layer.shape.activation is not None and name != "total" and (number, name) != (0, "input")


def _halved(grid: Grid) -> Grid:
    """A grid that does the clipping of a ReLU6, its step divided by a power of two."""
    while not saturates(grid):
        grid = replace(grid, step=grid.step / 2)
    return grid


def _up_to_six(grid: Grid) -> Grid:
    """A grid that does the clipping of a ReLU6."""
    return grid if saturates(grid) else replace(grid, step=float(np.float32(6 / grid.high)))


def _join(
    network: IntegerNetwork, grids: dict[_Place, Grid], within_six: Callable[[Grid], Grid]
) -> None:
    """Give both operands of each sum one step: the larger one, as far as a ReLU6 allows.

    Args:
        network: where the sums are.
        grids: of the network, which are changed.
        within_six: bounds the grid of an operand behind a ReLU6 that was the clipping of it.
    """
    stored: _Place | None = None
    held: _Place | None = None
    for number, layer in enumerate(network.layers):
        if layer.shape.opens_shortcut:
            held = stored
        if layer.shape.closes_shortcut and layer.output is not None and held is not None:
            both = (number, "output"), held
            kept = replace(grids[held], step=max(grids[place].step for place in both))
            if _behind_relu6(network, *held) and saturates(grids[held]):
                kept = within_six(kept)
            grids[held] = kept
            grids[both[0]] = replace(grids[both[0]], step=kept.step)
        if layer.output is not None:
            stored = number, "total" if layer.total is not None else "output"


def _with(network: IntegerNetwork, grids: dict[_Place, Grid]) -> IntegerNetwork:
    """A network with other steps."""
    layers = []
    for number, layer in enumerate(network.layers):
        entering = grids[number, "input"]
        gain = layer.gain.astype(np.float64) * (entering.step / layer.input.step)
        output, total = (grids.get((number, name)) for name in ("output", "total"))
        layers.append(
            replace(layer, gain=gain.astype(np.float32), input=entering, output=output, total=total)
        )
    return replace(network, layers=tuple(layers))

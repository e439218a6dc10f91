"""Where in a network a cost arises."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from apq_moo.errors import UserError
from apq_moo.hardware.devices import Device
from apq_moo.hardware.finding import find_device
from apq_moo.hardware.quantities import find_cost
from apq_moo.space import Layer, Space, Subnet


def breakdown(
    space: Space, subnet: Subnet, name: str, device: str | Path | Device = "bitfusion"
) -> dict[str, float]:
    """What each layer of a network adds to a cost.

    Args:
        space: the space.
        subnet: a member of it.
        name: a cost that adds up over layers.
        device: see :func:`apq_moo.hardware.find_device`.

    Returns:
        Costs by layer, in the order in which they run, in the cost's unit; their sum is the
        network's. Where a device knows the layers outside the blocks only as parts, such as
        ``head`` and ``tail``, these stand first and last.

    Raises:
        UserError: an unknown name, a cost that does not add up, or no member of the space.
    """
    cost = find_cost(name)
    layers = space.layers(subnet)
    if cost.compile is not None:
        raise UserError(f"{name} does not add up over layers, so that it cannot be broken down")
    if cost.layer_costs is not None:
        return _named(layers, cost.layer_costs(layers))
    model = find_device(device)
    if name not in model.units:
        raise UserError(f"device {model.name} gives {', '.join(model.units)}; not {name}")
    blocks = [layer for layer in layers if layer.block is not None]
    costs = _named(blocks, model.layer_costs(blocks)[name])
    fixed = {part: values[name] for part, values in model.fixed_parts(space).items()}
    ahead = {"head", *(x.name for x in layers if x.component in {"stem", "first_block"})}
    first = {part: value for part, value in fixed.items() if part in ahead}
    return first | costs | {part: value for part, value in fixed.items() if part not in ahead}


def _named(layers: list[Layer], costs: np.ndarray) -> dict[str, float]:
    return {layer.name: float(value) for layer, value in zip(layers, costs, strict=True)}

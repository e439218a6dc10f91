"""Costs by name, compiled for a space."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from apq_moo.errors import UserError
from apq_moo.hardware.compiled import device_tables
from apq_moo.hardware.devices import Device
from apq_moo.hardware.finding import find_device
from apq_moo.hardware.layer_set import layer_set
from apq_moo.hardware.quantities import find_cost
from apq_moo.hardware.tables import CostTable
from apq_moo.space import Space


def cost_table(space: Space, name: str, device: str | Path | Device = "bitfusion") -> CostTable:
    """Compile a cost for a space.

    Args:
        space: the space.
        name: one of :func:`apq_moo.hardware.cost_names`.
        device: see :func:`apq_moo.hardware.find_device`; costs that need none do not look at it.

    Raises:
        UserError: an unknown cost or device, a device that does not give this cost, or a table that
            lacks a layer of the space.
    """
    cost = find_cost(name)
    model = find_device(device)
    if cost.layer_costs is not None or cost.compile is not None:
        return _plain_table(space, name)
    if name not in model.units:
        raise UserError(f"device {model.name} gives {', '.join(model.units)}; not {name}")
    return device_tables(space, model)[name]


@lru_cache(maxsize=64)
def _plain_table(space: Space, name: str) -> CostTable:
    cost = find_cost(name)
    if cost.compile is not None:
        return cost.compile(space)
    assert cost.layer_costs is not None
    layers = layer_set(space)
    values = cost.layer_costs(layers.distinct)
    fixed = float(cost.layer_costs(space.fixed_layers()).sum())
    return CostTable(name, cost.unit, space, fixed, layers.block_tables(values))

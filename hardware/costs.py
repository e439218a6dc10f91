"""Costs by name, compiled for a space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from apq_moo.arrays import FloatArray
from apq_moo.errors import UserError
from apq_moo.hardware.compiled import device_tables
from apq_moo.hardware.devices import Device
from apq_moo.hardware.finding import find_device
from apq_moo.hardware.layer_set import layer_set
from apq_moo.hardware.peak import BITS_PER_KIB, peak_memory
from apq_moo.hardware.tables import CostTable
from apq_moo.registry import Registry
from apq_moo.space import Layer, Space

LayerCosts = Callable[[Sequence[Layer]], FloatArray]


@dataclass(frozen=True)
class Cost:
    """A cost of a network. Without either function it is looked for on the device.

    Attributes:
        unit: of its values.
        layer_costs: cost of each layer, where a network's is their sum on any device.
        compile: makes its table, where it is no sum over layers.
    """

    unit: str
    layer_costs: LayerCosts | None = None
    compile: Callable[[Space], CostTable] | None = None


def _macs(layers: Sequence[Layer]) -> FloatArray:
    return np.array([layer.macs / 1e6 for layer in layers])


def _bitops(layers: Sequence[Layer]) -> FloatArray:
    return np.array([layer.macs * layer.w_bits * layer.a_bits / 1e9 for layer in layers])


def _beside_weights(layer: Layer) -> int:
    """Values beside a layer's weights: its biases, or scale and shift of its batch norm."""
    return layer.c_out if layer.bias else 2 * layer.c_out


def _params(layers: Sequence[Layer]) -> FloatArray:
    return np.array([(layer.weights + _beside_weights(layer)) / 1e6 for layer in layers])


def _size(layers: Sequence[Layer]) -> FloatArray:
    bits = [layer.weights * layer.w_bits + 32 * _beside_weights(layer) for layer in layers]
    return np.array(bits) / BITS_PER_KIB


COSTS: Registry[Cost] = Registry("cost")
"""Costs by name.

``latency`` and ``energy`` come from a device. ``macs`` are multiply-accumulates for one image over
all convolution and linear layers; ``bitops`` are these times weight bits times activation bits.
``params`` is torch's count of the network. ``size`` is all weights at their bits, and 32 bits for
each bias and each value of a batch norm, which at inference is an affine map: two values a channel.
``memory`` is the peak activation memory, see :mod:`apq_moo.hardware.peak`.
"""

for _name, _cost in {
    "latency": Cost("ms"),
    "energy": Cost("mJ"),
    "macs": Cost("M", _macs),
    "bitops": Cost("G", _bitops),
    "params": Cost("M", _params),
    "size": Cost("KiB", _size),
    "memory": Cost("KiB", compile=peak_memory),
}.items():
    COSTS.register(_name, _cost)


def cost_table(space: Space, name: str, device: str | Path | Device = "bitfusion") -> CostTable:
    """Compile a cost for a space.

    Args:
        space: the space.
        name: one of :data:`COSTS`.
        device: see :func:`apq_moo.hardware.find_device`; costs that need none do not look at it.

    Raises:
        UserError: an unknown cost or device, a device that does not give this cost, or a table that
            lacks a layer of the space.
    """
    cost = COSTS.get(name)
    model = find_device(device)
    if cost.layer_costs is not None or cost.compile is not None:
        return _plain_table(space, name)
    if name not in model.units:
        raise UserError(f"device {model.name} gives {', '.join(model.units)}; not {name}")
    return device_tables(space, model)[name]


@lru_cache(maxsize=64)
def _plain_table(space: Space, name: str) -> CostTable:
    cost = COSTS.get(name)
    if cost.compile is not None:
        return cost.compile(space)
    assert cost.layer_costs is not None
    layers = layer_set(space)
    values = cost.layer_costs(layers.distinct)
    fixed = float(cost.layer_costs(space.fixed_layers()).sum())
    return CostTable(name, cost.unit, space, fixed, layers.block_tables(values))

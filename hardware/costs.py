"""Costs by name, compiled for a space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from apq_moo.hardware.devices import DEVICES
from apq_moo.hardware.tables import CostTable, FloatArray
from apq_moo.registry import Registry
from apq_moo.space import Block, BlockPlan, Layer, Space
from apq_moo.space.spec import FIELDS

LayerCosts = Callable[[Sequence[Layer]], FloatArray]


@dataclass(frozen=True)
class Cost:
    """A cost of a network.

    Attributes:
        unit: of its values.
        layer_costs: cost of each layer, for costs that no device is needed for; else None.
    """

    unit: str
    layer_costs: LayerCosts | None


def _bitops(layers: Sequence[Layer]) -> FloatArray:
    return np.array([layer.macs * layer.w_bits * layer.a_bits / 1e9 for layer in layers])


def _beside_weights(layer: Layer) -> int:
    """Values beside a layer's weights: its biases, or scale and shift of its batch norm."""
    return layer.c_out if layer.bias else 2 * layer.c_out


def _params(layers: Sequence[Layer]) -> FloatArray:
    return np.array([(layer.weights + _beside_weights(layer)) / 1e6 for layer in layers])


def _size(layers: Sequence[Layer]) -> FloatArray:
    bits = [layer.weights * layer.w_bits + 32 * _beside_weights(layer) for layer in layers]
    return np.array(bits) / 8192


COSTS: Registry[Cost] = Registry("cost")
"""Costs by name.

``bitops`` are multiply-accumulates times weight bits times activation bits, over all convolution
and linear layers. ``params`` is torch's count of the network. ``size`` is all weights at their
bits, and 32 bits for each bias and each value of a batch norm, which at inference is an affine map:
two values a channel. ``latency`` and ``energy`` come from a device.
"""

for _name, _cost in {
    "latency": Cost("ms", None),
    "energy": Cost("mJ", None),
    "bitops": Cost("G", _bitops),
    "params": Cost("M", _params),
    "size": Cost("KiB", _size),
}.items():
    COSTS.register(_name, _cost)


def cost_table(space: Space, name: str, device: str = "bitfusion") -> CostTable:
    """Compile a cost for a space.

    Args:
        space: the space.
        name: one of :data:`COSTS`.
        device: one of :data:`apq_moo.hardware.DEVICES`; only latency and energy depend on it.

    Raises:
        UserError: an unknown cost or device.
    """
    cost = COSTS.get(name)
    DEVICES.get(device)
    if cost.layer_costs is None:
        return _device_tables(space, device)[("latency", "energy").index(name)]
    return _plain_table(space, name)


@lru_cache(maxsize=64)
def _plain_table(space: Space, name: str) -> CostTable:
    cost = COSTS.get(name)
    assert cost.layer_costs is not None
    layers = _Layers(space)
    values = cost.layer_costs(layers.distinct)
    fixed = float(cost.layer_costs(space.fixed_layers()).sum())
    return CostTable(name, cost.unit, space, fixed, layers.block_tables(values))


@lru_cache(maxsize=16)
def _device_tables(space: Space, device: str) -> tuple[CostTable, CostTable]:
    model = DEVICES.get(device)()
    layers = _Layers(space)
    omitted = space.spec.table_omits
    fixed_layers = [layer for layer in space.fixed_layers() if layer.component not in omitted]
    latency, energy = model.layer_costs([*layers.distinct, *fixed_layers])
    n = len(layers.distinct)
    return (
        CostTable("latency", "ms", space, float(latency[n:].sum()),
                  layers.block_tables(latency[:n])),
        CostTable("energy", "mJ", space, float(energy[n:].sum()), layers.block_tables(energy[:n])),
    )  # fmt: skip


class _Layers:
    """The distinct layers of a space's blocks, and where each block finds its own.

    Attributes:
        distinct: every layer that a block can have, once.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._position: dict[tuple[int, ...], int] = {}
        self.distinct: list[Layer] = []
        self._parts = [self._block(plan) for plan in space.plans]

    def _number(self, layer: Layer) -> int:
        key = (layer.c_in, layer.c_out, layer.size, layer.kernel, layer.stride, layer.groups,
               layer.w_bits, layer.a_bits)  # fmt: skip
        if key not in self._position:
            self._position[key] = len(self.distinct)
            self.distinct.append(layer)
        return self._position[key]

    def _block(self, plan: BlockPlan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers of the expand, depthwise and project layers, shaped to broadcast over options."""
        kernels, channels, w_pw, a_pw, w_dw, a_dw = (plan.options[name] for name in FIELDS)
        n_channels = len(channels)
        pointwise = np.empty((2, 1, n_channels, len(w_pw), len(a_pw), 1, 1), dtype=np.int64)
        depthwise = np.empty((len(kernels), n_channels, 1, 1, len(w_dw), len(a_dw)), dtype=np.int64)
        for c, mid in enumerate(channels):
            for i, w in enumerate(w_pw):
                for j, a in enumerate(a_pw):
                    block = Block(plan.stage, kernels[0], mid, w, a, w_dw[0], a_dw[0])
                    expand, _, project = plan.layers(block, "block")
                    pointwise[:, 0, c, i, j, 0, 0] = self._number(expand), self._number(project)
            for k, kernel in enumerate(kernels):
                for i, w in enumerate(w_dw):
                    for j, a in enumerate(a_dw):
                        block = Block(plan.stage, kernel, mid, w_pw[0], a_pw[0], w, a)
                        depthwise[k, c, 0, 0, i, j] = self._number(plan.layers(block, "block")[1])
        return pointwise[0], depthwise, pointwise[1]

    def block_tables(self, values: FloatArray) -> tuple[FloatArray, ...]:
        """Costs of each block by configuration, from those of the distinct layers."""
        return tuple(
            (values[expand] + values[depthwise] + values[project]).ravel()
            for expand, depthwise, project in self._parts
        )

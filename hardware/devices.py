"""Devices: what gives a layer its latency, its energy or other costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from types import MappingProxyType

import numpy as np

from apq_moo.arrays import BoolArray, FloatArray
from apq_moo.errors import UserError
from apq_moo.files import digest_of, sha256
from apq_moo.hardware import tiling
from apq_moo.hardware.accelerator import Accelerator
from apq_moo.hardware.tiling import Convolutions, convolution_costs
from apq_moo.space import Layer, Space


class Device(ABC):
    """A cost model that is additive over layers.

    Attributes:
        name: as messages and pictures show it.
        units: the costs that it gives, with their units.
    """

    name: str = "device"
    units: Mapping[str, str] = MappingProxyType({"latency": "ms", "energy": "mJ"})

    @abstractmethod
    def layer_costs(self, layers: Sequence[Layer]) -> Mapping[str, FloatArray]:
        """Costs of layers: for each name of :attr:`units` an array of shape ``(n,)``.

        Infinite where the device cannot run a layer.
        """

    def fixed_layers(self, space: Space) -> list[Layer]:
        """The layers outside a space's searchable blocks that this device's costs cover."""
        omitted = space.spec.table_omits
        return [layer for layer in space.fixed_layers() if layer.component not in omitted]

    def fixed_parts(self, space: Space) -> dict[str, dict[str, float]]:
        """What every network of a space costs beside its searchable blocks, part by part."""
        layers = self.fixed_layers(space)
        costs = self.layer_costs(layers)
        return {
            layer.name: {name: float(costs[name][i]) for name in self.units}
            for i, layer in enumerate(layers)
        }

    @property
    def digest(self) -> str | None:
        """SHA-256 of everything that the costs depend on, or None if that is not known."""
        return None


@dataclass(frozen=True)
class ArrayDevice(Device):
    """A device modelled by :mod:`apq_moo.hardware.tiling`.

    A depthwise layer runs as dense convolutions over groups of half the array's rows times the
    precision's parallelism, one after the other. The stem runs in im2col mode.
    """

    machine: Accelerator

    @property
    def name(self) -> str:  # type: ignore[override]
        """The machine's name."""
        return self.machine.name

    @property
    def digest(self) -> str:
        """SHA-256 of the machine and of the model's code."""
        return _array_digest(self.machine)

    def layer_costs(self, layers: Sequence[Layer]) -> dict[str, FloatArray]:
        """Latency in ms and energy in mJ of each layer, shape ``(n,)``.

        Layers with operands wider than the array takes, or of which no tile fits its memories, cost
        inf.

        Raises:
            UserError: a layer is neither dense nor depthwise.
        """
        if not layers:
            return {"latency": np.empty(0), "energy": np.empty(0)}
        shape = np.array([_shape(layer) for layer in layers], dtype=np.int64)
        latency, energy = np.full(len(layers), np.inf), np.full(len(layers), np.inf)
        runs = (shape[:, 6:8] <= self.machine.widest_bits).all(axis=1)
        shape = shape[runs]
        groups, w, a = shape[:, 5], shape[:, 6], shape[:, 7]
        depthwise = groups > 1
        width = np.maximum(self.machine.rows // 2, 1) * self.machine.parallelism(w, a)
        repeats = np.where(depthwise, -(-groups // width), 1)
        shape[depthwise, 3] = shape[depthwise, 4] = width[depthwise]
        shape[:, 5] = 1
        unique, inverse = np.unique(shape, axis=0, return_inverse=True)
        kernel, out, stride, c_in, c_out, _, w, a, im2col = unique.T
        mode: BoolArray = im2col.astype(bool)
        convs = Convolutions(kernel, out, stride, c_in, c_out, w, a, mode)
        cycles, nanojoules = convolution_costs(self.machine, convs)
        row = inverse.reshape(-1)
        latency[runs] = cycles[row] * repeats / self.machine.clock_khz
        energy[runs] = nanojoules[row] * repeats * 1e-6
        return {"latency": latency, "energy": energy}


@cache
def _array_digest(machine: Accelerator) -> str:
    return digest_of([asdict(machine), sha256(tiling.__file__), sha256(__file__)])


def _shape(layer: Layer) -> tuple[int, ...]:
    if layer.groups not in {1, layer.c_in}:
        raise UserError(f"layer {layer.name} has {layer.groups} groups; use 1 or its channels")
    im2col = layer.component == "stem"
    return (
        *(layer.kernel, layer.size_out, layer.stride, layer.c_in, layer.c_out),
        *(layer.groups, layer.w_bits, layer.a_bits, im2col),
    )

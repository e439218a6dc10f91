"""Devices by name: what gives a layer its latency and energy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from apq_moo.errors import UserError
from apq_moo.hardware.accelerator import BITFUSION, Accelerator
from apq_moo.hardware.tiling import BoolArray, Convolutions, FloatArray, convolution_costs
from apq_moo.registry import Registry
from apq_moo.space import Layer


class Device(Protocol):
    """A cost model that is additive over layers."""

    def layer_costs(self, layers: Sequence[Layer]) -> tuple[FloatArray, FloatArray]:
        """Latency in ms and energy in mJ of each layer; inf where the device cannot run it."""


@dataclass(frozen=True)
class ArrayDevice:
    """A device modelled by :mod:`apq_moo.hardware.tiling`.

    A depthwise layer runs as dense convolutions over groups of half the array's rows times the
    precision's parallelism, one after the other. The stem runs in im2col mode.
    """

    machine: Accelerator

    def layer_costs(self, layers: Sequence[Layer]) -> tuple[FloatArray, FloatArray]:
        """Latency in ms and energy in mJ of each layer, shape ``(n,)``.

        Layers with operands wider than the array takes, or of which no tile fits its memories, cost
        inf.

        Raises:
            UserError: a layer is neither dense nor depthwise.
        """
        if not layers:
            return np.empty(0), np.empty(0)
        shape = np.array([_shape(layer) for layer in layers], dtype=np.int64)
        groups, w, a = shape[:, 5], shape[:, 6], shape[:, 7]
        runs = (w <= self.machine.widest_bits) & (a <= self.machine.widest_bits)
        depthwise = groups > 1
        width = self.machine.rows // 2 * self.machine.parallelism(w, a)
        repeats = np.where(depthwise, -(-groups // width), 1)
        shape[depthwise, 3] = shape[depthwise, 4] = width[depthwise]
        shape[:, 5] = 1
        latency, energy = np.full(len(layers), np.inf), np.full(len(layers), np.inf)
        unique, inverse = np.unique(shape[runs], axis=0, return_inverse=True)
        kernel, out, stride, c_in, c_out, _, w, a, im2col = unique.T
        mode: BoolArray = im2col.astype(bool)
        convs = Convolutions(kernel, out, stride, c_in, c_out, w, a, mode)
        cycles, nanojoules = convolution_costs(self.machine, convs)
        row = inverse.reshape(-1)
        latency[runs] = cycles[row] * repeats[runs] / self.machine.clock_khz
        energy[runs] = nanojoules[row] * repeats[runs] * 1e-6
        return latency, energy


def _shape(layer: Layer) -> tuple[int, ...]:
    if layer.groups not in {1, layer.c_in}:
        raise UserError(f"layer {layer.name} has {layer.groups} groups; use 1 or its channels")
    im2col = layer.component == "stem"
    return (
        *(layer.kernel, layer.size_out, layer.stride, layer.c_in, layer.c_out),
        *(layer.groups, layer.w_bits, layer.a_bits, im2col),
    )


DEVICES: Registry[Callable[[], Device]] = Registry("device")
"""Makers of devices by name; they take no arguments."""

DEVICES.register("bitfusion", lambda: ArrayDevice(BITFUSION))

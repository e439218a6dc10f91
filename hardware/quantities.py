"""What can be optimised or limited: every quantity of a network, once.

Objectives are minimised everywhere inside the package; the sign of what is to be maximised is
flipped by :func:`minimised`, which also flips it back, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from apq_moo.arrays import BoolArray, FloatArray
from apq_moo.errors import UserError
from apq_moo.hardware.peak import BITS_PER_KIB, peak_memory
from apq_moo.hardware.tables import CostTable
from apq_moo.registry import Registry
from apq_moo.space import Layer, Space
from apq_moo.space.spec import FLOAT_BITS

_TINY = 1e-100
"""Relative to such a limit everything would be infinite."""

LayerCosts = Callable[[Sequence[Layer]], FloatArray]


@dataclass(frozen=True)
class Quantity:
    """A quantity of a network.

    Attributes:
        name: as users write it.
        unit: of its values, everywhere.
        description: one line.
        maximise: whether more is better; a limit is then a lower one.
        expensive: whether a value takes a prediction or a measurement. Any other quantity is a cost
            that is looked up, see :func:`apq_moo.hardware.cost_table`; without either of the
            functions below it comes from the device.
        layer_costs: cost of each layer, where a network's is their sum on any device.
        compile: makes a cost's table, where it is no sum over layers.
    """

    name: str
    unit: str
    description: str
    maximise: bool = False
    expensive: bool = False
    layer_costs: LayerCosts | None = None
    compile: Callable[[Space], CostTable] | None = None

    @property
    def relation(self) -> str:
        """How a limit on it is written: ``<=``, or ``>=`` where more is better."""
        return ">=" if self.maximise else "<="

    def meets(self, values: FloatArray, limit: float) -> BoolArray:
        """Which values meet a limit, both in :attr:`unit`; the limit itself does."""
        met: BoolArray = values >= limit if self.maximise else values <= limit
        return met

    def excess(self, values: FloatArray, limit: float) -> FloatArray:
        """How far values break a limit, relative to it; at most 0 where they meet it."""
        over: FloatArray = (limit - values if self.maximise else values - limit) / (
            abs(limit) if abs(limit) > _TINY else 1.0
        )
        return over


def minimised(names: Sequence[str], values: ArrayLike) -> FloatArray:
    """Quantities as objectives to be minimised, or such objectives as quantities again.

    >>> minimised(("acc", "latency"), [[94.0, 0.2]])
    array([[-94. ,   0.2]])

    Args:
        names: of the columns.
        values: shape ``(n, n_names)`` or ``(n_names,)``.
    """
    signs = np.array([-1.0 if QUANTITIES.get(name).maximise else 1.0 for name in names])
    flipped: FloatArray = signs * np.asarray(values, dtype=np.float64)
    return flipped


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
    bits = [layer.weights * layer.w_bits + 32 * _stored_beside(layer) for layer in layers]
    return np.array(bits) / BITS_PER_KIB


def _stored_beside(layer: Layer) -> int:
    """Values stored beside a layer's weights: levels need a size for each output channel."""
    return 2 * layer.c_out if layer.w_bits != FLOAT_BITS else _beside_weights(layer)


ACC = "acc"
"""The accuracy's name."""

QUANTITIES: Registry[Quantity] = Registry("objective")
"""Every quantity by name, in the order in which they are listed.

``macs`` are over all convolution and linear layers. ``params`` is torch's count of the network.
``size`` is all weights at their bits, and two numbers of 32 bits for each output channel: what its
integers are multiplied by, the batch norm's scale included, and what is then added. (A classifier
in floating point has a bias only.) ``memory`` is the peak activation memory, see
:mod:`apq_moo.hardware.peak`.
"""

for _quantity in (
    Quantity(ACC, "%", "top-1 accuracy, as the predictor estimates it", True, True),
    Quantity("latency", "ms", "latency of one image on the device"),
    Quantity("energy", "mJ", "energy of one image on the device"),
    Quantity("macs", "M", "multiply-accumulates of one image", layer_costs=_macs),
    Quantity(
        "bitops",
        "G",
        "multiply-accumulates times weight bits times activation bits",
        layer_costs=_bitops,
    ),
    Quantity("params", "M", "parameters, batch norm included", layer_costs=_params),
    Quantity("size", "KiB", "weights at their bits", layer_costs=_size),
    Quantity("memory", "KiB", "activations in memory at the peak", compile=peak_memory),
):
    QUANTITIES.register(_quantity.name, _quantity)


def cost_names() -> list[str]:
    """Names of the quantities that are looked up rather than predicted or measured."""
    return [name for name, quantity in QUANTITIES.usable() if not quantity.expensive]


def find_cost(name: str) -> Quantity:
    """The cost that has a name.

    Raises:
        UserError: there is none, or the quantity is no cost.
    """
    if name not in QUANTITIES or QUANTITIES.get(name).expensive:
        raise UserError(f"unknown cost {name!r}; known: {', '.join(cost_names())}")
    return QUANTITIES.get(name)

"""Costs of layers as a table, and the device that reads them off it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from apq_moo.arrays import FloatArray
from apq_moo.errors import UserError, shown
from apq_moo.hardware.devices import Device
from apq_moo.space import Layer, Space

HEAD, TAIL = "head", "tail"
"""Rows that sum up the fixed layers before and behind the searchable blocks."""

BLOCK = "block"
"""Component of layers of the searchable blocks; fixed layers keep their own rows beside them."""

LEAST, MOST = 1e-30, 1e30
"""Bounds of costs, between which sums and ratios neither vanish nor overflow."""

_NUMBER = "(0|[1-9][0-9]*)"
_KEY = re.compile(rf"\({', '.join([_NUMBER] * 7)}\)-W{_NUMBER}A{_NUMBER}")
_MAX_DIGITS = 9


@dataclass(frozen=True)
class Correction:
    """How sums of layers become latencies of networks: ``scale * sum + offset``.

    Attributes:
        scale: positive.
        offset: in the cost's unit.
        networks: how many whole networks it was fitted to.
        kendall_tau: of the sums and the measured values.
        mape_before: mean absolute percentage error of the sums.
        mape_after: of the corrected sums, each network predicted from a fit to the others.
    """

    scale: float
    offset: float
    networks: int
    kendall_tau: float
    mape_before: float
    mape_after: float


@dataclass(frozen=True)
class LayerTable:
    """What each of many layers costs on one device.

    Attributes:
        names: of the rows: a layer's key, as in the published format, or ``head`` or ``tail``.
        components: what each row is part of: ``block``, or a fixed layer's component.
        units: the costs with their units.
        values: for each cost an array of shape ``(n,)``; inf where the device cannot run a layer.
        spread: interquartile range of the repeats that each value is the median of, where it was
            measured; the same shapes.
        repeats: how many repeats were made in all, shape ``(n,)``, where it was measured.
        constant: what a network costs beside its layers, by cost.
        bits: pairs of weight and activation bits that the device runs, or None: those of the rows.
        corrections: by cost.
        provenance: what made it: device, space, versions, processor, settings, date.
    """

    names: tuple[str, ...]
    components: tuple[str, ...]
    units: Mapping[str, str]
    values: Mapping[str, FloatArray]
    spread: Mapping[str, FloatArray] = field(default_factory=dict)
    repeats: np.ndarray | None = None
    constant: Mapping[str, float] = field(default_factory=dict)
    bits: tuple[tuple[int, int], ...] | None = None
    corrections: Mapping[str, Correction] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def index(self) -> dict[tuple[str, str], int]:
        """Row of each component and name."""
        return {row: i for i, row in enumerate(zip(self.components, self.names, strict=True))}

    def row(self, layer: Layer) -> int | None:
        """Where a layer stands: among the fixed layers if it is one of them, else by its key."""
        own = self.index.get((layer.component, layer.key))
        return self.index.get((BLOCK, layer.key)) if own is None else own

    @cached_property
    def bit_pairs(self) -> frozenset[tuple[int, int]]:
        """Pairs of weight and activation bits that the device runs."""
        if self.bits is not None:
            return frozenset(self.bits)
        keys = (parse_key(name) for name in self.names if name not in {HEAD, TAIL})
        return frozenset((key[7], key[8]) for key in keys)

    def problems(self) -> list[str]:
        """Rows whose values cannot be costs: zero, negative, far too large or no numbers."""
        found = []
        for cost, values in self.values.items():
            runs = (values >= LEAST) & (values <= MOST)
            bad = ~runs & ~(np.isposinf(values) & ~np.isin(self.names, (HEAD, TAIL)))
            found += [
                f"{self.names[i]} has {cost} {values[i]:g}; costs must "
                + (
                    f"lie between {LEAST:g} and {MOST:g}"
                    if 0 < values[i] < np.inf
                    else "be positive"
                )
                for i in np.flatnonzero(bad)
            ]
        return found


def parse_key(name: str) -> tuple[int, ...]:
    """``(c_in, c_out, size, kernel, stride, padding, groups, w_bits, a_bits)`` of a layer's key.

    >>> parse_key("(96, 456, 14, 1, 1, 0, 1)-W4A4")
    (96, 456, 14, 1, 1, 0, 1, 4, 4)

    Raises:
        UserError: it is none.
    """
    match = _KEY.fullmatch(name)
    if match is None or any(len(part) > _MAX_DIGITS for part in match.groups()):
        raise UserError(
            f"{shown(name)} is no layer; write (c_in, c_out, size, kernel, stride, padding, "
            "groups)-W<bits>A<bits>, or head or tail"
        )
    return tuple(int(part) for part in match.groups())


class TableDevice(Device):
    """A device whose costs are read off a table.

    Layers at bits that it does not run cost inf. A layer at other bits that is not in the table is
    missing. Corrections are applied to sums, so that they hold for networks.

    Args:
        table: the costs.
        name: as messages show it.
        missing: ``error``, or ``infeasible`` to let missing layers cost inf.

    Raises:
        UserError: a value is no cost.
    """

    def __init__(self, table: LayerTable, name: str, *, missing: str = "error") -> None:
        problems = table.problems()
        if problems:
            more = f" (and {len(problems) - 1} more: see lut validate)" if problems[1:] else ""
            raise UserError(f"{name}: {problems[0]}{more}")
        self.table = table
        self.name = name
        self.units = table.units
        self.missing = missing

    def layer_costs(self, layers: Sequence[Layer]) -> dict[str, FloatArray]:
        """See :meth:`Device.layer_costs`.

        Raises:
            UserError: a layer is missing; the message names the first one.
        """
        lacking = self.lacking(layers)
        if lacking and self.missing == "error":
            more = f" and {len(lacking) - 1} other layers" if lacking[1:] else ""
            raise UserError(
                f"{self.name} lacks {lacking[0].key} ({lacking[0].name}){more}; add them, or "
                "leave out the networks that have one with missing='infeasible'"
            )
        rows = [self.table.row(layer) for layer in layers]
        found = np.array([row is not None for row in rows], dtype=bool)
        taken = np.array([row or 0 for row in rows], dtype=np.int64)
        return {
            cost: self._scale(cost) * np.where(found, values[taken], np.inf)
            if len(values)
            else np.full(len(layers), np.inf)
            for cost, values in self.table.values.items()
        }

    def lacking(self, layers: Iterable[Layer]) -> list[Layer]:
        """The layers that are missing, though the device runs their bits."""
        pairs = self.table.bit_pairs
        return [
            layer
            for layer in layers
            if self.table.row(layer) is None and (layer.w_bits, layer.a_bits) in pairs
        ]

    def _scale(self, cost: str) -> float:
        correction = self.table.corrections.get(cost)
        return 1.0 if correction is None else correction.scale

    def fixed_layers(self, space: Space) -> list[Layer]:
        """The fixed layers that count: all but those that a space omits and the table lacks."""
        omitted = space.spec.table_omits
        return [
            layer
            for layer in space.fixed_layers()
            if layer.component not in omitted or (layer.component, layer.key) in self.table.index
        ]

    @property
    def ends(self) -> dict[str, int]:
        """Rows of ``head`` and ``tail``, as far as the table has them."""
        index = self.table.index
        return {end: index[end, end] for end in (HEAD, TAIL) if (end, end) in index}

    def fixed_parts(self, space: Space) -> dict[str, dict[str, float]]:
        """See :meth:`Device.fixed_parts`; ``head`` and ``tail``, where the table has them.

        The constant and the corrections' offsets stand as a part of their own.
        """
        if len(self.ends) == 1:
            (only,) = self.ends
            other = TAIL if only == HEAD else HEAD
            raise UserError(f"{self.name} has {only!r}, but lacks {other!r}")
        if self.ends:
            parts = {
                end: {
                    cost: self._scale(cost) * float(values[row])
                    for cost, values in self.table.values.items()
                }
                for end, row in self.ends.items()
            }
        else:
            parts = super().fixed_parts(space)
        beside = {cost: self._beside(cost) for cost in self.units}
        return parts | ({"beside layers": beside} if any(beside.values()) else {})

    def _beside(self, cost: str) -> float:
        """What a network costs beside its layers."""
        constant = self._scale(cost) * self.table.constant.get(cost, 0.0)
        correction = self.table.corrections.get(cost)
        return constant + (0.0 if correction is None else correction.offset)


def build(space: Space, device: Device, provenance: Mapping[str, Any]) -> LayerTable:
    """Write down what every layer of a space costs on a device.

    Layers of forbidden configurations are left out.

    Args:
        space: the space.
        device: the device.
        provenance: kept with the table.

    Raises:
        UserError: the device cannot cost some layer.
    """
    from apq_moo.hardware.layer_set import layer_set

    found = layer_set(space)
    blocks = [found.distinct[i] for i in np.flatnonzero(found.needed())]
    fixed = device.fixed_layers(space)
    layers = [*blocks, *fixed]
    return LayerTable(
        names=tuple(layer.key for layer in layers),
        components=tuple(layer.component for layer in layers),
        units=dict(device.units),
        values={name: np.asarray(costs) for name, costs in device.layer_costs(layers).items()},
        provenance=provenance,
        bits=tuple(sorted({(layer.w_bits, layer.a_bits) for layer in layers})),
    )

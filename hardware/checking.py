"""What is wrong with a table of layer costs, and whether it serves a space."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from apq_moo.hardware.compiled import device_tables
from apq_moo.hardware.layer_set import layer_set
from apq_moo.hardware.layer_table import LayerTable, TableDevice
from apq_moo.hardware.tables import CostBatch, feasible_options, random_networks
from apq_moo.space import Layer, Space
from apq_moo.space.spec import FLOAT_BITS

_NETWORKS = 100
_INTEGERS = 8


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        problems: values that are no costs, one line each.
        needed: distinct layers that the space's networks can have.
        missing: those that the table lacks, though the device runs their bits.
        unsupported: pairs of bits that the space offers and the device does not run.
        cannot_run: rows that say that the device cannot run the layer.
        additivity: largest relative difference between the compiled cost of a random network and
            the plain sum over its layers, or None where nothing can run.
        integers: the latency of the largest network with all layers at 8 bits, over that in
            floating point; None where the table does not know both.
    """

    problems: list[str]
    needed: int
    missing: list[Layer]
    unsupported: list[tuple[int, int]]
    cannot_run: int
    additivity: float | None
    integers: float | None = None

    @property
    def good(self) -> bool:
        """Whether searches can use the table for the space as it is."""
        return not self.problems and not self.missing and self.additivity is not None


def check_table(table: LayerTable, space: Space, source: str, *, seed: int = 0) -> Report:
    """Check a table for a space.

    Args:
        table: the table.
        space: the space.
        source: how messages name the table.
        seed: of the random networks of the additivity check.
    """
    found = layer_set(space)
    layers = [found.distinct[i] for i in np.flatnonzero(found.needed())]
    pairs = {(layer.w_bits, layer.a_bits) for layer in layers}
    problems = table.problems()
    missing: list[Layer] = []
    additivity = integers = None
    if not problems:
        device = TableDevice(table, source, missing="infeasible")
        fixed = [] if device.ends else device.fixed_layers(space)
        missing = device.lacking([*layers, *fixed])
        additivity = _additivity(device, space, np.random.default_rng(seed))
        integers = _integers(device, space)
    return Report(
        problems=problems,
        needed=len(layers),
        missing=missing,
        unsupported=sorted(pairs - table.bit_pairs),
        cannot_run=int(np.isinf(next(iter(table.values.values()))).sum()),
        additivity=additivity,
        integers=integers,
    )


def _integers(device: TableDevice, space: Space) -> float | None:
    layers = space.layers(space.decode(space.largest())[0])
    sums = [
        costs["latency"].sum()
        for bits in (_INTEGERS, FLOAT_BITS)
        if "latency" in (costs := device.layer_costs([_at(layer, bits) for layer in layers]))
    ]
    return float(sums[0] / sums[1]) if sums and np.isfinite(sums).all() else None


def _at(layer: Layer, bits: int) -> Layer:
    return replace(layer, w_bits=bits, a_bits=bits)


def _additivity(device: TableDevice, space: Space, rng: np.random.Generator) -> float | None:
    tables = list(device_tables(space, device).values())
    feasible = feasible_options(space, tables)
    X = random_networks(space, feasible, _NETWORKS, rng)
    if not len(X) or not all(np.isfinite(table.fixed) for table in tables):
        return None
    compiled = CostBatch(tables)(X)
    worst = 0.0
    parts = device.fixed_parts(space).values()
    for row, subnet in zip(compiled, space.decode(X), strict=True):
        layers = [layer for layer in space.layers(subnet) if layer.block is not None]
        costs = device.layer_costs(layers)
        for value, table in zip(row, tables, strict=True):
            plain = sum(costs[table.name].tolist()) + sum(part[table.name] for part in parts)
            worst = max(worst, abs(value - plain) / abs(plain))
    return worst

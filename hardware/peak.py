"""Peak activation memory, as a table of blocks whose maximum counts.

While a layer runs, its input and its output are in memory, and in a block with a shortcut the
block's input too, until it is added. A tensor within a block takes the bits at which the next layer
reads it. A tensor between blocks, in which shortcuts add up, and the image take the bits of the
layers outside the blocks (``bits.fixed``), whatever bits the next layer rounds it to as it reads.
Batch norm and activation functions work in place.
"""

from __future__ import annotations

import numpy as np

from apq_moo.arrays import FloatArray
from apq_moo.hardware.tables import CostTable
from apq_moo.space import BlockPlan, Space
from apq_moo.space.spec import FIELDS

BITS_PER_KIB = 8192


def peak_memory(space: Space) -> CostTable:
    """The most activation memory that a network needs at a time, in KiB."""
    between = space.spec.fixed_bits
    blocks = tuple(_block(plan, between) / BITS_PER_KIB for plan in space.plans)
    fixed = _fixed(space) * between / BITS_PER_KIB
    return CostTable("memory", "KiB", space, fixed, blocks, combine="max")


def _block(plan: BlockPlan, between: int) -> FloatArray:
    """Bits at the peak of each configuration, shape ``(n_configurations,)``."""
    options = [np.array(plan.options[name], dtype=np.float64) for name in FIELDS]
    _, mid, _, a_pw, _, a_dw = np.meshgrid(*options, indexing="ij")
    area, area_out = plan.size**2, plan.size_out**2
    entering, leaving = plan.c_in * area * between, plan.c_out * area_out * between
    expanded, filtered = mid * area * a_dw, mid * area_out * a_pw
    held = entering if plan.has_shortcut else 0
    steps = (entering + expanded, held + expanded + filtered, held + filtered + leaving)
    peak: FloatArray = np.maximum.reduce(steps).ravel()
    return peak


def _fixed(space: Space) -> int:
    """Values at the peak of what runs outside the blocks, all of it at the same bits."""
    layers = space.fixed_layers()
    sizes = []
    held = 0
    for layer in layers:
        entering, leaving = layer.c_in * layer.size**2, layer.c_out * layer.size_out**2
        sizes.append(entering + leaving + (held if layer.closes_shortcut else 0))
        if layer.opens_shortcut:
            held = entering
    pooled = layers[-1].c_in * (space.plans[-1].size_out ** 2 + 1)
    return max(*sizes, pooled)

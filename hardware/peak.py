"""Peak activation memory, as a table of blocks whose maximum counts.

While a layer runs, its input and its output are in memory, and in a block with a shortcut the
block's input too. A shortcut is added in place: what the block's last layer gives takes the place
of what the block read, pixel by pixel. A tensor within a block takes the bits at which the next
layer reads it; a tensor between blocks takes the bits in which it is stored (``bits.between``),
whatever bits the next layer rounds it to as it reads. The image is bytes, logits take 32 bits.
Batch norm and activation functions work in place, and the classifier pools as it reads.
"""

from __future__ import annotations

import numpy as np

from apq_moo.arrays import FloatArray
from apq_moo.hardware.tables import CostTable
from apq_moo.space import BlockPlan, Space
from apq_moo.space.spec import FIELDS

BITS_PER_KIB = 8192

_IMAGE_BITS = 8
_LOGIT_BITS = 32


def peak_memory(space: Space) -> CostTable:
    """The most activation memory that a network needs at a time, in KiB."""
    blocks = tuple(_block(plan) / BITS_PER_KIB for plan in space.plans)
    return CostTable("memory", "KiB", space, _fixed(space) / BITS_PER_KIB, blocks, combine="max")


def _block(plan: BlockPlan) -> FloatArray:
    """Bits at the peak of each configuration, shape ``(n_configurations,)``."""
    options = [np.array(plan.options[name], dtype=np.float64) for name in FIELDS]
    _, mid, _, a_pw, _, a_dw = np.meshgrid(*options, indexing="ij")
    area, area_out, between = plan.size**2, plan.size_out**2, plan.between_bits
    entering, leaving = plan.c_in * area * between, plan.c_out * area_out * between
    expanded, filtered = mid * area * a_dw, mid * area_out * a_pw
    held = entering if plan.has_shortcut else 0
    steps = (entering + expanded, held + expanded + filtered, filtered + leaving)
    peak: FloatArray = np.maximum.reduce(steps).ravel()
    return peak


def _fixed(space: Space) -> int:
    """Bits at the peak of what runs outside the blocks."""
    between, fixed = space.spec.between_bits, space.spec.fixed_bits
    *layers, classifier = space.fixed_layers()
    features = classifier.c_in * space.plans[-1].size_out ** 2 * between
    steps = [features + classifier.c_out * _LOGIT_BITS]
    for layer in layers:
        entering = {"stem": _IMAGE_BITS, "project": fixed}.get(layer.place or layer.part, between)
        leaving = between if layer.leaves_block else fixed
        areas = layer.c_in * layer.size**2, layer.c_out * layer.size_out**2
        steps.append(areas[0] * entering + areas[1] * leaving)
    return max(steps)

"""The distinct layers of a space's blocks, and where each block finds its own."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.space import Block, BlockPlan, Layer, Space
from apq_moo.space.spec import FIELDS


class LayerSet:
    """The distinct layers of a space's blocks.

    Layers are equal that have the same :attr:`Layer.key`; they are named after the first block that
    has them.

    Args:
        space: the space.

    Attributes:
        distinct: every layer that a block can have, once, those of forbidden configurations too.
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

    def _block(self, plan: BlockPlan) -> tuple[IntArray, IntArray, IntArray]:
        """Numbers of the expand, depthwise and project layers, shaped to broadcast over options."""
        kernels, channels, w_pw, a_pw, w_dw, a_dw = (plan.options[name] for name in FIELDS)
        n_channels = len(channels)
        pointwise = np.empty((2, 1, n_channels, len(w_pw), len(a_pw), 1, 1), dtype=np.int64)
        depthwise = np.empty((len(kernels), n_channels, 1, 1, len(w_dw), len(a_dw)), dtype=np.int64)
        for c, mid in enumerate(channels):
            for i, w in enumerate(w_pw):
                for j, a in enumerate(a_pw):
                    block = Block(plan.stage, kernels[0], mid, w, a, w_dw[0], a_dw[0])
                    expand, _, project = plan.layers(block)
                    pointwise[:, 0, c, i, j, 0, 0] = self._number(expand), self._number(project)
            for k, kernel in enumerate(kernels):
                for i, w in enumerate(w_dw):
                    for j, a in enumerate(a_dw):
                        block = Block(plan.stage, kernel, mid, w_pw[0], a_pw[0], w, a)
                        depthwise[k, c, 0, 0, i, j] = self._number(plan.layers(block)[1])
        return pointwise[0], depthwise, pointwise[1]

    def needed(self) -> NDArray[np.bool_]:
        """Which of the distinct layers occur in a configuration that no rule forbids."""
        needed = np.zeros(len(self.distinct), dtype=bool)
        for b, parts in enumerate(self._parts):
            shape = self._space.plans[b].shape
            allowed = np.zeros(shape, dtype=bool)
            allowed.ravel()[self._space.allowed(b)] = True
            for numbers in parts:
                needed[np.broadcast_to(numbers, shape)[allowed]] = True
        return needed

    def block_tables(self, values: FloatArray) -> tuple[FloatArray, ...]:
        """Costs of each block by configuration, from those of the distinct layers."""
        return tuple(
            (values[expand] + values[depthwise] + values[project]).ravel()
            for expand, depthwise, project in self._parts
        )


@lru_cache(maxsize=8)
def layer_set(space: Space) -> LayerSet:
    """The distinct layers of a space."""
    return LayerSet(space)

"""The network that MobileNetV2 would be in a space: what several systems begin with.

M. Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018: kernels of 3,
expansion by 6, and (behind a first block without expansion) stages of 2, 3, 4, 3, 3 and 1 blocks.
"""

from __future__ import annotations

import numpy as np

from apq_moo.arrays import IntArray
from apq_moo.errors import UserError
from apq_moo.problems import APQProblem
from apq_moo.space import Space
from apq_moo.space.spec import FIELDS, ROLES

KERNEL, EXPANSION, BITS = 3, 6, 8
DEPTHS = (2, 3, 4, 3, 3, 1)


def reference_network(problem: APQProblem) -> IntArray:
    """The network nearest to MobileNetV2 at 8 bits, shape ``(n_blocks,)``.

    Its blocks are those of :func:`nearest_blocks`. Depths are the nearest to MobileNetV2's where
    the space has as many stages, else the largest.

    Raises:
        UserError: a block of these depths has no configuration.
    """
    space = problem.space
    index = nearest_blocks(problem)
    found: IntArray = space.layout.cut(index[None], reference_depths(space)[None])[0]
    for b in np.flatnonzero(space.layout.active(found[None])[0]).tolist():
        if not problem.feasible[b].any():
            raise UserError(
                f"the reference network of space {space.name!r} cannot run: the device supports no "
                f"configuration of block {b}"
            )
    return found


def nearest_blocks(problem: APQProblem) -> IntArray:
    """MobileNetV2's configuration of every block, whatever the depths, shape ``(n_blocks,)``.

    Among those that no rule forbids and the device can run the one whose kernel is nearest to 3,
    then whose expansion is nearest to 6, then whose bits are nearest to 8; of equally near ones the
    larger. The first one of a block that has none.
    """
    index = np.zeros(problem.space.n_blocks, dtype=np.int64)
    for b, mask in enumerate(problem.feasible):
        numbers = np.flatnonzero(mask)
        if len(numbers):
            index[b] = numbers[_nearest(problem.space, b, numbers)]
    return index


def reference_depths(space: Space) -> IntArray:
    """Depths of all stages, shape ``(n_stages,)``."""
    stages = space.spec.stages
    if len(stages) != len(DEPTHS):
        return np.array([stage.depths[-1] for stage in stages])
    return np.array(
        [
            min((abs(depth - like), -depth, depth) for depth in stage.depths)[-1]
            for stage, like in zip(stages, DEPTHS, strict=True)
        ]
    )


def _nearest(space: Space, block: int, numbers: IntArray) -> int:
    genes, plan = space.block_genes(block, numbers), space.plans[block]
    options = {
        name: np.array(plan.options[name])[genes[:, column]] for column, name in enumerate(FIELDS)
    }
    kernel, expansion = options["kernel"], options["channels"] / plan.c_in
    bits = np.stack([options[role] for role in ROLES], axis=1)
    order = np.lexsort(
        (
            -bits.sum(axis=1),
            np.abs(bits - BITS).sum(axis=1),
            -expansion,
            np.abs(expansion - EXPANSION),
            -kernel,
            np.abs(kernel - KERNEL),
        )
    )
    return int(order[0])

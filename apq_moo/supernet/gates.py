"""Gradients of gates: how a loss changes as a block or a stage turns to another of its candidates.

A path through a supernet is one subnet. With a gate for each candidate of a block, 1 for the one
on the path and 0 for the others, and the block's output the sum of its candidates' outputs times
their gates, the loss is the path's, and its derivative by a gate is the product of the candidate's
output and the loss's derivative by the block's output (H. Cai et al., ProxylessNAS, ICLR 2019,
section 3.2). So others than the path are run forward only, one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from apq_moo.arrays import FloatArray
from apq_moo.space import Block
from apq_moo.supernet.network import SlicedLayer, Supernet, rounded, run


@dataclass(frozen=True)
class StagePath:
    """A path through one stage, and what its gates are compared with.

    Attributes:
        blocks: the configuration of every block of it, as deep as it is ever wanted.
        depth: how many of them are on the path.
        candidates: for each block on the path, configurations whose gates are wanted.
        depths: whose gates are wanted.
    """

    blocks: Sequence[Block]
    depth: int
    candidates: Sequence[Sequence[Block]]
    depths: Sequence[int]


@dataclass(frozen=True)
class GateGradients:
    """What :func:`gate_gradients` found.

    Attributes:
        loss: cross entropy of the path.
        candidates: for each stage, for each block on the path, derivatives by the gates wanted.
        depths: for each stage, derivatives by the gates of depths.
    """

    loss: float
    candidates: list[list[FloatArray]]
    depths: list[FloatArray]


def gate_gradients(
    supernet: Supernet, x: Tensor, y: Tensor, path: Sequence[StagePath]
) -> GateGradients:
    """Derivatives of the cross entropy of a path at its bits, with statistics of these images.

    Args:
        supernet: the weights, which need no gradients.
        x: images, shape ``(n, c, h, w)``.
        y: labels, shape ``(n,)``.
        path: for each stage.
    """
    ahead, behind = fixed_parts(supernet)
    with torch.no_grad():
        h = run(ahead, x.to(memory_format=torch.channels_last), rounded)
    h.requires_grad_()
    inputs: list[list[Tensor]] = []
    outputs: list[list[Tensor]] = []
    for number, stage in enumerate(path):
        inputs.append([])
        outputs.append([])
        for position, block in enumerate(stage.blocks[: stage.depth]):
            inputs[-1].append(h)
            h = run(block_layers(supernet, number, position, block), h, rounded)
            h.retain_grad()
            outputs[-1].append(h)
    loss = F.cross_entropy(run(behind, h, rounded).flatten(1), y)
    loss.backward()
    candidates, depths = [], []
    with torch.no_grad():
        for number, stage in enumerate(path):
            candidates.append(
                [
                    _by_candidates(supernet, (number, position), stage, before, after)
                    for position, (before, after) in enumerate(
                        zip(inputs[number], outputs[number], strict=True)
                    )
                ]
            )
            depths.append(_by_depths(supernet, number, stage, outputs[number]))
    return GateGradients(float(loss.detach()), candidates, depths)


def _by_candidates(
    supernet: Supernet, place: tuple[int, int], stage: StagePath, before: Tensor, after: Tensor
) -> FloatArray:
    taken = stage.blocks[place[1]]
    found = []
    for block in stage.candidates[place[1]]:
        output = after
        if block != taken:
            output = run(block_layers(supernet, *place, block), before, rounded)
        found.append(_product(output, after))
    return np.array(found)


def _by_depths(
    supernet: Supernet, number: int, stage: StagePath, outputs: Sequence[Tensor]
) -> FloatArray:
    reached = list(outputs)
    while len(stage.depths) > 1 and len(reached) < max(stage.depths):
        block = stage.blocks[len(reached)]
        layers = block_layers(supernet, number, len(reached), block)
        reached.append(run(layers, reached[-1], rounded))
    if len(stage.depths) == 1:
        return np.zeros(1)
    return np.array([_product(reached[depth - 1], outputs[-1]) for depth in stage.depths])


def _product(output: Tensor, at: Tensor) -> float:
    assert at.grad is not None
    return float((output.double() * at.grad.double()).sum())


def fixed_parts(supernet: Supernet) -> tuple[list[SlicedLayer], list[SlicedLayer]]:
    """The layers ahead of a supernet's blocks, and those behind."""
    fixed = supernet.space.fixed_layers()
    ahead = [layer for layer in fixed if layer.component in ("stem", "first_block")]
    return supernet.slice_layers(ahead), supernet.slice_layers(fixed[len(ahead) :])


def block_layers(supernet: Supernet, stage: int, position: int, block: Block) -> list[SlicedLayer]:
    """The layers of one block.

    Args:
        supernet: the weights.
        stage: of the block.
        position: within the stage.
        block: its configuration.
    """
    layout = supernet.space.layout
    plan = supernet.space.plans[layout.stage_blocks[stage].start + position]
    return supernet.slice_layers(plan.layers(block))

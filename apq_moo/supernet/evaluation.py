"""Scoring subnets: calibrate on training images, fold, classify.

Batch-norm statistics and activation ranges come from one pass over the calibration images, layer by
layer, so that each layer sees its inputs as the layers before it really produce them, quantised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from apq_moo.space import Subnet
from apq_moo.supernet.network import (
    BN_EPS,
    Recorded,
    SlicedLayer,
    Supernet,
    forward,
    rounded_to_half,
)
from apq_moo.supernet.quantisers import quantise_activation, quantise_weight


@torch.no_grad()
def calibrate(layers: Sequence[SlicedLayer], images: Tensor, *, quantised: bool) -> list[Recorded]:
    """Find a subnet's batch-norm statistics and activation ranges.

    Args:
        layers: the sliced subnet.
        images: calibration images, shape ``(n, c, h, w)``; run as one batch.
        quantised: whether the subnet is to run at its bits.

    Returns:
        One record for each layer.
    """
    record: list[Recorded] = []
    forward(layers, images, quantised=quantised, record=record)
    return record


@dataclass(frozen=True)
class FoldedLayer:
    """A layer ready for inference: quantised weight with the batch norm folded in.

    The batch norm's scale is per output channel, as the weight's quantisation is, so that folding
    after quantising changes nothing but rounding in the last digits.
    """

    item: SlicedLayer
    weight: Tensor
    bias: Tensor
    recorded: Recorded


@torch.no_grad()
def fold(
    layers: Sequence[SlicedLayer], recorded: Sequence[Recorded], *, quantised: bool
) -> list[FoldedLayer]:
    """Fold batch norms into weights; see :class:`FoldedLayer`."""
    folded = []
    for item, known in zip(layers, recorded, strict=True):
        weight, bias = item.weight, item.bias
        if quantised:
            weight = quantise_weight(weight, item.layer.w_bits)
        if item.scale is not None:
            assert known.mean is not None
            assert known.var is not None
            gain = item.scale * torch.rsqrt(known.var + BN_EPS)
            weight = weight * gain[:, None, None, None]
            bias = bias - known.mean * gain
        folded.append(FoldedLayer(item, weight, bias, known))
    return folded


@torch.no_grad()
def infer(folded: Sequence[FoldedLayer], x: Tensor, *, quantised: bool) -> Tensor:
    """Logits of shape ``(n, classes)`` for images of shape ``(n, c, h, w)``."""
    kept = x = x.to(memory_format=torch.channels_last)
    for layer in folded:
        item = layer.item
        if item.opens:
            kept = x
        if item.scale is None:
            x = x.mean(dim=(2, 3), keepdim=True)
        if quantised:
            known = layer.recorded
            x = quantise_activation(x, known.low, known.high, item.layer.a_bits)
        shape = item.layer
        x = F.conv2d(x, layer.weight, layer.bias, shape.stride, shape.padding, groups=shape.groups)
        if item.relu:
            x = x.clamp_(0, 6)
        if item.closes:
            x = x + kept
        if item.half:
            x = rounded_to_half(x)
    return x.flatten(1)


class Evaluator:
    """Runs subnets of one supernet on any images.

    Args:
        supernet: the weights.
        calibration: calibration images, shape ``(n, c, h, w)``.
        batch_size: images classified at a time.
    """

    def __init__(self, supernet: Supernet, calibration: Tensor, batch_size: int = 512) -> None:
        self.supernet = supernet
        self.calibration = calibration
        self.batch_size = batch_size

    @torch.no_grad()
    def logits(
        self, subnet: Subnet | Sequence[SlicedLayer], images: Tensor, *, quantised: bool
    ) -> Tensor:
        """Logits of a subnet (or of its sliced layers), shape ``(n, classes)``."""
        layers = self.supernet.slice(subnet) if isinstance(subnet, Subnet) else subnet
        recorded = calibrate(layers, self.calibration, quantised=quantised)
        folded = fold(layers, recorded, quantised=quantised)
        return torch.cat(
            [infer(folded, x, quantised=quantised) for x in images.split(self.batch_size)]
        )

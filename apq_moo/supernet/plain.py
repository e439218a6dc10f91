"""Cutting a subnet out of the supernet as an ordinary torch network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apq_moo.space import Subnet
from apq_moo.space.spec import FLOAT_BITS
from apq_moo.supernet.evaluation import calibrate
from apq_moo.supernet.network import BN_EPS, Recorded, SlicedLayer, Supernet
from apq_moo.supernet.quantisers import quantise_weight
from apq_moo.supernet.ranges import STORED_BITS, needed


class FakeQuantise(nn.Module):
    """Static affine quantisation of an activation.

    Args:
        low: bottom of the range (at most 0).
        high: top of the range (at least 0).
        bits: bit-width.
    """

    def __init__(self, low: float, high: float, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.scale = max(high - low, 1e-8) / (2**bits - 1)
        self.zero_point = round(-low / self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """Quantise and dequantise; gradients pass straight through within the range."""
        return torch.fake_quantize_per_tensor_affine(
            x, self.scale, self.zero_point, 0, 2**self.bits - 1
        )

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"bits={self.bits}, scale={self.scale:.4g}, zero_point={self.zero_point}"


class PlainConv(nn.Sequential):
    """Input quantiser (if any), convolution, batch norm and ReLU6 of one layer.

    Weights are stored already quantised.
    """

    def __init__(self, item: SlicedLayer, found: Recorded, *, quantised: bool) -> None:
        layer = item.layer
        conv = nn.Conv2d(
            layer.c_in,
            layer.c_out,
            layer.kernel,
            layer.stride,
            layer.padding,
            groups=layer.groups,
            bias=item.scale is None,
        )
        weight = quantise_weight(item.weight, layer.w_bits) if quantised else item.weight
        conv.weight.data.copy_(weight)
        parts: list[nn.Module] = []
        if quantised and layer.a_bits != FLOAT_BITS:
            parts.append(FakeQuantise(*needed(item.ranges.input), layer.a_bits))
        parts.append(conv)
        if conv.bias is not None:
            conv.bias.data.copy_(item.bias)
        else:
            parts.append(_batch_norm(item, found))
        if layer.activation is not None:
            parts.append(nn.ReLU6())
        super().__init__(*parts)


def _batch_norm(item: SlicedLayer, found: Recorded) -> nn.BatchNorm2d:
    assert item.scale is not None
    assert found.mean is not None
    assert found.var is not None
    assert found.mean.shape == item.scale.shape
    norm = nn.BatchNorm2d(item.layer.c_out, eps=BN_EPS)
    norm.weight.data.copy_(item.scale)
    norm.bias.data.copy_(item.bias)
    norm.load_state_dict({"running_mean": found.mean, "running_var": found.var}, strict=False)
    return norm


class PlainBlock(nn.Sequential):
    """The layers of one block, with its shortcut where it has one.

    Args:
        layers: in order; with integers between blocks the last rounds what they give.
        shortcut: whether the input is added.
        total: rounds the sum, with integers between blocks.
    """

    def __init__(
        self, layers: Sequence[nn.Module], *, shortcut: bool, total: nn.Module | None = None
    ) -> None:
        super().__init__(*layers)
        self.shortcut = shortcut
        self.total = total if total is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Run the block on ``(n, c, h, w)``."""
        y = x
        for name, layer in self.named_children():
            if name != "total":
                y = layer(y)
        if not self.shortcut:
            return y
        total: Tensor = self.total(x + y)
        return total


class PlainNetwork(nn.Module):
    """An ordinary network of fixed shape, in evaluation mode.

    Attributes:
        subnet: what it was cut from.
        features: stem, blocks and feature mix.
        classifier: the last layer, as a 1x1 convolution on the pooled features.
        rounds: whether the output of every part of ``features`` is rounded to half precision.
    """

    def __init__(
        self,
        subnet: Subnet,
        layers: Sequence[SlicedLayer],
        recorded: Sequence[Recorded],
        *,
        quantised: bool,
    ) -> None:
        super().__init__()
        self.subnet = subnet
        parts = [
            PlainConv(item, found, quantised=quantised)
            for item, found in zip(layers, recorded, strict=True)
        ]
        features, within = nn.Sequential(), list[nn.Module]()
        integers = quantised and layers[0].layer.between_bits == STORED_BITS
        for item, part in zip(layers[:-1], parts[:-1], strict=True):
            within.append(part)
            if not item.layer.leaves_block:
                continue
            total = None
            if integers:
                within.append(FakeQuantise(*needed(item.ranges.output), STORED_BITS))
                span = item.ranges.total
                total = FakeQuantise(*span, STORED_BITS) if span is not None else None
            block = PlainBlock(within, shortcut=item.layer.closes_shortcut, total=total)
            features.add_module(item.layer.part, block if len(within) > 1 else part)
            within = []
        self.features = features
        self.rounds = layers[0].layer.between_bits != FLOAT_BITS and not integers
        self.classifier = parts[-1]
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape ``(n, classes)`` for images of shape ``(n, c, h, w)``."""
        x = x.to(memory_format=torch.channels_last)
        for part in self.features:
            x = part(x)
            if self.rounds:
                x = x.half().float()
        pooled = F.adaptive_avg_pool2d(x, 1)
        logits: Tensor = self.classifier(pooled).flatten(1)
        return logits


@torch.no_grad()
def cut_out(
    supernet: Supernet, subnet: Subnet, calibration: Tensor, *, quantised: bool
) -> PlainNetwork:
    """Cut a subnet out of a supernet.

    Args:
        supernet: the weights.
        subnet: a member of its space.
        calibration: calibration images, shape ``(n, c, h, w)``.
        quantised: whether it runs at the subnet's bits, or in full precision.

    Returns:
        A network that shares no memory with the supernet.

    Raises:
        UserError: the subnet is not a member of the space, or runs at its bits and the supernet has
            no ranges.
    """
    layers = supernet.slice(subnet)
    recorded = calibrate(layers, calibration, quantised=quantised)
    return PlainNetwork(subnet, layers, recorded, quantised=quantised)

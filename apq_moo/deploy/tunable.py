"""A subnet as a torch module that learns at its bits: weights, batch norms and steps of quantisers.

Learned step sizes are those of Esser et al., "Learned Step Size Quantization", ICLR 2020: the
gradient of a step is that of equation 3, scaled as in section 2.2. What is learned is the
logarithm of its ratio to the step that it begins with, so that an optimiser moves steps of all
sizes by like shares (as Jain et al., "Trained Quantization Thresholds", MLSys 2020), and a ratio of
1 changes nothing, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apq_moo.deploy.cutting import grid
from apq_moo.space import Layer
from apq_moo.supernet.evaluation import FoldedLayer
from apq_moo.supernet.network import BN_EPS, Recorded, SlicedLayer, laid_out
from apq_moo.supernet.quantisers import weight_levels
from apq_moo.supernet.ranges import STORED_BITS, LayerRanges, Range, needed

_MOMENTUM = 0.1


class LearnedSteps(nn.Module):
    """Rounds a tensor to integers times a step, or a step for each of its first dimension.

    Args:
        step: what the steps are at first, shape ``()`` or ``(channels,)``, positive.
        low: the smallest level.
        high: the largest.
    """

    first: Tensor

    def __init__(self, step: Tensor, low: int, high: int) -> None:
        super().__init__()
        self.register_buffer("first", step.detach().clone())
        self.ratio = nn.Parameter(torch.zeros_like(self.first))
        self.low, self.high = low, high

    def step(self) -> Tensor:
        """The steps as they are."""
        return self.first * self.ratio.exp()

    def forward(self, x: Tensor) -> Tensor:
        """The nearest multiples, same shape; gradients reach steps, and ``x`` within the levels."""
        step = self.step()
        share = 1 / math.sqrt(x.numel() / max(1, step.numel()) * max(self.high, 1))
        # In value the step itself, in gradient a share of it.
        step = step.detach() + (step - step.detach()) * share
        if step.dim():
            step = step.view(-1, *[1] * (x.dim() - 1))
        inside = (x * (1 / step)).clamp(self.low, self.high)
        return (inside + (inside.round() - inside).detach()) * step

    def range(self) -> Range:
        """Bottom and top of an activation's levels, whose step is the learned one exactly."""
        step = float(self.step().detach())
        return step * self.low, step * self.high


def _of_range(span: Range, bits: int) -> LearnedSteps:
    levels = grid(span, bits)
    return LearnedSteps(torch.tensor(levels.step), levels.low, levels.high)


class TunableLayer(nn.Module):
    """One layer: input quantiser, quantised convolution, batch norm, and what stores its output.

    Args:
        item: the layer with its inherited weights and the ranges around it.
        known: its calibrated statistics.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, item: SlicedLayer, known: Recorded) -> None:
        super().__init__()
        self.layer: Layer = item.layer
        bits = item.layer.w_bits
        _, size = weight_levels(item.weight.detach(), bits)
        top = 2 ** (bits - 1) - 1
        self.weight = nn.Parameter(item.weight.detach().clone())
        self.bias = nn.Parameter(item.bias.detach().clone())
        self.steps = LearnedSteps(size, -top, top)
        self.entering = _of_range(needed(item.ranges.input), item.layer.a_bits)
        leaving, total = item.ranges.output, item.ranges.total
        self.output = None if leaving is None else _of_range(leaving, STORED_BITS)
        self.total = None if total is None else _of_range(total, STORED_BITS)
        self.scale: nn.Parameter | None = None
        if item.scale is not None:
            assert known.mean is not None
            assert known.var is not None
            self.scale = nn.Parameter(item.scale.detach().clone())
            self.register_buffer("mean", known.mean.clone())
            self.register_buffer("var", known.var.clone())
        self.frozen = False
        """Whether the statistics stay, also in training."""

    def forward(self, x: Tensor, held: Tensor) -> Tensor:
        """The layer's output; ``held`` is what a shortcut adds."""
        layer = self.layer
        bias = self.bias if self.scale is None else None
        x, weight = self.entering(x), self.steps(self.weight)
        x = F.conv2d(x, weight, bias, layer.stride, layer.padding, groups=layer.groups)
        if self.scale is not None:
            moving = self.training and not self.frozen
            x = F.batch_norm(
                x, self.mean, self.var, self.scale, self.bias, moving, _MOMENTUM, BN_EPS
            )
        if layer.activation is not None:
            x = F.relu6(x)
        if self.output is not None:
            x = self.output(x)
        if layer.closes_shortcut:
            x = x + held
        return x if self.total is None else self.total(x)

    @torch.no_grad()
    def folded(self) -> FoldedLayer:
        """The layer in exact integers, as it is now."""
        step = self.steps.step()
        inverse = (1 / step).view(-1, 1, 1, 1)
        levels = (self.weight * inverse).round_().clamp_(self.steps.low, self.steps.high)
        unit = step.double() * float(self.entering.step())
        gain, bias = unit.float().view(-1, 1, 1), self.bias.detach().clone()
        if self.scale is not None:
            share = self.scale.double() / torch.sqrt(self.var.double() + BN_EPS)
            bias = (self.bias.double() - self.mean.double() * share).float()
            gain = (share * unit).float().view(-1, 1, 1)
        output, total = (None if q is None else q.range() for q in (self.output, self.total))
        around = LayerRanges(self.entering.range(), output, total)
        scale = None if self.scale is None else self.scale.detach()
        item = SlicedLayer(self.layer, self.weight.detach(), scale, self.bias.detach(), around)
        return FoldedLayer(item, levels, gain, bias)


class TunableNetwork(nn.Module):
    """A subnet that learns at its bits.

    Args:
        layers: the sliced subnet, of a supernet with ranges.
        recorded: its statistics at its bits, by layer.
    """

    def __init__(self, layers: Sequence[SlicedLayer], recorded: Sequence[Recorded]) -> None:
        super().__init__()
        pairs = zip(layers, recorded, strict=True)
        self.layers = nn.ModuleList(TunableLayer(item, known) for item, known in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape ``(n, classes)``, of images of shape ``(n, c, h, w)``."""
        held = x = laid_out(x)
        for each in self.layers:
            assert isinstance(each, TunableLayer)
            if each.layer.opens_shortcut:
                held = x
            if each.scale is None:
                x = x.mean(dim=(2, 3), keepdim=True)
            x = each(x, held)
            if each.layer.between_bits == 16:
                x = x + (x.half().float() - x).detach()
        return x.flatten(1)

    def freeze_statistics(self) -> None:
        """Normalise by the statistics of now from here on."""
        for each in self.layers:
            assert isinstance(each, TunableLayer)
            each.frozen = True

    def folded(self) -> list[FoldedLayer]:
        """The network in exact integers, as :func:`apq_moo.supernet.evaluation.infer` runs it."""
        found = []
        for each in self.layers:
            assert isinstance(each, TunableLayer)
            found.append(each.folded())
        return found

    def steps(self) -> list[nn.Parameter]:
        """The logarithms of the quantisers' ratios."""
        return [each.ratio for each in self.modules() if isinstance(each, LearnedSteps)]

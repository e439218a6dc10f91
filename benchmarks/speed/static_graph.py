"""One graph for every subnet: full width, the configuration passed as tensors.

What a compiler wants: shapes never change, so that the graph is compiled once. Channels that are
not used are masked, kernels selected, blocks that are left out multiplied by 0, and bits are
numbers of levels. It computes all of the largest network for any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apq_moo.errors import UserError
from apq_moo.space import Space, Subnet
from apq_moo.supernet.layers import ElasticBlock, ElasticConv, ElasticDepthwise
from apq_moo.supernet.network import BN_EPS, Supernet

_ROLES = ("w_pw", "a_pw", "w_dw", "a_dw")


@dataclass(frozen=True)
class Configuration:
    """A subnet as tensors.

    Attributes:
        gate: which blocks are active, shape ``(blocks,)``, as 0 and 1.
        channels: which middle channels are used, one tensor of shape ``(channels,)`` a block.
        kernel: index of each block's kernel size, shape ``(blocks,)``.
        tops: highest levels ``2^bits - 1`` of the roles, shape ``(blocks, 4)``.
    """

    gate: Tensor
    channels: list[Tensor]
    kernel: Tensor
    tops: Tensor


def configuration(space: Space, subnet: Subnet, device: torch.device) -> Configuration:
    """Bring a subnet into the graph's form."""
    numbers = space.active(space.encode([subnet]))[0].nonzero()[0].tolist()
    blocks = dict(zip(numbers, subnet.blocks, strict=True))
    gate, channels, kernel, tops = [], [], [], []
    for number, plan in enumerate(space.plans):
        block = blocks.get(number)
        used = block.channels if block else plan.options["channels"][0]
        gate.append(1.0 if block else 0.0)
        channels.append((torch.arange(plan.options["channels"][-1]) < used).float().to(device))
        kernel.append(plan.options["kernel"].index(block.kernel) if block else 0)
        bits = [getattr(block, role) if block else 8 for role in _ROLES]
        tops.append([2.0**b - 1 for b in bits])
    return Configuration(
        torch.tensor(gate, device=device),
        channels,
        torch.tensor(kernel, device=device),
        torch.tensor(tops, dtype=torch.float64, device=device),
    )


Found = list[Tensor]
"""What calibration found: for each layer mean, variance, and bottom and top of the input."""


class StaticGraph(nn.Module):
    """Logits of any subnet of a supernet; the same integer arithmetic as ``Evaluator``.

    Args:
        supernet: the weights.
        quantised: whether subnets run at their bits.

    Raises:
        UserError: the space has a first block or a feature mix, which the graph leaves out.
    """

    def __init__(self, supernet: Supernet, *, quantised: bool) -> None:
        super().__init__()
        spec = supernet.space.spec
        if spec.first_block is not None or spec.feature_mix is not None:
            raise UserError(f"space {spec.name!r} has a first block or a feature mix")
        self.supernet = supernet
        self.quantised = quantised
        self.rounds = spec.between_bits == 16
        self.fixed = 2.0**spec.fixed_bits - 1

    def forward(
        self, x: Tensor, config: Configuration, known: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Found]:
        """Logits of shape ``(n, classes)``, and what calibration found.

        Args:
            x: images, shape ``(n, c, h, w)``.
            config: the subnet.
            known: what calibration found; None while calibrating.
        """
        net = self.supernet
        found: Found = []
        fixed = torch.tensor(self.fixed, dtype=torch.float64, device=x.device)
        stem = net.stem
        x = self._conv(
            x, stem.weight, fixed, fixed, stem, net.space.spec.stem[2], 1, None, known, found
        )
        x = self._between(x.clamp(0, 6))
        for number, (block, plan) in enumerate(zip(net.blocks, net.space.plans, strict=True)):
            assert isinstance(block, ElasticBlock)
            assert block.expand is not None
            w_pw, a_pw, w_dw, a_dw = config.tops[number]
            used = config.channels[number]
            mask = used[:, None, None]
            y = self._conv(
                x, block.expand.weight, w_pw, a_pw, block.expand, 1, 1, None, known, found
            )
            y = y.clamp(0, 6) * mask
            y = self._conv(
                y, self._kernel(block.depthwise, config.kernel[number]), w_dw, a_dw,
                block.depthwise, plan.stride, len(used), None, known, found,
            )  # fmt: skip
            y = y.clamp(0, 6) * mask
            y = self._conv(
                y, block.project.weight, w_pw, a_pw, block.project, 1, 1, used, known, found
            )
            if plan.has_shortcut:
                # A block that is left out has a shortcut: only its input remains.
                y = x + y * config.gate[number]
            x = self._between(y)
        pooled = x.mean((2, 3), dtype=torch.float64).float()
        weight, bias = net.classifier.weight, net.classifier.bias
        if not self.quantised:
            return pooled @ weight.T + bias, found
        pooled, step = self._levels(pooled, fixed, known, found)
        levels, size = _weight_levels(weight, fixed)
        sums = (pooled.double() @ levels.double().T).float()
        return sums * (size.double() * step.double()).float() + bias, found

    def _between(self, x: Tensor) -> Tensor:
        return x.half().float() if self.rounds else x

    def _kernel(self, module: ElasticDepthwise, index: Tensor) -> Tensor:
        channels, largest = len(module.weight), module.kernels[-1]
        padded = []
        for kernel in module.kernels:
            margin = (largest - kernel) // 2
            padded.append(F.pad(module.slice_weight(channels, kernel), [margin] * 4))
        return torch.stack(padded).index_select(0, index.view(1))[0]

    def _levels(
        self, x: Tensor, top: Tensor, known: Sequence[Tensor] | None, found: Found
    ) -> tuple[Tensor, Tensor]:
        if known is None:
            low, high = x.amin().clamp_max(0).double(), x.amax().clamp_min(0).double()
            found.append(torch.stack([low, high]))
        else:
            low, high = known[len(found)]
            found.append(known[len(found)])
        wide = (high - low).clamp_min(1e-8) / top
        zero = torch.round(-low / wide)
        step = wide.float()
        levels = torch.round(x * (1 / step))
        levels = torch.minimum(torch.maximum(levels, -zero.float()), (top - zero).float())
        return levels, step

    def _conv(
        self, x: Tensor, weight: Tensor, w_top: Tensor, a_top: Tensor,
        module: ElasticConv | ElasticDepthwise, stride: int, groups: int, inputs: Tensor | None,
        known: Sequence[Tensor] | None, found: Found,
    ) -> Tensor:  # fmt: skip
        unit = torch.ones(len(weight), dtype=torch.float64, device=x.device)
        if inputs is not None:
            weight = weight * inputs[:, None, None]
        if self.quantised:
            x, step = self._levels(x, a_top, known, found)
            weight, size = _weight_levels(weight, w_top)
            unit = size.double() * step.double()
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups)
        if known is None:
            double = x.double()
            mean = double.mean((0, 2, 3))
            var = ((double * double).mean((0, 2, 3)) - mean * mean).clamp_min(0)
            found.append(torch.stack([(mean * unit).float(), (var * unit * unit).float()]))
        else:
            found.append(known[len(found)])
        mean, var = found[-1].double()
        gain = module.norm.weight.double() / torch.sqrt(var + BN_EPS)
        shift = (module.norm.bias.double() - mean * gain).float()
        y: Tensor = x * (gain * unit).float()[:, None, None] + shift[:, None, None]
        return y


def _weight_levels(weight: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
    """As ``quantisers.weight_levels``, for a number of levels that is a tensor."""
    most = ((top + 1) / 2 - 1).float()
    size = weight.abs().flatten(1).amax(1).clamp_min(1e-8) / most
    inverse = (1 / size).view(-1, *[1] * (weight.dim() - 1))
    return torch.minimum(torch.maximum(torch.round(weight * inverse), -most), most), size

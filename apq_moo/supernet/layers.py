"""Elastic layers: weights of the largest network, from which smaller ones are sliced."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class ElasticNorm(nn.Module):
    """Scale and shift of a batch norm over up to ``channels`` channels.

    Statistics are not kept here: they belong to one subnet and come from calibration.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))


class ElasticConv(nn.Module):
    """A convolution with groups 1, sliced to its leading input and output channels.

    Args:
        c_in: largest number of input channels.
        c_out: largest number of output channels.
        kernel: kernel size.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(c_out, c_in, kernel, kernel))
        nn.init.kaiming_normal_(self.weight, mode="fan_out")
        self.norm = ElasticNorm(c_out)

    def slice_weight(self, c_in: int, c_out: int) -> Tensor:
        """The weight of shape ``(c_out, c_in, kernel, kernel)``; differentiable."""
        return self.weight[:c_out, :c_in]


class ElasticDepthwise(nn.Module):
    """A depthwise convolution with elastic kernel size and channels.

    A smaller kernel is the centre of the next larger one under a learned linear map, shared by the
    channels (Cai et al., "Once-for-All", ICLR 2020, section 3.3).

    Args:
        channels: largest number of channels.
        kernels: kernel sizes on offer, ascending.
    """

    def __init__(self, channels: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.kernels = tuple(kernels)
        largest = self.kernels[-1]
        self.weight = nn.Parameter(torch.empty(channels, 1, largest, largest))
        nn.init.normal_(self.weight, std=math.sqrt(2.0) / largest)
        self.transforms = nn.ParameterDict(
            {f"{b}to{a}": nn.Parameter(torch.eye(a * a)) for a, b in pairwise(self.kernels)}
        )
        self.norm = ElasticNorm(channels)

    def slice_weight(self, channels: int, kernel: int) -> Tensor:
        """The weight of shape ``(channels, 1, kernel, kernel)``; differentiable.

        Smaller kernels are derived in double precision, so that a channel's does not depend, to the
        last bit, on the processor or on how many channels are derived with it.
        """
        weight = self.weight[:channels]
        for small, large in reversed(list(pairwise(self.kernels))):
            if kernel >= large:
                break
            margin = (large - small) // 2
            centre = weight[:, :, margin : margin + small, margin : margin + small]
            transform = self.transforms[f"{large}to{small}"]
            flat = centre.reshape(channels, small * small).double() @ transform.double()
            weight = flat.float().reshape(channels, 1, small, small)
        return weight


class ElasticBlock(nn.Module):
    """An inverted-bottleneck block: 1x1 expansion, depthwise, 1x1 projection.

    Args:
        c_in: input channels.
        channels: largest number of middle channels.
        c_out: output channels.
        kernels: depthwise kernel sizes on offer, ascending.
        expand: whether there is an expansion; without it ``channels`` must equal ``c_in``.
    """

    def __init__(
        self,
        c_in: int,
        channels: int,
        c_out: int,
        kernels: Sequence[int],
        *,
        expand: bool = True,
    ) -> None:
        super().__init__()
        self.expand = ElasticConv(c_in, channels) if expand else None
        self.depthwise = ElasticDepthwise(channels, kernels)
        self.project = ElasticConv(channels, c_out)

    @torch.no_grad()
    def order_channels(self) -> None:
        """Sort the middle channels by importance, most important first.

        Importance is the L1 norm of a channel's projection weights (as in Once-for-All), times the
        scale of the batch norm that feeds it. The block at full width computes the same function.
        """
        if self.expand is None:
            return
        order = self.importance().argsort(descending=True, stable=True)
        for layer in (self.expand, self.depthwise):
            layer.weight.copy_(layer.weight[order])
            layer.norm.weight.copy_(layer.norm.weight[order])
            layer.norm.bias.copy_(layer.norm.bias[order])
        self.project.weight.copy_(self.project.weight[:, order])

    @torch.no_grad()
    def importance(self) -> Tensor:
        """Importance of each middle channel, shape ``(channels,)``."""
        reach = self.project.weight.abs().sum(dim=(0, 2, 3))
        return reach * self.depthwise.norm.weight.abs()

"""Batch norm by the statistics of several processes' images together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from apq_moo.supernet.distributed import Group
from apq_moo.supernet.network import BN_EPS, Norm


def norm_over(group: Group) -> Norm:
    """Batch norm by statistics of what all processes of a group are given, as many images each.

    The mean of what they get as gradients is the gradient of the mean of their losses, as if one
    process had all images. Forward and backward are one message each.
    """

    def norm(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        normed: Tensor = _SharedNorm.apply(x, scale, bias, group)
        return normed

    return norm


class _SharedNorm(torch.autograd.Function):
    """Statistics and their gradients are in the precision of the scale, whatever ``x`` has."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, bias: Tensor, group: Group) -> Tensor:
        var, mean = torch.var_mean(x.to(scale.dtype), dim=(0, 2, 3), correction=0)
        means, variances = group.gather(torch.stack([mean, var])).unbind(1)
        mean, var = means.mean(0), variances.mean(0) + means.var(0, correction=0)
        ctx.save_for_backward(x, scale, mean, (var + BN_EPS).rsqrt())
        ctx.group = group
        return F.batch_norm(x, mean, var, scale, bias, training=False, eps=BN_EPS)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, scale, mean, inverse = ctx.saved_tensors
        dy = grads[0].to(scale.dtype)
        mean, inverse, gain = (v[:, None, None] for v in (mean, inverse, scale * inverse))
        normed = (x - mean) * inverse
        own = torch.stack([dy.sum((0, 2, 3)), (dy * normed).sum((0, 2, 3))])
        pixels = dy.numel() // len(scale)
        around, along = (ctx.group.mean(own.clone()) / pixels)[:, :, None, None]
        dx = gain * (dy - around - normed * along)
        return dx.to(x.dtype), own[1], own[0], None

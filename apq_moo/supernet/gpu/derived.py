"""Depthwise kernels that are derived from larger ones, and their gradients, for a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from apq_moo.supernet.layers import ElasticDepthwise
from apq_moo.supernet.network import Supernet


@dataclass
class DerivedKernel:
    """A depthwise kernel derived from the next larger one, as ``ElasticDepthwise`` slices it.

    By hand, since autograd's own thread takes a millisecond to answer for each.

    Attributes:
        module: whose kernel it is.
        small: its size.
        large: the next larger size.
        data: the derived weight, shape ``(channels, 1, small, small)``.
        centre: what it is derived from, shape ``(channels, small * small)``.
        grad: its gradient.
        larger_grad: gradient of what it is derived from.
    """

    module: ElasticDepthwise
    small: int
    large: int
    data: Tensor
    centre: Tensor
    grad: Tensor
    larger_grad: Tensor

    def begin(self, larger: Tensor) -> None:
        """Derive it, and forget its gradient."""
        self.centre.view_as(self.data).copy_(self._middle(larger))
        torch.mm(self.centre, self._transform().detach(), out=self.data.view_as(self.centre))
        self.grad.zero_()

    def end(self) -> None:
        """Add its gradient to those of the larger weight and of the transform."""
        transform = self._transform()
        assert transform.grad is not None
        grad = self.grad.view_as(self.centre)
        transform.grad.addmm_(self.centre.T, grad)
        middle = self._middle(self.larger_grad)
        middle += (grad @ transform.detach().T).view_as(middle)

    def _transform(self) -> Tensor:
        transform: Tensor = self.module.transforms[f"{self.large}to{self.small}"]
        return transform

    def _middle(self, weight: Tensor) -> Tensor:
        margin = (self.large - self.small) // 2
        part = slice(margin, margin + self.small)
        return weight[:, :, part, part]


class DerivedKernels:
    """All of a supernet, in memory that stays.

    Args:
        supernet: its parameters have gradients.
    """

    def __init__(self, supernet: Supernet) -> None:
        self._kernels: dict[tuple[int, int], DerivedKernel] = {}
        self._larger: list[Tensor] = []
        for module in supernet.modules():
            if not isinstance(module, ElasticDepthwise):
                continue
            weight, grad = module.weight.detach(), module.weight.grad
            assert grad is not None
            for small, large in reversed(list(pairwise(module.kernels))):
                self._larger.append(weight)
                data = weight.new_empty(len(weight), 1, small, small)
                kernel = DerivedKernel(
                    module, small, large, data, torch.empty_like(data).flatten(1),
                    torch.zeros_like(data), grad,
                )  # fmt: skip
                self._kernels[id(module), small] = kernel
                weight, grad = kernel.data, kernel.grad

    def of(self, module: ElasticDepthwise, size: int) -> DerivedKernel:
        """The kernel of this size."""
        return self._kernels[id(module), size]

    def begin(self) -> None:
        """Derive all from the weights as they are now, and forget their gradients."""
        for kernel, larger in zip(self._kernels.values(), self._larger, strict=True):
            kernel.begin(larger)

    def end(self) -> None:
        """Take their gradients to the parameters, the smallest kernels' first."""
        for kernel in reversed(self._kernels.values()):
            kernel.end()

"""The once-for-all network of a space, and what it means to run one subnet of it.

A subnet is first *sliced*: :meth:`Supernet.slice` lists its layers in order with their weights,
which are views into the supernet's. :func:`forward` runs such a list differentiably, with batch
statistics or with recorded ones; :mod:`apq_moo.supernet.evaluation` runs it to be scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apq_moo.space import Layer, Space, Subnet
from apq_moo.space.spec import FLOAT_BITS
from apq_moo.supernet.layers import ElasticBlock, ElasticConv, ElasticDepthwise
from apq_moo.supernet.quantisers import quantise_activation, quantise_weight
from apq_moo.supernet.ranges import UNKNOWN, LayerRanges, Ranges, needed

BN_EPS = 1e-5

Norm = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Batch norm by statistics of what it is given: ``(x, scale, bias) -> normed``."""


@dataclass(frozen=True)
class SlicedLayer:
    """One layer of a subnet with its tensors.

    Attributes:
        layer: its shape and bits.
        weight: shape ``(c_out, c_in / groups, kernel, kernel)``.
        scale: scale of its batch norm, or None where there is none (the classifier).
        bias: shift of its batch norm, or the bias.
        ranges: of the activations around it, where the supernet knows them.
    """

    layer: Layer
    weight: Tensor
    scale: Tensor | None
    bias: Tensor
    ranges: LayerRanges = UNKNOWN


@dataclass(frozen=True)
class Node:
    """One layer of a subnet with the module that holds its weights.

    Attributes:
        layer: its shape and bits.
        module: holds the weight and, but for the classifier, the batch norm.
    """

    layer: Layer
    module: ElasticConv | ElasticDepthwise | nn.Linear


@dataclass(frozen=True)
class Recorded:
    """What calibration found for one layer.

    Attributes:
        mean: mean of the convolution's output, shape ``(c_out,)``; None without batch norm.
        var: its biased variance.
    """

    mean: Tensor | None
    var: Tensor | None


class Supernet(nn.Module):
    """The once-for-all network of a space.

    Args:
        space: any space.

    Attributes:
        ranges: of its activations, once they are fitted.
    """

    def __init__(self, space: Space) -> None:
        super().__init__()
        spec = space.spec
        self.space = space
        self.ranges = Ranges(space)
        channels, kernel, _ = spec.stem
        self.stem = ElasticConv(spec.input_channels, channels, kernel)
        self.first_block: ElasticBlock | None = None
        if spec.first_block is not None:
            out, kernel, _ = spec.first_block
            self.first_block = ElasticBlock(channels, channels, out, [kernel], expand=False)
        self.blocks = nn.ModuleList(
            ElasticBlock(
                plan.c_in, plan.options["channels"][-1], plan.c_out, plan.options["kernel"]
            )
            for plan in space.plans
        )
        width = space.plans[-1].c_out
        self.feature_mix = None
        if spec.feature_mix is not None:
            self.feature_mix = ElasticConv(width, spec.feature_mix)
            width = spec.feature_mix
        self.classifier = nn.Linear(width, spec.classes)

    def outline(self, subnet: Subnet) -> list[Node]:
        """The layers of a subnet, in order, with the modules that hold their weights.

        Raises:
            UserError: it is not a member of the space.
        """
        return [self.node(layer) for layer in self.space.layers(subnet)]

    def node(self, layer: Layer) -> Node:
        """A layer with the module that holds its weights."""
        if layer.block is None:
            module = getattr(self, layer.component)
        else:
            module = getattr(self.blocks, str(layer.block))
        return Node(layer, getattr(module, layer.place) if layer.place else module)

    def slice(self, subnet: Subnet) -> list[SlicedLayer]:
        """The layers of a subnet, in order; weights are differentiable views.

        Raises:
            UserError: it is not a member of the space.
        """
        return self.slice_layers(self.space.layers(subnet))

    def slice_layers(self, layers: Sequence[Layer]) -> list[SlicedLayer]:
        """Some layers of its subnets, with their tensors."""
        return [self._slice(self.node(layer)) for layer in layers]

    def _slice(self, node: Node) -> SlicedLayer:
        layer, module = node.layer, node.module
        around = self.ranges.around(layer)
        if isinstance(module, nn.Linear):
            weight = module.weight[:, :, None, None]
            return SlicedLayer(layer, weight, None, module.bias, around)
        if isinstance(module, ElasticDepthwise):
            weight = module.slice_weight(layer.c_out, layer.kernel)
        else:
            weight = module.slice_weight(layer.c_in, layer.c_out)
        scale, bias = (v[: layer.c_out] for v in (module.norm.weight, module.norm.bias))
        return SlicedLayer(layer, weight, scale, bias, around)

    def forward(self, x: Tensor, subnet: Subnet) -> Tensor:
        """Full-precision logits of a subnet with batch statistics, as in training.

        Args:
            x: images, shape ``(n, c, h, w)``.
            subnet: a member of the space; its bits are not used.

        Returns:
            Logits of shape ``(n, classes)``.
        """
        return forward(self.slice(subnet), x)

    def order_channels(self) -> None:
        """Sort every block's middle channels by importance; see :class:`ElasticBlock`."""
        for block in self.blocks:
            assert isinstance(block, ElasticBlock)
            block.order_channels()


def batch_norm(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Batch norm by the statistics of this very batch."""
    return F.batch_norm(x, None, None, scale, bias, training=True, eps=BN_EPS)


def forward(
    layers: Sequence[SlicedLayer],
    x: Tensor,
    recorded: Sequence[Recorded] | None = None,
    *,
    quantised: bool = False,
    norm: Norm = batch_norm,
) -> Tensor:
    """Run a sliced subnet, differentiably.

    Args:
        layers: what :meth:`Supernet.slice` returned.
        x: images, shape ``(n, c, h, w)``.
        recorded: statistics by layer; without them those that ``norm`` finds are used.
        quantised: quantise weights and activations at each layer's bits. What is stored between
            blocks stays a float.
        norm: batch norm where there are no recorded statistics.

    Returns:
        Logits of shape ``(n, classes)``.

    Raises:
        UserError: they are to be quantised, and the supernet has no ranges.
    """
    # Tiny feature maps run several times faster on a CPU in this layout.
    x = x.to(memory_format=torch.channels_last)
    prepare = rounded if quantised else unrounded
    return run(layers, x, prepare, recorded, norm).flatten(1)


Prepare: TypeAlias = Callable[[SlicedLayer, Tensor], tuple[Tensor, Tensor]]
"""Makes of a layer and its input what is convolved: the input and the weight."""


def run(
    layers: Sequence[SlicedLayer],
    x: Tensor,
    prepare: Prepare,
    recorded: Sequence[Recorded] | None = None,
    norm: Norm = batch_norm,
) -> Tensor:
    """Run some layers of a subnet that follow each other, whole blocks, differentiably.

    Args:
        layers: sliced.
        x: their input, shape ``(n, c, h, w)``.
        prepare: see :data:`Prepare`.
        recorded: see :func:`forward`.
        norm: see :func:`forward`.

    Returns:
        Their output, shape ``(n, c, h, w)``.
    """
    kept = x
    for number, item in enumerate(layers):
        if item.layer.opens_shortcut:
            kept = x
        if item.scale is None:
            x = x.mean(dim=(2, 3), keepdim=True)
        known = recorded[number] if recorded is not None else None
        x = _layer(item, *prepare(item, x), known, norm)
        if item.layer.closes_shortcut:
            x = x + kept
        x = as_stored(x, item.layer)
    return x


def unrounded(item: SlicedLayer, x: Tensor) -> tuple[Tensor, Tensor]:
    """Full precision; see :data:`Prepare`."""
    return x, item.weight


def rounded(item: SlicedLayer, x: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and activations at the layer's bits; see :data:`Prepare`.

    Raises:
        UserError: the supernet has no ranges.
    """
    layer = item.layer
    if layer.a_bits != FLOAT_BITS:
        x = quantise_activation(x, *needed(item.ranges.input), layer.a_bits)
    return x, quantise_weight(item.weight, layer.w_bits)


def laid_out(x: Tensor) -> Tensor:
    """Images in the layout that single subnets are run in.

    Tiny feature maps run several times faster on a CPU with channels last. On a GPU depthwise
    convolutions are torch's own kernels with channels first, and else cuDNN's, which builds a plan
    for each new shape.
    """
    return x if x.is_cuda else x.to(memory_format=torch.channels_last)


def as_stored(x: Tensor, layer: Layer) -> Tensor:
    """A layer's output as floats are stored: in half precision between blocks; gradients pass."""
    if layer.between_bits in (None, FLOAT_BITS):
        return x
    return x.half().float()


def _layer(
    item: SlicedLayer, x: Tensor, weight: Tensor, known: Recorded | None, norm: Norm
) -> Tensor:
    layer = item.layer
    bias = item.bias if item.scale is None else None
    x = F.conv2d(x, weight, bias, layer.stride, layer.padding, groups=layer.groups)
    if item.scale is not None and known is None:
        x = norm(x, item.scale, item.bias)
    elif item.scale is not None and known is not None:
        x = F.batch_norm(x, known.mean, known.var, item.scale, item.bias, eps=BN_EPS)
    return F.relu6(x) if layer.activation is not None else x

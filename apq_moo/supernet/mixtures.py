"""Subnets whose weights and activations are mixtures of several bit-widths.

Each tensor is the sum of its quantised forms, weighted, before one convolution: Z. Cai and N.
Vasconcelos, Rethinking Differentiable Search for Mixed-Precision Neural Networks, CVPR 2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from apq_moo.arrays import FloatArray
from apq_moo.space import Layer, Subnet
from apq_moo.space.spec import FLOAT_BITS
from apq_moo.supernet.network import SlicedLayer, Supernet, rounded, run
from apq_moo.supernet.quantisers import quantise_activation, quantise_weight
from apq_moo.supernet.ranges import Ranges, needed

Mixture = Mapping[str, tuple[Sequence[int], FloatArray]]
"""Of a block: for each role the bit-widths, and how much each counts."""


def mixture_gradients(
    supernet: Supernet, x: Tensor, y: Tensor, subnet: Subnet, mixtures: Sequence[Mixture]
) -> tuple[float, list[dict[str, FloatArray]]]:
    """Derivatives of the cross entropy by how much each bit-width counts.

    Batch norms have the statistics of these images.

    Args:
        supernet: the weights.
        x: images, shape ``(n, c, h, w)``.
        y: labels, shape ``(n,)``.
        subnet: the architecture; bits of its blocks are not looked at.
        mixtures: of its blocks, in order.

    Returns:
        The cross entropy, and for each block and role the derivatives.
    """
    counts = [
        {
            role: torch.tensor(weights, dtype=torch.float32, device=x.device).requires_grad_()
            for role, (_, weights) in mixture.items()
        }
        for mixture in mixtures
    ]
    layers = supernet.slice(subnet)
    blocks = list(dict.fromkeys(item.layer.block for item in layers))
    order = {block: at for at, block in enumerate(b for b in blocks if b is not None)}

    def prepare(item: SlicedLayer, x: Tensor) -> tuple[Tensor, Tensor]:
        if item.layer.block is None:
            return rounded(item, x)
        at = order[item.layer.block]
        weight_role, input_role = roles(item.layer)
        widths = {role: bits for role, (bits, _) in mixtures[at].items()}
        return (
            _mixed_input(
                supernet.ranges, item.layer.name, x, widths[input_role], counts[at][input_role]
            ),
            _mixed_weight(item, widths[weight_role], counts[at][weight_role]),
        )

    x = x.to(memory_format=torch.channels_last)
    loss = F.cross_entropy(run(layers, x, prepare).flatten(1), y)
    loss.backward()
    found = [{role: _gradient(count) for role, count in of.items()} for of in counts]
    return float(loss.detach()), found


def roles(layer: Layer) -> tuple[str, str]:
    """The roles of a block's layer whose bits its weights and its input have."""
    kind = "dw" if layer.place == "depthwise" else "pw"
    return f"w_{kind}", f"a_{kind}"


def _mixed_input(
    ranges: Ranges, name: str, x: Tensor, widths: Sequence[int], counts: Tensor
) -> Tensor:
    parts = [
        x if bits == FLOAT_BITS else quantise_activation(x, *needed(ranges.of(name, bits)), bits)
        for bits in widths
    ]
    return sum((c * part for c, part in zip(counts, parts, strict=True)), torch.zeros_like(x))


def _mixed_weight(item: SlicedLayer, widths: Sequence[int], counts: Tensor) -> Tensor:
    parts = [quantise_weight(item.weight, bits) for bits in widths]
    total = torch.zeros_like(item.weight)
    return sum((c * part for c, part in zip(counts, parts, strict=True)), total)


def _gradient(count: Tensor) -> FloatArray:
    grad = count.grad
    assert grad is not None
    array: FloatArray = grad.double().cpu().numpy()
    return array

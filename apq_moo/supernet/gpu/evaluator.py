"""Scoring subnets on a GPU: calibrate, fold and infer as :mod:`apq_moo.supernet.evaluation` does.

The calibration pass writes raw outputs in single precision with statistics of every tile; the
inference pass writes each activation once, as levels of one byte inside the blocks and in half
precision between them. Nothing waits for the device before the logits are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from apq_moo.errors import UserError
from apq_moo.space import Layer, Subnet
from apq_moo.space.spec import FLOAT_BITS
from apq_moo.supernet.devices import device_of, why_not_on_gpu
from apq_moo.supernet.gpu import primitives
from apq_moo.supernet.gpu.plans import pool, to_planes
from apq_moo.supernet.gpu.workspace import Source, Target, Weight, Workspace
from apq_moo.supernet.layers import ElasticConv, ElasticDepthwise
from apq_moo.supernet.network import Node, Supernet
from apq_moo.supernet.quantisers import activation_levels, weight_levels


@dataclass(frozen=True)
class Prepared:
    """Images as the kernels read them.

    Attributes:
        levels: integers of the first layer's quantiser, half precision, ``(channels, pitch)``.
        floats: the images themselves in half precision.
        n: number of images.
    """

    levels: Tensor
    floats: Tensor
    n: int


class GpuEvaluator:
    """Runs subnets of one supernet on any images; the same numbers as ``Evaluator`` gives.

    Weights are quantised once for every choice of bits and inputs and kept, until :meth:`forget`
    says that the supernet has changed.

    Args:
        supernet: the weights, on the device.
        calibration: calibration images, shape ``(n, c, h, w)``, anywhere.
        forward_type: in which products are taken.

    Raises:
        UserError: the space offers bits between 9 and 31, or a block's tensors are not stored in
            half precision (``between = 16`` in the space's ``[bits]``).
    """

    def __init__(
        self,
        supernet: Supernet,
        calibration: Tensor,
        *,
        forward_type: torch.dtype = torch.float16,
    ) -> None:
        reason = why_not_on_gpu(supernet.space)
        if reason is not None:
            raise UserError(reason)
        self.supernet = supernet
        self.device = device_of(supernet)
        self._work = Workspace(supernet.space, self.device, forward_type=forward_type)
        self._weights: dict[tuple[str, int, int, int], Weight] = {}
        low = min(float(calibration.min()), 0.0)
        high = max(float(calibration.max()), 0.0)
        self._image_range = torch.tensor([low, high, 0.0, 0.0], device=self.device)
        self.calibration = self.prepare(calibration)

    def prepare(self, images: Tensor) -> Prepared:
        """Bring images of shape ``(n, c, h, w)`` into the kernels' form."""
        flat = to_planes(images.to(self.device, torch.float32))
        bits = self.supernet.space.spec.fixed_bits
        levels = flat
        if bits != FLOAT_BITS:
            low, high, *_ = self._image_range.tolist()
            levels, _ = activation_levels(flat, low, high, bits)
        return Prepared(levels.half(), flat.half(), len(images))

    def forget(self) -> None:
        """Forget the weights, which have changed."""
        self._weights.clear()

    def _weight(self, node: Node, *, quantised: bool) -> Weight:
        layer, module = node.layer, node.module
        assert not isinstance(module, nn.Linear)
        bits = layer.w_bits if quantised else FLOAT_BITS
        pointwise = layer.kernel == 1 and layer.groups == 1
        inputs = layer.c_in if pointwise else 0
        key = (layer.name, layer.kernel, bits, inputs)
        found = self._weights.get(key)
        if found is None:
            found = self._weights[key] = make_weight(module, layer, bits)
        return found

    @torch.no_grad()
    def logits(self, subnet: Subnet, images: Tensor | Prepared, *, quantised: bool) -> Tensor:
        """Logits of a subnet on the device, shape ``(n, classes)``; does not wait for them.

        Args:
            subnet: a member of the space.
            images: shape ``(n, c, h, w)``, or what :meth:`prepare` made of them.
            quantised: whether it runs at its bits, or in full precision.

        Raises:
            UserError: it is not a member of the space.
        """
        prepared = images if isinstance(images, Prepared) else self.prepare(images)
        nodes = self.supernet.outline(subnet)
        spans = self._work.vectors.spans
        spans.zero_()
        spans[0] = self._image_range
        n = prepared.n
        weights = [
            self._work.bands(node.layer, self._weight(node, quantised=quantised), n)
            for node in nodes[:-1]
        ]
        known = self._run(nodes, weights, self.calibration, record=True, quantised=quantised)
        pooled = self._run(nodes, weights, prepared, record=False, quantised=quantised)
        return self._classify(nodes[-1].layer, pooled, known, quantised=quantised)

    def _run(
        self, nodes: Sequence[Node], weights: Sequence[Weight], images: Prepared, *,
        record: bool, quantised: bool,
    ) -> Tensor:  # fmt: skip
        """Pooled features of shape ``(n, channels)``."""
        work = self._work
        n = images.n
        if quantised and nodes[0].layer.a_bits != FLOAT_BITS:
            x, stored = images.levels, "levels"
        else:
            x, stored = images.floats, "floats"
        kept = x
        # Levels are multiplied as they are; their sizes are in the norms.
        bare = [Weight(weight.data, weight.row) for weight in weights]
        for number, node in enumerate(nodes[:-1]):
            layer, following = node.layer, nodes[number + 1]
            if layer.opens_shortcut:
                kept = x
            rounds = quantised and layer.a_bits != FLOAT_BITS
            source = Source(
                x, WAYS[stored, rounds], number - 1,
                span=work.vectors.span[number] if rounds else None, top=top_level(layer),
            )  # fmt: skip
            other = kept if layer.closes_shortcut else None
            rounds_next = quantised and following.layer.a_bits != FLOAT_BITS
            if record:
                raw = work.activations(layer.c_out, n, layer.size_out, torch.float32)
                target = Target(raw, primitives.OUT_RAW.value, number)
                work.convolve(layer, bare[number], source, target, n)
                x = self._settle(node, number, source, weights[number], raw, other, n, rounds_next)
                stored = "floats" if layer.leaves_block else "raw"
                continue
            levels = rounds_next and not layer.leaves_block
            x = work.activations(
                layer.c_out, n, layer.size_out, torch.uint8 if levels else torch.float16
            )
            target = Target(
                x, _OUT_LEVELS if levels else _OUT_NORMED, number,
                layer.activation is not None, other,
                span=work.vectors.span[number + 1] if levels else None,
                top=top_level(following.layer),
            )  # fmt: skip
            work.convolve(layer, bare[number], source, target, n)
            stored = "levels" if levels else "floats"
        return pool(x, n, nodes[-2].layer.size_out)

    def _settle(
        self, node: Node, number: int, source: Source, weight: Weight, raw: Tensor,
        other: Tensor | None, n: int, rounds_next: bool,
    ) -> Tensor:  # fmt: skip
        layer, module = node.layer, node.module
        assert not isinstance(module, nn.Linear)
        self._work.settle(
            number, layer, n, module.norm.weight, module.norm.bias,
            span=rounds_next and not layer.leaves_block, scale=weight.scale, span_in=source.span,
            top_in=source.top,
        )  # fmt: skip
        if not layer.leaves_block:
            return raw
        x = self._work.activations(layer.c_out, n, layer.size_out, torch.float16)
        self._work.close(number, layer, n, raw, x, other, span=rounds_next)
        return x

    def _classify(
        self, layer: Layer, pooled: Tensor, calibration: Tensor, *, quantised: bool
    ) -> Tensor:
        weight, bias = self.supernet.classifier.weight, self.supernet.classifier.bias
        unit = torch.ones(len(bias), dtype=torch.float64, device=self.device)
        if quantised and layer.a_bits != FLOAT_BITS:
            low = calibration.min().clamp_max(0).double()
            high = calibration.max().clamp_min(0).double()
            top = 2**layer.a_bits - 1
            wide = (high - low).clamp_min(1e-8) / top
            zero = torch.round(-low / wide).float()
            step = wide.float()
            pooled = (pooled * (1 / step)).round_()
            pooled = torch.minimum(torch.maximum(pooled, -zero), top - zero)
            unit = unit * step.double()
        if quantised and layer.w_bits != FLOAT_BITS:
            weight, size = weight_levels(weight, layer.w_bits)
            unit = unit * size.double()
        sums = (pooled.double() @ weight.T.double()).float()
        return sums * unit.float() + bias


_OUT_LEVELS, _OUT_NORMED = primitives.OUT_LEVELS.value, primitives.OUT_NORMED.value

WAYS = {
    ("levels", True): primitives.IN_PLAIN.value,
    ("floats", False): primitives.IN_PLAIN.value,
    ("floats", True): primitives.IN_QUANTISED.value,
    ("raw", False): primitives.IN_NORM.value,
    ("raw", True): primitives.IN_NORM_QUANTISED.value,
}
"""How a convolution reads what is stored, by whether it multiplies levels."""


def top_level(layer: Layer) -> float:
    """The highest level of a layer's input, ``2^bits - 1``."""
    return 1.0 if layer.a_bits == FLOAT_BITS else float(2**layer.a_bits - 1)


def make_weight(module: ElasticConv | ElasticDepthwise, layer: Layer, bits: int) -> Weight:
    """The weight of a layer for all its output channels.

    Args:
        module: the elastic convolution.
        layer: which input channels or kernel size.
        bits: levels of the weight; 32 for floats.
    """
    if isinstance(module, ElasticDepthwise):
        weight = module.slice_weight(len(module.weight), layer.kernel)
    else:
        weight = module.weight[:, : layer.c_in]
    flat = weight.detach().flatten(1)
    row = flat.shape[1]
    if bits == FLOAT_BITS:
        return Weight(flat.half().contiguous(), row)
    levels, scale = weight_levels(flat, bits)
    return Weight(levels.half().contiguous(), row, scale)

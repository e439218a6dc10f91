"""Scoring subnets on a GPU: calibrate, fold and infer as :mod:`apq_moo.supernet.evaluation` does.

The calibration pass writes raw outputs in single precision with statistics of every tile; the
inference pass writes each activation once, as levels of one byte inside the blocks and as integers
or in half precision between them. Nothing waits for the device before the logits are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from apq_moo.data.pixels import as_floats
from apq_moo.errors import UserError
from apq_moo.space import Layer, Subnet
from apq_moo.space.spec import FLOAT_BITS
from apq_moo.supernet.devices import device_of, why_not_on_gpu
from apq_moo.supernet.evaluation import Observer
from apq_moo.supernet.gpu import primitives
from apq_moo.supernet.gpu.sizes import plane_of, pool, to_planes
from apq_moo.supernet.gpu.spans import Spans
from apq_moo.supernet.gpu.workspace import Source, Target, Weight, Workspace
from apq_moo.supernet.layers import ElasticConv, ElasticDepthwise
from apq_moo.supernet.network import Node, Supernet
from apq_moo.supernet.quantisers import activation_levels, weight_levels
from apq_moo.supernet.ranges import STORED_BITS, needed, output_of, total_of

_TOGETHER = 2**27
"""Pixels of a plane, over all images, that run as one: more do not make a GPU busier."""


@dataclass(frozen=True)
class Planes:
    """Images as the kernels read them.

    Attributes:
        levels: integers of the first layer's quantiser, half precision, ``(channels, pitch)``;
            None where it has no range.
        floats: the images themselves in half precision.
        n: number of images.
    """

    levels: Tensor | None
    floats: Tensor
    n: int


@dataclass(frozen=True)
class Prepared:
    """Images to classify.

    Attributes:
        parts: run one after the other.
    """

    parts: tuple[Planes, ...]


@dataclass(frozen=True)
class _Way:
    """A subnet, ready to run.

    Attributes:
        nodes: its layers.
        weights: of all but the classifier, as :meth:`Workspace.bands` gives them.
        spans: of every layer's input, if it is rounded to levels.
        storing: of every layer, the spans of the integers that it stores, if it does.
    """

    nodes: Sequence[Node]
    weights: Sequence[Weight]
    spans: Sequence[Tensor | None]
    storing: Sequence[Tensor | None]

    def rounds(self, number: int) -> bool:
        """Whether a layer's input is rounded to levels."""
        return self.spans[number] is not None


class GpuEvaluator:
    """Runs subnets of one supernet on any images; the same numbers as ``Evaluator`` gives.

    Weights are quantised once for every choice of bits and inputs and kept, until :meth:`forget`
    says that the supernet has changed.

    Args:
        supernet: the weights, on the device.
        calibration: calibration images, shape ``(n, c, h, w)``, anywhere.
        forward_type: in which products are taken.

    Raises:
        UserError: the kernels cannot run the space's networks; see ``why_not_on_gpu``.
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
        self._spans = Spans(supernet.ranges, self.device)
        self.calibration = self._planes(calibration)

    def prepare(self, images: Tensor) -> Prepared:
        """Bring images of shape ``(n, c, h, w)``, bytes or floats, into the kernels' form."""
        together = max(1, _TOGETHER // images.shape[-1] ** 2)
        return Prepared(tuple(self._planes(part) for part in images.split(together)))

    def _planes(self, images: Tensor) -> Planes:
        flat = to_planes(as_floats(images.to(self.device)).float())
        stem = self.supernet.space.fixed_layers()[0]
        span, levels = self.supernet.ranges.of(stem.name, stem.a_bits), None
        if span is not None:
            levels = activation_levels(flat, *span, stem.a_bits)[0].half()
        return Planes(levels, flat.half(), len(images))

    def forget(self) -> None:
        """Forget the weights, which have changed."""
        self._weights.clear()
        self._spans.fit(self.supernet.ranges)

    @torch.no_grad()
    def observe(self, subnet: Subnet, observer: Observer) -> None:
        """See :meth:`apq_moo.supernet.evaluation.LogitsOf.observe`."""
        way = self._begin(subnet, quantised=False)
        self._calibrate(way, observer)

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
            UserError: it is not a member of the space, or runs at its bits and the supernet has no
                ranges.
        """
        prepared = images if isinstance(images, Prepared) else self.prepare(images)
        way = self._begin(subnet, quantised=quantised)
        self._calibrate(way)
        pooled = torch.cat([self._infer(way, part) for part in prepared.parts])
        return self._classify(way.nodes[-1].layer, pooled, quantised=quantised)

    def _begin(self, subnet: Subnet, *, quantised: bool) -> _Way:
        nodes = self.supernet.outline(subnet)
        spans = [
            self._spans.entering(node.layer)
            if quantised and node.layer.a_bits != FLOAT_BITS
            else None
            for node in nodes
        ]
        weights = [
            self._work.bands(node.layer, self._weight(node, quantised=quantised))
            for node in nodes[:-1]
        ]
        storing: list[Tensor | None] = []
        before, kept = nodes[0].layer, nodes[0].layer
        for node in nodes:
            layer = node.layer
            if layer.opens_shortcut:
                kept = before
            integers = quantised and layer.between_bits == STORED_BITS
            added = kept if layer.closes_shortcut else None
            storing.append(self._spans.storing(layer, added) if integers else None)
            before = layer
        return _Way(nodes, weights, spans, storing)

    def _first(self, way: _Way, images: Planes) -> tuple[Tensor, str]:
        """The images as the first layer reads them."""
        return (needed(images.levels), "levels") if way.rounds(0) else (images.floats, "floats")

    def _source(self, way: _Way, number: int, x: Tensor, stored: str) -> Source:
        """How a layer reads what is ``stored``: levels, floats, integers or raw outputs."""
        return Source(
            x, WAYS[stored, way.rounds(number)], number - 1, span=way.spans[number],
            stored=(
                self._spans.leaving(way.nodes[number - 1].layer) if stored == "integers" else None
            ),
        )  # fmt: skip

    def _calibrate(self, way: _Way, observer: Observer | None = None) -> None:
        """Settle every batch norm.

        Args:
            way: a subnet.
            observer: told the activations, if it runs in full precision.
        """
        work, n = self._work, self.calibration.n
        x, stored = self._first(way, self.calibration)
        kept = x
        for number, (node, weight) in enumerate(zip(way.nodes[:-1], way.weights, strict=True)):
            layer = node.layer
            if layer.opens_shortcut:
                kept = x
            if observer is not None:
                observer(layer.name, self._floats(x, number - 1, stored, layer.size))
            source = self._source(way, number, x, stored)
            raw = work.activations(layer, n, torch.float32)
            # Levels are multiplied as they are; their sizes are in the norms.
            bare = Weight(weight.data, weight.row)
            work.convolve(layer, bare, source, Target(raw, primitives.OUT_RAW.value, number), n)
            self._settle(node, number, source, weight)
            if not layer.leaves_block:
                x, stored = raw, "raw"
                continue
            other, storing = kept if layer.closes_shortcut else None, way.storing[number]
            if observer is not None and layer.between_bits == STORED_BITS:
                self._observe_stored(layer, raw, number, other, observer)
            x = work.activations(layer, n, _kind(layer, storing))
            work.close(number, layer, n, raw, x, other, storing)
            stored = "floats" if storing is None else "integers"
        if observer is not None:
            observer(way.nodes[-1].layer.name, self._pooled(way, x, n))

    def _infer(self, way: _Way, images: Planes) -> Tensor:
        """Pooled features of shape ``(n, channels)``, by the batch norms settled last."""
        work, n = self._work, images.n
        x, stored = self._first(way, images)
        kept = x
        for number, (node, weight) in enumerate(zip(way.nodes[:-1], way.weights, strict=True)):
            layer, storing = node.layer, way.storing[number]
            if layer.opens_shortcut:
                kept = x
            source = self._source(way, number, x, stored)
            levels = way.rounds(number + 1) and not layer.leaves_block
            how = _OUT_LEVELS if levels else _OUT_NORMED if storing is None else _OUT_STORED
            kind = torch.uint8 if levels else _kind(layer, storing)
            x = work.activations(layer, n, kind)
            target = Target(
                x, how, number, layer.activation is not None,
                kept if layer.closes_shortcut else None,
                span=way.spans[number + 1] if levels else storing,
            )  # fmt: skip
            work.convolve(layer, Weight(weight.data, weight.row), source, target, n)
            stored = "levels" if levels else "floats" if storing is None else "integers"
        return self._pooled(way, x, n)

    def _pooled(self, way: _Way, x: Tensor, n: int) -> Tensor:
        last = way.nodes[-2].layer
        if way.storing[-2] is not None:
            x = x.float().mul_(self._spans.leaving(last)[2])
        return pool(x, n, last.size_out)

    def _settle(self, node: Node, number: int, source: Source, weight: Weight) -> None:
        layer, module = node.layer, node.module
        assert not isinstance(module, nn.Linear)
        self._work.settle(
            number, layer, self.calibration.n, module.norm.weight, module.norm.bias,
            scale=weight.scale, span_in=source.span,
        )  # fmt: skip

    def _floats(self, x: Tensor, number: int, stored: str, size: int) -> Tensor:
        """The calibration's activations as floats, without what lies between planes."""
        n = self.calibration.n
        x = x[:, : n * plane_of(size)].view(len(x), n, -1)[:, :, : size * size].float()
        return self._normed(x, number).clamp_(0, 6) if stored == "raw" else x

    def _normed(self, x: Tensor, number: int) -> Tensor:
        v, channels = self._work.vectors, len(x)
        a, b = v.a[number][:channels, None, None], v.b[number][:channels, None, None]
        return torch.addcmul(b, x, a)

    def _observe_stored(
        self, layer: Layer, raw: Tensor, number: int, other: Tensor | None, observer: Observer
    ) -> None:
        """Tell an observer what is stored between blocks, as full-precision floats."""
        x = self._normed(self._floats(raw, number, "floats", layer.size_out), number)
        if layer.activation is not None:
            x = x.clamp_(0, 6)
        observer(output_of(layer), x)
        if other is not None:
            observer(total_of(layer), x + self._floats(other, number, "floats", layer.size_out))

    def _classify(self, layer: Layer, pooled: Tensor, *, quantised: bool) -> Tensor:
        weight, bias = self.supernet.classifier.weight, self.supernet.classifier.bias
        unit = torch.ones(len(bias), dtype=torch.float64, device=self.device)
        if quantised and layer.a_bits != FLOAT_BITS:
            low, high = self._spans.entering(layer)[:2].double()
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
_OUT_STORED = primitives.OUT_STORED.value

WAYS = {
    ("levels", True): primitives.IN_PLAIN.value,
    ("floats", False): primitives.IN_PLAIN.value,
    ("floats", True): primitives.IN_QUANTISED.value,
    ("raw", False): primitives.IN_NORM.value,
    ("raw", True): primitives.IN_NORM_QUANTISED.value,
    ("integers", True): primitives.IN_STORED.value,
}
"""How a convolution reads what is stored, by whether it multiplies levels."""


def _kind(layer: Layer, storing: Tensor | None) -> torch.dtype:
    """The type of what a layer stores between blocks."""
    if storing is None:
        return torch.float16
    return torch.int8 if layer.activation is None else torch.uint8


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

"""Scoring subnets on a GPU: calibrate, fold and infer as :mod:`apq_moo.supernet.evaluation` does.

The calibration pass writes raw outputs in single precision with statistics of every tile; the
inference pass writes each activation once, as levels of one byte inside the blocks and as integers
or in half precision between them. Nothing waits for the device before the logits are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from apq_moo.data.pixels import as_floats
from apq_moo.errors import UserError
from apq_moo.space import Layer, Subnet
from apq_moo.space.spec import FLOAT_BITS
from apq_moo.supernet.devices import device_of, why_not_on_gpu
from apq_moo.supernet.evaluation import Observer
from apq_moo.supernet.gpu import primitives
from apq_moo.supernet.gpu.graphs import Replays
from apq_moo.supernet.gpu.launching import in_place_of
from apq_moo.supernet.gpu.operands import Source, Target, Weight
from apq_moo.supernet.gpu.parts import Part, Use
from apq_moo.supernet.gpu.sizes import pitch_of, plane_of, pool, to_planes
from apq_moo.supernet.gpu.spans import Spans
from apq_moo.supernet.gpu.workspace import Workspace
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


_Run = Callable[[Part, Tensor, Tensor, int], None]
"""What is done with a part: its input, where its output goes, and the number of images."""


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
        self.space = supernet.space
        self.device = device_of(supernet)
        self._work = Workspace(supernet.space, self.device, forward_type=forward_type)
        self._weights: dict[tuple[str, int, int, int], Weight] = {}
        self._uses: dict[tuple[int, bool], Use] = {}
        self._shapes: dict[Hashable, int] = {}
        self._replays = Replays(self.device)
        self._spans = Spans(supernet.ranges, self.device)
        self._images = calibration
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
        """Forget the weights, which have changed.

        If the ranges have changed too, images are to be prepared anew.
        """
        self._weights.clear()
        self._uses.clear()
        self._work.forget()
        self._replays.forget()
        if self._spans.fit(self.supernet.ranges):
            self.calibration = self._planes(self._images)

    @torch.no_grad()
    def observe(self, subnet: Subnet, observer: Observer) -> None:
        """See :meth:`apq_moo.supernet.evaluation.LogitsOf.observe`."""
        parts, n = self._parts(subnet, quantised=False), self.calibration.n
        x, outputs = self.calibration.floats, self._work.between(n, torch.float16)
        for number, part in enumerate(parts):
            out = outputs[number % 2]
            self._calibrate(part, x, out, n, observer)
            x = out
        last = self.space.layers(subnet)[-1]
        observer(last.name, self._pooled(parts[-1], x, n))

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
        parts = self._parts(subnet, quantised=quantised)
        self._run("calibrate", self._calibrate, parts, self.calibration)
        found = []
        for some in prepared.parts:
            x = self._run("infer", self._infer, parts, some)
            classify = partial(self._classify, parts[-1], x, some.n, quantised=quantised)
            key = x.data_ptr(), some.n, parts[-1].last.part, quantised
            found.append(self._replays.do(key, classify, partial(tuple, [x])))
        return found[0] if len(found) == 1 else torch.cat(found)

    def _parts(self, subnet: Subnet, *, quantised: bool) -> list[Part]:
        """A subnet but for its classifier.

        Raises:
            UserError: see :meth:`logits`.
        """
        parts: list[Part] = []
        uses: list[Use] = []
        for layer in self.space.layers(subnet)[:-1]:
            uses.append(self._use(layer, quantised=quantised))
            if not layer.leaves_block:
                continue
            reads, kind = "floats" if uses[0].span is None else "levels", torch.float16
            before, stored, storing = None, None, None
            if parts:
                before, reads, kind = parts[-1].last, *parts[-1].writes
                stored = self._spans.leaving(before) if reads == "integers" else None
            if quantised and layer.between_bits == STORED_BITS:
                storing = self._spans.storing(layer, before if layer.closes_shortcut else None)
            parts.append(Part(uses, reads, kind, stored, storing))
            uses = []
        return parts

    def _use(self, layer: Layer, *, quantised: bool) -> Use:
        found = self._uses.get((id(layer), quantised))
        if found is not None and found.layer is layer:
            return found
        node = self.supernet.node(layer)
        rounds = quantised and layer.a_bits != FLOAT_BITS
        span = self._spans.entering(layer) if rounds else None
        weight = self._weight(node, quantised=quantised)
        shape = layer.name, layer.kernel, layer.c_in, layer.c_out, weight.scale is None, rounds
        found = Use(
            node, self._work.number(layer), weight, span,
            self._shapes.setdefault(shape, len(self._shapes)),
        )  # fmt: skip
        self._uses[id(layer), quantised] = found
        return found

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

    def _run(self, what: str, run: _Run, parts: Sequence[Part], images: Planes) -> Tensor:
        """Run all parts on some images; what the last stores, as it lies in memory."""
        n, outputs = images.n, self._work.between(images.n, torch.float16)
        x = needed(images.levels) if parts[0].reads == "levels" else images.floats
        for number, part in enumerate(parts):
            out = outputs[number % 2]
            key = what, n, *part.shape
            self._work.do(key, [x, out, *part.variables], partial(run, part, x, out, n))
            x = out
        self._work.flush()
        return x

    def _read(self, part: Part, x: Tensor, n: int) -> Tensor:
        """A part's input, in its shape and type."""
        layer = part.uses[0].layer
        return in_place_of(x, (layer.c_in, pitch_of(n, layer.size)), part.kind)

    def _written(self, part: Part, out: Tensor, n: int) -> Tensor:
        """Its output likewise."""
        layer = part.last
        return in_place_of(out, (layer.c_out, pitch_of(n, layer.size_out)), part.writes[1])

    def _source(self, part: Part, at: int, x: Tensor, stored: str) -> Source:
        """How a layer reads what is ``stored``: levels, floats, integers or raw outputs."""
        use = part.uses[at]
        return Source(
            x, WAYS[stored, use.span is not None], part.uses[at - 1].number if at else use.number,
            span=use.span, stored=part.stored if stored == "integers" else None,
        )  # fmt: skip

    def _calibrate(
        self, part: Part, x: Tensor, out: Tensor, n: int, observer: Observer | None = None
    ) -> None:
        """Settle the batch norms of a part.

        Args:
            part: of a subnet.
            x: its input.
            out: where its output goes.
            n: number of images.
            observer: told the activations, if it runs in full precision.
        """
        work, stored = self._work, part.reads
        x = kept = self._read(part, x, n)
        for at, use in enumerate(part.uses):
            layer, number, weight = use.layer, use.number, use.weight
            if observer is not None:
                observer(layer.name, self._floats(x, part.uses[at - 1].number, stored, layer.size))
            source = self._source(part, at, x, stored)
            raw = work.activations(f"within {at % 2}", layer, n, torch.float32)
            bands = work.bands(f"{layer.name} bands", layer, weight)
            # Levels are multiplied as they are; their sizes are in the norms.
            bare = Weight(bands.data, bands.row)
            work.convolve(layer, bare, source, Target(raw, primitives.OUT_RAW.value, number), n)
            self._settle(use, n)
            if not layer.leaves_block:
                x, stored = raw, "raw"
                continue
            other = kept if layer.closes_shortcut else None
            if observer is not None and layer.between_bits == STORED_BITS:
                self._observe_stored(layer, raw, number, other, observer)
            work.close(number, layer, n, raw, self._written(part, out, n), other, part.storing)

    def _infer(self, part: Part, x: Tensor, out: Tensor, n: int) -> None:
        """Run a part by the batch norms settled last."""
        work, stored = self._work, part.reads
        x = kept = self._read(part, x, n)
        for at, use in enumerate(part.uses):
            layer, source = use.layer, self._source(part, at, x, stored)
            bands = work.bands(f"{layer.name} bands", layer, use.weight, made=True)
            span = part.storing if layer.leaves_block else part.uses[at + 1].span
            if layer.leaves_block:
                x = self._written(part, out, n)
                how = _OUT_NORMED if span is None else _OUT_STORED
            else:
                x = work.activations(
                    f"within {at % 2}", layer, n, torch.float16 if span is None else torch.uint8
                )
                how, stored = (_OUT_NORMED, "floats") if span is None else (_OUT_LEVELS, "levels")
            target = Target(
                x, how, use.number, layer.activation is not None,
                kept if layer.closes_shortcut else None, span=span,
            )  # fmt: skip
            work.convolve(layer, Weight(bands.data, bands.row), source, target, n)

    def _pooled(self, part: Part, x: Tensor, n: int) -> Tensor:
        """Pooled features of shape ``(n, channels)`` from what the last part stores."""
        x = self._written(part, x, n)
        if part.storing is not None:
            x = x.float().mul_(self._spans.leaving(part.last)[2])
        return pool(x, n, part.last.size_out)

    def _settle(self, use: Use, n: int) -> None:
        module = use.node.module
        assert not isinstance(module, nn.Linear)
        self._work.settle(
            use.number, use.layer, n, module.norm.weight, module.norm.bias,
            scale=use.weight.scale, span_in=use.span,
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

    def _classify(self, part: Part, x: Tensor, n: int, *, quantised: bool) -> Tensor:
        """Logits from what the last part stores."""
        pooled, layer = self._pooled(part, x, n), self.space.fixed_layers()[-1]
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

"""Gradients of a subnet on a GPU: forward with batch statistics, and backward, by hand.

The forward pass keeps each convolution's raw output in half precision and nothing else; batch norm,
ReLU6 and quantisation are applied again wherever they are needed. Gradients are kept in bfloat16
and products of them accumulate in single precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import is_not

import torch
from torch import Tensor, nn

from apq_moo.space import Layer, Subnet
from apq_moo.space.spec import FLOAT_BITS
from apq_moo.supernet.devices import device_of
from apq_moo.supernet.distillation import (
    DISTILLATIONS,
    LogitsGradient,
    cross_entropy_gradient,
)
from apq_moo.supernet.gpu import primitives
from apq_moo.supernet.gpu.derived import DerivedKernels
from apq_moo.supernet.gpu.evaluator import WAYS
from apq_moo.supernet.gpu.graphs import Replays
from apq_moo.supernet.gpu.launching import in_place_of
from apq_moo.supernet.gpu.operands import Source, Target, Weight
from apq_moo.supernet.gpu.parts import TrainedPart as Part
from apq_moo.supernet.gpu.parts import TrainedUse as Use
from apq_moo.supernet.gpu.sizes import pitch_of, pool, to_planes
from apq_moo.supernet.gpu.spans import Spans
from apq_moo.supernet.gpu.workspace import Workspace
from apq_moo.supernet.gradients import Student
from apq_moo.supernet.layers import ElasticDepthwise
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.quantisers import weight_levels


class GpuGradients:
    """Gradients of subnets of a supernet; see :class:`apq_moo.supernet.gradients.Gradients`.

    Args:
        supernet: the weights, on the device, in single precision.
        smoothing: share of the labels spread evenly over all classes.
        distillation: what the others learn from, one of
            :data:`apq_moo.supernet.distillation.DISTILLATIONS`.
        forward_type: in which activations are kept and multiplied.
        backward_type: in which gradients are.
    """

    def __init__(
        self,
        supernet: Supernet,
        smoothing: float = 0.0,
        distillation: str = "kl",
        *,
        forward_type: torch.dtype = torch.float16,
        backward_type: torch.dtype = torch.bfloat16,
    ) -> None:
        self.supernet = supernet
        self.smoothing = smoothing
        self.distillation = DISTILLATIONS[distillation]
        self.logits: list[Tensor] = []
        self._forward_type, self._backward_type = forward_type, backward_type
        self._work = Workspace(
            supernet.space, device_of(supernet),
            forward_type=forward_type, backward_type=backward_type,
        )  # fmt: skip
        self._parameters = list(supernet.parameters())
        self._grads: list[Tensor] = []
        self._derived: DerivedKernels
        self._uses: dict[tuple[int, bool], Use] = {}
        self._ones = torch.ones(
            max(layer.c_out for layer in self._work.largest), device=self._work.device
        )
        self._replays = Replays(self._work.device)
        self._spans = Spans(supernet.ranges, self._work.device)

    @torch.no_grad()
    def step(
        self, x: Tensor, y: Tensor, students: Sequence[Student], soft: Tensor | None = None
    ) -> Tensor:
        """Set the parameters' gradients; see :meth:`Gradients.step`."""
        self._clear()
        self.logits = []
        n, planes = self._begin(x)
        planes = self._replays.hold("planes", planes)
        classes = self.supernet.space.spec.classes
        targets = nn.functional.one_hot(y, classes).float()
        targets = torch.lerp(targets, torch.full_like(targets, 1 / classes), self.smoothing)
        way: LogitsGradient = cross_entropy_gradient
        if soft is None:
            role = "labels"
        else:
            role, way, targets = "soft", self.distillation, soft
        targets = self._replays.hold(role, targets)
        for student in students:
            work = partial(
                self._accumulate, student.subnet, planes, n, targets, way,
                quantised=student.quantised,
            )  # fmt: skip
            self.logits.append(self._replays.do((student, role, n), work, self._memory))
            if role == "labels":
                role, way = "soft", self.distillation
                targets = self._replays.hold(role, self.logits[0].softmax(1))
        self._replays.do("end", self._return, tuple)
        return nn.functional.cross_entropy(self.logits[0], y)

    @torch.no_grad()
    def predict(self, x: Tensor, student: Student) -> Tensor:
        """See :meth:`Gradients.predict`."""
        self._clear()
        n, planes = self._begin(x)
        planes = self._replays.hold("planes", planes)
        work = partial(self._predict, student, planes, n)
        return self._replays.do((student, "predict", n), work, self._memory)

    def _predict(self, student: Student, planes: Tensor, n: int) -> Tensor:
        quantised = student.quantised
        parts = self._parts(student.subnet, quantised=quantised)
        x = self._forward(parts, planes, n, quantised=quantised)
        pooled = pool(x, n, parts[-1].last.layer.size_out)
        pooled, weight, _ = self._classifier(pooled, quantised=quantised)
        return pooled @ weight.T + self.supernet.classifier.bias

    def _memory(self) -> tuple[Tensor, ...]:
        """What recorded work uses."""
        return self._work.rooms

    def _clear(self) -> None:
        """Set gradients to zero, and make those that are missing, as after ``zero_grad``."""
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        grads = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        if len(grads) != len(self._grads) or any(map(is_not, grads, self._grads)):
            self._grads = grads  # what is kept refers to the old ones
            self._derived = DerivedKernels(self.supernet)
            self._uses.clear()
            self._work.forget()
            self._replays.forget()
        torch._foreach_zero_(grads)

    def _begin(self, x: Tensor) -> tuple[int, Tensor]:
        """Get ready for images: how many there are, and how kernels read them.

        Smaller depthwise kernels are derived from the weights as they are now.
        """
        self._spans.fit(self.supernet.ranges)
        self._replays.allow(len(x) * x.shape[-1] ** 2)
        self._replays.do("begin", self._derive, tuple)
        return len(x), to_planes(x).to(self._forward_type)

    def _derive(self) -> Tensor:
        self._derived.begin()
        return self._ones[:1]

    def _return(self) -> Tensor:
        """Take the gradients of derived kernels to the parameters."""
        self._derived.end()
        return self._ones[:1]

    @torch.no_grad()
    def _accumulate(
        self,
        subnet: Subnet,
        images: Tensor,
        n: int,
        targets: Tensor,
        way: LogitsGradient = cross_entropy_gradient,
        *,
        quantised: bool = False,
    ) -> Tensor:
        """Add the gradients of one subnet's loss.

        Args:
            subnet: a member of the space.
            images: floats of shape ``(channels, pitch)``; see ``pitch_of``.
            n: number of images.
            targets: probabilities of shape ``(n, classes)``.
            way: the loss's gradient with respect to the logits.
            quantised: run at the subnet's bits, in the supernet's ranges; gradients pass straight
                through the rounding, and there are none outside a range.

        Returns:
            The logits, shape ``(n, classes)``.
        """
        work, parts = self._work, self._parts(subnet, quantised=quantised)
        x = self._forward(parts, images, n, quantised=quantised)
        last = parts[-1].last
        d_pooled = work.room("pooled", (last.layer.c_out, n), torch.float32)
        classify = partial(
            self._classify, x, n, last.layer.size_out, targets, way, d_pooled, quantised=quantised
        )
        key = x.data_ptr(), targets.data_ptr(), n, way, quantised
        logits = self._replays.do(key, classify, self._memory)
        du, before = work.between(n, self._backward_type, back=True)
        pooled = partial(self._pooled_gradient, last, du, d_pooled, n)
        work.do(("pooled", n, last.layer.name), [du], pooled)
        self._backward(parts, images, (du, before), n, quantised=quantised)
        return logits

    def _parts(self, subnet: Subnet, *, quantised: bool) -> list[Part]:
        """A subnet but for its classifier."""
        parts: list[Part] = []
        uses: list[Use] = []
        for layer in self.supernet.space.layers(subnet)[:-1]:
            uses.append(self._use(layer, quantised=quantised))
            if layer.leaves_block:
                spans = [use.span for use in uses if use.span is not None]
                shape = quantised, *[use.shape for use in uses]
                parts.append(Part(uses, shape, spans))
                uses = []
        return parts

    def _use(self, layer: Layer, *, quantised: bool) -> Use:
        found = self._uses.get((id(layer), quantised))
        if found is not None and found.layer is layer:
            return found
        node = self.supernet.node(layer)
        module = node.module
        assert not isinstance(module, nn.Linear)
        assert module.weight.grad is not None
        data, grad = module.weight.detach(), module.weight.grad
        if isinstance(module, ElasticDepthwise) and layer.kernel != module.kernels[-1]:
            derived = self._derived.of(module, layer.kernel)
            data, grad = derived.data, derived.grad
        rounds = quantised and layer.a_bits != FLOAT_BITS
        found = self._uses[id(layer), quantised] = Use(
            node, self._work.number(layer), data, grad,
            self._spans.entering(layer) if rounds else None,
            (layer.name, layer.kernel, layer.c_in, layer.c_out, layer.w_bits == FLOAT_BITS, rounds),
        )  # fmt: skip
        return found

    def _forward(self, parts: Sequence[Part], x: Tensor, n: int, *, quantised: bool) -> Tensor:
        """Run all parts; what the last gives, shape ``(channels, pitch)``."""
        work = self._work
        if quantised:
            for use in [use for part in parts for use in part.uses]:
                self._quantise(use)
        for part in parts:
            out = self._output(part, n)
            go = partial(self._forward_part, part, x, out, n, quantised=quantised)
            work.do(("forward", n, part.shape), [x, *part.spans], go)
            x = out
        work.flush()
        return x

    def _forward_part(self, part: Part, x: Tensor, out: Tensor, n: int, *, quantised: bool) -> None:
        work = self._work
        for at, use in enumerate(part.uses):
            layer, number = use.layer, use.number
            raw = self._raw(use, n)
            bands = work.bands("bands", layer, self._weights(use, quantised=quantised)[0])
            target = Target(raw, primitives.OUT_RAW.value, number)
            work.convolve(layer, bands, self._source(part, at, x, n), target, n)
            work.settle(number, layer, n, use.norm.weight, use.norm.bias)
            if layer.leaves_block:
                work.close(number, layer, n, raw, out, x if layer.closes_shortcut else None)

    def _output(self, part: Part, n: int) -> Tensor:
        layer = part.last.layer
        return self._work.activations(f"{layer.part} output", layer, n, torch.float16)

    def _raw(self, use: Use, n: int) -> Tensor:
        """A layer's raw output, which is kept from the forward to the backward pass."""
        return self._work.activations(f"{use.layer.name} raw", use.layer, n, self._forward_type)

    def _source(self, part: Part, at: int, x: Tensor, n: int) -> Source:
        """What a layer reads: the part's input ``x``, or raw outputs of the layer before."""
        use = part.uses[at]
        rounds = use.span is not None
        if at == 0:
            return Source(x, WAYS["floats", rounds], use.number, span=use.span)
        before = part.uses[at - 1]
        return Source(self._raw(before, n), WAYS["raw", rounds], before.number, span=use.span)

    def _pooled_gradient(self, last: Use, du: Tensor, d_pooled: Tensor, n: int) -> None:
        du = self._gradient_of(last, du, n)
        self._work.pooled_gradient(last.number, last.layer, n, d_pooled, self._raw(last, n), du)
        self._settle_gradient(last, n)

    def _settle_gradient(self, use: Use, n: int) -> None:
        norm = use.norm
        self._work.settle_gradient(
            use.number, use.layer, n, norm.weight, norm.weight.grad, norm.bias.grad
        )

    def _gradient_of(self, use: Use, memory: Tensor, n: int) -> Tensor:
        """Memory of a gradient between blocks in the shape of a layer's output."""
        shape = use.layer.c_out, pitch_of(n, use.layer.size_out)
        return in_place_of(memory, shape, self._backward_type)

    def _backward(
        self, parts: Sequence[Part], images: Tensor, gradients: tuple[Tensor, Tensor], n: int, *,
        quantised: bool,
    ) -> None:  # fmt: skip
        """The gradients of all parts.

        Args:
            parts: of the subnet.
            images: what the first reads.
            gradients: that of the last one's output, and memory for another.
            n: number of images.
            quantised: whether the subnet runs at its bits.
        """
        work, v = self._work, self._work.vectors
        du, before = gradients
        for at in range(len(parts) - 1, -1, -1):
            part = parts[at]
            ahead = parts[at - 1].last if at else None
            x, variables = images, [du, *part.spans]
            if ahead is not None:
                x = self._output(parts[at - 1], n)
                norm, number = ahead.norm, ahead.number
                grads = [g for g in (norm.weight.grad, norm.bias.grad) if g is not None]
                variables += [before, self._raw(ahead, n), norm.weight, *grads]
                variables += [each[number] for each in (v.a, v.b, v.mean, v.rstd, v.p, v.q, v.r)]
            key = (
                "backward", n, part.shape, ahead is None,
                ahead is not None and ahead.layer.activation is None,
            )  # fmt: skip
            go = partial(self._backward_part, part, ahead, x, (du, before), n, quantised=quantised)
            work.do(key, [x, *variables], go)
            du, before = before, du
        work.flush()

    def _backward_part(
        self, part: Part, ahead: Use | None, x: Tensor, gradients: tuple[Tensor, Tensor], n: int,
        *, quantised: bool,
    ) -> None:  # fmt: skip
        """The gradients of a part.

        Args:
            part: of the subnet.
            ahead: the layer whose output it reads, if one does not read the images.
            x: that output.
            gradients: that of the part's output, and where to write that of ``x``.
            n: number of images.
            quantised: whether the subnet runs at its bits.
        """
        work = self._work
        du = around = self._gradient_of(part.last, gradients[0], n)
        for at in range(len(part.uses) - 1, -1, -1):
            use, source = part.uses[at], self._source(part, at, x, n)
            layer, raw = use.layer, self._raw(use, n)
            work.weight_gradient(use.number, layer, du, raw, source, n, use.grad)
            to = part.uses[at - 1] if at else ahead
            if to is None:
                return
            if at:
                before = work.activations(
                    f"gradient {at % 2}", layer, n, self._backward_type, back=True
                )
            else:
                before = self._gradient_of(to, gradients[1], n)
            target = Target(
                before, primitives.OUT_GRADIENT.value, to.number,
                to.layer.activation is not None,
                around if layer.opens_shortcut else None, raw=self._raw(to, n),
                span=source.span, entered=None if at else x,
            )  # fmt: skip
            weight = self._weights(use, quantised=quantised)[1]
            bands = work.bands("bands", layer, weight, back=True)
            come = Source(du, primitives.IN_GRADIENT.value, use.number, raw=raw)
            work.convolve(layer, bands, come, target, n)
            self._settle_gradient(to, n)
            du = before

    def _quantise(self, use: Use) -> None:
        """Round a layer's weight to its levels."""
        layer = use.layer
        if layer.w_bits != FLOAT_BITS:
            inputs = layer.c_in // layer.groups * layer.kernel**2
            self._work.quantise(
                layer.name, use.data, layer.c_out, inputs, use.data.stride(0), layer.w_bits
            )

    def _weights(self, use: Use, *, quantised: bool) -> tuple[Weight, Weight]:
        """A layer's weight for the forward and the backward pass."""
        layer, row = use.layer, use.data.stride(0)
        floats = Weight(use.data, row)
        levels = layer.w_bits != FLOAT_BITS
        if not quantised or not (levels or use.span is not None):
            return floats, floats
        if not levels:
            return Weight(use.data, row, self._ones), floats
        inputs = layer.c_in // layer.groups * layer.kernel**2
        integers, values, scale = self._work.quantised(layer.name, layer.c_out, inputs)
        return Weight(integers, inputs, scale), Weight(values, inputs)

    def _classify(
        self, x: Tensor, n: int, size: int, targets: Tensor, way: LogitsGradient, d_pooled: Tensor,
        *, quantised: bool,
    ) -> Tensor:  # fmt: skip
        """Logits; the gradient of the pooled features goes to ``d_pooled``, ``(channels, n)``."""
        classifier = self.supernet.classifier
        pooled, weight, passes = self._classifier(pool(x, n, size), quantised=quantised)
        logits = pooled @ weight.T + classifier.bias
        d_logits = way(targets, logits)
        assert classifier.weight.grad is not None
        assert classifier.bias.grad is not None
        classifier.weight.grad += d_logits.T @ pooled
        classifier.bias.grad += d_logits.sum(0)
        gradient = d_logits @ weight
        if passes is not None:
            gradient *= passes
        d_pooled.copy_(gradient.T)
        return logits

    def _classifier(
        self, pooled: Tensor, *, quantised: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The classifier's input and weight, and where the input's gradients pass."""
        layer, weight = self.supernet.space.fixed_layers()[-1], self.supernet.classifier.weight
        passes: Tensor | None = None
        if quantised and layer.a_bits != FLOAT_BITS:
            pooled, passes = _rounded(pooled, layer.a_bits, self._spans.entering(layer))
        if quantised:
            weight = _rounded_weight(weight, layer.w_bits)
        return pooled, weight, passes


def _rounded_weight(weight: Tensor, bits: int) -> Tensor:
    """A quantised weight; torch's own operator waits for the device to check its arguments."""
    if bits == FLOAT_BITS:
        return weight
    levels, size = weight_levels(weight, bits)
    return levels * size[:, None]


def _rounded(x: Tensor, bits: int, span: Tensor) -> tuple[Tensor, Tensor]:
    """A tensor quantised in a range, and where gradients pass."""
    top = 2**bits - 1
    low, high = span[:2]
    step = (high - low).clamp_min(1e-8) / top
    zero = torch.round(-low / step)
    rounded = torch.round(x / step)
    levels = torch.minimum(torch.maximum(rounded, -zero), top - zero)
    return levels * step, levels == rounded

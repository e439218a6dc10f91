"""Gradients of a subnet on a GPU: forward with batch statistics, and backward, by hand.

The forward pass keeps each convolution's raw output in half precision and nothing else; batch norm,
ReLU6 and quantisation are applied again wherever they are needed. Gradients are kept in bfloat16
and products of them accumulate in single precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

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
from apq_moo.supernet.gpu.evaluator import WAYS
from apq_moo.supernet.gpu.graphs import Replays
from apq_moo.supernet.gpu.sizes import pool, to_planes
from apq_moo.supernet.gpu.spans import Spans
from apq_moo.supernet.gpu.workspace import Source, Target, Weight, Workspace
from apq_moo.supernet.gradients import Student
from apq_moo.supernet.layers import ElasticDepthwise
from apq_moo.supernet.network import Node, Supernet
from apq_moo.supernet.quantisers import weight_levels


@dataclass(frozen=True)
class _Done:
    """What the forward pass keeps of one layer.

    Attributes:
        node: the layer.
        source: its input.
        raw: its raw output.
        weight: what gradients are multiplied by.
        grad: where the weight's gradient goes; its leading rows and columns are the layer's.
    """

    node: Node
    source: Source
    raw: Tensor
    weight: Weight
    grad: Tensor


@dataclass
class _Derived:
    """A depthwise kernel derived from the next larger one, as ``ElasticDepthwise`` slices it.

    By hand, since autograd's own thread takes a millisecond to answer for each.

    Attributes:
        module: whose kernel it is.
        small: its size.
        large: the next larger size.
        data: the derived weight, shape ``(channels, 1, small, small)``.
        grad: its gradient.
        larger_grad: gradient of what it is derived from.
    """

    module: ElasticDepthwise
    small: int
    large: int
    data: Tensor
    grad: Tensor
    larger_grad: Tensor

    def begin(self, larger: Tensor) -> None:
        """Derive it, and forget its gradient."""
        self._centre = self._middle(larger).flatten(1)
        torch.mm(self._centre, self._transform().detach(), out=self.data.view_as(self._centre))
        self.grad.zero_()

    def end(self) -> None:
        """Add its gradient to those of the larger weight and of the transform."""
        transform = self._transform()
        assert transform.grad is not None
        grad = self.grad.view_as(self._centre)
        transform.grad.addmm_(self._centre.T, grad)
        middle = self._middle(self.larger_grad)
        middle += (grad @ transform.detach().T).view_as(middle)

    def _transform(self) -> Tensor:
        transform: Tensor = self.module.transforms[f"{self.large}to{self.small}"]
        return transform

    def _middle(self, weight: Tensor) -> Tensor:
        margin = (self.large - self.small) // 2
        part = slice(margin, margin + self.small)
        return weight[:, :, part, part]


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
        self._depthwise = [m for m in supernet.modules() if isinstance(m, ElasticDepthwise)]
        self._derived: dict[tuple[int, int], _Derived] = {}
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
            self.logits.append(self._replays.do((student, role), work, self._uses))
            if role == "labels":
                role, way = "soft", self.distillation
                targets = self._replays.hold(role, self.logits[0].softmax(1))
        self._end()
        return nn.functional.cross_entropy(self.logits[0], y)

    @torch.no_grad()
    def predict(self, x: Tensor, student: Student) -> Tensor:
        """See :meth:`Gradients.predict`."""
        self._clear()
        n, planes = self._begin(x)
        planes = self._replays.hold("planes", planes)
        work = partial(self._predict, student, planes, n)
        return self._replays.do((student, "predict"), work, self._uses)

    def _predict(self, student: Student, planes: Tensor, n: int) -> Tensor:
        nodes, quantised = self.supernet.outline(student.subnet), student.quantised
        _, features = self._forward(nodes, planes, n, quantised=quantised)
        pooled = pool(features, n, nodes[-2].layer.size_out)
        pooled, weight, _ = self._classifier(nodes[-1].layer, pooled, quantised=quantised)
        return pooled @ weight.T + self.supernet.classifier.bias

    def _uses(self) -> tuple[Tensor, ...]:
        return (self._work.scratch,)

    def _clear(self) -> None:
        """Set gradients to zero, and make those that are missing, as after ``zero_grad``."""
        parameters = list(self.supernet.parameters())
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
                self._derived.clear()  # they refer to the old ones
                self._replays.forget()
        torch._foreach_zero_([p.grad for p in parameters if p.grad is not None])

    def _begin(self, x: Tensor) -> tuple[int, Tensor]:
        """Get ready for images: how many there are, and how kernels read them.

        Smaller depthwise kernels are derived from the weights as they are now.
        """
        self._spans.fit(self.supernet.ranges)
        self._replays.allow(len(x) * x.shape[-1] ** 2)
        for module in self._depthwise:
            weight, grad = module.weight.detach(), module.weight.grad
            assert grad is not None
            for small, large in reversed(list(pairwise(module.kernels))):
                derived = self._derived.get((id(module), small))
                if derived is None:
                    data = weight.new_empty(len(weight), 1, small, small)
                    derived = _Derived(module, small, large, data, torch.zeros_like(data), grad)
                    self._derived[id(module), small] = derived
                derived.begin(weight)
                weight, grad = derived.data, derived.grad
        return len(x), to_planes(x).to(self._forward_type)

    def _end(self) -> None:
        """Take the gradients of the smaller kernels to the parameters, the smallest first."""
        for derived in reversed(self._derived.values()):
            derived.end()

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
        nodes = self.supernet.outline(subnet)
        steps, x = self._forward(nodes, images, n, quantised=quantised)
        last = nodes[-2].layer
        logits, d_pooled = self._classify(
            nodes[-1].layer, x, n, last.size_out, targets, way, quantised
        )
        du = self._work.activations(last, n, self._backward_type)
        self._work.pooled_gradient(len(steps) - 1, last, n, d_pooled, steps[-1].raw, du)
        self._backward(steps, du, n)
        return logits

    def _forward(
        self, nodes: list[Node], images: Tensor, n: int, *, quantised: bool
    ) -> tuple[list[_Done], Tensor]:
        work = self._work
        x, stored = images, "floats"
        kept = x
        steps: list[_Done] = []
        for number, node in enumerate(nodes[:-1]):
            layer, module = node.layer, node.module
            assert not isinstance(module, nn.Linear)
            if layer.opens_shortcut:
                kept = x
            rounds = quantised and layer.a_bits != FLOAT_BITS
            weight, weight_back, grad = self._weight(node, quantised=quantised)
            span = self._spans.entering(layer) if rounds else None
            source = Source(x, WAYS[stored, rounds], number - 1, span=span)
            raw = work.activations(layer, n, self._forward_type)
            target = Target(raw, primitives.OUT_RAW.value, number)
            work.convolve(layer, work.bands(layer, weight), source, target, n)
            steps.append(_Done(node, source, raw, weight_back, grad))
            work.settle(number, layer, n, module.norm.weight, module.norm.bias)
            if not layer.leaves_block:
                x, stored = raw, "raw"
                continue
            x = work.activations(layer, n, torch.float16)
            other = kept if layer.closes_shortcut else None
            work.close(number, layer, n, raw, x, other)
            stored = "floats"
        return steps, x

    def _backward(self, steps: list[_Done], du: Tensor, n: int) -> None:
        work = self._work
        around: Tensor | None = None
        for number in range(len(steps) - 1, -1, -1):
            step = steps[number]
            layer, module = step.node.layer, step.node.module
            assert not isinstance(module, nn.Linear)
            work.settle_gradient(
                number, layer, n, module.norm.weight, module.norm.weight.grad,
                module.norm.bias.grad,
            )  # fmt: skip
            work.weight_gradient(number, layer, du, step.raw, step.source, n, step.grad)
            if number == 0:
                break
            if layer.closes_shortcut:
                around = du
            ahead = steps[number - 1]
            before = work.activations(layer, n, self._backward_type, back=True)
            source = Source(du, primitives.IN_GRADIENT.value, number, raw=step.raw)
            target = Target(
                before, primitives.OUT_GRADIENT.value, number - 1,
                ahead.node.layer.activation is not None,
                around if layer.opens_shortcut else None, raw=ahead.raw,
                span=step.source.span,
                entered=step.source.data if ahead.node.layer.leaves_block else None,
            )  # fmt: skip
            work.convolve(layer, work.bands(layer, step.weight, back=True), source, target, n)
            du = before

    def _weight(self, node: Node, *, quantised: bool) -> tuple[Weight, Weight, Tensor]:
        """A layer's weight for the forward and the backward pass, and its gradient."""
        layer, module = node.layer, node.module
        assert not isinstance(module, nn.Linear)
        assert module.weight.grad is not None
        data, grad = module.weight.detach(), module.weight.grad
        if isinstance(module, ElasticDepthwise) and layer.kernel != module.kernels[-1]:
            derived = self._derived[id(module), layer.kernel]
            data, grad = derived.data, derived.grad
        row = data.stride(0)
        floats = Weight(data, row)
        levels = layer.w_bits != FLOAT_BITS
        if not quantised or not (levels or layer.a_bits != FLOAT_BITS):
            return floats, floats, grad
        if not levels:
            return Weight(data, row, torch.ones(len(data), device=data.device)), floats, grad
        inputs = layer.c_in // layer.groups * layer.kernel**2
        integers, values, scale = self._work.quantise(data, layer.c_out, inputs, row, layer.w_bits)
        return Weight(integers, inputs, scale), Weight(values, inputs), grad

    def _classify(
        self,
        layer: Layer,
        x: Tensor,
        n: int,
        size: int,
        targets: Tensor,
        way: LogitsGradient,
        quantised: bool,
    ) -> tuple[Tensor, Tensor]:
        """Logits, and the gradient of the pooled features, shape ``(channels, n)``."""
        classifier = self.supernet.classifier
        pooled, weight, passes = self._classifier(layer, pool(x, n, size), quantised=quantised)
        logits = pooled @ weight.T + classifier.bias
        d_logits = way(targets, logits)
        assert classifier.weight.grad is not None
        assert classifier.bias.grad is not None
        classifier.weight.grad += d_logits.T @ pooled
        classifier.bias.grad += d_logits.sum(0)
        d_pooled = d_logits @ weight
        if passes is not None:
            d_pooled *= passes
        return logits, d_pooled.T.contiguous()

    def _classifier(
        self, layer: Layer, pooled: Tensor, *, quantised: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The classifier's input and weight, and where the input's gradients pass."""
        weight = self.supernet.classifier.weight
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

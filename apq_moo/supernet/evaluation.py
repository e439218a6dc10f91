"""Scoring subnets: calibrate on training images, fold, classify.

Batch-norm statistics come from one pass over the calibration images, layer by layer, so that each
layer sees its inputs as the layers before it really produce them, quantised.

A quantised layer multiplies integers, as hardware does: its output is ``levels * m + b`` with one
``m`` and ``b`` for each channel. Integer sums are exact in whatever order they are taken, ``m`` and
``b`` are rounded from double precision, and the product and the sum are rounded once each. So the
result is the same to the last bit on every processor, which matters, since one activation that
falls on the other side of a rounding step is followed by others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from apq_moo.data.pixels import as_floats
from apq_moo.space import Subnet
from apq_moo.space.spec import FLOAT_BITS
from apq_moo.supernet.network import (
    BN_EPS,
    Recorded,
    SlicedLayer,
    Supernet,
    as_stored,
    laid_out,
)
from apq_moo.supernet.quantisers import (
    activation_levels,
    activation_step,
    quantise_activation,
    weight_levels,
)
from apq_moo.supernet.ranges import STORED_BITS, needed, output_of, total_of

_EXACT = 2**24
"""Single precision holds all integers up to this."""

_CHUNK = 64

Observer = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class FoldedLayer:
    """A layer ready for inference.

    Attributes:
        item: the sliced layer.
        weight: levels if it is quantised, else floats that contain the batch norm's scale.
        gain: what the convolution's output is multiplied by, shape ``(c_out, 1, 1)``; None for 1.
        bias: what is then added, shape ``(c_out,)``.
    """

    item: SlicedLayer
    weight: Tensor
    gain: Tensor | None
    bias: Tensor


@torch.no_grad()
def calibrate(
    layers: Sequence[SlicedLayer],
    images: Tensor,
    *,
    quantised: bool,
    observe: Observer | None = None,
) -> list[Recorded]:
    """Find a subnet's batch-norm statistics.

    Args:
        layers: the sliced subnet.
        images: calibration images, shape ``(n, c, h, w)``; run as one batch.
        quantised: whether the subnet is to run at its bits.
        observe: told the place and the floats of every activation that has a range.

    Returns:
        One record for each layer.

    Raises:
        UserError: it is to run at its bits, and the supernet has no ranges.
    """
    record: list[Recorded] = []
    kept = x = images.to(memory_format=torch.channels_last)
    for item in layers:
        if item.layer.opens_shortcut:
            kept = x
        if item.scale is None:
            x = pooled(x)
        if observe is not None:
            observe(item.layer.name, x)
        if item.scale is None:
            record.append(Recorded(None, None))
            break
        weight, size = _weight(item, quantised=quantised)
        x = _convolve(item, x, weight, quantised=quantised)
        unit = _unit(item, size, quantised=quantised)
        mean, var = _statistics(x)
        found = Recorded((mean * unit).float(), (var * unit * unit).float())
        record.append(found)
        gain, bias = _norm(item, found, unit)
        x = x.mul_(gain).add_(bias[:, None, None])
        x = _finish(item, x, kept, quantised=quantised, observe=observe)
    return record


@torch.no_grad()
def fold(
    layers: Sequence[SlicedLayer], recorded: Sequence[Recorded], *, quantised: bool
) -> list[FoldedLayer]:
    """Turn batch norms and steps of quantisers into gains and biases; see :class:`FoldedLayer`."""
    folded = []
    for item, known in zip(layers, recorded, strict=True):
        weight, size = _weight(item, quantised=quantised)
        unit = _unit(item, size, quantised=quantised)
        gain, bias = unit.float().view(-1, 1, 1), item.bias
        if item.scale is not None:
            gain, bias = _norm(item, known, unit)
        if quantised:
            folded.append(FoldedLayer(item, weight, gain, bias))
        else:
            folded.append(FoldedLayer(item, weight * gain[:, None], None, bias))
    return folded


@torch.no_grad()
def infer(folded: Sequence[FoldedLayer], x: Tensor, *, quantised: bool) -> Tensor:
    """Logits of shape ``(n, classes)`` for images of shape ``(n, c, h, w)``."""
    kept = x = laid_out(x)
    for layer in folded:
        item = layer.item
        if item.layer.opens_shortcut:
            kept = x
        if item.scale is None:
            x = pooled(x)
        if layer.gain is None:
            shape = item.layer
            x = F.conv2d(
                x, layer.weight, layer.bias, shape.stride, shape.padding, groups=shape.groups
            )
        else:
            x = _convolve(item, x, layer.weight, quantised=quantised)
            x = x.mul_(layer.gain).add_(layer.bias[:, None, None])
        x = _finish(item, x, kept, quantised=quantised)
    return x.flatten(1)


def pooled(x: Tensor) -> Tensor:
    """Average over the pixels, summed in double precision, shape ``(n, c, 1, 1)``."""
    return x.mean(dim=(2, 3), keepdim=True, dtype=torch.float64).float()


def _weight(item: SlicedLayer, *, quantised: bool) -> tuple[Tensor, Tensor | None]:
    """What the layer multiplies by, and the size of its levels if it has any."""
    weight, bits = item.weight.detach(), item.layer.w_bits
    if not quantised or bits == FLOAT_BITS:
        return weight, None
    return weight_levels(weight, bits)


def _convolve(item: SlicedLayer, x: Tensor, weight: Tensor, *, quantised: bool) -> Tensor:
    """The convolution alone, of levels if it is quantised."""
    layer = item.layer
    rounds = quantised and layer.a_bits != FLOAT_BITS
    integers = rounds and layer.w_bits != FLOAT_BITS
    if rounds:
        x, _ = activation_levels(x, *needed(item.ranges.input), layer.a_bits)
    most = layer.kernel**2 * (layer.c_in // layer.groups) * 2 ** (layer.a_bits + layer.w_bits - 1)
    if integers and most > _EXACT:
        bound = weight.abs().flatten(1).sum(1).amax() * (2**layer.a_bits - 1)
        if float(bound) > _EXACT:
            x, weight = x.double(), weight.double()
    x = F.conv2d(x, weight, None, layer.stride, layer.padding, groups=layer.groups).float()
    if integers and layer.kernel > 1 and layer.groups == 1:
        x = x.round_()  # after an algorithm such as Winograd's
    return x


def _unit(item: SlicedLayer, size: Tensor | None, *, quantised: bool) -> Tensor:
    """What 1 in the convolution's output stands for, double precision, shape ``(c_out,)``."""
    step, bits = 1.0, item.layer.a_bits
    if quantised and bits != FLOAT_BITS:
        step = activation_step(*needed(item.ranges.input), bits)
    if size is None:
        return torch.full_like(item.bias, step, dtype=torch.float64)
    return size.double() * step


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, in double precision."""
    total = squares = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    for part in x.split(_CHUNK):
        double = part.double()
        total = total + double.sum((0, 2, 3))
        squares = squares + (double * double).sum((0, 2, 3))
    n = x.numel() // x.shape[1]
    mean = total / n
    return mean, (squares / n - mean * mean).clamp_min(0)


def _norm(item: SlicedLayer, found: Recorded, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Batch norm as gain and bias of the convolution's output."""
    assert item.scale is not None
    assert found.mean is not None
    assert found.var is not None
    gain = item.scale.detach().double() / torch.sqrt(found.var.double() + BN_EPS)
    bias = item.bias.detach().double() - found.mean.double() * gain
    return (gain * unit).float().view(-1, 1, 1), bias.float()


def _finish(
    item: SlicedLayer,
    x: Tensor,
    kept: Tensor,
    *,
    quantised: bool,
    observe: Observer | None = None,
) -> Tensor:
    """What follows a batch norm: ReLU6, shortcut, and the form in which blocks store."""
    layer = item.layer
    if layer.activation is not None:
        x = x.clamp_(0, 6)
    if layer.between_bits != STORED_BITS:
        return as_stored(x + kept if layer.closes_shortcut else x, layer)
    if observe is not None:
        observe(output_of(layer), x)
    if quantised:
        x = quantise_activation(x, *needed(item.ranges.output), STORED_BITS)
    if layer.closes_shortcut:
        x = x + kept
        if observe is not None:
            observe(total_of(layer), x)
        if quantised:
            x = quantise_activation(x, *needed(item.ranges.total), STORED_BITS)
    return x if quantised else as_stored(x, layer)


class LogitsOf(Protocol):
    """Runs subnets of one supernet on images."""

    def prepare(self, images: Tensor) -> Any:
        """Bring images of shape ``(n, c, h, w)`` into the form it reads fastest.

        Args:
            images: bytes, or floats in [0, 1].
        """
        ...

    def logits(self, subnet: Subnet, images: Any, *, quantised: bool) -> Tensor:
        """Logits of a subnet, shape ``(n, classes)``, for images or what ``prepare`` gave."""
        ...

    def observe(self, subnet: Subnet, observer: Observer) -> None:
        """Tell an observer every activation of the calibration that has a range.

        Args:
            subnet: a member of the space; runs in full precision.
            observer: told the place and the floats, of any shape.
        """
        ...

    def forget(self) -> None:
        """Forget what was made of the supernet's weights, which have changed."""
        ...


class Evaluator:
    """Runs subnets of one supernet on any images.

    Args:
        supernet: the weights.
        calibration: calibration images, shape ``(n, c, h, w)``, bytes or floats in [0, 1].
        batch_size: images classified at a time.
    """

    def __init__(self, supernet: Supernet, calibration: Tensor, batch_size: int = 512) -> None:
        self.supernet = supernet
        self.calibration = as_floats(calibration)
        self.batch_size = batch_size

    def prepare(self, images: Tensor) -> Tensor:
        """Bring images to the device, bytes as bytes."""
        return images.to(self.calibration.device)

    @torch.no_grad()
    def logits(self, subnet: Subnet, images: Tensor, *, quantised: bool) -> Tensor:
        """Logits of a subnet, shape ``(n, classes)``."""
        layers = self.supernet.slice(subnet)
        recorded = calibrate(layers, self.calibration, quantised=quantised)
        folded = fold(layers, recorded, quantised=quantised)
        return torch.cat(
            [
                infer(folded, as_floats(x), quantised=quantised)
                for x in images.split(self.batch_size)
            ]
        )

    def observe(self, subnet: Subnet, observer: Observer) -> None:
        """See :meth:`LogitsOf.observe`."""
        layers = self.supernet.slice(subnet)
        calibrate(layers, self.calibration, quantised=False, observe=observer)

    def forget(self) -> None:
        """Nothing is kept of the supernet's weights."""

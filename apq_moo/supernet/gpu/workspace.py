"""Memory of the kernels, and how they are launched for one layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton
from torch import Tensor

from apq_moo.space import Layer
from apq_moo.supernet.gpu import kernels

PITCH = 256
"""Rows of activations begin at multiples of this many elements."""

_PLANE_STEP = 8
_LARGEST_PLANE = 1024
_PROGRAMS = 1024


def power_of_two(n: int, low: int, high: int) -> int:
    """The smallest power of two that is at least ``n``, within ``low ... high``."""
    return max(low, min(high, 1 << (n - 1).bit_length()))


def plane_of(size: int) -> int:
    """Elements from one image's plane of ``size`` by ``size`` pixels to the next."""
    return -(-size * size // _PLANE_STEP) * _PLANE_STEP


def pitch_of(n: int, size: int) -> int:
    """Elements from one channel to the next, for ``n`` planes of ``size`` by ``size`` pixels."""
    return -(-n * plane_of(size) // PITCH) * PITCH


def to_planes(images: Tensor) -> Tensor:
    """Images of shape ``(n, c, h, w)`` as ``(c, pitch)``; what lies between planes is 0."""
    n, channels, size, _ = images.shape
    flat = torch.zeros(channels, pitch_of(n, size), dtype=images.dtype, device=images.device)
    plane = plane_of(size)
    planes = flat[:, : n * plane].view(channels, n, plane)
    planes[:, :, : size * size] = images.transpose(0, 1).flatten(2)
    return flat


def pool(x: Tensor, n: int, size: int) -> Tensor:
    """Average over the pixels of ``(channels, pitch)``, shape ``(n, channels)``."""
    plane = plane_of(size)
    planes = x[:, : n * plane].view(len(x), n, plane)[:, :, : size * size]
    return planes.mean(2, dtype=torch.float64).float().T


@dataclass(frozen=True)
class _Plan:
    """How one convolution is launched.

    Attributes:
        kind: ``pointwise``, ``planes`` or ``rows``.
        outputs: channels that are written.
        inputs: channels that are read for each.
        pixels: elements of a row that hold planes.
        tiles: partial statistics of a channel.
        programs: programs in all.
        group: tiles of channels of a program, for a pointwise one.
        shape: constants that describe the planes.
        tile: constants that describe a tile.
        warps: of a program.
        bands: shape of the band matrix of a channel.
        plane: elements and pixels of a plane, for a pointwise one.
        stages: of software pipelining.
    """

    kind: str
    outputs: int
    inputs: int
    pixels: int
    tiles: int
    programs: int
    group: int
    shape: tuple[Any, ...]
    tile: tuple[Any, ...]
    warps: int
    bands: tuple[int, int] = (0, 0)
    plane: tuple[int, int] = (1, 1)
    stages: int = 3


@lru_cache(maxsize=100_000)
def _plan(
    c_in: int, c_out: int, size: int, size_out: int, kernel: int, stride: int, groups: int,
    n: int, back: bool, finished: bool,
) -> _Plan:  # fmt: skip
    outputs, inputs = (c_in, c_out) if back else (c_out, c_in)
    source, dest = (size_out, size) if back else (size, size_out)
    pixels = n * plane_of(dest)
    if kernel == 1 and groups == 1 and stride == 1:
        short = finished and inputs <= 128
        bm, bn, bk, warps, stages = _pointwise_tile(outputs, inputs, finished=finished)
        tiles = -(-pixels // bn)
        parts = -(-outputs // bm)
        group = 1
        if short:
            group = min(parts, -(-parts * tiles // (2 * _PROGRAMS)))
        return _Plan(
            "pointwise", outputs, inputs, pixels, tiles, -(-parts // group) * tiles, group,
            (short,), (bm, bn, bk), warps, plane=(plane_of(dest), dest * dest), stages=stages,
        )  # fmt: skip
    dense = c_in if groups == 1 else 0
    planes = (plane_of(source), plane_of(dest))
    if max(planes) <= _LARGEST_PLANE:
        bs = power_of_two(source * source, 16, 64)
        bd = power_of_two(planes[1], 16, 64 if planes[0] > 256 else 128)
        images = 256 if bd == 16 else 64 if bd == 128 else 128
        rows = -(-source * source // bs) * bs
        columns = -(-planes[1] // bd) * bd
        tiles = -(-n // images) * (columns // bd)
        shape = (source, source, dest, dest, stride, *planes, dense, back)
        return _Plan(
            "planes", outputs, inputs, pixels, tiles, outputs * tiles, 1, shape,
            (images, bs, bd, rows, columns), 4, (rows, columns),
        )  # fmt: skip
    count = 128 if dest <= 16 else 64
    tiles = -(-n * dest // count)
    shape = (source, source, dest, dest, stride, *planes, dense, back)
    tile = (count, power_of_two(source, 16, 4096), power_of_two(dest, 16, 4096))
    return _Plan("rows", outputs, inputs, pixels, tiles, outputs * tiles, 1, shape, tile, 4)


def _pointwise_tile(
    outputs: int, inputs: int, *, finished: bool
) -> tuple[int, int, int, int, int]:
    """Channels out, pixels and channels in of a tile, warps and stages; measured on an H100."""
    sizes = (16, 32, 64) if finished else (16, 32, 64, 128)
    padded = [-(-outputs // size) * size for size in sizes]
    bm = max(s for s, p in zip(sizes, padded, strict=True) if p <= 1.2 * min(padded))
    if not finished:  # statistics take registers
        return bm, 128, power_of_two(inputs, 16, 64), 4 if bm <= 64 else 8, 3
    if inputs <= 128:
        bn = 256 if inputs <= 32 else 128
        return bm, bn, power_of_two(inputs, 16, 128), 4, 3
    if outputs > 64:
        return 128, 256, 32, 8, 3
    return (bm, 128, 32, 4, 4) if bm <= 32 else (bm, 128, 64, 4, 3)


@dataclass(frozen=True)
class Weight:
    """A convolution's weight as kernels read it.

    Attributes:
        data: levels or floats.
        row: elements from one output channel to the next.
        scale: size of a level for each output channel; None for floats.
    """

    data: Tensor
    row: int
    scale: Tensor | None = None


@dataclass(frozen=True)
class Source:
    """What a convolution reads.

    Attributes:
        data: the stored numbers, ``(channels, pitch)``.
        how: one of the ``IN_*`` ways of :mod:`~apq_moo.supernet.gpu.kernels`.
        coefficients: number of the layer whose batch norm (or its gradient) is applied on reading.
        raw: a second tensor of the same shape, for ``IN_GRADIENT``.
        span: range of the activation, if levels are multiplied; the weights are levels then too.
        top: its highest level.
    """

    data: Tensor
    how: int
    coefficients: int = 0
    raw: Tensor | None = None
    span: Tensor | None = None
    top: float = 1.0


@dataclass(frozen=True)
class Target:
    """What a convolution writes.

    Attributes:
        data: where, ``(channels, pitch)``.
        how: one of the ``OUT_*`` ways.
        norm: number of the layer whose batch norm is applied, or recorded.
        relu: whether a ReLU6 follows the norm.
        other: what is added: the residual, or the gradient that came around it.
        raw: the raw outputs that the gradient meets, for ``OUT_GRADIENT``.
        span: range of the next layer's input, for ``OUT_LEVELS``.
        top: its highest level.
    """

    data: Tensor
    how: int
    norm: int = 0
    relu: bool = False
    other: Tensor | None = None
    raw: Tensor | None = None
    span: Tensor | None = None
    top: float = 1.0


class Vectors:
    """Per-layer vectors of up to ``channels`` numbers, and every layer's input range."""

    def __init__(self, layers: int, channels: int, device: torch.device) -> None:
        # Padded, so that every vector begins at a multiple of 16 bytes.
        store = torch.zeros(7, layers, -(-channels // 4) * 4, device=device)
        self.a, self.b, self.mean, self.rstd, self.p, self.q, self.r = (
            list(part.unbind(0)) for part in store
        )
        self.spans = torch.zeros(layers + 1, 4, device=device)
        self.span = list(self.spans.unbind(0))


class Workspace:
    """Launches kernels on one device, with scratch memory that grows as needed.

    Args:
        layers: most layers of a network.
        channels: most channels of a layer.
        device: where everything lies.
        forward_type: in which products of activations are taken.
        backward_type: in which products of gradients are taken.
    """

    def __init__(
        self,
        layers: int,
        channels: int,
        device: torch.device,
        *,
        forward_type: torch.dtype = torch.float16,
        backward_type: torch.dtype = torch.bfloat16,
    ) -> None:
        self.device = device
        self.forward_type = forward_type
        self.backward_type = backward_type
        self._triton_type = {True: _TYPES[backward_type], False: _TYPES[forward_type]}
        self.vectors = Vectors(layers, channels, device)
        self._stats = torch.empty(0, dtype=torch.float64, device=device)
        self._tiles = 0
        self._ready: dict[tuple[Any, ...], Any] = {}

    def activations(self, channels: int, n: int, size: int, dtype: torch.dtype) -> Tensor:
        """Uninitialised activations of ``n`` images, shape ``(channels, pitch)``."""
        shape = channels, pitch_of(n, size)
        if plane_of(size) > max(_LARGEST_PLANE, size * size):  # rows leaves the gaps alone
            return torch.zeros(shape, dtype=dtype, device=self.device)
        return torch.empty(shape, dtype=dtype, device=self.device)

    def _launch(
        self, kernel: Any, programs: int, args: tuple[Any, ...], constants: tuple[Any, ...],
        warps: int = 4, stages: int = 3,
    ) -> None:  # fmt: skip
        """Launch a kernel, past Triton's look at every argument where it has been seen before.

        What a compiled kernel depends on is its constants and the types of its tensors: all
        pointers are multiples of 16 bytes, and integers are not specialised, but for pitches,
        which are all multiples of :data:`PITCH`.
        """
        types = tuple([x.dtype for x in args if isinstance(x, Tensor)])
        key = (kernel, constants, types)
        ready = self._ready.get(key)
        if ready is not None:
            ready[(programs, 1, 1)](*args, *constants)
            return
        # Products and sums are rounded one by one, as everywhere else.
        ready = kernel[(programs,)](
            *args, *constants, num_warps=warps, num_stages=stages, enable_fp_fusion=False
        )
        if ready is not None:  # it is None where kernels are interpreted
            self._ready[key] = ready

    def _scratch(self, channels: int) -> Tensor:
        elements = channels * 4 * self._tiles
        if self._stats.numel() < elements:
            self._stats = torch.empty(elements, dtype=torch.float64, device=self.device)
        return self._stats

    def bands(self, layer: Layer, weight: Weight, n: int, *, back: bool = False) -> Weight:
        """The weight as :meth:`convolve` wants it: as band matrices for a small spatial layer."""
        plan = _plan_of(layer, n, back, finished=False)
        if plan.kind != "planes":
            return weight
        rows, columns = plan.bands
        kind = self.backward_type if back else self.forward_type
        filters = plan.outputs * (1 if layer.groups > 1 else layer.c_in)
        out = torch.empty(filters, rows, columns, dtype=kind, device=self.device)
        bs, bd = min(rows, 64), min(columns, 64)
        self._launch(
            kernels.band_matrices, filters * (rows // bs) * (columns // bd),
            (weight.data, out, layer.kernel),
            (*plan.shape[:5], back, rows, columns, bs, bd),
        )  # fmt: skip
        return Weight(out, weight.row, weight.scale)

    def convolve(
        self, layer: Layer, weight: Weight, source: Source, target: Target, n: int
    ) -> None:
        """One convolution on ``n`` images, or its gradient with respect to its input.

        It is the gradient if the source is read as ``IN_GRADIENT``; then ``weight`` is still the
        convolution's own. The weight has gone through :meth:`bands`.
        """
        back = source.how == 4
        plan = _plan_of(layer, n, back, finished=target.how in _FINISHED)
        self._tiles = plan.tiles
        v = self.vectors
        c, norm = source.coefficients, target.norm
        in_a, in_b, in_c = (v.p[c], v.q[c], v.r[c]) if back else (v.a[c], v.b[c], v.b[c])
        out = target.data
        scale, span_in, span_out = weight.scale, source.span, target.span
        quantised = 0 if scale is None else 1 if span_in is None else 2
        other, raw, x_raw = target.other, target.raw, source.raw
        ends = (
            in_a, in_b, in_c, in_a if span_in is None else span_in, source.top,
            in_a if scale is None else scale, v.a[norm], v.b[norm], v.mean[norm],
            in_a if span_out is None else span_out, target.top,
            out if other is None else other, out if raw is None else raw,
            self._scratch(plan.outputs), plan.tiles,
        )  # fmt: skip
        modes = (
            source.how, target.how, quantised, target.relu, other is not None,
            self._triton_type[back],
        )  # fmt: skip
        begin = (source.data, source.data if x_raw is None else x_raw, weight.data, out)
        if plan.kind == "pointwise":
            middle: tuple[int, ...] = (
                plan.pixels, plan.inputs, plan.outputs, weight.row, out.shape[1], plan.group,
                *plan.plane,
            )  # fmt: skip
            self._launch(
                kernels.pointwise, plan.programs, (*begin, *middle, *ends),
                (*modes, *plan.shape, *plan.tile), plan.warps, plan.stages,
            )  # fmt: skip
            return
        kernel = kernels.planes if plan.kind == "planes" else kernels.rows
        middle = (n, plan.outputs, layer.kernel, source.data.shape[1], out.shape[1])
        self._launch(
            kernel, plan.programs, (*begin, *middle, *ends), (*plan.shape, *modes, *plan.tile),
            plan.warps, plan.stages,
        )  # fmt: skip

    def settle(
        self, number: int, layer: Layer, n: int, gamma: Tensor, beta: Tensor, *, span: bool,
        scale: Tensor | None = None, span_in: Tensor | None = None, top_in: float = 1.0,
    ) -> None:  # fmt: skip
        """Batch norm of the convolution launched last.

        Args:
            number: of the layer.
            layer: its shape.
            n: number of images.
            gamma: the norm's scale.
            beta: its shift.
            span: whether the range behind its ReLU6 is wanted.
            scale: sizes of the weight's levels, if levels are what the convolution multiplied.
            span_in: range of its input, likewise.
            top_in: highest level of its input.
        """
        v = self.vectors
        args = (
            self._stats, self._tiles, n * layer.size_out**2, gamma, beta,
            gamma if scale is None else scale, v.span[number] if span_in is None else span_in,
            top_in, v.a[number], v.b[number], v.mean[number], v.rstd[number], v.span[number + 1],
        )  # fmt: skip
        constants = (scale is not None, span_in is not None, span, 1024)
        self._launch(kernels.settle, layer.c_out, args, constants)

    def close(
        self, number: int, layer: Layer, n: int, raw: Tensor, out: Tensor, other: Tensor | None,
        *, relu: bool, span: bool,
    ) -> None:  # fmt: skip
        """The output of a block from the raw outputs of its last layer."""
        v = self.vectors
        size, plane = 1024, plane_of(layer.size_out)
        args = (
            raw, v.a[number], v.b[number], out if other is None else other, out,
            v.span[number + 1], n * plane, out.shape[1], plane, layer.size_out**2,
        )  # fmt: skip
        constants = (relu, other is not None, span, size)
        self._launch(kernels.close, layer.c_out * -(-n * plane // size), args, constants)

    def settle_gradient(
        self, number: int, layer: Layer, n: int, gamma: Tensor, gamma_grad: Tensor | None,
        beta_grad: Tensor | None,
    ) -> None:  # fmt: skip
        """Batch norm's gradient from the sums of the gradient launched last."""
        v = self.vectors
        args = (
            self._stats, self._tiles, n * layer.size_out**2, gamma, v.mean[number],
            v.rstd[number], v.p[number], v.q[number], v.r[number], gamma_grad, beta_grad,
        )  # fmt: skip
        self._launch(kernels.settle_gradient, layer.c_out, args, (1024,))

    def pooled_gradient(
        self, number: int, layer: Layer, n: int, pooled: Tensor, raw: Tensor, out: Tensor, *,
        relu: bool,
    ) -> None:  # fmt: skip
        """The gradient of the last layer's activations from that of their averages."""
        v = self.vectors
        size, plane = 1024, plane_of(layer.size_out)
        self._tiles = -(-n * plane // size)
        args = (
            pooled, raw, v.a[number], v.b[number], v.mean[number], out,
            self._scratch(layer.c_out), n * plane, n, out.shape[1], self._tiles,
            plane, layer.size_out**2,
        )  # fmt: skip
        programs = layer.c_out * self._tiles
        self._launch(kernels.pooled_gradient, programs, args, (relu, size))

    def quantise(
        self, weight: Tensor, outputs: int, inputs: int, row: int, bits: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Levels, dequantised values and size of a level of a weight's leading rows."""
        levels = torch.empty(outputs, inputs, dtype=self.forward_type, device=self.device)
        values = torch.empty(outputs, inputs, dtype=self.backward_type, device=self.device)
        scale = torch.empty(outputs, device=self.device)
        args = (weight, levels, values, scale, inputs, row, float(2 ** (bits - 1) - 1))
        self._launch(kernels.quantise_rows, outputs, args, (power_of_two(inputs, 16, 65536),))
        return levels, values, scale

    def weight_gradient(
        self, number: int, layer: Layer, du: Tensor, raw: Tensor, source: Source, n: int,
        grad: Tensor,
    ) -> None:  # fmt: skip
        """Add the gradient of a convolution's weight to the leading part of ``grad``."""
        v = self.vectors
        c = source.coefficients
        kind = self._triton_type[True]
        span = v.span[0] if source.span is None else source.span
        ends = (v.p[number], v.q[number], v.r[number], v.a[c], v.b[c], span, source.top)
        size_in, size_out = layer.size, layer.size_out
        if layer.kernel == 1 and layer.groups == 1 and layer.stride == 1:
            plane = plane_of(size_out)
            pixels = n * plane
            bm, bn = power_of_two(layer.c_out, 16, 128), power_of_two(layer.c_in, 16, 128)
            bk = 64
            tiles = -(-layer.c_out // bm) * -(-layer.c_in // bn)
            splits = max(1, min(_PROGRAMS // 2 // tiles, pixels // (bk * 4)))
            chunk = -(-pixels // (splits * bk)) * bk
            splits = -(-pixels // chunk)
            out = torch.empty(splits, layer.c_out, layer.c_in, device=self.device)
            self._launch(
                kernels.pointwise_weights, tiles * splits,
                (du, raw, source.data, out, pixels, layer.c_in, layer.c_out, du.shape[1], chunk,
                 plane, size_out**2, *ends),
                (source.how, kind, bm, bn, bk),
                8 if bm * bn > 8192 else 4,
            )  # fmt: skip
            self._add_parts(out, layer.c_in, grad)
            return
        outputs = layer.c_out * (1 if layer.groups > 1 else layer.c_in)
        planes = (plane_of(size_in), plane_of(size_out))
        shape = (size_in, size_in, size_out, size_out, layer.stride, *planes, layer.kernel)
        small = layer.groups > 1 and max(planes) <= 64
        per_tile = 64
        tiles = -(-(n if small else n * size_out) // per_tile)
        splits = max(1, min(2 * _PROGRAMS // outputs, tiles // 4))
        out = torch.empty(splits, outputs, layer.kernel**2, device=self.device)
        channels = outputs if small else layer.c_out
        args = (
            du, raw, source.data, out, n, channels, source.data.shape[1], du.shape[1], splits,
            *ends,
        )  # fmt: skip
        if small:
            constants = (
                *shape, source.how, kind, per_tile, power_of_two(size_in**2, 16, 64),
                power_of_two(size_out**2, 16, 64),
            )  # fmt: skip
            self._launch(kernels.planes_weights, outputs * splits, args, constants)
        else:
            constants = (
                *shape, 0 if layer.groups > 1 else layer.c_in, source.how, kind, per_tile,
                power_of_two(size_in, 16, 256), power_of_two(size_out, 16, 256),
            )  # fmt: skip
            self._launch(kernels.rows_weights, outputs * splits, args, constants)
        self._add_parts(out, outputs // layer.c_out * layer.kernel**2, grad)

    def _add_parts(self, parts: Tensor, columns: int, grad: Tensor) -> None:
        count = parts[0].numel()
        args = (parts, grad, len(parts), count, columns, grad.stride(0))
        self._launch(kernels.add_parts, -(-count // 256), args, (256,))


_FINISHED = (kernels.OUT_LEVELS.value, kernels.OUT_NORMED.value)


def _plan_of(layer: Layer, n: int, back: bool, *, finished: bool) -> _Plan:
    return _plan(
        layer.c_in, layer.c_out, layer.size, layer.size_out, layer.kernel, layer.stride,
        layer.groups, n, back, finished,
    )  # fmt: skip


_TYPES = {
    torch.float16: triton.language.float16,
    torch.bfloat16: triton.language.bfloat16,
    torch.float32: triton.language.float32,
}

"""Memory of the kernels, and how they are launched for one layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from apq_moo.space import Layer, Space
from apq_moo.supernet.gpu import convolutions, norms, primitives, weight_gradients
from apq_moo.supernet.gpu.plans import (
    LARGEST_PLANE,
    PROGRAMS,
    pitch_of,
    plan_of,
    plane_of,
    power_of_two,
)

STARTED_DIRECTLY = "3.6."
"""Versions of Triton whose compiled kernels were tried without its public launch."""


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
        how: one of the ``IN_*`` ways of :mod:`~apq_moo.supernet.gpu.primitives`.
        coefficients: number of the layer whose batch norm (or its gradient) is applied on reading.
        raw: a second tensor of the same shape, for ``IN_GRADIENT``.
        span: range of the activation, if levels are multiplied; the weights are levels then too.
        top: its highest level.
        stored: span of the integers that are read, for ``IN_STORED``.
    """

    data: Tensor
    how: int
    coefficients: int = 0
    raw: Tensor | None = None
    span: Tensor | None = None
    top: float = 1.0
    stored: Tensor | None = None


@dataclass(frozen=True)
class Target:
    """What a convolution writes.

    Attributes:
        data: where, ``(channels, pitch)``.
        how: one of the ``OUT_*`` ways.
        norm: number of the layer whose batch norm is applied, or recorded.
        relu: whether a ReLU6 follows the norm.
        other: what is added: the shortcut, or the gradient that came around it.
        raw: the raw outputs that the gradient meets, for ``OUT_GRADIENT``.
        span: range of the next layer's input, for ``OUT_LEVELS``; the three of ``OUT_STORED``; for
            ``OUT_GRADIENT`` the range in which the activations that it leads to were rounded.
        top: its highest level.
        entered: these activations, where they were read from between blocks.
    """

    data: Tensor
    how: int
    norm: int = 0
    relu: bool = False
    other: Tensor | None = None
    raw: Tensor | None = None
    span: Tensor | None = None
    top: float = 1.0
    entered: Tensor | None = None


class Vectors:
    """Per-layer vectors of up to ``channels`` numbers."""

    def __init__(self, layers: int, channels: int, device: torch.device) -> None:
        # Padded, so that every vector begins at a multiple of 16 bytes.
        store = torch.zeros(7, layers, -(-channels // 4) * 4, device=device)
        self.a, self.b, self.mean, self.rstd, self.p, self.q, self.r = (
            list(part.unbind(0)) for part in store
        )


class Workspace:
    """Launches kernels on one device, with scratch memory that grows as needed.

    Args:
        space: whose networks run.
        device: where everything lies.
        forward_type: in which products of activations are taken.
        backward_type: in which products of gradients are taken.
    """

    def __init__(
        self,
        space: Space,
        device: torch.device,
        *,
        forward_type: torch.dtype = torch.float16,
        backward_type: torch.dtype = torch.bfloat16,
    ) -> None:
        self.device = device
        self.forward_type = forward_type
        self.backward_type = backward_type
        self._triton_type = {True: _TYPES[backward_type], False: _TYPES[forward_type]}
        layers = space.layers(space.decode(space.largest())[0])
        self.vectors = Vectors(len(layers), max(layer.c_out for layer in layers), device)
        self._stats = torch.empty(0, dtype=torch.float64, device=device)
        self._tiles = 0
        self._ready: dict[tuple[Any, ...], Callable[..., None]] = {}
        self._tensors: dict[int, tuple[int, ...]] = {}

    def activations(self, channels: int, n: int, size: int, dtype: torch.dtype) -> Tensor:
        """Uninitialised activations of ``n`` images, shape ``(channels, pitch)``."""
        shape = channels, pitch_of(n, size)
        if plane_of(size) > max(LARGEST_PLANE, size * size):  # rows leaves the gaps alone
            return torch.zeros(shape, dtype=dtype, device=self.device)
        return torch.empty(shape, dtype=dtype, device=self.device)

    def _launch(
        self, kernel: Any, programs: int, args: tuple[Any, ...], constants: tuple[Any, ...],
        warps: int = 4, stages: int = 3,
    ) -> None:  # fmt: skip
        """Launch a kernel, past Triton's look at every argument where it has been seen before.

        What a compiled kernel depends on is its constants and the types of its tensors: all
        pointers are multiples of 16 bytes, and integers are not specialised, but for pitches,
        which are all multiples of :data:`PITCH`. It is then started as Triton itself starts it,
        without the description it would make for profilers: subnets of usual size run as fast as
        the host can launch them. How Triton starts a kernel is not public, so versions other than
        :data:`STARTED_DIRECTLY` launch every time as the public interface does.
        """
        number = id(kernel)  # a kernel's own hash is slow
        tensors = self._tensors.get(number)
        if tensors is None:
            found = [place for place, x in enumerate(args) if isinstance(x, Tensor)]
            tensors = self._tensors[number] = tuple(found)
        key = number, constants, tuple([args[place].dtype for place in tensors])
        start = self._ready.get(key)
        if start is not None:
            plain = list(args)
            for place in tensors:
                plain[place] = args[place].data_ptr()
            start(programs, args[tensors[0]].get_device(), plain, constants)
            return
        # Products and sums are rounded one by one, as everywhere else.
        compiled = kernel[(programs,)](
            *args, *constants, num_warps=warps, num_stages=stages, enable_fp_fusion=False
        )
        # It is None where kernels are interpreted.
        if compiled is not None and triton.__version__.startswith(STARTED_DIRECTLY):
            self._ready[key] = _starter(compiled)

    def _scratch(self, channels: int) -> Tensor:
        elements = channels * 4 * self._tiles
        if self._stats.numel() < elements:
            self._stats = torch.empty(elements, dtype=torch.float64, device=self.device)
        return self._stats

    @property
    def scratch(self) -> Tensor:
        """Memory of partial statistics as it is now: what was launched uses it."""
        return self._stats

    def bands(self, layer: Layer, weight: Weight, n: int, *, back: bool = False) -> Weight:
        """The weight as :meth:`convolve` wants it: as band matrices for a small spatial layer."""
        plan = plan_of(layer, n, back, finished=False)
        if plan.kind != "planes":
            return weight
        rows, columns = plan.bands
        kind = self.backward_type if back else self.forward_type
        filters = plan.outputs * (1 if layer.groups > 1 else layer.c_in)
        out = torch.empty(filters, rows, columns, dtype=kind, device=self.device)
        bs, bd = min(rows, 64), min(columns, 64)
        self._launch(
            convolutions.band_matrices, filters * (rows // bs) * (columns // bd),
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
        plan = plan_of(layer, n, back, finished=target.how in _FINISHED)
        self._tiles = plan.tiles
        v = self.vectors
        c, norm = source.coefficients, target.norm
        in_a, in_b, in_c = (v.p[c], v.q[c], v.r[c]) if back else (v.a[c], v.b[c], v.b[c])
        if source.stored is not None:
            in_a = source.stored
        out = target.data
        scale, span_in, span_out = weight.scale, source.span, target.span
        entered, other, raw, x_raw = target.entered, target.other, target.raw, source.raw
        quantised = 0 if scale is None else 1 if span_in is None else 2
        if back:
            quantised = 0 if span_out is None else 1 if entered is None else 2
        ends = (
            in_a, in_b, in_c, in_a if span_in is None else span_in, source.top,
            in_a if scale is None else scale, v.a[norm], v.b[norm], v.mean[norm],
            in_a if span_out is None else span_out, target.top,
            out if other is None else other, out if raw is None else raw,
            out if entered is None else entered,
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
                convolutions.pointwise, plan.programs, (*begin, *middle, *ends),
                (*modes, *plan.shape, *plan.tile), plan.warps, plan.stages,
            )  # fmt: skip
            return
        kernel = convolutions.planes if plan.kind == "planes" else convolutions.rows
        middle = (n, plan.outputs, layer.kernel, source.data.shape[1], out.shape[1])
        self._launch(
            kernel, plan.programs, (*begin, *middle, *ends), (*plan.shape, *modes, *plan.tile),
            plan.warps, plan.stages,
        )  # fmt: skip

    def settle(
        self, number: int, layer: Layer, n: int, gamma: Tensor, beta: Tensor, *,
        scale: Tensor | None = None, span_in: Tensor | None = None, top_in: float = 1.0,
    ) -> None:  # fmt: skip
        """Batch norm of the convolution launched last.

        Args:
            number: of the layer.
            layer: its shape.
            n: number of images.
            gamma: the norm's scale.
            beta: its shift.
            scale: sizes of the weight's levels, if levels are what the convolution multiplied.
            span_in: range of its input, likewise.
            top_in: highest level of its input.
        """
        v = self.vectors
        args = (
            self._stats, self._tiles, n * layer.size_out**2, gamma, beta,
            gamma if scale is None else scale, gamma if span_in is None else span_in,
            top_in, v.a[number], v.b[number], v.mean[number], v.rstd[number],
        )  # fmt: skip
        constants = (scale is not None, span_in is not None, 1024)
        self._launch(norms.settle, layer.c_out, args, constants)

    def close(
        self, number: int, layer: Layer, n: int, raw: Tensor, out: Tensor, other: Tensor | None,
        stored: Tensor | None = None,
    ) -> None:  # fmt: skip
        """The output of a block from the raw outputs of its last layer.

        Args:
            number: of the layer.
            layer: its shape.
            n: number of images.
            raw: what it gave.
            out: where to write.
            other: the shortcut.
            stored: spans of integers, if these are written; see ``OUT_STORED``.
        """
        v = self.vectors
        size, plane = 1024, plane_of(layer.size_out)
        args = (
            raw, v.a[number], v.b[number], out if other is None else other, out,
            v.a[number] if stored is None else stored, n * plane, out.shape[1],
        )  # fmt: skip
        constants = (layer.activation is not None, other is not None, stored is not None, size)
        self._launch(norms.close, layer.c_out * -(-n * plane // size), args, constants)

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
        self._launch(norms.settle_gradient, layer.c_out, args, (1024,))

    def pooled_gradient(
        self, number: int, layer: Layer, n: int, pooled: Tensor, raw: Tensor, out: Tensor
    ) -> None:
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
        constants = (layer.activation is not None, size)
        self._launch(norms.pooled_gradient, programs, args, constants)

    def quantise(
        self, weight: Tensor, outputs: int, inputs: int, row: int, bits: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Levels, dequantised values and size of a level of a weight's leading rows."""
        levels = torch.empty(outputs, inputs, dtype=self.forward_type, device=self.device)
        values = torch.empty(outputs, inputs, dtype=self.backward_type, device=self.device)
        scale = torch.empty(outputs, device=self.device)
        args = (weight, levels, values, scale, inputs, row, float(2 ** (bits - 1) - 1))
        self._launch(norms.quantise_rows, outputs, args, (power_of_two(inputs, 16, 65536),))
        return levels, values, scale

    def weight_gradient(
        self, number: int, layer: Layer, du: Tensor, raw: Tensor, source: Source, n: int,
        grad: Tensor,
    ) -> None:  # fmt: skip
        """Add the gradient of a convolution's weight to the leading part of ``grad``."""
        v = self.vectors
        c = source.coefficients
        kind = self._triton_type[True]
        span = v.a[c] if source.span is None else source.span
        ends = (v.p[number], v.q[number], v.r[number], v.a[c], v.b[c], span, source.top)
        size_in, size_out = layer.size, layer.size_out
        if layer.kernel == 1 and layer.groups == 1 and layer.stride == 1:
            plane = plane_of(size_out)
            pixels = n * plane
            bm, bn = power_of_two(layer.c_out, 16, 128), power_of_two(layer.c_in, 16, 128)
            bk = 64
            tiles = -(-layer.c_out // bm) * -(-layer.c_in // bn)
            splits = max(1, min(PROGRAMS // 2 // tiles, pixels // (bk * 4)))
            chunk = -(-pixels // (splits * bk))
            splits = -(-pixels // (chunk * bk))
            out = torch.empty(splits, layer.c_out, layer.c_in, device=self.device)
            self._launch(
                weight_gradients.pointwise_weights, tiles * splits,
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
        splits = max(1, min(2 * PROGRAMS // outputs, tiles // 4))
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
            self._launch(weight_gradients.planes_weights, outputs * splits, args, constants)
        else:
            inputs = 0 if layer.groups > 1 else layer.c_in
            blocks = (per_tile, power_of_two(size_in, 16, 256), power_of_two(size_out, 16, 256))
            self._launch(
                weight_gradients.rows_weights, outputs * splits, args,
                (*shape, inputs, source.how, kind, *blocks),
            )  # fmt: skip
        self._add_parts(out, outputs // layer.c_out * layer.kernel**2, grad)

    def _add_parts(self, parts: Tensor, columns: int, grad: Tensor) -> None:
        count = parts[0].numel()
        args = (parts, grad, len(parts), count, columns, grad.stride(0))
        self._launch(weight_gradients.add_parts, -(-count // 256), args, (256,))


def _starter(compiled: Any) -> Callable[[int, int, list[Any], tuple[Any, ...]], None]:
    """What starts a compiled kernel: programs, device, arguments and constants."""
    stream_of = triton.runtime.driver.active.get_current_stream
    run, function, described = compiled.run, compiled.function, compiled.packed_metadata

    def usual(programs: int, device: int, args: list[Any], constants: tuple[Any, ...]) -> None:
        stream = stream_of(device)
        run(programs, 1, 1, stream, function, described, None, None, None, *args, *constants)

    if run.global_scratch_size or run.profile_scratch_size:
        return usual
    launch, together, early = run.launch, run.launch_cooperative_grid, run.launch_pdl

    def at_once(programs: int, device: int, args: list[Any], constants: tuple[Any, ...]) -> None:
        launch(
            programs, 1, 1, stream_of(device), function, together, early, None, None,
            described, None, None, None, *args, *constants,
        )  # fmt: skip

    return at_once


_FINISHED = tuple(
    way.value for way in (primitives.OUT_LEVELS, primitives.OUT_NORMED, primitives.OUT_STORED)
)

_TYPES = {
    torch.float16: triton.language.float16,
    torch.bfloat16: triton.language.bfloat16,
    torch.float32: triton.language.float32,
}

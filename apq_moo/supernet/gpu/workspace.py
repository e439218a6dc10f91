"""Memory of the kernels, and how they are launched for one layer."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
from torch import Tensor

from apq_moo.space import Layer, Space
from apq_moo.supernet.gpu import convolutions, norms, primitives, weight_gradients
from apq_moo.supernet.gpu.launching import Launcher, in_place_of
from apq_moo.supernet.gpu.operands import Source, Target, Weight
from apq_moo.supernet.gpu.patches import patch_of
from apq_moo.supernet.gpu.plans import PROGRAMS, Plan, Tile, in_patches, plan_of, weights_tile
from apq_moo.supernet.gpu.sizes import pitch_of, plane_of, power_of_two


class Vectors:
    """Per-layer vectors of up to ``channels`` numbers."""

    def __init__(self, layers: int, channels: int, device: torch.device) -> None:
        # Padded, so that every vector begins at a multiple of 16 bytes.
        store = torch.zeros(7, layers, -(-channels // 4) * 4, device=device)
        self.a, self.b, self.mean, self.rstd, self.p, self.q, self.r = (
            list(part.unbind(0)) for part in store
        )


class Workspace(Launcher):
    """Launches kernels on one device, in rooms of memory that stay where they are.

    What is kept for repetition refers to them, and is forgotten when a room becomes too small.

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
        super().__init__(device)
        self.forward_type = forward_type
        self.backward_type = backward_type
        self._triton_type = {True: _TYPES[backward_type], False: _TYPES[forward_type]}
        self.largest = layers = space.layers(space.decode(space.largest())[0])
        self.vectors = Vectors(len(layers), max(layer.c_out for layer in layers), device)
        self._numbers = {layer.name: number for number, layer in enumerate(layers)}
        self._rooms: dict[str, Tensor] = {}
        self._views: dict[tuple[str, tuple[int, ...], torch.dtype], Tensor] = {}
        self._most: dict[int, int] = {}
        self._stats = torch.empty(0, dtype=torch.float64, device=device)
        self._tiles = 0

    @property
    def rooms(self) -> tuple[Tensor, ...]:
        """All memory there is now: what was launched uses it."""
        return tuple(self._rooms.values())

    def number(self, layer: Layer) -> int:
        """A layer's number among those of the largest network: that of its vectors."""
        return self._numbers[layer.name]

    def room(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, *, zero: bool = False
    ) -> Tensor:
        """Memory of this name, in the same place for every shape that is no larger.

        Args:
            name: of the room.
            shape: of the tensor that is wanted.
            dtype: its type.
            zero: whether it is 0 until something is written; else it holds whatever was.
        """
        found = self._views.get((name, shape, dtype))
        if found is not None:
            return found
        size = math.prod(shape) * dtype.itemsize
        held = self._rooms.get(name)
        if held is None or held.numel() < size:
            if held is not None:
                size += size // 2  # each time that it grows much is forgotten
                self.forget()
                self._views.clear()
                del held, self._rooms[name]
            make = torch.zeros if zero else torch.empty
            held = self._rooms[name] = make(max(size, 16), dtype=torch.uint8, device=self.device)
        found = self._views[name, shape, dtype] = in_place_of(held, shape, dtype)
        return found

    def activations(
        self, room: str, layer: Layer, n: int, dtype: torch.dtype, *, back: bool = False
    ) -> Tensor:
        """A room for a layer's outputs on ``n`` images, or for its inputs with ``back``.

        Their shape is ``(channels, pitch)``.
        """
        channels, size = (layer.c_in, layer.size) if back else (layer.c_out, layer.size_out)
        shape = channels, pitch_of(n, size)
        patches = layer.groups > 1 and in_patches(layer.size, layer.size_out)
        if patches and plane_of(size) > size * size:  # they leave gaps alone
            return self.room(f"{room} {size} {n} {dtype}", shape, dtype, zero=True)
        return self.room(room, shape, dtype)

    def between(self, n: int, dtype: torch.dtype, *, back: bool = False) -> tuple[Tensor, Tensor]:
        """Two rooms for what lies between blocks, or for its gradients, large enough for all."""
        size = self._most.get(n)
        if size is None:
            sizes = [x.c_out * pitch_of(n, x.size_out) for x in self.largest if x.leaves_block]
            size = self._most[n] = max(sizes)
        name = "gradients" if back else "stored"
        first, second = (self.room(f"{name} {side}", (size,), dtype) for side in (0, 1))
        return first, second

    def _scratch(self, channels: int) -> Tensor:
        self._stats = self.room("statistics", (channels * 2 * self._tiles,), torch.float64)
        return self._stats

    def bands(
        self, room: str, layer: Layer, weight: Weight, *, back: bool = False, made: bool = False
    ) -> Weight:
        """The weight as :meth:`convolve` wants it: as band matrices for a depthwise layer.

        Args:
            room: where these lie.
            layer: a convolution.
            weight: its own.
            back: for its gradient with respect to the input.
            made: they lie there already.
        """
        plan = self._plan(layer, 1, back, finished=False, read=4)
        if plan.kind not in ("planes", "patches"):
            return weight
        rows, columns = plan.bands
        if plan.kind == "planes":
            source, _, dest, _, stride, *_ = plan.shape
            wide = source, dest
            there = (0, 0, source * source, dest * dest)
        else:
            patch, stride = patch_of(layer.kernel, layer.stride, back=back), layer.stride
            wide = patch.across, patch.width
            there = (patch.top, patch.left, rows, columns)
        kind = self.backward_type if back else self.forward_type
        out = self.room(room, (plan.outputs, rows, columns), kind)
        if made:
            return Weight(out, weight.row, weight.scale)
        top, left, inputs, outputs = there
        bs, bd = math.gcd(rows, 64), min(columns, 64)
        self.launch(
            convolutions.band_matrices, plan.outputs * (rows // bs) * (columns // bd),
            (weight.data, out, layer.kernel, top, left, rows, columns, inputs, outputs),
            (*wide, stride, back, bs, bd),
        )  # fmt: skip
        return Weight(out, weight.row, weight.scale)

    def _plan(self, layer: Layer, n: int, back: bool, *, finished: bool, read: int) -> Plan:
        product = (self.backward_type if back else self.forward_type).itemsize
        return plan_of(
            layer, n, back, finished=finished, read=read, product=product, limit=self.shared
        )

    def convolve(
        self, layer: Layer, weight: Weight, source: Source, target: Target, n: int
    ) -> None:
        """One convolution on ``n`` images, or its gradient with respect to its input.

        It is the gradient if the source is read as ``IN_GRADIENT``; then ``weight`` is still the
        convolution's own. The weight has gone through :meth:`bands`.
        """
        back = source.how == 4
        read = source.data.element_size()
        if source.raw is not None:
            read += source.raw.element_size()
        plan = self._plan(layer, n, back, finished=target.how in _FINISHED, read=read)
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
            in_a, in_b, in_c, in_a if span_in is None else span_in,
            in_a if scale is None else scale, v.a[norm], v.b[norm], v.mean[norm],
            in_a if span_out is None else span_out,
            out if other is None else other, out if raw is None else raw,
            out if entered is None else entered,
            self._scratch(plan.outputs), plan.tiles,
        )  # fmt: skip
        modes = (
            source.how, target.how, quantised, target.relu, other is not None,
            self._triton_type[back],
        )  # fmt: skip
        begin = (source.data, source.data if x_raw is None else x_raw, weight.data, out)
        tile, pitches = plan.tile, (source.data.shape[1], out.shape[1])
        args: tuple[Any, ...]
        constants: tuple[Any, ...]
        if plan.kind == "pointwise":
            kernel = convolutions.pointwise
            plane = plane_of(layer.size_out)
            middle: tuple[int, ...] = (plan.inputs, plan.outputs, weight.row, pitches[1])
            args = (*begin, n * plane, *middle, plan.group, plane, layer.size_out**2, *ends)
            constants = (*modes, plan.short, tile.m, tile.n, tile.k)
        elif plan.kind == "dense":
            kernel = convolutions.dense
            middle = (n, plan.outputs, layer.kernel, layer.c_in)
            args = (source.data, weight.data, out, *middle, *pitches, *ends[3:])
            constants = (*plan.shape, *modes, tile.m, tile.n, tile.k)
        elif plan.kind == "planes":
            kernel = convolutions.planes
            args = (*begin, n, plan.outputs, layer.kernel, *pitches, *ends)
            constants = (*plan.shape, *modes, tile.m, tile.k, tile.n, *plan.bands)
        else:
            kernel = convolutions.patches
            patch = patch_of(layer.kernel, layer.stride, back=back)
            args = (*begin, n, plan.outputs, plan.bands[0], patch.top, *pitches, *ends)
            constants = (
                *plan.shape, *modes, patch.height, patch.width, *patch.step, *patch.base,
                patch.left, patch.across, tile.m, tile.k,
            )  # fmt: skip
        self.launch(kernel, plan.programs, args, constants, tile.warps, tile.stages)

    def settle(
        self, number: int, layer: Layer, n: int, gamma: Tensor, beta: Tensor, *,
        scale: Tensor | None = None, span_in: Tensor | None = None,
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
        """
        v = self.vectors
        args = (
            self._stats, self._tiles, n * layer.size_out**2, gamma, beta,
            gamma if scale is None else scale, gamma if span_in is None else span_in,
            v.a[number], v.b[number], v.mean[number], v.rstd[number],
        )  # fmt: skip
        size, warps = self._summed()
        constants = (scale is not None, span_in is not None, size)
        self.launch(norms.settle, layer.c_out, args, constants, warps)

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
        self.launch(norms.close, layer.c_out * -(-n * plane // size), args, constants)

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
        size, warps = self._summed()
        self.launch(norms.settle_gradient, layer.c_out, args, (size,), warps)

    def _summed(self) -> tuple[int, int]:
        """Tiles whose statistics are summed at a time, and warps: a program takes a channel's."""
        return (1024, 4) if self._tiles <= _MANY_TILES else (8192, 16)

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
        self.launch(norms.pooled_gradient, programs, args, constants)

    def quantise(
        self, room: str, weight: Tensor, outputs: int, inputs: int, row: int, bits: int
    ) -> None:
        """Round a weight's leading rows; see :meth:`quantised`."""
        levels, values, scale = self.quantised(room, outputs, inputs)
        args = (weight, levels, values, scale, inputs, row, float(2 ** (bits - 1) - 1))
        self.launch(norms.quantise_rows, outputs, args, (power_of_two(inputs, 16, 65536),))

    def quantised(self, room: str, outputs: int, inputs: int) -> tuple[Tensor, Tensor, Tensor]:
        """Levels, dequantised values and size of a level of what :meth:`quantise` rounded."""
        return (
            self.room(f"{room} levels", (outputs, inputs), self.forward_type),
            self.room(f"{room} values", (outputs, inputs), self.backward_type),
            self.room(f"{room} scale", (outputs,), torch.float32),
        )

    def weight_gradient(
        self, number: int, layer: Layer, du: Tensor, raw: Tensor, source: Source, n: int,
        grad: Tensor,
    ) -> None:  # fmt: skip
        """Add the gradient of a convolution's weight to the leading part of ``grad``."""
        way = self._dense_weights if layer.groups == 1 else self._depthwise_weights
        kernel, programs, args, constants, tile = way(number, layer, du, raw, source, n)
        self.launch(kernel, programs, args, constants, tile.warps, tile.stages)
        self._add_parts(args[3], layer.c_in // layer.groups * layer.kernel**2, grad)

    def _weights_ends(self, number: int, source: Source) -> tuple[Tensor, ...]:
        v, c = self.vectors, source.coefficients
        span = v.a[c] if source.span is None else source.span
        return v.p[number], v.q[number], v.r[number], v.a[c], v.b[c], span

    def _weights_tile(self, kind: str, outputs: int, inputs: int, source: Source) -> Tile:
        return weights_tile(
            kind, outputs, inputs, read=source.data.element_size(),
            product=self.backward_type.itemsize, limit=self.shared,
        )  # fmt: skip

    def _dense_weights(
        self, number: int, layer: Layer, du: Tensor, raw: Tensor, source: Source, n: int
    ) -> _Launch:
        pointwise = layer.kernel == layer.stride == 1
        outputs, columns = layer.c_out, layer.c_in * layer.kernel**2
        plane = plane_of(layer.size_out)
        pixels, pitch = n * plane, du.shape[1]
        tile = self._weights_tile("pointwise" if pointwise else "dense", outputs, columns, source)
        tiles = -(-outputs // tile.m) * -(-columns // tile.n)
        splits = max(1, min(PROGRAMS // 2 // tiles, pixels // (tile.k * 4)))
        chunk = -(-pixels // (splits * tile.k))
        splits = -(-pixels // (chunk * tile.k))
        out = self.room("parts", (splits, outputs, columns), torch.float32)
        begin, cut = (du, raw, source.data, out), (tile.m, tile.n, tile.k)
        ends, modes = self._weights_ends(number, source), (source.how, self._triton_type[True])
        if pointwise:
            middle = (pixels, columns, outputs, pitch, chunk, plane, layer.size_out**2)
            kernel = weight_gradients.pointwise_weights
            return kernel, tiles * splits, (*begin, *middle, *ends), (*modes, *cut), tile
        middle = (n, outputs, layer.kernel, layer.c_in, source.data.shape[1], pitch, chunk)
        args = (*begin, *middle, *ends[:3], ends[5])
        constants = (*_planes(layer), *modes, *cut)
        return weight_gradients.dense_weights, tiles * splits, args, constants, tile

    def _depthwise_weights(
        self, number: int, layer: Layer, du: Tensor, raw: Tensor, source: Source, n: int
    ) -> _Launch:
        planes, outputs, chunks = _planes(layer), layer.c_out, 1
        if max(planes[-2:]) <= 64:
            kernel, works = weight_gradients.planes_weights, n
            ahead, behind = (power_of_two(s**2, 16, 64) for s in (layer.size_out, layer.size))
            tile = self._weights_tile("planes", ahead, behind, source)
            cut: tuple[int, ...] = (tile.k, tile.n, tile.m)
        else:
            kernel = weight_gradients.patches_weights
            patch = patch_of(layer.kernel, layer.stride, low=True)
            works = n * patch.count(layer.size_out)
            rows = min(power_of_two(patch.rows), max(1, 256 // patch.across))
            chunks = -(-patch.rows // rows)
            area = patch.height * patch.width
            tile = self._weights_tile("patches", area, rows * patch.across, source)
            cut = (
                patch.height, patch.width, patch.left, patch.across, chunks, tile.k, tile.n
            )  # fmt: skip
        splits = max(1, min(2 * PROGRAMS // (outputs * chunks), works // tile.k // 4))
        out = self.room("parts", (splits * chunks, outputs, layer.kernel**2), torch.float32)
        args = (
            du, raw, source.data, out, n, outputs, source.data.shape[1], du.shape[1], splits,
            *self._weights_ends(number, source),
        )  # fmt: skip
        constants = (*planes, layer.kernel, source.how, self._triton_type[True], *cut)
        return kernel, outputs * splits * chunks, args, constants, tile

    def _add_parts(self, parts: Tensor, columns: int, grad: Tensor) -> None:
        count = parts[0].numel()
        args = (parts, grad, len(parts), count, columns, grad.stride(0))
        self.launch(weight_gradients.add_parts, -(-count // 256), args, (256,))


def _planes(layer: Layer) -> tuple[int, ...]:
    """Constants of kernels that describe a layer's planes."""
    size, size_out = layer.size, layer.size_out
    planes = plane_of(size), plane_of(size_out)
    return (size, size, size_out, size_out, layer.stride, *planes)


_MANY_TILES = 8192
"""Above so many, reading their statistics takes long enough for wider programs to pay."""

_Launch = tuple[Any, int, tuple[Any, ...], tuple[Any, ...], Tile]
"""A kernel, its programs, its arguments and constants, and its tile."""

_FINISHED = tuple(
    way.value for way in (primitives.OUT_LEVELS, primitives.OUT_NORMED, primitives.OUT_STORED)
)

_TYPES = {
    torch.float16: triton.language.float16,
    torch.bfloat16: triton.language.bfloat16,
    torch.float32: triton.language.float32,
}

"""How activations lie in memory, and into which tiles convolutions are cut.

Each channel is a row of planes, one for each image. Planes begin at multiples of 8 elements, so
that threads can load several pixels at once, and rows at multiples of :data:`PITCH`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from apq_moo.space import Layer

PITCH = 256
"""Rows of activations begin at multiples of this many elements."""

_PLANE_STEP = 8
LARGEST_PLANE = 1024
PROGRAMS = 1024


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
class Plan:
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
) -> Plan:  # fmt: skip
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
            group = min(parts, -(-parts * tiles // (2 * PROGRAMS)))
        return Plan(
            "pointwise", outputs, inputs, pixels, tiles, -(-parts // group) * tiles, group,
            (short,), (bm, bn, bk), warps, plane=(plane_of(dest), dest * dest), stages=stages,
        )  # fmt: skip
    dense = c_in if groups == 1 else 0
    planes = (plane_of(source), plane_of(dest))
    if max(planes) <= LARGEST_PLANE:
        bs = power_of_two(source * source, 16, 64)
        bd = power_of_two(planes[1], 16, 64 if planes[0] > 256 else 128)
        images = 64 if bd == 128 else 256 if bd == 16 and finished else 128
        rows = -(-source * source // bs) * bs
        columns = -(-planes[1] // bd) * bd
        tiles = -(-n // images) * (columns // bd)
        shape = (source, source, dest, dest, stride, *planes, dense, back)
        return Plan(
            "planes", outputs, inputs, pixels, tiles, outputs * tiles, 1, shape,
            (images, bs, bd, rows, columns), 4, (rows, columns),
        )  # fmt: skip
    count = 128 if dest <= 16 else 64
    tiles = -(-n * dest // count)
    shape = (source, source, dest, dest, stride, *planes, dense, back)
    tile = (count, power_of_two(source, 16, 4096), power_of_two(dest, 16, 4096))
    return Plan("rows", outputs, inputs, pixels, tiles, outputs * tiles, 1, shape, tile, 4)


def _pointwise_tile(outputs: int, inputs: int, *, finished: bool) -> tuple[int, int, int, int, int]:
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


def plan_of(layer: Layer, n: int, back: bool, *, finished: bool) -> Plan:
    """How a layer is launched.

    Args:
        layer: a convolution.
        n: number of images.
        back: whether its gradient with respect to the input is meant.
        finished: whether the output is finished, rather than raw or a gradient.
    """
    return _plan(
        layer.c_in, layer.c_out, layer.size, layer.size_out, layer.kernel, layer.stride,
        layer.groups, n, back, finished,
    )  # fmt: skip

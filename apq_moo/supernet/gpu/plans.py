"""Into which tiles convolutions and the gradients of their weights are cut.

Tiles are as large as was found fast on an H100, and smaller where a GPU's shared memory does not
hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from apq_moo.space import Layer
from apq_moo.supernet.gpu.patches import patch_of
from apq_moo.supernet.gpu.sizes import plane_of, power_of_two

LARGEST_PLANE = 1024
"""Elements of the planes that are multiplied as wholes."""

PROGRAMS = 1024

MOST_SHARED = 227 * 1024
"""Bytes that those give for which the tiles were measured."""


@dataclass(frozen=True)
class Tile:
    """What a program multiplies at a time, ``m x k`` by ``k x n``, and how it is run.

    Attributes:
        m: rows of the product.
        n: its columns.
        k: what is summed over at a time.
        warps: of a program.
        stages: of software pipelining.
    """

    m: int
    n: int
    k: int
    warps: int = 4
    stages: int = 3


@dataclass(frozen=True)
class Plan:
    """How one convolution is launched.

    Attributes:
        kind: ``pointwise``, ``dense``, ``planes`` or ``patches``.
        outputs: channels that are written.
        inputs: channels that are read for each.
        tiles: partial statistics of a channel.
        programs: programs in all.
        shape: constants that describe the planes.
        tile: a program's.
        bands: shape of the band matrix of a channel.
        group: tiles of channels of a program, for a pointwise one.
        short: whether it reads its input once for all of them.
    """

    kind: str
    outputs: int
    inputs: int
    tiles: int
    programs: int
    shape: tuple[Any, ...]
    tile: Tile
    bands: tuple[int, int] = (0, 0)
    group: int = 1
    short: bool = False


def fitted(
    tile: Tile, bytes_of: Callable[[Tile], int], order: Sequence[tuple[str, int]], limit: int
) -> Tile:
    """A tile that shared memory holds.

    Args:
        tile: the one that is wanted.
        bytes_of: what a tile takes, at most.
        order: numbers of a tile that are lowered, one after the other, and how far.
        limit: bytes of shared memory.
    """
    for name, lowest in order:
        while bytes_of(tile) > limit and getattr(tile, name) > lowest:
            now = getattr(tile, name)
            tile = replace(tile, **{name: now - 1 if name == "stages" else now // 2})
    return tile


def in_patches(size: int, size_out: int) -> bool:
    """Whether a depthwise convolution between planes of these sizes is made patch by patch."""
    return plane_of(max(size, size_out)) > LARGEST_PLANE


@lru_cache(maxsize=100_000)
def _plan(
    c_in: int, c_out: int, size: int, size_out: int, kernel: int, stride: int, groups: int,
    n: int, back: bool, finished: bool, read: int, product: int, limit: int,
) -> Plan:  # fmt: skip
    outputs, inputs = (c_in, c_out) if back else (c_out, c_in)
    source, dest = (size_out, size) if back else (size, size_out)
    planes = (plane_of(source), plane_of(dest))
    shape: tuple[Any, ...] = (source, source, dest, dest)
    if kernel == 1 and groups == 1 and stride == 1:
        return _pointwise(outputs, inputs, n * planes[1], finished, read, product, limit)
    if groups == 1:
        sizes = (16, 32, 64)
        tile = Tile(_rows(outputs, sizes), 128, power_of_two(inputs * kernel**2, 16, 32))
        tile = fitted(tile, lambda t: _pointwise_bytes(t, read, product), _SMALLER, limit)
        tiles = -(-n * planes[1] // tile.n)
        shape = (*shape, stride, *planes)
        programs = tiles * -(-outputs // tile.m)
        return Plan("dense", outputs, inputs, tiles, programs, shape, tile)

    def bytes_of(tile: Tile) -> int:
        pixels, bands, made = tile.m * tile.k, tile.k * tile.n, tile.m * tile.n
        held = tile.stages * (pixels * read + bands * product)
        return max(held + (pixels + bands) * product, made * 4)

    if in_patches(source, dest):
        patch = patch_of(kernel, stride, back=back)
        tile = Tile(256, patch.height * patch.width, 2 * patch.across, 8)
        if back and stride > 1:
            tile = replace(tile, m=128)
        tile = fitted(tile, bytes_of, (("stages", 2), ("m", 64), ("stages", 1), ("m", 16)), limit)
        tiles = -(-n * patch.count(dest) // tile.m)
        shape = (*shape, *planes)
        bands = (-(-patch.rows // 2) * 2 * patch.across, tile.n)
        return Plan("patches", outputs, inputs, tiles, outputs * tiles, shape, tile, bands)
    bs = power_of_two(source * source, 16, 64)
    bd = power_of_two(planes[1], 16, 64 if planes[0] > 256 else 128)
    images = 64 if bd == 128 else 256 if bd == 16 and finished else 128
    tile = fitted(
        Tile(images, bd, bs), bytes_of, (("stages", 2), ("m", 32), ("stages", 1), ("m", 16)), limit
    )
    bands = (-(-source * source // bs) * bs, -(-planes[1] // bd) * bd)
    tiles = -(-n // tile.m) * (bands[1] // bd)
    shape = (*shape, stride, *planes, back)
    return Plan("planes", outputs, inputs, tiles, outputs * tiles, shape, tile, bands)


def _pointwise(
    outputs: int, inputs: int, pixels: int, finished: bool, read: int, product: int, limit: int
) -> Plan:
    short = finished and inputs <= 128
    order = tuple(x for x in _SMALLER if not short or x[0] != "k")
    tile = _pointwise_tile(outputs, inputs, finished=finished)
    tile = fitted(tile, lambda t: _pointwise_bytes(t, read, product, short=short), order, limit)
    tiles, parts = -(-pixels // tile.n), -(-outputs // tile.m)
    group = min(parts, -(-parts * tiles // (2 * PROGRAMS))) if short else 1
    programs = -(-parts // group) * tiles
    return Plan(
        "pointwise", outputs, inputs, tiles, programs, (), tile, group=group, short=short
    )  # fmt: skip


_SMALLER = (
    ("stages", 2), ("k", 32), ("n", 128), ("m", 64), ("stages", 1), ("n", 64), ("m", 16), ("k", 16),
)  # fmt: skip
"""How tiles of channels by pixels are made smaller."""


def _pointwise_bytes(tile: Tile, read: int, product: int, *, short: bool = False) -> int:
    weights, pixels, made = tile.m * tile.k, tile.k * tile.n, tile.m * tile.n
    held = 0 if short else tile.stages * (weights * 4 + pixels * read)
    return max(held + (weights + pixels) * product, made * 4)


def _rows(outputs: int, sizes: Sequence[int]) -> int:
    """The largest number of rows that pads ``outputs`` little."""
    padded = [-(-outputs // size) * size for size in sizes]
    return max(s for s, p in zip(sizes, padded, strict=True) if p <= 1.2 * min(padded))


def _pointwise_tile(outputs: int, inputs: int, *, finished: bool) -> Tile:
    """Measured on an H100."""
    bm = _rows(outputs, (16, 32, 64) if finished else (16, 32, 64, 128))
    if not finished:  # statistics take registers
        return Tile(bm, 128, power_of_two(inputs, 16, 64), 4 if bm <= 64 else 8)
    if inputs <= 128:
        return Tile(bm, 256 if inputs <= 32 else 128, power_of_two(inputs, 16, 128))
    if outputs > 64:
        return Tile(128, 256, 32, 8)
    return Tile(bm, 128, 32, stages=4) if bm <= 32 else Tile(bm, 128, 64)


def plan_of(
    layer: Layer, n: int, back: bool, *, finished: bool, read: int, product: int, limit: int
) -> Plan:
    """How a layer is launched.

    Args:
        layer: a convolution.
        n: number of images.
        back: whether its gradient with respect to the input is meant.
        finished: whether the output is finished, rather than raw or a gradient.
        read: bytes that are read for each element of its input.
        product: bytes of what is multiplied.
        limit: bytes of shared memory.
    """
    return _plan(
        layer.c_in, layer.c_out, layer.size, layer.size_out, layer.kernel, layer.stride,
        layer.groups, n, back, finished, read, product, limit,
    )  # fmt: skip


def weights_tile(kind: str, outputs: int, inputs: int, read: int, product: int, limit: int) -> Tile:
    """The tile of a weight's gradient: outputs by inputs, summed over pixels or planes.

    Args:
        kind: of the product, as in :class:`Plan`.
        outputs: rows: channels, or a plane's or patch's pixels.
        inputs: columns: channels, taps, or a plane's or window's pixels.
        read: bytes that are read for each element of the input.
        product: bytes of what is multiplied.
        limit: bytes of shared memory.
    """
    if kind in ("pointwise", "dense"):
        m, n = power_of_two(outputs, 16, 128), power_of_two(inputs, 16, 128)
        tile = Tile(m, n, 64, 8 if m * n > 8192 else 4)
    else:
        tile = Tile(outputs, inputs, 64 if kind == "planes" else 32)

    def bytes_of(tile: Tile) -> int:
        gradient, source = tile.m * tile.k, tile.n * tile.k
        held = tile.stages * (gradient * 4 + source * read)
        return max(held + (gradient + source) * product, tile.m * tile.n * 4)

    order = [("stages", 1), ("k", 32)]
    if kind in ("pointwise", "dense"):
        order += [("n", 64), ("m", 64), ("k", 16), ("n", 16), ("m", 16)]
    return fitted(tile, bytes_of, [*order, ("k", 16)], limit)

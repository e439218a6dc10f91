"""Bytes that a subnet's activations move on a GPU, layer by layer: what must be, and what is.

The floor is that each convolution reads its input and writes its output once, in 16 bits. The
passes of the package's kernels, of which weights and statistics are left out:

* inference: levels of one byte inside the blocks, half precision or one byte between them;
* calibration: raw outputs in single precision, which are read once more where a block ends;
* training: raw outputs in half precision, and in the backward pass the gradient and the raw output
  twice (for the weight and for the input), the input, and the raw output before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from apq_moo.space import Layer
from apq_moo.supernet.ranges import STORED_BITS


def floor(layers: Sequence[Layer]) -> dict[int, int]:
    """Bytes of an image at the floor, by the size of the convolutions' outputs."""
    return _by_size(layers, [2 * (_entering(layer) + _leaving(layer)) for layer in layers])


def inference(layers: Sequence[Layer], *, quantised: bool = True) -> dict[int, int]:
    """Bytes of an image that is classified, by the size of the convolutions' outputs."""
    found = []
    before, kept = 2, 2
    for layer in layers:
        if layer.opens_shortcut:
            kept = before
        now = _stored(layer) if layer.leaves_block or not quantised else 1
        moved = before * _entering(layer) + now * _leaving(layer)
        found.append(moved + kept * _leaving(layer) * layer.closes_shortcut)
        before = now
    return _by_size(layers, found)


def calibration(layers: Sequence[Layer]) -> dict[int, int]:
    """Bytes of an image of the calibration, by the size of the convolutions' outputs."""
    found = []
    before, kept = 2, 2
    for layer in layers:
        if layer.opens_shortcut:
            kept = before
        moved = before * _entering(layer) + 4 * _leaving(layer)
        before = 4
        if layer.leaves_block:
            before = _stored(layer)
            moved += (4 + before + kept * layer.closes_shortcut) * _leaving(layer)
        found.append(moved)
    return _by_size(layers, found)


def training(layers: Sequence[Layer]) -> dict[int, int]:
    """Bytes of an image of a training step, by the size of the convolutions' outputs."""
    found = []
    for number, layer in enumerate(layers):
        entering, leaving = 2 * _entering(layer), 2 * _leaving(layer)
        moved = entering + leaving  # forward
        if layer.leaves_block:
            moved += (2 + layer.closes_shortcut) * leaving
        moved += 2 * leaving + entering  # the weight's gradient
        if number:
            moved += 2 * leaving + (2 + layer.opens_shortcut) * entering  # the input's
        found.append(moved)
    return _by_size(layers, found)


def _entering(layer: Layer) -> int:
    return layer.c_in * layer.size**2


def _leaving(layer: Layer) -> int:
    return layer.c_out * layer.size_out**2


def _stored(layer: Layer) -> int:
    return 1 if layer.between_bits == STORED_BITS else 2


def _by_size(layers: Sequence[Layer], moved: Sequence[int]) -> dict[int, int]:
    total: dict[int, int] = {}
    for layer, count in zip(layers, moved, strict=True):
        if layer.component != "classifier":
            total[layer.size_out] = total.get(layer.size_out, 0) + count
    return total

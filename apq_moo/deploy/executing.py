"""An integer network in numpy: small, and exact to the last bit.

Sums of integers are exact in single precision up to 2^24 in whatever order they are taken, and in
double precision beyond; everything else is one rounding at a time, as ``docs/supernet.md`` says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.deploy.integers import HALF, IntegerLayer, IntegerNetwork, Singles
from apq_moo.errors import UserError

_EXACT = 2**24
_BATCH = 64

Observer = Callable[[str, Singles], None]
"""Told where an activation stands, and its levels (or floats), shape ``(n, height, width, c)``."""


def execute(network: IntegerNetwork, images: Singles, observe: Observer | None = None) -> Singles:
    """Logits of an integer network.

    Args:
        network: any.
        images: values in [0, 1], shape ``(n, channels, height, width)``.
        observe: told the levels of every layer's input under the layer's name, those stored
            between blocks under ``PART.output`` and ``PART.total``, in batches.

    Returns:
        Shape ``(n, classes)``, single precision.

    Raises:
        UserError: the images have another shape.
    """
    images = np.asarray(images, dtype=np.float32)
    if images.shape[1:] != network.image_shape:
        raise UserError(f"images have shape {images.shape[1:]}, not {network.image_shape}")
    found = np.empty((len(images), len(network.classes)), dtype=np.float32)
    for first in range(0, len(images), _BATCH):
        part = images[first : first + _BATCH].transpose(0, 2, 3, 1)
        found[first : first + _BATCH] = _run(network, part, observe or _nobody)
    return found


def _nobody(_place: str, _levels: Singles) -> None:
    """Looks away."""


def _run(network: IntegerNetwork, x: Singles, observe: Observer) -> Singles:
    held = x
    for layer in network.layers:
        if layer.shape.opens_shortcut:
            held = x
        if layer.shape.bias:
            x = x.mean((1, 2), np.float64, keepdims=True).astype(np.float32)
        levels = layer.input.levels(x)
        observe(layer.name, levels)
        x = convolve(layer, levels) * layer.gain + layer.bias
        if layer.shape.activation is not None:
            x = np.clip(x, np.float32(0), np.float32(6), out=x)
        x = _stored(layer, x, held, observe)
    return x[:, 0, 0]


def _stored(layer: IntegerLayer, x: Singles, held: Singles, observe: Observer) -> Singles:
    """What a layer gives on, behind its shortcut if it closes one."""
    if layer.output is not None:
        levels = layer.output.levels(x)
        observe(f"{layer.shape.part}.output", levels)
        x = levels * np.float32(layer.output.step)
    if layer.shape.closes_shortcut:
        x = x + held
    if layer.total is not None:
        levels = layer.total.levels(x)
        observe(f"{layer.shape.part}.total", levels)
        x = levels * np.float32(layer.total.step)
    if layer.shape.between_bits == HALF:
        x = x.astype(np.float16).astype(np.float32)
    return x


def convolve(layer: IntegerLayer, levels: Singles) -> Singles:
    """Sums of levels times weights, exact and then rounded to single.

    Args:
        layer: its weights.
        levels: whole floats, shape ``(n, height, width, c_in)``.

    Returns:
        Shape ``(n, height_out, width_out, c_out)``.
    """
    shape = layer.shape
    kind: type[Any] = np.float64 if layer.largest_sum > _EXACT else np.float32
    edge, size = shape.padding, shape.size_out
    weight: NDArray[Any] = layer.weight.astype(kind)
    padded: NDArray[Any] = levels.astype(kind, copy=False)
    if edge:
        padded = np.pad(padded, [(0, 0), (edge, edge), (edge, edge), (0, 0)])
    if shape.groups > 1 and shape.c_out > shape.groups:
        padded = np.repeat(padded, shape.c_out // shape.groups, axis=3)
    sums: NDArray[Any] = np.zeros((len(levels), size, size, shape.c_out), dtype=kind)
    reach = shape.stride * (size - 1) + 1
    for i in range(shape.kernel):
        for j in range(shape.kernel):
            seen = padded[:, i : i + reach : shape.stride, j : j + reach : shape.stride]
            if shape.groups > 1:
                sums += seen * weight[:, 0, i, j]
            else:
                sums += seen @ weight[:, :, i, j].T
    return sums.astype(np.float32, copy=False)

"""How activations lie in memory.

Each channel is a row of planes, one for each image. Planes begin at multiples of 8 elements, so
that threads can load several pixels at once, and rows at multiples of :data:`PITCH`.
"""

from __future__ import annotations

import torch
from torch import Tensor

PITCH = 256
"""Rows of activations begin at multiples of this many elements."""

_PLANE_STEP = 8


def power_of_two(n: int, low: int = 1, high: int = 1 << 30) -> int:
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

"""Pixels as bytes and as the floats that networks see: the same values wherever they are made.

Images are kept as bytes, a quarter of what floats take, where their files hold bytes. The floats
are ``byte / 255``, rounded once to single precision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Bytes = NDArray[np.uint8]
FloatImages = NDArray[np.float32]
Pixels = NDArray[np.uint8] | NDArray[np.float32]
"""Bytes, or floats in [0, 1], of shape ``(n, channels, height, width)``."""

_FLOATS = (np.arange(256, dtype=np.float32) / np.float32(255)).astype(np.float32)
"""By byte."""

_CHUNK = 2**22
"""Pixels that are in double precision at a time."""


def floats_of(pixels: Pixels) -> FloatImages:
    """Pixels as floats in [0, 1]; floats as they are."""
    if pixels.dtype != np.uint8:
        return pixels.astype(np.float32, copy=False)
    return _FLOATS[pixels]


def as_floats(pixels: Tensor) -> Tensor:
    """Pixels as floats in [0, 1], on their device; floats as they are.

    The quotient is taken in double precision and then rounded, which gives the nearest single one
    also where a device multiplies by the reciprocal, as CUDA does.
    """
    import torch

    if pixels.dtype != torch.uint8:
        return pixels
    found = torch.empty(pixels.shape, dtype=torch.float32, device=pixels.device)
    some = max(1, _CHUNK // max(1, pixels[:1].numel()))
    for part, to in zip(pixels.split(some), found.split(some), strict=True):
        to.copy_(part.double().div_(255))
    return found


def in_ten_thousandths(pixels: Pixels) -> NDArray[np.int32]:
    """Pixels to four digits, as integers."""
    if pixels.dtype != np.uint8:
        return np.rint(pixels * 10_000).astype(np.int32)
    table: NDArray[Any] = np.rint(_FLOATS * 10_000).astype(np.int32)
    return table[pixels]

"""Squares of images: cut while they are read, and cut again at random where they are needed.

What is read is an image whose shorter side is scaled to the wanted size over 0.875. An evaluation
takes the middle (as torchvision's ``Resize`` and ``CenterCrop`` do); a training takes a square
from a random place along the longer side, and on the device a random part of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import FloatArray

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from torch import Tensor

_KEPT = 0.875
"""The side of an evaluation's square, as a share of the shorter side."""

MIDDLE = 0.5

_ATTEMPTS = 10


def shorter_side(size: int) -> int:
    """What the shorter side is scaled to, of images that are wanted at ``size`` pixels.

    >>> shorter_side(224)
    256
    """
    return round(size / _KEPT)


def window(image: Picture, shorter: int, size: int, place: float = MIDDLE) -> Picture:
    """A square of an image that is scaled to a shorter side; only the square is computed.

    Args:
        image: any one.
        shorter: the length of the shorter side, once it is scaled.
        size: the square's, at most ``shorter``.
        place: where it lies along both sides, from 0 to 1.
    """
    from PIL.Image import Resampling

    # As torchvision rounds: the longer side down, the margins to nearest.
    wide, tall = (int(shorter * side / min(image.size)) for side in image.size)
    left, top = (round(place * (side - size)) for side in (wide, tall))
    box = (left, top, left + size, top + size)
    if (wide, tall) == image.size:
        return image if box == (0, 0, wide, tall) else image.crop(box)
    across, down = image.width / wide, image.height / tall
    part = (
        left * across,
        top * down,
        min(image.width, (left + size) * across),
        min(image.height, (top + size) * down),
    )
    return image.resize((size, size), Resampling.BILINEAR, part)


@dataclass(frozen=True)
class RandomParts:
    """Random parts of squares, scaled to one size, half of them mirrored.

    The area is uniform and the logarithm of the ratio of the sides too (Szegedy et al., "Going
    deeper with convolutions", CVPR 2015, section 6), as ``RandomResizedCrop`` of torchvision draws
    them; sides are not rounded to pixels.

    Attributes:
        least: smallest share of the area.
        ratio: largest ratio of width to height, and of height to width.
    """

    least: float = 0.08
    ratio: float = 4 / 3

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw parts: left, top, width and height as shares of the side, and 1 where mirrored.

        Returns:
            Shape ``(n, 5)``.
        """
        area = rng.uniform(self.least, 1, (n, _ATTEMPTS))
        root = self.ratio ** rng.uniform(-0.5, 0.5, (n, _ATTEMPTS))
        sides = np.sqrt(area)[..., None] * np.stack([root, 1 / root], axis=2)
        fits = sides.max(axis=2) <= 1
        chosen = np.arange(n), fits.argmax(axis=1)
        found = np.where(fits[chosen][:, None], sides[chosen], 1.0)
        corners = rng.random((n, 2)) * (1 - found)
        return np.column_stack([corners, found, rng.random(n) < 0.5])


def scaled_parts(pixels: Tensor, parts: NDArray[np.float64], size: int) -> Tensor:
    """Parts of images by bilinear interpolation, on the device of ``pixels``.

    Args:
        pixels: bytes of shape ``(n, height, width, channels)``.
        parts: see :meth:`RandomParts.draw`.
        size: what they are scaled to.

    Returns:
        Floats in [0, 1] of shape ``(n, channels, size, size)``.
    """
    import torch

    there = torch.from_numpy(parts.astype(np.float32)).to(pixels.device)
    found = torch.empty(len(pixels), pixels.shape[3], size, size, device=pixels.device)
    pieces = (each.split(_TOGETHER) for each in (pixels, there, found))
    for images, of, to in zip(*pieces, strict=True):
        to.copy_(_scaled(images, of, size))
    return found


_TOGETHER = 128
"""Images that are scaled at a time: meanwhile they take eight times as much as their bytes."""


def _scaled(pixels: Tensor, parts: Tensor, size: int) -> Tensor:
    import torch
    from torch.nn import functional as F

    begin, extent, mirrored = parts[:, 0:2], parts[:, 2:4], parts[:, 4]
    middle = 2 * begin + extent - 1  # of -1 ... 1, as grid_sample counts
    extent = extent * torch.stack([1 - 2 * mirrored, torch.ones_like(mirrored)], dim=1)
    steps = (2 * torch.arange(size, device=pixels.device) + 1) / size - 1
    x, y = (middle[:, axis, None] + extent[:, axis, None] * steps for axis in (0, 1))
    n = len(pixels)
    grid = torch.stack([x[:, None].expand(n, size, size), y[:, :, None].expand(n, size, size)], 3)
    images = pixels.permute(0, 3, 1, 2).float()
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False).div_(255)

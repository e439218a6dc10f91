"""Augmented copies of images: mirrored, shifted, with a hole; alike on arrays and on a device."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.data.pixels import FloatImages

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """What is random about ``n`` augmented images; every array has shape ``(n,)``.

    Attributes:
        mirrored: whether left and right are exchanged.
        down: rows by which the image moves down.
        right: columns by which it moves right.
        side: side of the square hole; 0 for none.
        hole_row: middle row of the hole, after the shift.
        hole_column: its middle column.
    """

    mirrored: NDArray[np.bool_]
    down: NDArray[np.int64]
    right: NDArray[np.int64]
    side: NDArray[np.int64]
    hole_row: NDArray[np.int64]
    hole_column: NDArray[np.int64]


@dataclass(frozen=True)
class Augmentation:
    """Mirror half of the images, shift all, black beyond the rim, and cut a square hole.

    The hole is cutout (DeVries and Taylor, 2017) of random size.

    Attributes:
        mirror: whether images may be mirrored.
        max_shift: most pixels of a shift, each way.
        max_erase: largest side of the hole; sides are uniform from 0.
    """

    mirror: bool = True
    max_shift: int = 2
    max_erase: int = 0

    def draw(self, n: int, height: int, width: int, rng: np.random.Generator) -> Draws:
        """Draw everything random for ``n`` images of ``height`` by ``width`` pixels."""
        mirrored: NDArray[np.bool_] = rng.random(n) < np.full(n, 0.5 * self.mirror)
        down, right = rng.integers(-self.max_shift, self.max_shift + 1, (2, n))
        side = rng.integers(0, self.max_erase + 1, n)
        return Draws(
            mirrored, down, right, side, rng.integers(0, height, n), rng.integers(0, width, n)
        )

    def __call__(self, images: FloatImages, rng: np.random.Generator) -> FloatImages:
        """Augment images of shape ``(n, channels, height, width)``."""
        import torch

        n, _, height, width = images.shape
        # torch takes neither views that run backwards nor, without a warning, read-only arrays.
        usable = torch.from_numpy(np.require(images, requirements=["C", "W"]))
        result: FloatImages = apply(usable, self.draw(n, height, width, rng)).numpy()
        return result


def apply(images: Tensor, draws: Draws) -> Tensor:
    """The augmented images, on the device of ``images``.

    Args:
        images: shape ``(n, channels, height, width)``, any type.
        draws: what to do with each.
    """
    import torch

    n, channels, height, width = images.shape
    small = np.stack(
        [draws.mirrored, draws.down, draws.right, draws.side, draws.hole_row, draws.hole_column]
    )
    # One transfer of a few bytes an image; everything else happens where the images are.
    draws_there = _sent(small.astype(np.int64), images.device)
    mirrored, down, right, side, hole_row, hole_column = draws_there
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    hole = (_near(rows, hole_row, side)[:, :, None]) & (_near(columns, hole_column, side)[:, None])
    rows = rows - down[:, None]
    columns = columns - right[:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None
    ]
    columns = torch.where(mirrored[:, None] == 1, width - 1 - columns, columns)
    at = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
    index = at.flatten(1)[:, None].expand(n, channels, height * width)
    moved = images.flatten(2).gather(2, index).view(images.shape)
    return moved.masked_fill((~inside | hole)[:, None], 0)


def _sent(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array on a device, without waiting for what that is doing."""
    import torch

    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _near(places: Tensor, middle: Tensor, side: Tensor) -> Tensor:
    """Which places lie within a hole, shape ``(n, places)``."""
    first = (middle - side // 2)[:, None]
    return (places >= first) & (places < first + side[:, None])


@dataclass(frozen=True)
class Erasing:
    """Cut a rectangle out of some images and fill it with one random value for each channel.

    Random erasing (Zhong et al., AAAI 2020) with its settings. There each pixel of a rectangle is
    random; here all of one are alike, so that little has to reach the device.

    Attributes:
        share: of the images.
        least: smallest share of an image's area.
        most: largest share; the area is uniform between them.
        ratio: largest ratio of height to width, and of width to height; its logarithm is uniform.
    """

    share: float = 0.5
    least: float = 0.02
    most: float = 0.4
    ratio: float = 10 / 3

    def draw(
        self, shape: tuple[int, int, int, int], rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], FloatImages]:
        """Draw rectangles and values.

        Args:
            shape: of the images, ``(n, channels, height, width)``.
            rng: where the randomness comes from.

        Returns:
            First row, first column, height and width of the rectangles, shape ``(4, n)``, height
            and width 0 where nothing is erased; and values in [0, 1), shape ``(n, channels)``.
        """
        n, channels, *size = shape
        sides = np.array(size)[:, None]
        area = rng.uniform(self.least, self.most, n) * sides.prod()
        root = self.ratio ** rng.uniform(-0.5, 0.5, n)
        extent = np.rint(np.sqrt(area) * np.stack([root, 1 / root])).astype(np.int64)
        extent = np.clip(extent, 1, sides)
        first = rng.integers(0, sides - extent + 1)
        extent *= rng.random(n) < self.share
        return np.concatenate([first, extent]), rng.random((n, channels), dtype=np.float32)

    def __call__(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Erase in images of shape ``(n, channels, height, width)``, on their device."""
        n, channels, height, width = images.shape
        return erase(images, *self.draw((n, channels, height, width), rng))


def erase(images: Tensor, rectangles: NDArray[np.int64], values: FloatImages) -> Tensor:
    """Images with rectangles filled, on their device.

    Args:
        images: shape ``(n, channels, height, width)``.
        rectangles: see :meth:`Erasing.draw`.
        values: likewise.
    """
    import torch

    height, width = images.shape[2:]
    row, column, tall, wide = _sent(rectangles, images.device)[:, :, None]
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    hit = ((rows >= row) & (rows < row + tall))[:, :, None]
    hit = hit & ((columns >= column) & (columns < column + wide))[:, None]
    fill = _sent(values, images.device).to(images)[:, :, None, None]
    return torch.where(hit[:, None], fill, images)


AUGMENTATIONS: MappingProxyType[str, Erasing | None] = MappingProxyType(
    {"own": None, "erasing": Erasing()}
)
"""What is done to training images beyond the image set's own augmentation, by name."""

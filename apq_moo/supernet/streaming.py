"""Augmented batches of training images in files, which worker processes read meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.data.augmentation import Erasing, erase
from apq_moo.data.crops import RandomParts, scaled_parts
from apq_moo.data.loading import Piece, piece_size, squares
from apq_moo.data.pixels import FloatImages
from apq_moo.data.streamed import StreamedSet
from apq_moo.supernet.batches import AUGMENTATION, ERASING, ORDER
from apq_moo.supernet.distributed import ALONE, Group


@dataclass(frozen=True)
class _Share:
    """What this process reads of a batch, and what becomes of it there.

    Attributes:
        rows: of the training split, shape ``(n,)``.
        places: where their squares lie, shape ``(n,)``.
        parts: of these, shape ``(n, 5)``; see :meth:`RandomParts.draw`.
        erased: rectangles and values, see :meth:`Erasing.draw`.
    """

    rows: IntArray
    places: FloatArray
    parts: FloatArray
    erased: tuple[NDArray[np.int64], FloatImages] | None


class StreamedBatches:
    """Batches of a training split in files, all functions of the seed and of epoch and place.

    Each process reads its share only; together they see the images, and the random parts of them,
    that one process would see.

    Args:
        images: the data set; only ``train`` is used.
        size: images of a batch.
        seed: of order and augmentation.
        device: where batches are wanted.
        erasing: what is erased beyond the set's own augmentation.
        group: this process among those that share each batch.
    """

    parts = RandomParts()

    def __init__(
        self,
        images: StreamedSet,
        size: int,
        seed: int,
        device: torch.device,
        erasing: Erasing | None = None,
        group: Group = ALONE,
    ) -> None:
        self.images = images
        self.size = size
        self.seed = seed
        self.device = device
        self.erasing = erasing
        self.per_epoch = len(images.train) // size
        self._mine = group.share(torch.arange(size)).numpy()
        self._reader = images.train.whole_squares()
        self._piece = piece_size(self._reader.bytes_each)

    def from_step(self, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See :meth:`apq_moo.supernet.batches.Batches.from_step`.

        Raises:
            UserError: an image cannot be read, or is gone or changed; or a worker was killed.
        """
        labels = torch.from_numpy(self.images.train.labels).to(self.device)
        for share, pixels in self.read(step):
            x = scaled_parts(pixels, share.parts, self.images.shape[1])
            if share.erased is not None:
                x = erase(x, *share.erased)
            yield x, labels[torch.from_numpy(share.rows).to(self.device)]

    def read(self, step: int) -> Iterator[tuple[_Share, Tensor]]:
        """This process's shares of all batches, and their squares as bytes on the device.

        Yields:
            The share, and bytes of shape ``(n, side, side, channels)``.
        """
        side = self._reader.size
        pieces = squares(self._reader, self._pieces(step), pin=self.device.type == "cuda")
        for share in self._shares(step):
            if len(share.rows) <= self._piece:
                yield share, next(pieces).to(self.device, non_blocking=True)
                continue
            shape = (len(share.rows), side, side, self._reader.channels)
            pixels = torch.empty(shape, dtype=torch.uint8, device=self.device)
            for first in range(0, len(share.rows), self._piece):
                pixels[first : first + self._piece].copy_(next(pieces), non_blocking=True)
            yield share, pixels

    def _pieces(self, step: int) -> Iterator[Piece]:
        for share in self._shares(step):
            for first in range(0, len(share.rows), self._piece):
                part = slice(first, first + self._piece)
                yield Piece(share.rows[part], share.places[part])

    def _shares(self, step: int) -> Iterator[_Share]:
        epoch, number = divmod(step, self.per_epoch)
        while True:
            n = len(self.images.train)
            order = np.random.default_rng([self.seed, ORDER, epoch]).permutation(n)
            while number < self.per_epoch:
                yield self._share(order[number * self.size :][: self.size], epoch, number)
                number += 1
            epoch, number = epoch + 1, 0

    def _share(self, rows: IntArray, epoch: int, number: int) -> _Share:
        """Everything random is drawn for the whole batch, whoever shares it."""
        rng = np.random.default_rng([self.seed, AUGMENTATION, epoch, number])
        places, parts = rng.random(self.size), self.parts.draw(self.size, rng)
        erased = None
        if self.erasing is not None:
            rng = np.random.default_rng([self.seed, ERASING, epoch, number])
            rectangles, values = self.erasing.draw((self.size, *self.images.shape), rng)
            erased = rectangles[:, self._mine], values[self._mine]
        return _Share(rows[self._mine], places[self._mine], parts[self._mine], erased)

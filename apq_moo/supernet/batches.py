"""Augmented training batches, on the device where the images are needed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from apq_moo.data.augmentation import Augmentation, Erasing, apply
from apq_moo.data.images import ImageSet
from apq_moo.data.pixels import as_floats


class Batches:
    """Batches of a training split, all functions of the seed and of the epoch or step.

    Args:
        images: the data set; only ``train`` and ``augment`` are used.
        size: images of a batch.
        seed: of order and augmentation.
        device: where batches are wanted.
        erasing: what is erased beyond the image set's own augmentation.
    """

    def __init__(
        self,
        images: ImageSet,
        size: int,
        seed: int,
        device: torch.device,
        erasing: Erasing | None = None,
    ) -> None:
        self.images = images
        self.size = size
        self.seed = seed
        self.device = device
        self.erasing = erasing
        self.per_epoch = len(images.train) // size
        self._labels = torch.from_numpy(images.train.labels).to(device)
        self._pixels: Tensor | None = None
        if isinstance(images.augment, Augmentation):
            self._pixels = torch.from_numpy(images.train.pixels).to(device)

    def from_step(self, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All batches from a step on, without end: images ``(size, c, h, w)`` and labels."""
        epoch, skip = divmod(step, self.per_epoch)
        while True:
            for number, (x, y) in enumerate(self._epoch(epoch, skip), start=skip):
                if self.erasing is None:
                    yield x, y
                    continue
                rng = np.random.default_rng([self.seed, 6, epoch, number])
                yield self.erasing(x, rng), y
            epoch, skip = epoch + 1, 0

    def _epoch(self, epoch: int, skip: int) -> Iterator[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng([self.seed, 1, epoch])
        train, augment = self.images.train, self.images.augment
        copies = None if self._pixels is not None else augment(train.images, rng)
        order = rng.permutation(len(train))
        places = torch.from_numpy(order).to(self.device)
        for number in range(skip, self.per_epoch):
            part = slice(number * self.size, (number + 1) * self.size)
            labels = self._labels[places[part]]
            if copies is not None:
                yield torch.from_numpy(copies[order[part]]).to(self.device), labels
                continue
            assert isinstance(augment, Augmentation)
            assert self._pixels is not None
            draws = np.random.default_rng([self.seed, 5, epoch, number])
            pixels = self._pixels[places[part]]
            n, _, height, width = pixels.shape
            yield as_floats(apply(pixels, augment.draw(n, height, width, draws))), labels

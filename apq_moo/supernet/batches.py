"""Augmented batches of training images in memory, on the device where they are needed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from apq_moo.data.augmentation import Augmentation, Erasing, apply
from apq_moo.data.images import ImageSet
from apq_moo.data.pixels import as_floats
from apq_moo.supernet.distributed import ALONE, Group

ORDER, AUGMENTATION, ERASING = 1, 5, 6
"""Beside the seed, which stream of random numbers orders, augments and erases."""


class Batches:
    """Batches of a training split, all functions of the seed and of the epoch or step.

    Args:
        images: the data set; only ``train`` and ``augment`` are used.
        size: images of a batch.
        seed: of order and augmentation.
        device: where batches are wanted.
        erasing: what is erased beyond the image set's own augmentation.
        group: this process among those that share each batch.
    """

    def __init__(
        self,
        images: ImageSet,
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
        self.group = group
        self.per_epoch = len(images.train) // size
        self._labels = torch.from_numpy(images.train.labels).to(device)
        self._pixels: Tensor | None = None
        if isinstance(images.augment, Augmentation):
            self._pixels = torch.from_numpy(images.train.pixels).to(device)

    def from_step(self, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of all batches from a step on, without end.

        Yields:
            Images ``(size, c, h, w)`` and labels, where it shares them with no other.
        """
        epoch, skip = divmod(step, self.per_epoch)
        while True:
            for number, (x, y) in enumerate(self._epoch(epoch, skip), start=skip):
                if self.erasing is not None:
                    x = self.erasing(x, np.random.default_rng([self.seed, ERASING, epoch, number]))  # noqa: PLW2901
                yield self.group.share(x), self.group.share(y)
            epoch, skip = epoch + 1, 0

    def _epoch(self, epoch: int, skip: int) -> Iterator[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng([self.seed, ORDER, epoch])
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
            draws = np.random.default_rng([self.seed, AUGMENTATION, epoch, number])
            pixels = self._pixels[places[part]]
            n, _, height, width = pixels.shape
            yield as_floats(apply(pixels, augment.draw(n, height, width, draws))), labels

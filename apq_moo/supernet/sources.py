"""Where batches of training images come from: memory, or files that are read meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from apq_moo.data.augmentation import Erasing
from apq_moo.data.images import ImageSet, ImageSource
from apq_moo.data.streamed import StreamedSet
from apq_moo.supernet.batches import Batches
from apq_moo.supernet.distributed import ALONE, Group
from apq_moo.supernet.streaming import StreamedBatches


class TrainingBatches(Protocol):
    """Batches without end, functions of the seed and of the step.

    Attributes:
        size: images of a batch, over all processes.
        per_epoch: batches of an epoch.
    """

    size: int
    per_epoch: int

    def from_step(self, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of all batches from a step on: images and labels."""
        ...


def batches_of(
    images: ImageSource,
    size: int,
    seed: int,
    device: torch.device,
    erasing: Erasing | None = None,
    group: Group = ALONE,
) -> TrainingBatches:
    """Batches of an image set.

    Args:
        images: the data set.
        size: images of a batch, over all processes.
        seed: of order and augmentation.
        device: where batches are wanted.
        erasing: what is erased beyond the image set's own augmentation.
        group: this process among those that share each batch.
    """
    if isinstance(images, StreamedSet):
        return StreamedBatches(images, size, seed, device, erasing, group)
    assert isinstance(images, ImageSet)
    return Batches(images, size, seed, device, erasing, group)

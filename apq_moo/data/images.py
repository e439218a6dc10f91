"""Image sets: train, validation and test splits as arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from apq_moo.registry import Registry

FloatImages = NDArray[np.float32]
Labels = NDArray[np.int64]
Augment = Callable[[FloatImages, np.random.Generator], FloatImages]


@dataclass(frozen=True)
class Split:
    """Images of shape ``(n, channels, height, width)`` in [0, 1], and labels of shape ``(n,)``."""

    images: FloatImages
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImageSet:
    """A data set as the search uses it.

    Attributes:
        name: its name.
        train: what networks are trained on.
        calibration: training images from which batch-norm statistics and activation ranges are
            taken; the same for every network.
        validation: the only images that a search ever sees.
        test: what is reported.
        test_clean: the undistorted test images, where ``test`` is distorted; else the same.
        augment: draws augmented copies of a batch.
    """

    name: str
    train: Split
    calibration: Split
    validation: Split
    test: Split
    test_clean: Split
    augment: Augment

    def split(self, name: str) -> Split:
        """A split by its attribute's name."""
        value: Split = getattr(self, name)
        return value

    @cached_property
    def checksum(self) -> str:
        """SHA-256 over all splits.

        Pixels count to four digits: processors differ in the last bits of what distorts them.
        """
        digest = hashlib.sha256()
        for part in ("train", "calibration", "validation", "test", "test_clean"):
            split = self.split(part)
            digest.update(np.rint(split.images * 10_000).astype(np.int32).tobytes())
            digest.update(split.labels.astype(np.int64).tobytes())
        return digest.hexdigest()


IMAGES: Registry[Callable[[], ImageSet]] = Registry("image set")
"""Loaders by name. A loader takes no arguments."""

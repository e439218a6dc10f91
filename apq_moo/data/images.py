"""Image sets: what all offer, and those in memory, as bytes where their files hold bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from apq_moo.data.pixels import Bytes, FloatImages, Pixels, floats_of, in_ten_thousandths
from apq_moo.errors import UserError
from apq_moo.registry import Registry
from apq_moo.space import Space

Labels = NDArray[np.int64]
Augment = Callable[[FloatImages, np.random.Generator], FloatImages]

N_CALIBRATION = 1000
"""Training images that calibrate, where a set has no reason for another number."""

_CHUNK = 2**22
"""Pixels that the checksum takes at a time."""


@dataclass(frozen=True)
class Split:
    """Labelled images.

    Attributes:
        pixels: shape ``(n, channels, height, width)``: bytes, or floats in [0, 1].
        labels: shape ``(n,)``.
    """

    pixels: Pixels
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> Split:
        """Some of the images."""
        pixels: Any = self.pixels[rows]
        return Split(pixels, self.labels[rows])

    def parts(self, n: int) -> Iterator[Split]:
        """All images, ``n`` at a time."""
        for first in range(0, len(self), n):
            yield self[first : first + n]

    @property
    def images(self) -> FloatImages:
        """All images as floats in [0, 1]; of bytes they are made anew each time."""
        return floats_of(self.pixels)


def joined(splits: Sequence[Split]) -> Split:
    """Splits one after the other, as bytes if all of them are."""
    kinds = {split.pixels.dtype for split in splits}
    parts = [split.pixels if len(kinds) == 1 else split.images for split in splits]
    pixels: Any = np.concatenate(parts)
    return Split(pixels, np.concatenate([split.labels for split in splits]))


class LabelledImages(Protocol):
    """A split of an image set, in memory or in files."""

    @property
    def labels(self) -> Labels:
        """Classes by number, shape ``(n,)``."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> Split:
        """Some of the images, in memory."""
        ...


class ImageSource(Protocol):
    """An image set, in memory or in files.

    Where batches of it come from, :func:`apq_moo.supernet.sources.batches_of` says.
    """

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels, where they have names."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        ...

    @property
    def checksum(self) -> str:
        """SHA-256 of what tells it from others."""
        ...

    @property
    def skipped(self) -> int:
        """Images that were left out, since they cannot be read."""
        ...

    @property
    def train(self) -> LabelledImages:
        """What networks are trained on."""
        ...

    @property
    def calibration(self) -> Split:
        """Training images that calibrate, the same for every network."""
        ...

    @property
    def validation(self) -> LabelledImages:
        """The only images that a search ever sees."""
        ...

    @property
    def test(self) -> LabelledImages:
        """What is reported."""
        ...

    def split(self, name: str) -> LabelledImages:
        """``train``, ``validation``, ``test`` or ``test_clean``."""
        ...

    def blocks(self, names: Sequence[str]) -> Iterator[Split]:
        """All images of splits, one after the other, as many at a time as memory allows."""
        ...

    def calibrated_by(self, calibration: Split) -> Self:
        """The same with other images that calibrate."""
        ...


@dataclass(frozen=True)
class ImageSet:
    """A data set in memory, as the search uses it.

    Attributes:
        name: its name.
        train: what networks are trained on.
        calibration: training images from which batch-norm statistics and activation ranges are
            taken; the same for every network.
        validation: the only images that a search ever sees.
        test: what is reported.
        test_clean: the undistorted test images, where ``test`` is distorted; else the same.
        augment: draws augmented copies of a batch.
        classes: their names, in the order of the labels, where they have names.
        skipped: images that were left out, since they cannot be read.
    """

    name: str
    train: Split
    calibration: Split
    validation: Split
    test: Split
    test_clean: Split
    augment: Augment
    classes: tuple[str, ...] = ()
    skipped: int = 0

    def split(self, name: str) -> Split:
        """A split by its attribute's name."""
        value: Split = getattr(self, name)
        return value

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width

    def blocks(self, names: Sequence[str]) -> Iterator[Split]:
        """All images of splits together."""
        yield joined([self.split(name) for name in names])

    def calibrated_by(self, calibration: Split) -> Self:
        """See :meth:`ImageSource.calibrated_by`."""
        return replace(self, calibration=calibration)

    @cached_property
    def checksum(self) -> str:
        """SHA-256 over all splits.

        Pixels count to four digits: processors differ in the last bits of what distorts them.
        """
        digest = hashlib.sha256()
        for part in ("train", "calibration", "validation", "test", "test_clean"):
            split = self.split(part)
            some = max(1, _CHUNK // int(np.prod(split.pixels.shape[1:])))
            for first in range(0, len(split), some):  # so that copies take little memory
                pixels = split.pixels[first : first + some]
                digest.update(in_ten_thousandths(pixels).tobytes())
            digest.update(split.labels.astype(np.int64).tobytes())
        return digest.hexdigest()


def split_of_bytes(pixels: Bytes, labels: NDArray[np.integer[Any]]) -> Split:
    """A split of bytes of shape ``(n, channels, height, width)`` and labels of shape ``(n,)``."""
    # torch takes neither views that run backwards nor, without a warning, read-only arrays.
    return Split(np.require(pixels, requirements=["C", "W"]), labels.astype(np.int64))


def split_off_validation(
    pixels: Bytes,
    labels: NDArray[np.integer[Any]],
    n: int,
    seed: int,
    source: str | Path,
) -> tuple[Split, Split]:
    """Shuffle images and set ``n`` of them aside.

    Args:
        pixels: shape ``(n, channels, height, width)``.
        labels: shape ``(n,)``.
        n: images for validation; may be 0.
        seed: decides which, and the order of all.
        source: where they come from, for messages.

    Returns:
        Those to train on, and those for validation.

    Raises:
        UserError: none would be left to train on.
    """
    if len(labels) <= n:
        raise UserError(f"{source} holds too few images to set {n} aside for validation")
    order = np.random.default_rng(seed).permutation(len(labels))
    train, validation = (
        split_of_bytes(pixels[rows], labels[rows]) for rows in np.split(order, [len(order) - n])
    )
    return train, validation


def check_images(space: Space, images: ImageSource) -> None:
    """Check that images fit a space.

    Raises:
        UserError: they differ in size, channels or number of classes.
    """
    spec, shape = space.spec, images.shape
    wanted = (spec.input_channels, spec.input_size, spec.input_size)
    if shape != wanted:
        raise UserError(
            f"image set {images.name!r} has images of shape {shape}; space {space.name!r} expects "
            f"{wanted}: set input_channels and input_size to these"
        )
    n = len(images.classes) or int(images.train.labels.max()) + 1
    if n != spec.classes:
        names = f" ({', '.join(map(repr, images.classes))})" if images.classes else ""
        raise UserError(
            f"space {space.name!r} has classes = {spec.classes}, but image set {images.name!r} has "
            f"{n}{names}; set classes = {n}"
        )


IMAGES: Registry[Callable[[], ImageSource]] = Registry("image set")
"""Loaders by name. A loader takes no arguments."""

"""Image sets that stay in their files: what is needed of them is read when it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.data.crops import shorter_side
from apq_moo.data.images import N_CALIBRATION, Labels, Split
from apq_moo.data.listing import Listing, digest_of_listings
from apq_moo.data.loading import Squares, in_order, squares
from apq_moo.files import digest_of

WHOLE_BYTES = 3 * 2**29
"""Up to this the images that are to be classified are held in memory at once."""

BLOCK_BYTES = 3 * 2**28
"""Of the images that are classified at a time, where they are more."""


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """Labelled images in files.

    Attributes:
        listing: of the files.
        size: height and width of the images, once they are read.
        channels: 3 for RGB, 1 for grey.
    """

    listing: Listing
    size: int
    channels: int

    @property
    def labels(self) -> Labels:
        """Classes by number, shape ``(n,)``."""
        return self.listing.labels

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> Split:
        """Some of the images, read as an evaluation sees them: the middle square."""
        some = self.listing[rows]
        reader = Squares(some, shorter_side(self.size), self.size, self.channels)
        pixels = np.empty((len(some), self.channels, self.size, self.size), dtype=np.uint8)
        first = 0
        for piece in squares(reader, in_order(len(some), reader.bytes_each)):
            pixels[first : first + len(piece)] = piece.permute(0, 3, 1, 2).numpy()
            first += len(piece)
        return Split(pixels, some.labels)

    def whole_squares(self) -> Squares:
        """Reads what a training cuts its parts from: squares as large as the shorter side."""
        shorter = shorter_side(self.size)
        return Squares(self.listing, shorter, shorter, self.channels)


@dataclass(frozen=True, eq=False)
class StreamedSet:
    """An image set in files; see :class:`apq_moo.data.images.ImageSource`.

    Attributes:
        name: its name.
        classes: their names, in the order of the labels.
        train: what networks are trained on, shuffled once.
        validation: the only images that a search ever sees.
        test: what is reported.
        skipped: images that were left out, since they cannot be read.
        given: what calibrates, if not the first training images.
    """

    name: str
    classes: tuple[str, ...]
    train: StreamedSplit
    validation: StreamedSplit
    test: StreamedSplit
    skipped: int = 0
    given: Split | None = field(default=None, repr=False)

    @property
    def test_clean(self) -> StreamedSplit:
        """The test images, which nothing distorts."""
        return self.test

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.train.channels, self.train.size, self.train.size

    @cached_property
    def calibration(self) -> Split:
        """Training images that calibrate, read as an evaluation sees them."""
        return self.given or self.train[:N_CALIBRATION]

    @cached_property
    def checksum(self) -> str:
        """SHA-256 over the names, classes and sizes of all files, and over the form of images.

        Their contents are not read for it: of a million files that takes too long.
        """
        listings = [split.listing for split in (self.train, self.validation, self.test)]
        return digest_of(
            {"files": digest_of_listings(listings), "classes": self.classes, "shape": self.shape}
        )

    def split(self, name: str) -> StreamedSplit:
        """A split by its attribute's name."""
        value: StreamedSplit = getattr(self, name)
        return value

    def blocks(self, names: Sequence[str]) -> Iterator[Split]:
        """All images of splits, in one block if they take at most :data:`WHOLE_BYTES`."""
        listing = Listing.join([self.split(name).listing for name in names])
        together = replace(self.test, listing=listing)
        each = int(np.prod(self.shape))
        some = len(listing) if each * len(listing) <= WHOLE_BYTES else BLOCK_BYTES // each
        for first in range(0, len(listing), max(1, some)):
            yield together[first : first + max(1, some)]

    def calibrated_by(self, calibration: Split) -> StreamedSet:
        """See :meth:`apq_moo.data.images.ImageSource.calibrated_by`."""
        return replace(self, given=calibration)

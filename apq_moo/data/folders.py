"""A user's own images: in folders as ImageNet's, ``train/<class>/*.jpg``, or as a CSV file says."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.data.augmentation import Augmentation
from apq_moo.data.decoding import MAX_PIXELS, decode_all
from apq_moo.data.images import (
    N_CALIBRATION,
    ImageSet,
    Labels,
    split_of_bytes,
    split_off_validation,
)
from apq_moo.data.listing import CSV_SUFFIX, SYNTAX, Listing, list_pictures
from apq_moo.errors import UserError, shown
from apq_moo.files import digest_of, sha256
from apq_moo.space import Space

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

PREFIX = "folder:"
SPLIT_SEED = 20091001
VALIDATION_FRACTION = 0.1
MAX_BYTES = 8 * 2**30
"""What all images may take in memory."""

_LISTED = 3
"""Images that a message names."""

_NAME = re.compile(r"folder:(?P<path>.+)@(?P<size>[0-9]{1,6})(?P<grey>-grey)?", re.DOTALL)


# One set at a time is kept, since it may be as large as MAX_BYTES.
@lru_cache(maxsize=1)
def load_named_folder(name: str) -> ImageSet:
    """The image set of a name ``folder:PATH@SIZE``, or ``folder:PATH@SIZE-grey`` for one channel.

    Raises:
        UserError: the name is malformed; see also :func:`load_image_folder`.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(
            f"image set {shown(name)}: write {SYNTAX} with a positive integer SIZE, as in "
            "folder:/data/flowers@64 (or folder:/data/flowers@64-grey)"
        )
    channels = 1 if match["grey"] else 3
    return load_image_folder(match["path"], size=int(match["size"]), channels=channels)


def located(space: Space) -> str:
    """The name of a space's images, with the whole path where they lie in a folder.

    A relative path begins where the space's file lies.
    """
    name, begin = space.spec.images, space.spec.relative_to
    match = _NAME.fullmatch(name)
    if match is None or match["path"].startswith("~") or not begin:
        return name
    path = os.path.normpath(Path(begin, match["path"]))
    return f"{PREFIX}{path}{name[match.end('path') :]}"


def at_hand(name: str, space: Space) -> str:
    """The name of images as it was recorded, or where a space says that they are now."""
    old, new = _NAME.fullmatch(name), _NAME.fullmatch(space.spec.images)
    if old is None or new is None or _is_there(old["path"]):
        return name
    return located(space)


def files_digest(name: str) -> str | None:
    """SHA-256 of the names and contents of all images in a folder.

    Args:
        name: ``folder:PATH@SIZE``; of any other name, or where there is no such folder, it is None.

    Raises:
        UserError: an image cannot be read, or the folder is not as :func:`load_image_folder` wants.
    """
    match = _NAME.fullmatch(name)
    if match is None or not _is_there(match["path"]):
        return None
    pictures = list_pictures(match["path"])
    paths = pictures.paths()
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(sha256, paths))
    names = [listing.name(i) for listing in pictures.splits.values() for i in range(len(listing))]
    return digest_of(list(zip(names, digests, strict=True)))


def _is_there(path: str) -> bool:
    """Whether there is a folder of images, or a CSV file that lists some."""
    try:
        place = Path(path).expanduser()
        return place.is_dir() or (place.suffix.lower() == CSV_SUFFIX and place.is_file())
    except (OSError, RuntimeError, ValueError):
        return False


def load_image_folder(
    path: str | Path,
    *,
    size: int,
    channels: int = 3,
    validation_fraction: float = VALIDATION_FRACTION,
) -> ImageSet:
    """Read all images of a folder, scaled to ``size`` by their shorter side and cut to a square.

    Images are turned upright first, as their EXIF data says.

    The test split is ``test``, and validation is ``val``. If one of these is missing, the other is
    the test split, and validation is drawn from ``train``, once, with :data:`SPLIT_SEED`; where a
    CSV file names neither, both are drawn. Classes are numbered by name. Training images are
    mirrored and shifted by up to an eighth of their size.

    Args:
        path: a folder or a CSV file, see :func:`apq_moo.data.listing.list_pictures`.
        size: height and width in pixels.
        channels: 3 for RGB, 1 for grey.
        validation_fraction: the part of ``train`` that validation gets where it is drawn.

    Raises:
        UserError: a folder is missing, has no classes or not those of ``train``; an image cannot be
            read; all of them take more than :data:`MAX_BYTES`; or an argument is out of range.
    """
    _check(size, channels, validation_fraction)
    pictures = list_pictures(path)
    place, found = pictures.place, pictures.splits
    n_bytes = channels * size**2 * len(pictures)
    if n_bytes > MAX_BYTES:
        raise UserError(
            f"the images of {place} at {size}x{size} take {n_bytes / 2**30:,.1f} GiB of memory, "
            f"more than {MAX_BYTES / 2**30:.0f}; choose a smaller size or fewer images"
        )
    unreadable: dict[str, str] = {}
    read = {name: _read(of, size, channels, unreadable) for name, of in found.items()}
    _refuse(unreadable, place, len(pictures))
    pixels, labels = read["train"]
    *validation, held_out = list(found)[1:] or [""]
    part = max(1, round(validation_fraction * len(labels)))
    n_drawn = 0 if validation else part if held_out else 2 * part
    # Also where nothing is drawn, this shuffles the classes, so that calibration has all of them.
    train, drawn = split_off_validation(pixels, labels, n_drawn, SPLIT_SEED, str(place / "train"))
    test = split_of_bytes(*read[held_out]) if held_out else drawn[part:]
    return ImageSet(
        name=f"{PREFIX}{path}@{size}{'-grey' if channels == 1 else ''}",
        train=train,
        calibration=train[:N_CALIBRATION],
        validation=split_of_bytes(*read["val"]) if validation else drawn[:part],
        test=test,
        test_clean=test,
        augment=Augmentation(max_shift=size // 8),
        classes=pictures.classes,
    )


@dataclass(frozen=True)
class Inspection:
    """What is in a set of images.

    Attributes:
        counts: images by split and class.
        sizes: widths and heights of those that can be read, upright, and how many have them.
        unreadable: why, by path.
        left_out: files that are no images by their suffix.
    """

    counts: dict[str, dict[str, int]]
    sizes: dict[tuple[int, int], int]
    unreadable: dict[str, str]
    left_out: list[str]

    def to_dict(self) -> dict[str, Any]:
        """As JSON; sizes as rows of width, height and number of images, the smallest first."""
        return {
            "counts": self.counts,
            "sizes": [
                [*size, n] for size, n in sorted(self.sizes.items(), key=lambda s: _area(s[0]))
            ],
            "unreadable": self.unreadable,
            "left_out": self.left_out,
        }


def _area(size: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    return size[0] * size[1], size


def inspect(path: str | Path) -> Inspection:
    """Read all images of a set, to tell what is there and which are unreadable.

    Args:
        path: of the folder or CSV file, or ``folder:PATH@SIZE``.

    Raises:
        UserError: a folder is missing, has no classes, or not those of ``train``.
    """
    match = _NAME.fullmatch(str(path))
    pictures = list_pictures(match["path"] if match else path)
    sizes: Counter[tuple[int, int]] = Counter()
    unreadable: dict[str, str] = {}
    for listing in pictures.splits.values():
        for part in listing.parts():
            found: list[tuple[int, int]] = []
            unreadable |= decode_all(part.paths(), lambda _i, image: found.append(image.size))  # noqa: B023
            sizes.update(found)
    counts = {name: listing.count(pictures.classes) for name, listing in pictures.splits.items()}
    return Inspection(counts, dict(sizes), unreadable, list(pictures.left_out))


def _check(size: int, channels: int, validation_fraction: float) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise UserError(f"size must be a positive integer, not {shown(size)}")
    if channels not in {1, 3}:
        raise UserError(f"channels must be 1 (grey) or 3 (RGB), not {shown(channels)}")
    if not 0 < validation_fraction < 1:
        raise UserError(
            f"validation_fraction must lie between 0 and 1, not {shown(validation_fraction)}"
        )


def _read(
    listing: Listing, size: int, channels: int, unreadable: dict[str, str]
) -> tuple[NDArray[np.uint8], Labels]:
    """Bytes of shape ``(n, channels, size, size)``, and labels; adds what cannot be read."""
    from torchvision.transforms import CenterCrop, Compose, Resize

    square = Compose([Resize(size), CenterCrop(size)])
    mode = "RGB" if channels == 3 else "L"
    pixels = np.empty((len(listing), channels, size, size), dtype=np.uint8)

    def keep(i: int, image: Picture) -> None:
        found = np.asarray(square(image.convert(mode)))
        pixels[i] = found.reshape(size, size, channels).transpose(2, 0, 1)

    def check(image: Picture) -> None:
        if max(image.size) * size**2 > MAX_PIXELS * min(image.size):
            raise ValueError(f"it is too long for its width: {image.size}")

    unreadable |= decode_all(listing.paths(), keep, check)
    return pixels, listing.labels


def _refuse(unreadable: Mapping[str, str], place: Path, n: int) -> None:
    """Refuse a set some of whose ``n`` images cannot be read."""
    if len(unreadable) == 1:
        ((path, reason),) = unreadable.items()
        raise UserError(f"cannot read image {path}: {reason}")
    if unreadable:
        names = [
            os.path.relpath(path, place if place.is_dir() else place.parent) for path in unreadable
        ]
        listed = ", ".join((*names[:_LISTED], *["..."] * (len(names) > _LISTED)))
        raise UserError(
            f"cannot read {len(names):,} of {n:,} images in {place}: {listed}; `apq-moo data "
            f"check {shlex.quote(str(place))}` says which and why"
        )

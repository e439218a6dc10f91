"""A user's own images: in folders as ImageNet's, ``train/<class>/*.jpg``, or as a CSV file says."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from apq_moo.data.augmentation import Augmentation
from apq_moo.data.crops import shorter_side
from apq_moo.data.decoding import MAX_PIXELS, decode_all
from apq_moo.data.images import (
    N_CALIBRATION,
    ImageSet,
    ImageSource,
    Split,
    split_of_bytes,
)
from apq_moo.data.inspecting import unreadable
from apq_moo.data.listing import (
    CSV_SUFFIX,
    SYNTAX,
    Listing,
    Pictures,
    digest_of_listings,
    list_pictures,
)
from apq_moo.data.streamed import StreamedSet, StreamedSplit
from apq_moo.errors import UserError, shown
from apq_moo.files import digest_of, sha256
from apq_moo.space import Space

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

PREFIX = "folder:"
SPLIT_SEED = 20091001
VALIDATION_FRACTION = 0.1
MAX_BYTES = 2**31
"""What all images may take in memory; more are streamed."""

MOST_DRAWN = 10_000
"""Images that are set aside for validation."""

_LISTED = 3
"""Images that a message names."""

_NAME = re.compile(
    r"folder:(?P<path>.+)@(?P<size>[0-9]{1,6})(?P<grey>-grey)?(?P<stream>-stream)?(?P<skip>-skip)?",
    re.DOTALL,
)


# One set at a time is kept, since it may be as large as MAX_BYTES.
@lru_cache(maxsize=1)
def load_named_folder(name: str) -> ImageSource:
    """The image set of a name ``folder:PATH@SIZE``.

    ``-grey`` behind it gives one channel, ``-stream`` leaves the images in their files however few
    they are, and ``-skip`` leaves out those that cannot be read.

    Raises:
        UserError: the name is malformed; see also :func:`load_image_folder`.
    """
    match = _parts(name)
    return load_image_folder(
        match["path"],
        size=int(match["size"]),
        channels=1 if match["grey"] else 3,
        stream=match["stream"] is not None,
        skip_unreadable=match["skip"] is not None,
    )


def _parts(name: str) -> re.Match[str]:
    """The parts of a name ``folder:PATH@SIZE``.

    Raises:
        UserError: it is malformed.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(
            f"image set {shown(name)}: write {SYNTAX} with a positive integer SIZE, as in "
            "folder:/data/flowers@64 (or folder:/data/flowers@64-grey)"
        )
    return match


def listed_folder(name: str) -> tuple[tuple[int, int], Pictures, dict[str, Listing]]:
    """What a name ``folder:PATH@SIZE`` stands for, without reading an image.

    Returns:
        Channels and size of the images; all that are listed; and those of the splits ``train``,
        ``validation`` and ``test``, unreadable ones included.

    Raises:
        UserError: see :func:`load_named_folder`.
    """
    match = _parts(name)
    channels, size = 1 if match["grey"] else 3, int(match["size"])
    _check(size, channels, VALIDATION_FRACTION)
    pictures = list_pictures(match["path"])
    parts = _parted(pictures, VALIDATION_FRACTION)
    return (
        (channels, size),
        pictures,
        dict(zip(("train", "validation", "test"), parts, strict=True)),
    )


def seen_from(name: str, folder: Path) -> str:
    """The name of images for a file in another folder, whose relative paths begin there."""
    match = _NAME.fullmatch(name)
    if match is None or match["path"].startswith("~") or Path(match["path"]).is_absolute():
        return name
    path = os.path.relpath(match["path"], folder)
    return f"{PREFIX}{path}{name[match.end('path') :]}"


def with_wishes(name: str, *, stream: bool = False, skip_unreadable: bool = False) -> str:
    """The name of an image set that is to be streamed, or unreadable images of which are skipped.

    Args:
        name: of the set; what it says already stays.
        stream: whether to leave the images in their files.
        skip_unreadable: whether to leave out those that cannot be read.

    Raises:
        UserError: it is no set of one's own.
    """
    if not stream and not skip_unreadable:
        return name
    match = _NAME.fullmatch(name)
    if match is None:
        wish = "stream" if stream else "skip_unreadable"
        raise UserError(
            f"{wish}=True is for images of your own, {SYNTAX}; image set {shown(name)} is in "
            "memory and whole, so leave it out"
        )
    end = "-stream" * (stream or match["stream"] is not None)
    end += "-skip" * (skip_unreadable or match["skip"] is not None)
    return f"{PREFIX}{match['path']}@{match['size']}{match['grey'] or ''}{end}"


def path_of(name: str) -> str:
    """The path in a name ``folder:PATH@SIZE``, or the path itself."""
    match = _NAME.fullmatch(name)
    return match["path"] if match else name


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
    if old is None or new is None or is_there(old["path"]):
        return name
    wishes = {"stream": bool(old["stream"]), "skip_unreadable": bool(old["skip"])}
    return with_wishes(located(space), **wishes)


def files_digest(name: str) -> str | None:
    """SHA-256 of the names and contents of all images in a folder.

    Of streamed ones it is that of their names, classes and sizes.

    Args:
        name: ``folder:PATH@SIZE``; of any other name, or where there is no such folder, it is None.

    Raises:
        UserError: an image cannot be read, or the folder is not as :func:`load_image_folder` wants.
    """
    match = _NAME.fullmatch(name)
    if match is None or not is_there(match["path"]):
        return None
    pictures = list_pictures(match["path"])
    channels = 1 if match["grey"] else 3
    if match["stream"] or _n_bytes(pictures, int(match["size"]), channels) > MAX_BYTES:
        return digest_of_listings(pictures.splits.values())
    paths = pictures.paths()
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(sha256, paths))
    names = [listing.name(i) for listing in pictures.splits.values() for i in range(len(listing))]
    return digest_of(list(zip(names, digests, strict=True)))


def is_there(path: str) -> bool:
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
    stream: bool = False,
    skip_unreadable: bool = False,
) -> ImageSource:
    """Images of a folder, scaled by their shorter side and cut to a square of ``size``.

    They are turned upright first, as their EXIF data says. What takes more than :data:`MAX_BYTES`
    is streamed: it stays in its files, from which it is read in training and evaluation. There the
    shorter side is scaled to ``size / 0.875`` before the middle is taken, and training sees random
    parts of random size, half of them mirrored; in memory the shorter side is scaled to ``size``,
    and training images are mirrored and shifted by up to an eighth of their size.

    The test split is ``test``, and validation is ``val``. If one of these is missing, the other is
    the test split, and validation is drawn from ``train``, once, with :data:`SPLIT_SEED`; where a
    CSV file names neither, both are drawn. Classes are numbered by name.

    Args:
        path: a folder or a CSV file, see :func:`apq_moo.data.listing.list_pictures`.
        size: height and width in pixels.
        channels: 3 for RGB, 1 for grey.
        validation_fraction: the part of ``train`` that validation gets where it is drawn, up to
            :data:`MOST_DRAWN` images.
        stream: whether to stream it, however few the images are.
        skip_unreadable: whether to leave out images that cannot be read, instead of refusing them;
            to find them all are read once.

    Raises:
        UserError: a folder is missing, has no classes or not those of ``train``; an image in memory
            cannot be read; or an argument is out of range.
    """
    _check(size, channels, validation_fraction)
    pictures = list_pictures(path)
    listed = len(pictures)
    if skip_unreadable:
        pictures = pictures.without(unreadable(pictures))
        _refuse_empty(pictures)
    streamed = stream or _n_bytes(pictures, size, channels) > MAX_BYTES
    wishes = {"stream": stream, "skip_unreadable": skip_unreadable}
    name = with_wishes(f"{PREFIX}{path}@{size}{'-grey' if channels == 1 else ''}", **wishes)
    train, validation, test = _parted(pictures, validation_fraction)
    skipped = listed - len(pictures)
    if streamed:
        return StreamedSet(
            name=name,
            classes=pictures.classes,
            train=StreamedSplit(train, size, channels),
            validation=StreamedSplit(validation, size, channels),
            test=StreamedSplit(test, size, channels),
            skipped=skipped,
        )
    bad: dict[str, str] = {}
    read = [_read(part, size, channels, bad) for part in (train, validation, test)]
    _refuse({path: bad[path] for path in sorted(bad)}, pictures)
    return ImageSet(
        name=name,
        train=read[0],
        calibration=read[0][:N_CALIBRATION],
        validation=read[1],
        test=read[2],
        test_clean=read[2],
        augment=Augmentation(max_shift=size // 8),
        classes=pictures.classes,
        skipped=skipped,
    )


def _n_bytes(pictures: Pictures, size: int, channels: int) -> int:
    return channels * size**2 * len(pictures)


def _parted(pictures: Pictures, validation_fraction: float) -> tuple[Listing, Listing, Listing]:
    """Images to train on, shuffled, for validation and for the test."""
    train, *held_out = pictures.splits.values()
    most = min(MOST_DRAWN, round(validation_fraction * len(train)))
    drawn = max(1, most) * (2 - len(held_out))
    if len(train) <= drawn:
        raise UserError(
            f"{pictures.place} holds too few images to set {drawn} aside for validation"
        )
    # Also where nothing is drawn, this shuffles the classes, so that calibration has all of them.
    order = np.random.default_rng(SPLIT_SEED).permutation(len(train))
    kept, aside = train[order[: len(train) - drawn]], train[order[len(train) - drawn :]]
    if not held_out:
        return kept, aside[: drawn // 2], aside[drawn // 2 :]
    return kept, held_out[0] if len(held_out) == 2 else aside, held_out[-1]


def _refuse_empty(pictures: Pictures) -> None:
    for name, listing in pictures.splits.items():
        missing = [of for of, n in listing.count(pictures.classes).items() if not n]
        if name == "train" and missing:
            raise UserError(
                f"{pictures.place}: no image of {shown(missing[0])} to train on can be read; "
                "replace some, or leave the class out"
            )
        if not len(listing):
            raise UserError(f"{pictures.place}: no image of {name} can be read; replace some")


def _check(size: int, channels: int, validation_fraction: float) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise UserError(f"size must be a positive integer, not {shown(size)}")
    if shorter_side(size) ** 2 > MAX_PIXELS:
        raise UserError(f"size={size} is more than an image may have; lower it")
    if channels not in {1, 3}:
        raise UserError(f"channels must be 1 (grey) or 3 (RGB), not {shown(channels)}")
    if not 0 < validation_fraction < 1:
        raise UserError(
            f"validation_fraction must lie between 0 and 1, not {shown(validation_fraction)}"
        )


def _read(listing: Listing, size: int, channels: int, unreadable: dict[str, str]) -> Split:
    """Images of ``size``; adds what cannot be read."""
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
    return split_of_bytes(pixels, listing.labels)


def _refuse(bad: Mapping[str, str], pictures: Pictures) -> None:
    """Refuse a set some of whose images cannot be read."""
    place = pictures.place
    if len(bad) == 1:
        ((path, reason),) = bad.items()
        raise UserError(f"cannot read image {path}: {reason}")
    if bad:
        base = place if place.is_dir() else place.parent
        names = [os.path.relpath(path, base) for path in bad]
        listed = ", ".join((*names[:_LISTED], *["..."] * (len(names) > _LISTED)))
        raise UserError(
            f"cannot read {len(names):,} of {len(pictures):,} images in {place}: {listed}; "
            f"`apq-moo data check {shlex.quote(str(place))}` says which and why"
        )

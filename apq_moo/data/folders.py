"""A user's own images in folders, as ImageNet's: ``train/<class>/*.jpg``, ``val`` or ``test``."""

from __future__ import annotations

import os
import re
import shlex
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from apq_moo.data.augmentation import Augmentation
from apq_moo.data.images import (
    N_CALIBRATION,
    ImageSet,
    Labels,
    split_of_bytes,
    split_off_validation,
)
from apq_moo.errors import UserError, shown
from apq_moo.files import digest_of, sha256
from apq_moo.space import Space

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from torchvision.datasets import ImageFolder

PREFIX = "folder:"
SYNTAX = "folder:PATH@SIZE"
SPLIT_SEED = 20091001
VALIDATION_FRACTION = 0.1
MAX_BYTES = 8 * 2**30
"""What all images may take in memory."""

MAX_PIXELS = 2**25
"""Of one image, before it is made smaller."""

_LARGE = 2**22
_ORIENTATION = 0x0112
_LISTED = 3
"""Images that a message names."""

_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
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
    if old is None or new is None or _is_folder(old["path"]):
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
    if match is None or not _is_folder(match["path"]):
        return None
    folder, found = _splits(match["path"])
    paths = [path for dataset in found.values() for path, _ in dataset.samples]
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(sha256, paths))
    names = [Path(path).relative_to(folder).as_posix() for path in paths]
    return digest_of(list(zip(names, digests, strict=True)))


def _is_folder(path: str) -> bool:
    try:
        return Path(path).expanduser().is_dir()
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

    The test split is ``test``, and validation is ``val``. If one of these folders is missing, the
    other is the test split, and validation is drawn from ``train``, once, with :data:`SPLIT_SEED`.
    Classes are numbered by name. Training images are mirrored and shifted by up to an eighth of
    their size.

    Args:
        path: holds ``train`` and ``val`` or ``test`` or both; in each a folder for every class.
        size: height and width in pixels.
        channels: 3 for RGB, 1 for grey.
        validation_fraction: the part of ``train`` that validation gets where it is drawn.

    Raises:
        UserError: a folder is missing, has no classes or not those of ``train``; an image cannot be
            read; all of them take more than :data:`MAX_BYTES`; or an argument is out of range.
    """
    _check(size, channels, validation_fraction)
    folder, found = _splits(path)
    n_bytes = channels * size**2 * sum(len(dataset) for dataset in found.values())
    if n_bytes > MAX_BYTES:
        raise UserError(
            f"the images of {folder} at {size}x{size} take {n_bytes / 2**30:,.1f} GiB of memory, "
            f"more than {MAX_BYTES / 2**30:.0f}; choose a smaller size or fewer images"
        )
    unreadable: dict[str, str] = {}
    read = {name: _read(of, size, channels, unreadable) for name, of in found.items()}
    _refuse(unreadable, folder, sum(len(dataset) for dataset in found.values()))
    pixels, labels = read["train"]
    *validation, held_out = list(found)[1:]
    n_drawn = 0 if validation else max(1, round(validation_fraction * len(labels)))
    # Also where nothing is drawn, this shuffles the classes, so that calibration has all of them.
    train, drawn = split_off_validation(pixels, labels, n_drawn, SPLIT_SEED, str(folder / "train"))
    test = split_of_bytes(*read[held_out])
    return ImageSet(
        name=f"{PREFIX}{path}@{size}{'-grey' if channels == 1 else ''}",
        train=train,
        calibration=train[:N_CALIBRATION],
        validation=split_of_bytes(*read["val"]) if validation else drawn,
        test=test,
        test_clean=test,
        augment=Augmentation(max_shift=size // 8),
        classes=tuple(found["train"].classes),
    )


@dataclass(frozen=True)
class Inspection:
    """What is in a folder of images.

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


def inspect(path: str | Path) -> Inspection:
    """Read all images of a folder, to tell what is there and which are unreadable.

    Args:
        path: of the folder, or ``folder:PATH@SIZE``.

    Raises:
        UserError: a folder is missing, has no classes, or not those of ``train``.
    """
    match = _NAME.fullmatch(str(path))
    folder, found = _splits(match["path"] if match else path)
    paths = [path for dataset in found.values() for path, _ in dataset.samples]
    sizes: list[tuple[int, int]] = []
    unreadable = _decode(paths, lambda _i, image: sizes.append(image.size))
    files = {str(file) for name in found for file in (folder / name).rglob("*") if file.is_file()}
    counts = {}
    for name, dataset in found.items():
        of = Counter(dataset.targets)
        counts[name] = {text: of[i] for i, text in enumerate(dataset.classes)}
    return Inspection(counts, dict(Counter(sizes)), unreadable, sorted(files - set(paths)))


def _splits(path: str | Path) -> tuple[Path, dict[str, ImageFolder]]:
    """Where a folder is, and its splits: ``train``, then those of ``val`` and ``test``."""
    try:
        folder = Path(path).expanduser().absolute()
    except RuntimeError as error:  # of ~name, where there is no such user
        raise UserError(f"image folder {str(path)!r}: {error} Write {SYNTAX}") from error
    found = {name: _listed(folder / name) for name in ("train", *_held_out(folder))}
    _check_classes(folder, {name: dataset.classes for name, dataset in found.items()})
    return folder, found


def _held_out(folder: Path) -> list[str]:
    """Which of ``val`` and ``test`` there are, beside ``train``."""
    try:
        if not folder.is_dir():
            raise UserError(f"image folder {str(folder)!r} is no folder; write {SYNTAX}")
        found = [name for name in ("val", "test") if (folder / name).is_dir()]
        if not found or not (folder / "train").is_dir():
            raise UserError(f"image folder {folder} must hold train, and val or test or both")
    except OSError as error:
        raise UserError(f"cannot read image folder {folder}: {error.strerror or error}") from error
    return found


def _check(size: int, channels: int, validation_fraction: float) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise UserError(f"size must be a positive integer, not {shown(size)}")
    if channels not in {1, 3}:
        raise UserError(f"channels must be 1 (grey) or 3 (RGB), not {shown(channels)}")
    if not 0 < validation_fraction < 1:
        raise UserError(
            f"validation_fraction must lie between 0 and 1, not {shown(validation_fraction)}"
        )


def _listed(folder: Path) -> ImageFolder:
    """The images of a split, by class, still unread."""
    from torchvision.datasets import ImageFolder

    try:
        return ImageFolder(folder)
    except OSError as error:
        raise UserError(
            f"{folder} must hold a folder of images for every class: {error.strerror or error}"
        ) from error


def _check_classes(folder: Path, classes: dict[str, list[str]]) -> None:
    for name, listed in classes.items():
        odd = sorted(set(listed) ^ set(classes["train"]))
        if odd:
            raise UserError(
                f"image folder {folder}: train and {name} must have the same classes, but only one "
                f"of them has {', '.join(map(shown, odd[:3]))}{', ...' if odd[3:] else ''}"
            )


def _read(
    dataset: ImageFolder, size: int, channels: int, unreadable: dict[str, str]
) -> tuple[NDArray[np.uint8], Labels]:
    """Bytes of shape ``(n, channels, size, size)``, and labels; adds what cannot be read."""
    from torchvision.transforms import CenterCrop, Compose, Resize

    square = Compose([Resize(size), CenterCrop(size)])
    mode = "RGB" if channels == 3 else "L"
    pixels = np.empty((len(dataset), channels, size, size), dtype=np.uint8)

    def keep(i: int, image: Picture) -> None:
        found = np.asarray(square(image.convert(mode)))
        pixels[i] = found.reshape(size, size, channels).transpose(2, 0, 1)

    def check(image: Picture) -> None:
        if max(image.size) * size**2 > MAX_PIXELS * min(image.size):
            raise ValueError(f"it is too long for its width: {image.size}")

    unreadable |= _decode([path for path, _ in dataset.samples], keep, check)
    return pixels, np.asarray(dataset.targets, dtype=np.int64)


def _decode(
    paths: Sequence[str],
    use: Callable[[int, Picture], object],
    check: Callable[[Picture], object] = lambda _image: None,
) -> dict[str, str]:
    """Hand every image to a function, upright and with its number; by several threads.

    Args:
        paths: of the images.
        use: takes an image.
        check: raises, before an image is decoded, if it cannot be used.

    Returns:
        Why, for each image that cannot be read.
    """
    from PIL import Image

    large = Lock()  # so that few of them are in memory at a time

    def read(i: int) -> str:
        try:
            with Image.open(paths[i], formats=_FORMATS) as image:
                n_pixels = image.width * image.height
                if n_pixels > MAX_PIXELS:
                    raise ValueError(f"it has {n_pixels:,} pixels, more than {MAX_PIXELS:,}")
                check(image)
                if image.mode[0] in "IF":  # Pillow would cut their values off at 255
                    raise ValueError("it has more than 8 bits a channel; convert it to 8")
                with large if n_pixels > _LARGE else nullcontext():
                    image.load()
                    use(i, _upright(image))
        except Exception as error:  # damaged images make Pillow raise almost anything
            return str(error) or type(error).__name__
        return ""

    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.filterwarnings("ignore", module="PIL")  # such as of corrupt EXIF data
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        reasons = list(pool.map(read, range(len(paths))))
    return {path: reason for path, reason in zip(paths, reasons, strict=True) if reason}


def _upright(image: Picture) -> Picture:
    """An image turned and mirrored as its EXIF data says; as it is, where that is malformed.

    Unlike Pillow's ``exif_transpose``, nothing but the orientation is read or written.
    """
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        turn = turns.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # as damaged images
        return image
    return image if turn is None else image.transpose(turn)


def _refuse(unreadable: Mapping[str, str], folder: Path, n: int) -> None:
    """Refuse a folder some of whose ``n`` images cannot be read."""
    if len(unreadable) == 1:
        ((path, reason),) = unreadable.items()
        raise UserError(f"cannot read image {path}: {reason}")
    if unreadable:
        names = [str(Path(path).relative_to(folder)) for path in unreadable]
        listed = ", ".join((*names[:_LISTED], *["..."] * (len(names) > _LISTED)))
        raise UserError(
            f"cannot read {len(names):,} of {n:,} images in {folder}: {listed}; `apq-moo data "
            f"check {shlex.quote(str(folder))}` says which and why"
        )

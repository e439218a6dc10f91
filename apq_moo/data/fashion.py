"""Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): 28x28 grey images of ten kinds of clothing.

Its four files are looked for in the folders of ``$APQ_MOO_DATA``, where Debian's package
``dataset-fashion-mnist`` puts them, and in the cache, each as they are or as torchvision keeps them
(``FashionMNIST/raw``); packed with gzip or not.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apq_moo.data.augmentation import Augmentation
from apq_moo.data.images import (
    IMAGES,
    N_CALIBRATION,
    ImageSet,
    split_of_bytes,
    split_off_validation,
)
from apq_moo.data.sources import SOURCES, Source, base_folders, fetch
from apq_moo.errors import UserError
from apq_moo.files import read_bytes

NAME = "fashion-mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
SPLIT_SEED = 20170825
MAX_SHIFT = 2
MAX_ERASE = 8

_FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
_BYTES = 0x08
_MAX_AXES = 8
_MAX_BYTES = 2**27
_GZIP = 31
"""What zlib calls the format."""

_TORCHVISION = "FashionMNIST/raw"
_PLACES = ("", NAME, _TORCHVISION)


def folders() -> Iterator[Path]:
    """Where the files may lie."""
    for base in base_folders(DEBIAN):
        yield from (base / place for place in _PLACES)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An array of bytes in LeCun's IDX format, packed with gzip if the name says so.

    Raises:
        UserError: the file is missing, damaged, or holds anything else.
    """
    try:
        data = read_bytes(path, _MAX_BYTES)
        if path.suffix == ".gz":
            data = zlib.decompressobj(wbits=_GZIP).decompress(data, _MAX_BYTES)
        zero, kind, dimensions = struct.unpack(">HBB", data[:4])
        shape = struct.unpack(f">{dimensions}I", data[4 : 4 + 4 * dimensions])
    except (zlib.error, struct.error) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    array = np.frombuffer(data, dtype=np.uint8)[4 + 4 * dimensions :]
    if zero != 0 or kind != _BYTES or dimensions > _MAX_AXES or array.size != math.prod(shape):
        raise UserError(f"{path} is no IDX file of bytes, or is truncated")
    return array.reshape(shape)


def find_files() -> list[Path]:
    """The four files: training images and labels, test images and labels.

    Raises:
        UserError: no folder holds all of them (the message says how to get them), or one may not be
            entered.
    """
    try:
        for folder in folders():
            names = [folder / f"{name}-ubyte" for name in _FILES]
            found = [
                next((path for path in (name, Path(f"{name}.gz")) if path.is_file()), None)
                for name in names
            ]
            if None not in found:
                return [path for path in found if path is not None]
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror or error}") from error
    raise UserError(
        "Fashion-MNIST is not here: install Debian's dataset-fashion-mnist, or set APQ_MOO_DATA to "
        "a folder that torchvision.datasets.FashionMNIST(folder, download=True) filled, or run "
        f"`apq-moo data download {NAME}`"
    )


def download_fashion_mnist(folder: str | Path | None = None) -> None:
    """Download Fashion-MNIST by torchvision, 30 MB.

    Args:
        folder: where ``FashionMNIST/raw`` is to be; by default where :func:`load_fashion_mnist`
            finds it.

    Raises:
        UserError: the download fails, or the folder cannot be written to.
    """
    from torchvision.datasets import FashionMNIST

    fetch(
        NAME,
        lambda place: FashionMNIST(place, download=True),
        _TORCHVISION,
        folder,
    )


@IMAGES.add(NAME)
@cache
def load_fashion_mnist() -> ImageSet:
    """Of 60,000 training images 50,000 to train on and 10,000 for validation; 10,000 for the test.

    The validation split is drawn once, with :data:`SPLIT_SEED`; as many images as the test has.

    Raises:
        UserError: the files are not here, or do not belong together.
    """
    paths = find_files()
    arrays = [read_idx(path) for path in paths]
    for first in (0, 2):
        images, labels, path = arrays[first], arrays[first + 1], paths[first]
        if images.ndim != 3 or labels.shape != (len(images),):
            raise UserError(
                f"{path} and its labels do not belong together: shapes {images.shape} and "
                f"{labels.shape}"
            )
    pixels, labels, test_pixels, test_labels = arrays
    test = split_of_bytes(test_pixels[:, None], test_labels)
    train, validation = split_off_validation(
        pixels[:, None], labels, len(test), SPLIT_SEED, paths[0]
    )
    return ImageSet(
        name=NAME,
        train=train,
        calibration=train[:N_CALIBRATION],
        validation=validation,
        test=test,
        test_clean=test,
        augment=Augmentation(max_shift=MAX_SHIFT, max_erase=MAX_ERASE),
    )


SOURCES.register(NAME, Source(lambda: find_files()[0].parent, download_fashion_mnist))

"""Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): 28x28 grey images of ten kinds of clothing.

Its four files are looked for in the folders of ``$APQ_MOO_DATA``, where Debian's package
``dataset-fashion-mnist`` puts them, and in the cache, each as they are or as torchvision keeps them
(``FashionMNIST/raw``); packed with gzip or not.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apq_moo.caching import cache_folder
from apq_moo.data.images import IMAGES, FloatImages, ImageSet, Split
from apq_moo.errors import UserError

NAME = "fashion-mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
SPLIT_SEED = 20170825
N_CALIBRATION = 1000
MAX_SHIFT = 2

_FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
_BYTES = 0x08
_PLACES = ("", NAME, "FashionMNIST/raw")


def augment(images: FloatImages, rng: np.random.Generator) -> FloatImages:
    """Mirror half of the images, and shift all by up to two pixels each way, black beyond the rim.

    Args:
        images: shape ``(n, channels, height, width)``.
        rng: where the randomness comes from.
    """
    n, _, height, width = images.shape
    mirrored: NDArray[np.bool_] = rng.random(n) < np.full(n, 0.5)
    images = np.where(mirrored[:, None, None, None], images[..., ::-1], images)
    padded = np.pad(images, ((0, 0), (0, 0), (MAX_SHIFT, MAX_SHIFT), (MAX_SHIFT, MAX_SHIFT)))
    y, x = rng.integers(0, 2 * MAX_SHIFT + 1, (2, n))
    rows = y[:, None, None] + np.arange(height)[None, :, None]
    columns = x[:, None, None] + np.arange(width)[None, None, :]
    chosen = np.arange(n)[:, None, None]
    return np.moveaxis(padded[chosen, :, rows, columns], 3, 1)


def folders() -> Iterator[Path]:
    """Where the files may lie."""
    given = [Path(text) for text in os.environ.get("APQ_MOO_DATA", "").split(os.pathsep) if text]
    for base in (*given, DEBIAN, cache_folder() / "data"):
        yield from (base / place for place in _PLACES)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An array of bytes in LeCun's IDX format, packed with gzip if the name says so.

    Raises:
        UserError: the file is missing, damaged, or holds anything else.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        zero, kind, dimensions = struct.unpack(">HBB", data[:4])
        shape = struct.unpack(f">{dimensions}I", data[4 : 4 + 4 * dimensions])
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (EOFError, zlib.error, struct.error) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    array = np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * dimensions)
    if zero != 0 or kind != _BYTES or array.size != int(np.prod(shape)):
        raise UserError(f"{path} is no IDX file of bytes, or is truncated")
    return array.reshape(shape)


def find_files() -> list[Path]:
    """The four files: training images and labels, test images and labels.

    Raises:
        UserError: no folder holds all of them; the message says how to get them.
    """
    for folder in folders():
        names = [folder / f"{name}-ubyte" for name in _FILES]
        found = [
            next((path for path in (name, Path(f"{name}.gz")) if path.is_file()), None)
            for name in names
        ]
        if None not in found:
            return [path for path in found if path is not None]
    raise UserError(
        "Fashion-MNIST is not here: install Debian's dataset-fashion-mnist, or set APQ_MOO_DATA to "
        "a folder that torchvision.datasets.FashionMNIST(folder, download=True) filled"
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
    everything, test = _split(arrays[0], arrays[1]), _split(arrays[2], arrays[3])
    if len(everything) <= len(test):
        raise UserError(f"{paths[0]} holds too few images to set {len(test)} aside for validation")
    order = np.random.default_rng(SPLIT_SEED).permutation(len(everything))
    train, validation = (
        Split(everything.images[part], everything.labels[part])
        for part in np.split(order, [len(order) - len(test)])
    )
    return ImageSet(
        name=NAME,
        train=train,
        calibration=Split(train.images[:N_CALIBRATION], train.labels[:N_CALIBRATION]),
        validation=validation,
        test=test,
        test_clean=test,
        augment=augment,
    )


def _split(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Split:
    return Split((images[:, None] / np.float32(255)).astype(np.float32), labels.astype(np.int64))

"""CIFAR-10 (Krizhevsky, 2009): 32x32 colour images of ten kinds of animals and vehicles.

Its files are looked for in the folders of ``$APQ_MOO_DATA`` and in the cache, each as torchvision
keeps them (``cifar-10-batches-py``), and read by torchvision, which verifies their checksums.
"""

from __future__ import annotations

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
    Labels,
    split_of_bytes,
    split_off_validation,
)
from apq_moo.data.sources import SOURCES, Source, base_folders, fetch
from apq_moo.errors import UserError

NAME = "cifar10"
FOLDER = "cifar-10-batches-py"
SPLIT_SEED = 20090408
MAX_SHIFT = 4

_FILES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")


def folders() -> Iterator[Path]:
    """Where :data:`FOLDER` may lie; ``$APQ_MOO_DATA`` may also name that folder itself."""
    for base in base_folders():
        yield from (base, base / NAME)
        if base.name == FOLDER:
            yield base.parent


def find_folder() -> Path:
    """The folder that holds :data:`FOLDER`.

    Raises:
        UserError: no folder holds all files (the message says how to get them), or one may not be
            entered.
    """
    try:
        for folder in folders():
            if all((folder / FOLDER / name).is_file() for name in _FILES):
                return folder
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror or error}") from error
    raise UserError(
        f"CIFAR-10 is not here: run `apq-moo data download {NAME}`, or set APQ_MOO_DATA to a "
        "folder that torchvision.datasets.CIFAR10(folder, download=True) filled"
    )


def download_cifar10(folder: str | Path | None = None) -> None:
    """Download CIFAR-10 by torchvision, 170 MB.

    Args:
        folder: where :data:`FOLDER` is to be; by default where :func:`load_cifar10` finds it.

    Raises:
        UserError: the download fails, or the folder cannot be written to.
    """
    from torchvision.datasets import CIFAR10

    fetch(
        NAME,
        lambda place: CIFAR10(place, download=True),
        FOLDER,
        folder,
    )


@IMAGES.add(NAME)
@cache
def load_cifar10() -> ImageSet:
    """Of 50,000 training images 40,000 to train on and 10,000 for validation; 10,000 for the test.

    The validation split is drawn once, with :data:`SPLIT_SEED`; as many images as the test has.
    Images have shape ``(3, 32, 32)``.

    Raises:
        UserError: the files are not here, or are damaged.
    """
    folder = find_folder()
    test = split_of_bytes(*_read(folder, train=False))
    source = str(folder / FOLDER)
    train, validation = split_off_validation(
        *_read(folder, train=True), len(test), SPLIT_SEED, source
    )
    return ImageSet(
        name=NAME,
        train=train,
        calibration=train[:N_CALIBRATION],
        validation=validation,
        test=test,
        test_clean=test,
        augment=Augmentation(max_shift=MAX_SHIFT),
    )


def _read(folder: Path, *, train: bool) -> tuple[NDArray[np.uint8], Labels]:
    """Bytes of shape ``(n, 3, 32, 32)``, and labels."""
    from torchvision.datasets import CIFAR10

    try:
        found = CIFAR10(folder, train=train, download=False)
    except OSError as error:
        raise UserError(
            f"cannot read {error.filename or folder}: {error.strerror or error}"
        ) from error
    except RuntimeError as error:
        raise UserError(
            f"{folder / FOLDER} is damaged: its checksums are not CIFAR-10's; remove it and run "
            f"`apq-moo data download {NAME}`"
        ) from error
    return found.data.transpose(0, 3, 1, 2), np.asarray(found.targets, dtype=np.int64)


SOURCES.register(NAME, Source(lambda: find_folder() / FOLDER, download_cifar10))

"""What an image set holds, without reading the images of a folder."""

from __future__ import annotations

from dataclasses import dataclass

from apq_moo.data import folders, load_images
from apq_moo.data.images import IMAGES
from apq_moo.data.listing import list_pictures
from apq_moo.errors import UserError, shown

_SPLITS = 3


def training_images(name: str) -> int:
    """Count the training images of a set, without those that validation gets.

    Args:
        name: of an image set, ``folder:PATH@SIZE``, or the path of a folder or CSV file.

    Raises:
        UserError: there is no such set or folder.
    """
    if name in IMAGES:
        return len(load_images(name).train)
    path = folders.path_of(name)
    if not folders.is_there(path):
        known = ", ".join(IMAGES)
        raise UserError(
            f"{shown(name)} is neither a number of images nor an image set ({known}) nor a folder "
            "or CSV file that is there"
        )
    splits = list_pictures(path).splits
    n = len(splits["train"])
    drawn = max(1, min(folders.MOST_DRAWN, round(folders.VALIDATION_FRACTION * n)))
    return n - drawn * (_SPLITS - len(splits))


@dataclass(frozen=True)
class Facts:
    """What is in an image set.

    Attributes:
        channels: of an image.
        size: height and width in pixels.
        classes: how many.
        train: images that networks are trained on.
        validation: images that a search sees.
    """

    channels: int
    size: int
    classes: int
    train: int
    validation: int


def facts_of(name: str) -> Facts:
    """Find out what is in an image set; the images of a folder are listed, and not read.

    Args:
        name: of an image set, or ``folder:PATH@SIZE``.

    Raises:
        UserError: there is no such set or folder.
    """
    if name.startswith(folders.PREFIX):
        shape, pictures, splits = folders.listed_folder(name)
        return Facts(*shape, len(pictures.classes), len(splits["train"]), len(splits["validation"]))
    images = load_images(name)
    channels, size, _ = images.shape
    classes = len(images.classes) or int(images.train.labels.max()) + 1
    return Facts(channels, size, classes, len(images.train), len(images.validation))

"""How many training images a set has, without reading those of a folder."""

from __future__ import annotations

from apq_moo.data import folders, load_images
from apq_moo.data.images import IMAGES
from apq_moo.data.listing import list_pictures

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
    rest = name.removeprefix(folders.PREFIX)
    path, at, _ = rest.rpartition("@")
    splits = list_pictures(path if at else rest).splits
    n = len(splits["train"])
    drawn = max(1, min(folders.MOST_DRAWN, round(folders.VALIDATION_FRACTION * n)))
    return n - drawn * (_SPLITS - len(splits))

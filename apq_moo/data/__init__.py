"""Image sets, sample tables and shipped assets."""

from apq_moo.data import digits as _digits  # registers its loader
from apq_moo.data.images import IMAGES, ImageSet, Split

__all__ = ["IMAGES", "ImageSet", "Split", "load_images"]

_ = _digits


def load_images(name: str) -> ImageSet:
    """Load an image set by name.

    Raises:
        UserError: no such image set; the message lists the known ones.
    """
    return IMAGES.get(name)()

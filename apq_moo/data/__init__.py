"""Image sets, sample tables and shipped assets."""

from apq_moo.data import digits as _digits  # these register their loaders
from apq_moo.data import fashion as _fashion
from apq_moo.data.images import IMAGES, ImageSet, Split

__all__ = ["IMAGES", "ImageSet", "Split", "load_images"]

_ = _digits, _fashion


def load_images(name: str) -> ImageSet:
    """Load an image set by name.

    Raises:
        UserError: no such image set; the message lists the known ones.
    """
    return IMAGES.get(name)()

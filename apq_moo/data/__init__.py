"""Image sets, sample tables and shipped assets."""

from apq_moo.data import cifar as _cifar  # these register their loaders
from apq_moo.data import digits as _digits
from apq_moo.data import fashion as _fashion
from apq_moo.data import folders
from apq_moo.data.images import IMAGES, ImageSet, ImageSource, Split
from apq_moo.data.listing import SYNTAX
from apq_moo.errors import UserError
from apq_moo.space import Space

__all__ = ["IMAGES", "ImageSet", "ImageSource", "Split", "images_of", "load_images"]

_ = _cifar, _digits, _fashion


def load_images(name: str) -> ImageSource:
    """Load an image set by name, or a user's own as ``folder:PATH@SIZE``.

    Raises:
        UserError: no such image set; the message lists the known ones.
    """
    if name.startswith(folders.PREFIX):
        return folders.load_named_folder(name)
    if name not in IMAGES:
        known = ", ".join(IMAGES)
        raise UserError(f"unknown image set {name!r}; known: {known}, or {SYNTAX}")
    return IMAGES.get(name)()


def images_of(space: Space, *, stream: bool = False, skip_unreadable: bool = False) -> str:
    """The name of a space's image set, of a user's own with the whole path of its folder.

    Args:
        space: the space.
        stream: whether images of one's own stay in their files, however few they are.
        skip_unreadable: whether those that cannot be read are left out.

    Raises:
        UserError: it names none, or none of one's own where that is wanted.
    """
    if not space.spec.images:
        raise UserError(
            f"space {space.name!r} names no image set, so that nothing can be trained or measured "
            "on it"
        )
    return folders.with_wishes(
        folders.located(space), stream=stream, skip_unreadable=skip_unreadable
    )

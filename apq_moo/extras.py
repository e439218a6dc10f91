"""Libraries that only a part of the package needs, and the extras that install them."""

from __future__ import annotations

from importlib.util import find_spec

from apq_moo.errors import UserError

EXTRAS = {"torch": "train", "torchvision": "train"}
"""By library, the extra of the distribution that installs it."""


class MissingLibraryError(UserError, ImportError):
    """A library is not installed that an extra installs."""


def is_installed(library: str) -> bool:
    """Whether a library can be imported; it is not imported here.

    Args:
        library: the name of a package, without a dot.
    """
    try:
        return find_spec(library) is not None
    except ImportError:  # of what stands between Python and the file system
        return False


def require(library: str, what: str) -> None:
    """Check that a library is installed.

    Args:
        library: of :data:`EXTRAS`.
        what: needs it.

    Raises:
        MissingLibraryError: it is not.
    """
    if not is_installed(library):
        extra = f"apq-moo[{EXTRAS[library]}]"
        raise MissingLibraryError(f"{what} needs {library}: pip install '{extra}'")

"""Reading image files: which are taken, what is refused, and which way is up."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.Image import Image as Picture

MAX_PIXELS = 2**30 // 4 // 3
"""Of one image, before it is made smaller: Pillow's own limit. ImageNet's largest images may have
more than 2**25 (examples of NVIDIA's DALI reserve 5980 by 6430 for them)."""

_LARGE = 2**22
_ORIENTATION = 0x0112
_IN_MEMORY = re.compile(r" <_io\.BytesIO object at 0x[0-9a-fA-F]+>")
"""How Pillow names what was read from a file."""

_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")


def decode_all(
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
    large = Lock()  # so that few of them are in memory at a time

    def read(i: int) -> str:
        try:
            decode(paths[i], lambda image: use(i, image), check, large)
        except Exception as error:  # damaged images make Pillow raise almost anything
            return why(error)
        return ""

    with quiet(), ThreadPoolExecutor() as pool:
        reasons = list(pool.map(read, range(len(paths))))
    return {path: reason for path, reason in zip(paths, reasons, strict=True) if reason}


def decode(
    source: str | IO[bytes],
    use: Callable[[Picture], object],
    check: Callable[[Picture], object] = lambda _image: None,
    large: AbstractContextManager[object] | None = None,
) -> None:
    """Hand an image to a function, upright.

    Args:
        source: its file.
        use: takes it.
        check: raises, before it is decoded, if it cannot be used.
        large: held while an image of many pixels is in memory.

    Raises:
        Exception: of any kind, if it is damaged; :func:`why` says why.
    """
    from PIL import Image

    with Image.open(source, formats=_FORMATS) as image:
        n_pixels = image.width * image.height
        if n_pixels > MAX_PIXELS:
            raise ValueError(f"it has {n_pixels:,} pixels, more than {MAX_PIXELS:,}")
        check(image)
        if image.mode[0] in "IF":  # Pillow would cut their values off at 255
            raise ValueError("it has more than 8 bits a channel; convert it to 8")
        with large if large is not None and n_pixels > _LARGE else nullcontext():
            image.load()
            use(_upright(image))


def why(error: Exception) -> str:
    """What is wrong with an image, by what reading it raised; the same each time."""
    return _IN_MEMORY.sub("", str(error)) or type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Within, what :func:`refuse_bombs` does."""
    with warnings.catch_warnings():
        refuse_bombs()
        yield


def refuse_bombs() -> None:
    """Have huge images refused, and Pillow's warnings, such as of corrupt EXIF data, not shown."""
    from PIL import Image

    warnings.filterwarnings("ignore", module="PIL")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


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

"""Images read by worker processes, in the order that was asked for, a bounded number at a time."""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import active_children, parent_process
from pathlib import Path
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.data.crops import window
from apq_moo.data.decoding import decode, refuse_bombs, why
from apq_moo.data.listing import Listing
from apq_moo.errors import UserError, shown
from apq_moo.workers import WorkerLostError, end_with, signals_blocked

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

BUFFER_BYTES = 2**29
"""What has been read ahead, by all workers together."""

MAX_FILE_BYTES = 2**28
"""Of an image's file."""

AHEAD = 4
"""Pieces that each worker reads ahead."""

_MOST_IN_PIECE = 128
_MOST_WORKERS = 16
_VARIABLE = "APQ_MOO_WORKERS"

_WORKER = "DataLoader worker"
"""How torch's complaints of lost workers begin."""

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class ChangedImageError(Exception):
    """A file is not what was listed."""


@dataclass(frozen=True)
class Piece:
    """Some images that one worker reads.

    Attributes:
        rows: of the listing, shape ``(n,)``.
        places: where their squares lie along the longer side, shape ``(n,)``.
    """

    rows: IntArray
    places: FloatArray


class Reader(Protocol[R_co]):
    """What a worker does with a piece."""

    def __getitem__(self, piece: Piece) -> R_co:
        """Read it."""
        ...


@dataclass(frozen=True)
class Squares:
    """Reads squares of images.

    Attributes:
        listing: of the images.
        shorter: what their shorter sides are scaled to.
        size: of the squares.
        channels: 3 for RGB, 1 for grey.
    """

    listing: Listing
    shorter: int
    size: int
    channels: int

    @property
    def bytes_each(self) -> int:
        """What an image takes."""
        return self.channels * self.size**2

    def __getitem__(self, piece: Piece) -> tuple[Any, str]:
        """Bytes of shape ``(n, size, size, channels)``, and what is wrong with an image, if any."""
        import torch
        from torch.utils.data import get_worker_info

        shape = (len(piece.rows), self.size, self.size, self.channels)
        if get_worker_info() is None:
            found = torch.empty(shape, dtype=torch.uint8)
        else:  # where they are handed over, so that nothing is copied
            shared = torch.UntypedStorage._new_shared(len(piece.rows) * self.bytes_each)
            found = torch.empty(0, dtype=torch.uint8).set_(shared).view(shape)
        pixels = found.numpy()
        for i, (row, place) in enumerate(zip(piece.rows, piece.places, strict=True)):
            try:
                read(self.listing, row, partial(self._keep, pixels[i], place))
            except ChangedImageError as error:
                return found, str(error)
            except Exception as error:  # damaged images make Pillow raise almost anything
                return found, f"cannot read image {self.listing.path(row)}: {why(error)}"
        return found, ""

    def _keep(self, pixels: NDArray[np.uint8], place: float, image: Picture) -> None:
        mode = "RGB" if self.channels == 3 else "L"
        if image.mode != mode:
            image = image.convert(mode)
        pixels[:] = np.asarray(window(image, self.shorter, self.size, place)).reshape(pixels.shape)


@dataclass(frozen=True)
class Sizes:
    """Reads images to tell their sizes, and which cannot be read.

    Attributes:
        listing: of the images.
    """

    listing: Listing

    def __getitem__(self, piece: Piece) -> list[tuple[int, int] | str]:
        """Width and height of each image, upright, or why it cannot be read."""
        found: list[tuple[int, int] | str] = []
        for row in piece.rows:
            try:
                read(self.listing, row, lambda image: found.append(image.size))
            except Exception as error:  # damaged images make Pillow raise almost anything
                found.append(why(error))
        return found


def read(listing: Listing, row: int, use: Callable[[Picture], object]) -> None:
    """Hand an image of a listing to a function, upright.

    Raises:
        ChangedImageError: its file is gone, or has another size than it was listed with.
        Exception: of any kind, if it is damaged.
    """
    size = int(listing.sizes[row])
    if size > MAX_FILE_BYTES:
        raise ValueError(f"it has more than {MAX_FILE_BYTES:,} bytes")
    path = listing.path(row)
    try:
        with Path(path).open("rb", buffering=0) as file:
            content = file.read(size + 1)
    except FileNotFoundError:
        if not size:  # as when it was listed, such as a link to nothing
            raise
        raise ChangedImageError(f"{path} is gone since the images were listed{_MEND}") from None
    if len(content) != size:
        raise ChangedImageError(f"{path} has changed since the images were listed{_MEND}")
    decode(io.BytesIO(content), use)


_MEND = "; leave them as they are, and begin again"


def workers() -> int:
    """Processes that read images: ``$APQ_MOO_WORKERS``, else one for each core, at most 16.

    Processes of ``torchrun`` share the cores of their machine. In a process that works for another
    it is 0, which stands for that process itself.

    Raises:
        UserError: the variable is no number from 0 to 256.
    """
    text = os.environ.get(_VARIABLE, "")
    if text:
        if not text.isascii() or not text.isdigit() or len(text) > 3 or int(text) > 256:
            raise UserError(f"{_VARIABLE} is {shown(text)}: set it to a number from 0 to 256")
        return int(text)
    if parent_process() is not None:
        return 0
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    beside = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, min(_MOST_WORKERS, cores // max(1, int(beside))))


def piece_size(bytes_each: int) -> int:
    """Images of a piece, so that what is read ahead stays below :data:`BUFFER_BYTES`."""
    n = BUFFER_BYTES // (max(1, workers()) * AHEAD * bytes_each)
    return max(1, min(_MOST_IN_PIECE, n))


def in_order(n: int, bytes_each: int = 1) -> Iterator[Piece]:
    """Pieces of the first ``n`` images of a listing, from their middles."""
    step = piece_size(bytes_each)
    for first in range(0, n, step):
        rows = np.arange(first, min(n, first + step))
        yield Piece(rows, np.full(len(rows), 0.5))


def squares(reader: Squares, pieces: Iterable[Piece], *, pin: bool = False) -> Iterator[Any]:
    """Bytes of all pieces, in their order.

    Args:
        reader: what is read, and how.
        pieces: may be without end.
        pin: whether the bytes lie where a GPU fetches them from.

    Yields:
        Tensors of shape ``(n, size, size, channels)``.

    Raises:
        UserError: an image cannot be read, or is gone or changed; or a worker was killed.
    """
    for pixels, wrong in read_all(reader, pieces, pin=pin):
        if wrong:
            raise UserError(wrong)
        yield pixels


def read_all(
    reader: Reader[R], pieces: Iterable[Piece], *, pin: bool = False
) -> Generator[R, None, None]:
    """What a reader makes of pieces, in their order, by :func:`workers`.

    Raises:
        WorkerLostError: one of them was killed.
    """
    import torch
    from torch.utils.data import DataLoader

    n = workers()
    forked = n > 0 and sys.platform == "linux"
    with signals_blocked(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forks beside threads, and of more workers than cores
        loader: DataLoader[Any] = DataLoader(
            reader,  # type: ignore[arg-type]
            sampler=pieces,
            batch_size=None,
            num_workers=n,
            collate_fn=_as_it_is,
            pin_memory=pin,
            prefetch_factor=AHEAD if n else None,
            multiprocessing_context="fork" if forked else None,
            worker_init_fn=partial(_begin, os.getpid()),
            generator=torch.Generator(),
        )
        before = set(active_children())
        results = _quietly_begun(loader)
        begun = set(active_children()) - before
    while True:
        lost = any(not worker.is_alive() for worker in begun)
        try:
            result = None if lost else next(results)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:
            # What it had begun to hand over breaks off before the system knows of its end.
            broken = isinstance(error, ConnectionError | EOFError) or _WORKER in str(error)
            lost = broken or any(not worker.is_alive() for worker in begun)
            if not lost:
                raise
        if lost:
            raise WorkerLostError(
                "a process that reads images was killed, perhaps for want of memory or /dev/shm: "
                f"set {_VARIABLE} to less than {n}"
            )
        yield result  # type: ignore[misc]


def _quietly_begun(loader: Any) -> Iterator[Any]:
    """Begin a loader, but not its handler of signals, which raises wherever it finds the caller."""
    if current_thread() is not main_thread() or not hasattr(signal, "SIGCHLD"):
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        signal.signal(signal.SIGCHLD, before)


def _as_it_is(result: R) -> R:
    return result


def _begin(parent: int, _number: int) -> None:
    """What a worker does first."""
    end_with(parent)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    refuse_bombs()

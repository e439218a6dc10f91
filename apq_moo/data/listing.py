"""Which images there are: in a folder for every class, or as a CSV file says.

Names are packed, so that a million images take little memory, which worker processes share.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import IntArray
from apq_moo.errors import UserError, shown

SYNTAX = "folder:PATH@SIZE"
"""How an image set of one's own is named."""

SPLITS = ("train", "val", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Of what counts as an image in folders, in lower case; torchvision's."""

CSV_SUFFIX = ".csv"
MAX_CSV_BYTES = 2**30

_NAMED = 3
"""Classes that a message names."""

_CHUNK = 4096
"""Names that are unpacked at a time."""


@dataclass(frozen=True, eq=False)
class Listing:
    """Images of a split, unread.

    Attributes:
        base: the folder that names are relative to.
        packed: bytes of all names.
        begins: where each image's name begins, shape ``(n,)``.
        ends: where it ends, shape ``(n,)``.
        labels: classes by number, shape ``(n,)``.
        sizes: of the files in bytes, shape ``(n,)``.
    """

    base: Path
    packed: NDArray[np.uint8]
    begins: IntArray
    ends: IntArray
    labels: IntArray
    sizes: IntArray

    @staticmethod
    def pack(base: Path, names: Iterable[str], labels: list[int], sizes: list[int]) -> Listing:
        """List images by name, class and size."""
        encoded = [os.fsencode(name) for name in names]
        lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
        ends = np.cumsum(lengths)
        packed = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        return Listing(
            base,
            packed,
            ends - lengths,
            ends,
            np.array(labels, np.int64),
            np.array(sizes, np.int64),
        )

    @staticmethod
    def join(listings: Sequence[Listing]) -> Listing:
        """Listings of one folder, one after the other."""
        starts = np.cumsum([0, *(len(each.packed) for each in listings)])[:-1]
        moved = list(zip(listings, starts, strict=True))
        return Listing(
            listings[0].base,
            np.concatenate([each.packed for each in listings]),
            np.concatenate([each.begins + start for each, start in moved]),
            np.concatenate([each.ends + start for each, start in moved]),
            np.concatenate([each.labels for each in listings]),
            np.concatenate([each.sizes for each in listings]),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]] | NDArray[np.bool_]) -> Listing:
        """Some of the images, which share the names' bytes."""
        return Listing(
            self.base, self.packed, self.begins[rows], self.ends[rows], self.labels[rows],
            self.sizes[rows],
        )  # fmt: skip

    def name(self, row: int) -> str:
        """An image's name, relative to the folder."""
        return os.fsdecode(self.packed[self.begins[row] : self.ends[row]].tobytes())

    def path(self, row: int) -> str:
        """Where an image lies."""
        return os.path.join(self.base, self.name(row))  # noqa: PTH118 (for every image)

    def parts(self) -> Iterator[Listing]:
        """All images, some at a time."""
        for first in range(0, len(self), _CHUNK):
            yield self[first : first + _CHUNK]

    def paths(self) -> list[str]:
        """Where all images lie."""
        return [self.path(row) for row in range(len(self))]

    def count(self, classes: Iterable[str]) -> dict[str, int]:
        """Images of each class, by its name."""
        names = tuple(classes)
        of = np.bincount(self.labels, minlength=len(names)).tolist()
        return dict(zip(names, of, strict=True))


@dataclass(frozen=True, eq=False)
class Pictures:
    """All images of a set, unread.

    Attributes:
        place: the folder, or the CSV file.
        classes: their names, in the order of the labels.
        splits: ``train``, and ``val`` and ``test`` where they are.
        left_out: files in folders that are no images by their suffix.
    """

    place: Path
    classes: tuple[str, ...]
    splits: dict[str, Listing]
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(len(listing) for listing in self.splits.values())

    def paths(self) -> list[str]:
        """Where all images lie."""
        return list(chain.from_iterable(listing.paths() for listing in self.splits.values()))

    def without(self, names: Container[str]) -> Pictures:
        """The set without some images, by their names."""
        kept = {}
        for split, listing in self.splits.items():
            rows = [row for row in range(len(listing)) if listing.name(row) not in names]
            kept[split] = listing[np.array(rows, dtype=np.int64)]
        return replace(self, splits=kept)


def digest_of_listings(listings: Iterable[Listing]) -> str:
    """SHA-256 of the names, classes and sizes of images, whose bytes are not read."""
    digest = hashlib.sha256()
    for listing in listings:
        digest.update(len(listing).to_bytes(8, "little"))
        for part in listing.parts():
            names = (os.fsencode(part.name(row)) for row in range(len(part)))
            digest.update(b"\0".join((*names, b"")))
            digest.update(part.labels.astype("<i8").tobytes() + part.sizes.astype("<i8").tobytes())
    return digest.hexdigest()


def list_pictures(path: str | Path) -> Pictures:
    """List what is in a folder of images, or in a CSV file.

    A folder holds ``train``, and ``val`` or ``test`` or both, in each of which is a folder for
    every class. A CSV file has the columns ``file`` (relative to where it lies) and ``class``, and
    perhaps ``split``. Classes are numbered by name.

    Raises:
        UserError: a folder or file is missing or malformed, or has no classes; or a class of
            another split is none of ``train``.
    """
    try:
        place = Path(path).expanduser().absolute()
        if place.suffix.lower() == CSV_SUFFIX and place.is_file():
            return _of_csv(place)
        return _of_folder(place)
    except RuntimeError as error:  # of ~name, where there is no such user
        raise UserError(f"image folder {str(path)!r}: {error} Write {SYNTAX}") from error
    except OSError as error:
        raise UserError(f"cannot read image folder {path}: {error.strerror or error}") from error


def _of_folder(place: Path) -> Pictures:
    if not place.is_dir():
        if place.suffix.lower() == CSV_SUFFIX:
            raise UserError(f"image list {str(place)!r} is no file; name a CSV file that is there")
        raise UserError(f"image folder {str(place)!r} is no folder; write {SYNTAX}")
    held_out = [name for name in SPLITS[1:] if (place / name).is_dir()]
    if not held_out or not (place / SPLITS[0]).is_dir():
        raise UserError(f"image folder {place} must hold train, and val or test or both")
    left_out: list[str] = []
    found = {}
    classes: dict[str, list[str]] = {}
    for name in (SPLITS[0], *held_out):
        classes[name] = _classes(place / name)
        found[name] = _listed(place, name, classes[name], left_out)
    for name, listed in classes.items():
        odd = sorted(set(listed) ^ set(classes["train"]))
        if odd:
            raise UserError(
                f"image folder {place}: train and {name} must have the same classes, but only one "
                f"of them has {_some(odd)}"
            )
    return Pictures(place, tuple(classes["train"]), found, tuple(sorted(left_out)))


def _some(names: list[str]) -> str:
    return ", ".join((*map(shown, names[:_NAMED]), *["..."] * (len(names) > _NAMED)))


def _classes(folder: Path) -> list[str]:
    found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    if not found:
        raise UserError(f"{folder} must hold a folder of images for every class; it has none")
    return found


def _listed(place: Path, split: str, classes: list[str], left_out: list[str]) -> Listing:
    """The images of a split by class; adds files that are none."""
    names: list[str] = []
    labels: list[int] = []
    sizes: list[int] = []
    empty = []
    for label, name in enumerate(classes):
        before = len(names)
        for root, _, files in sorted(os.walk(place / split / name, followlinks=True)):
            inside = root[len(str(place)) :].strip(os.sep).replace(os.sep, "/")
            for file in sorted(files):
                path = f"{root}{os.sep}{file}"
                if not file.lower().endswith(SUFFIXES):
                    left_out.append(path)
                    continue
                names.append(f"{inside}/{file}")
                labels.append(label)
                sizes.append(_size_or_none(path))
        if len(names) == before:
            empty.append(name)
    if empty:
        raise UserError(
            f"{place / split} must hold a folder of images for every class; there are no images of "
            f"the classes {_some(empty)}"
        )
    return Listing.pack(place, names, labels, sizes)


def _size_or_none(path: str) -> int:
    """A file's size; 0 where it cannot be told, as that of a link to nothing."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 (for every image)
    except OSError:
        return 0


def _of_csv(place: Path) -> Pictures:
    if place.stat().st_size > MAX_CSV_BYTES:
        raise UserError(f"{place} has more than {MAX_CSV_BYTES:,} bytes; name a smaller CSV file")
    try:
        with place.open(encoding="utf-8-sig", newline="") as handle:
            rows = _rows(csv.reader(handle), place)
    except (ValueError, csv.Error) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{place} is malformed: {error}") from error
    classes = sorted({name for _, name, split in rows if split == SPLITS[0]})
    if not classes:
        raise UserError(f"{place} lists no images to train on: a file and its class in every line")
    numbers = {name: label for label, name in enumerate(classes)}
    odd = sorted({name for _, name, _ in rows} - set(numbers))
    if odd:
        raise UserError(f"{place}: no images of the classes {_some(odd)} are to train on; add some")
    found = {}
    for split in SPLITS:
        chosen = [(name, numbers[of]) for name, of, of_split in rows if of_split == split]
        if chosen:
            names, labels = zip(*chosen, strict=True)
            sizes = [_size(place, name) for name in names]
            found[split] = Listing.pack(place.parent, names, list(labels), sizes)
    return Pictures(place, tuple(classes), found)


def _rows(lines: Iterator[list[str]], place: Path) -> list[tuple[str, str, str]]:
    """File, class and split in every line of a CSV file."""
    header = [name.strip() for name in next(lines, [])]
    if header.count("file") != 1 or header.count("class") != 1 or header.count("split") > 1:
        raise UserError(
            f"{place}: its first line must name the columns file and class, and may name split; "
            f"not {_some(header) or 'nothing'}"
        )
    columns = [header.index(name) for name in ("file", "class")]
    split_at = header.index("split") if "split" in header else None
    rows: list[tuple[str, str, str]] = []
    seen = set()
    for number, line in enumerate(lines, start=2):
        if not line:
            continue
        if len(line) != len(header):
            raise UserError(f"{place}: row {number} has {len(line)} columns, not {len(header)}")
        file, name = (line[column] for column in columns)
        split = SPLITS[0] if split_at is None else line[split_at].strip()
        if not file or not name or "\0" in file:
            raise UserError(f"{place}: row {number} must name a file and its class")
        if split not in SPLITS:
            raise UserError(f"{place}: row {number} has split {shown(split)}: train, val or test")
        if file in seen:
            raise UserError(f"{place}: row {number} names {shown(file)} again; leave it out")
        seen.add(file)
        rows.append((file, name, split))
    return rows


def _size(place: Path, name: str) -> int:
    path = place.parent / name
    try:
        return path.stat().st_size
    except OSError as error:
        raise UserError(
            f"{place} lists {shown(name)}, which cannot be read: {error.strerror or error}"
        ) from error

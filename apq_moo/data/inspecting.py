"""What is in a set of one's own images, all of which are read for it."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apq_moo.caching import cache_folder
from apq_moo.data.decoding import quiet
from apq_moo.data.listing import Pictures, digest_of_listings, list_pictures
from apq_moo.data.loading import Sizes, in_order, read_all
from apq_moo.errors import UserError
from apq_moo.files import digest_of, read_json, write_json


@dataclass(frozen=True)
class Inspection:
    """What is in a set of images.

    Attributes:
        counts: images by split and class.
        sizes: widths and heights of those that can be read, upright, and how many have them.
        unreadable: why, by path.
        left_out: files that are no images by their suffix.
    """

    counts: dict[str, dict[str, int]]
    sizes: dict[tuple[int, int], int]
    unreadable: dict[str, str]
    left_out: list[str]

    @property
    def shorter_side(self) -> int:
        """The (lower) median of the shorter sides of the images that can be read, in pixels.

        0 where none can be.
        """
        count: Counter[int] = Counter()
        for size, n in self.sizes.items():
            count[min(size)] += n
        half, seen = count.total() / 2, 0
        for side in sorted(count):
            seen += count[side]
            if seen >= half:
                return side
        return 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON; sizes as rows of width, height and number of images, the smallest first."""
        rows = [[*size, n] for size, n in self.sizes.items()]
        return {
            "counts": self.counts,
            "sizes": sorted(rows, key=lambda row: (row[0] * row[1], row)),
            "unreadable": self.unreadable,
            "left_out": self.left_out,
        }


def inspect(path: str | Path) -> Inspection:
    """Read all images of a set, to tell what is there and which are unreadable.

    Args:
        path: of the folder or CSV file.

    Raises:
        UserError: a folder is missing, has no classes, or not those of ``train``; or a process that
            reads images was killed.
    """
    pictures = list_pictures(path)
    sizes, bad = _scan(pictures)
    counts = {name: listing.count(pictures.classes) for name, listing in pictures.splits.items()}
    base = next(iter(pictures.splits.values())).base
    whole = {str(base / name): reason for name, reason in bad.items()}
    return Inspection(counts, dict(sizes), whole, list(pictures.left_out))


def unreadable(pictures: Pictures) -> dict[str, str]:
    """Why images cannot be read, by their names.

    All are read for it, once: it is kept in the cache, and found anew where files have changed or
    :func:`inspect` is asked.
    """
    from filelock import FileLock

    try:
        file = _file(pictures)
        file.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(f"{file}.lock").acquire()
    except (UserError, OSError, NotImplementedError):  # without a cache they are found each time
        return _scan(pictures)[1]
    with held:  # of several processes the first one finds them
        if file.is_file():
            known = read_json(file)
            if isinstance(known, dict):
                return known
        return _scan(pictures)[1]


def _scan(pictures: Pictures) -> tuple[Counter[tuple[int, int]], dict[str, str]]:
    sizes: Counter[tuple[int, int]] = Counter()
    bad: dict[str, str] = {}
    with quiet():
        for listing in pictures.splits.values():
            row = 0
            for piece in read_all(Sizes(listing), in_order(len(listing))):
                for found in piece:
                    if isinstance(found, str):
                        bad[listing.name(row)] = found
                    else:
                        sizes[found] += 1
                    row += 1
    with suppress(UserError):
        write_json(_file(pictures), bad)
    return sizes, bad


def _file(pictures: Pictures) -> Path:
    """Where it is kept which images of a set cannot be read."""
    key = digest_of([str(pictures.place), digest_of_listings(pictures.splits.values())])
    return cache_folder() / "unreadable" / f"{key}.json"

"""Results of measuring networks on a supernet, kept between runs.

One small file for each network under the user's cache folder, keyed by the supernet, the images and
the canonical genotype, so that several processes can share it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from apq_moo.caching import cache_folder
from apq_moo.errors import UserError
from apq_moo.files import read_json, write_json
from apq_moo.space import IntArray


class MeasurementCache:
    """Accuracies measured on one supernet with one data set.

    Args:
        supernet_sha256: of the supernet's file.
        images_sha256: of the data set.
        folder: where to keep them; by default within :func:`apq_moo.caching.cache_folder`.
    """

    def __init__(
        self, supernet_sha256: str, images_sha256: str, folder: Path | None = None
    ) -> None:
        base = cache_folder() / "measured" if folder is None else folder
        self.folder = base / f"{supernet_sha256[:16]}-{images_sha256[:16]}"

    def _path(self, row: IntArray) -> Path:
        digest = hashlib.sha256(np.ascontiguousarray(row, dtype=np.int64).tobytes()).hexdigest()
        return self.folder / f"{digest[:32]}.json"

    def get(self, row: IntArray) -> dict[str, float] | None:
        """Accuracies by split of a canonical genotype, or None; damaged entries do not count."""
        path = self._path(row)
        try:
            entry = read_json(path) if path.is_file() else None
        except UserError:
            return None
        good = isinstance(entry, dict) and all(isinstance(v, float) for v in entry.values())
        return entry if good else None

    def put(self, row: IntArray, accuracies: dict[str, float]) -> None:
        """Keep accuracies by split; a cache that cannot be written is no error."""
        try:
            write_json(self._path(row), accuracies)
        except UserError:
            return

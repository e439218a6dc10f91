"""Accuracies of a space whose every network has been measured, looked up in a table."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.data.assets import TABLE, Assets, find_assets
from apq_moo.data.tables import SPLITS, load_table
from apq_moo.errors import UserError
from apq_moo.problems.accuracy import SOURCES, AssetsFolder, ExactSource, checksums, ignored
from apq_moo.space import Space
from apq_moo.space.subspaces import MOST_LISTED

NAME = "table"
"""Stands for :class:`TabulatedAccuracy` where a predictor's name is asked for."""


class TabulatedAccuracy(ExactSource):
    """Looks accuracies up: exact, deterministic, and as fast as a few gathers.

    Args:
        assets: of a space that has a table of all its networks.

    Raises:
        UserError: there is no table, or it lacks networks.
    """

    def __init__(self, assets: Assets) -> None:
        space = assets.space
        super().__init__(NAME, space, checksums(space, assets))
        if not assets.has(TABLE):
            mend = "name a predictor"
            if space.count() <= MOST_LISTED:
                mend = f"make one with `apq-moo samples exhaust {space.option}`, or {mend}"
            raise UserError(
                f"space {space.name!r} has no table of all its networks in {assets.folder}: {mend}"
            )
        table = load_table(assets.path(TABLE), space)
        if not table.complete or len(table.X) != space.count():
            raise UserError(f"{assets.path(TABLE)} lacks networks of space {space.name!r}")
        self._shape = tuple(int(size) + 1 for size in space.block_sizes)
        codes = self._codes(space.block_index(table.X))
        self._places = np.full(math.prod(self._shape), -1, dtype=np.int64)
        self._places[codes] = np.arange(len(codes))
        self.n_images = table.images
        self._X, self._accuracies = table.X, table.accuracies()

    def _codes(self, index: IntArray) -> IntArray:
        codes: IntArray = np.ravel_multi_index(tuple(index.T), self._shape)
        return codes

    def predict_blocks(self, index: IntArray) -> FloatArray:
        """Accuracies on the validation images; see :class:`AccuracySource`."""
        return self._of(index)[:, 0]

    def measure(self, X: IntArray, callback: Callable[[int], None] = ignored) -> FloatArray:
        """See :class:`ExactSource`."""
        found = self._of(self.space.block_index(X))
        callback(len(X))
        return found

    def samples(self) -> tuple[IntArray, FloatArray]:
        """See :class:`AccuracySource`."""
        return self._X, self._accuracies[:, 0]

    def _of(self, index: IntArray) -> FloatArray:
        places = self._places[self._codes(index)]
        # Networks that a rule forbids are in no table; they count as classifying nothing.
        found = np.where(places[:, None] < 0, 0.0, self._accuracies[places])
        assert found.shape == (len(index), len(SPLITS))
        return found


@SOURCES.add(NAME)
def _table(space: Space, assets: AssetsFolder, _on: str | None) -> TabulatedAccuracy:
    return TabulatedAccuracy(find_assets(space, assets))

"""Accuracies of a space whose every network has been measured, looked up in a table."""

from __future__ import annotations

import math

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.data.assets import TABLE, Assets
from apq_moo.data.tables import SPLITS, load_table
from apq_moo.errors import UserError
from apq_moo.space.subspaces import MOST_LISTED

NAME = "table"
"""Stands for :class:`TabulatedAccuracy` where a predictor's name is asked for."""


class TabulatedAccuracy:
    """Looks accuracies up: exact, deterministic, and as fast as a few gathers.

    Args:
        assets: of a space that has a table of all its networks.

    Attributes:
        space: the space.

    Raises:
        UserError: there is no table, or it lacks networks.
    """

    def __init__(self, assets: Assets) -> None:
        space = self.space = assets.space
        if not assets.has(TABLE):
            mend = "name a predictor"
            if space.count() <= MOST_LISTED:
                mend = f"make one with `apq-moo samples exhaust --space {space.name}`, or {mend}"
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
        self._accuracies = table.accuracies()

    def _codes(self, index: IntArray) -> IntArray:
        codes: IntArray = np.ravel_multi_index(tuple(index.T), self._shape)
        return codes

    def predict(self, X: IntArray) -> FloatArray:
        """Accuracies on the validation images in percent, shape ``(n,)``.

        Args:
            X: canonical genotypes, shape ``(n, n_var)``.
        """
        return self.predict_blocks(self.space.block_index(X))

    def predict_blocks(self, index: IntArray) -> FloatArray:
        """The same for block configurations of shape ``(n, n_blocks)``."""
        return self._of(index)[:, 0]

    def measure(self, X: IntArray) -> FloatArray:
        """Accuracies on the validation and the test images, shape ``(n, 2)``, in percent."""
        return self._of(self.space.block_index(X))

    def _of(self, index: IntArray) -> FloatArray:
        places = self._places[self._codes(index)]
        # Networks that a rule forbids are in no table; they count as classifying nothing.
        found = np.where(places[:, None] < 0, 0.0, self._accuracies[places])
        assert found.shape == (len(index), len(SPLITS))
        return found

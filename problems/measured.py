"""Accuracies measured on the supernet itself, as a predictor and for verification."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.data import load_images
from apq_moo.data.assets import SUPERNET, TABLE, Assets, find_assets
from apq_moo.data.evaluations import Evaluations
from apq_moo.errors import UserError
from apq_moo.problems.accuracy import SOURCES, AssetsFolder, ExactSource, checksums, ignored
from apq_moo.problems.tabulated import NAME as TABULATED
from apq_moo.problems.tabulated import TabulatedAccuracy
from apq_moo.problems.trained import load_trained, supernet_assets
from apq_moo.space import Space, embed
from apq_moo.threads import one_torch_thread

NAME = "supernet"
"""Stands for :class:`SupernetAccuracy` where a predictor's name is asked for."""

_SPLITS = ("validation", "test")


class SupernetAccuracy(ExactSource):
    """Measures networks on the supernet of a space, each only once.

    Searching with it is what Single Path One-Shot does (Guo et al., ECCV 2020). Values are kept in
    an archive (:class:`apq_moo.data.evaluations.Evaluations`) as soon as they are known.

    Args:
        assets: of the space; the supernet lies there, or with the space that it is part of.
        archive: the archive's file; by default that of the user's cache folder.
        on: where torch runs; by default a GPU if there is one.

    Attributes:
        device: where it runs, such as ``cpu`` or ``cuda``.

    Raises:
        UserError: there is no supernet, or the images differ from those that it was made from.
    """

    measures = True

    def __init__(
        self, assets: Assets, archive: str | Path | None = None, *, on: str | None = None
    ) -> None:
        from apq_moo.supernet.devices import chosen_device
        from apq_moo.supernet.scoring import Scorer

        super().__init__(NAME, assets.space, checksums(assets.space, assets))
        self.assets, self.on = assets, on
        self._assets = assets
        assets = supernet_assets(assets)
        supernet, images = load_trained(assets)
        self.n_images = (len(images.validation), len(images.test))
        device = chosen_device(on)
        self.device, self.where = str(device), f"on {device}"
        self._scorer = Scorer(supernet.to(device), images)
        self._known = Evaluations(
            assets.space, f"supernet {assets.checksums()[SUPERNET]}", images.checksum, archive
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """What is pickled: where to load it from again, rather than weights and images."""
        return type(self)._loaded, (self._assets, self._known.path, self.device)

    @classmethod
    def _loaded(cls, assets: Assets, archive: Path, on: str) -> Self:
        return cls(assets, archive, on=on)

    def predict_blocks(self, index: IntArray) -> FloatArray:
        """Accuracies on the validation images; see :class:`AccuracySource`."""
        X = self.space.from_block_index(index)
        return self._measured(X, _SPLITS[:1], self.callback)[:, 0]

    def measure(self, X: IntArray, callback: Callable[[int], None] = ignored) -> FloatArray:
        """See :class:`ExactSource`."""
        return self._measured(X, _SPLITS, callback)

    def remember(self, X: IntArray, accuracies: FloatArray) -> None:
        """See :class:`AccuracySource`; they are kept in the archive."""
        self._known.put(embed(self.space, X), _SPLITS[0], accuracies)

    def _measured(
        self, X: IntArray, splits: Sequence[str], callback: Callable[[int], None]
    ) -> FloatArray:
        """Accuracies of canonical genotypes, shape ``(n, n_splits)``, in percent.

        Single-threaded, so that the figures do not depend on the machine's load or cores.
        """
        rows = embed(self.space, X)
        found = self._known.known(rows, splits)
        with one_torch_thread():
            for i, row in enumerate(rows):
                if np.isnan(found[i]).any():
                    found[i] = self._one(row, splits)
                callback(i + 1)
        return found

    def _one(self, row: IntArray, splits: Sequence[str]) -> FloatArray:
        subnets = self._scorer.space.decode(row)
        return self._known.values(
            row,
            splits,
            lambda missing: self._scorer.accuracies(subnets, missing, quantised=True)[0],
        )

    def estimate_s(self, X: IntArray, splits: int = 1) -> float:
        """See :class:`AccuracySource`; networks that are known cost nothing."""
        rows, names = embed(self.space, X), _SPLITS[:splits]
        new = rows[np.isnan(self._known.known(rows, names)).any(axis=1)]
        if not len(new):
            return 0.0
        (subnet,) = self._scorer.space.decode(new[-1])
        with one_torch_thread():
            return len(new) * self._scorer.estimate_s(subnet, names)


@SOURCES.add(NAME)
def _supernet(space: Space, assets: AssetsFolder, on: str | None) -> SupernetAccuracy:
    return SupernetAccuracy(find_assets(space, assets), on=on)


def exact_source(space: Space, assets: AssetsFolder = None, on: str | None = None) -> ExactSource:
    """What verifies networks of a space: a table of all of them, else the supernet.

    Args:
        space: the space.
        assets: see :func:`apq_moo.problems.resolve`.
        on: where torch runs; by default a GPU if there is one.

    Raises:
        UserError: there is neither, or its images cannot be had.
    """
    found = find_assets(space, assets)
    if exact_name(space, found) == TABULATED:
        return TabulatedAccuracy(found)
    return SupernetAccuracy(found, on=on)


def exact_name(space: Space, assets: AssetsFolder = None) -> str:
    """The name of what measures networks of a space: ``table``, else ``supernet``.

    Raises:
        UserError: the space has no assets.
    """
    return TABULATED if find_assets(space, assets).has(TABLE) else NAME


def require_exact(space: Space, assets: AssetsFolder = None) -> None:
    """Check, before anything is searched, that :func:`exact_source` will have what it needs.

    Raises:
        UserError: there is no supernet, or its images are not here.
    """
    try:
        found = find_assets(space, assets)
        if found.has(TABLE):
            return
        found.path(SUPERNET)
        load_images(found.images)
        Evaluations(space, "", "")
    except UserError as error:
        raise UserError(f"verify=K measures networks on a supernet, but {error}") from error

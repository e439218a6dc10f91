"""Accuracies measured on the supernet itself, as a predictor and for verification."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.data import load_images
from apq_moo.data.assets import SUPERNET, Assets, find_assets
from apq_moo.data.evaluations import Evaluations
from apq_moo.errors import UserError
from apq_moo.space import Subnet, embed, superspace
from apq_moo.threads import one_torch_thread

NAME = "supernet"
"""Stands for :class:`SupernetAccuracy` where a predictor's name is asked for."""

_SPLITS = ("validation",)


class SupernetAccuracy:
    """Measures networks on the supernet of a space, each only once.

    Searching with it is what Single Path One-Shot does (Guo et al., ECCV 2020). Values are kept in
    an archive (:class:`apq_moo.data.evaluations.Evaluations`) as soon as they are known.

    Args:
        assets: of the space; the supernet lies there, or with the space that it is part of.
        archive: the archive's file; by default that of the user's cache folder.
        on: where torch runs.

    Attributes:
        space: the space.
        callback: told after each network of :meth:`predict` how many of them are done.

    Raises:
        UserError: there is no supernet, or the images differ from those that it was made from.
    """

    def __init__(
        self, assets: Assets, archive: str | Path | None = None, *, on: str = "cpu"
    ) -> None:
        from apq_moo.supernet.checkpoint import load_supernet
        from apq_moo.supernet.devices import torch_device
        from apq_moo.supernet.sampling import Measurer

        self.space = assets.space
        if self.space.spec.part_of:
            assets = find_assets(superspace(self.space))
        supernet, _ = load_supernet(assets.path(SUPERNET), assets.space)
        images = load_images(assets.images)
        if images.checksum != assets.checksums()["images"]:
            raise UserError(
                f"the images {assets.images!r} here are not those that {assets.folder} was made "
                "from; install the same version of their source"
            )
        self.callback: Callable[[int], None] = lambda _done: None
        self._measurer = Measurer(supernet.to(torch_device(on)), images)
        self._stores = {
            split: Evaluations(
                assets.space,
                f"supernet {assets.checksums()[SUPERNET]} {split}",
                images.checksum,
                archive,
            )
            for split in ("validation", "test")
        }

    def predict(self, X: IntArray) -> FloatArray:
        """Accuracies on the validation images in percent, shape ``(n,)``.

        Args:
            X: genotypes, shape ``(n, n_var)``.
        """
        rows = self.space.canonical(self.space.check(X))
        return self.measure(rows, _SPLITS, self.callback)[:, 0]

    def measure(
        self,
        X: IntArray,
        splits: Sequence[str] = ("validation", "test"),
        callback: Callable[[int], None] = lambda _done: None,
    ) -> FloatArray:
        """Accuracies of canonical genotypes, shape ``(n, n_splits)``, in percent.

        Single-threaded, so that the figures do not depend on the machine's load or cores.

        Args:
            X: shape ``(n, n_var)``.
            splits: of the images, ``validation`` or ``test``.
            callback: told how many networks are done.
        """
        found = np.column_stack([self._stores[split].known(X) for split in splits])
        with one_torch_thread():
            for i, row in enumerate(X):
                for j, split in enumerate(splits):
                    if np.isnan(found[i, j]):
                        found[i, j] = self._measured(row, split)
                callback(i + 1)
        return found

    def _measured(self, row: IntArray, split: str) -> float:
        (subnet,) = self._decoded(row[None])
        return self._stores[split].value(
            row, lambda: self._measurer.accuracy(subnet, split, quantised=True)
        )

    def _decoded(self, X: IntArray) -> list[Subnet]:
        """The networks as members of the supernet's space."""
        return self._measurer.space.decode(embed(self.space, X))

    def estimate_s(self, X: IntArray, splits: Sequence[str] = ("validation", "test")) -> float:
        """About how many seconds measuring takes; networks that are known cost nothing."""
        import torch

        known = np.column_stack([self._stores[split].known(X) for split in splits])
        new = np.flatnonzero(np.isnan(known).any(axis=1))
        if not len(new):
            return 0.0
        evaluator = self._measurer.evaluator
        (subnet,) = self._decoded(X[new[-1]][None])
        images = torch.from_numpy(self._measurer.images.validation.images[:512])
        with one_torch_thread():
            evaluator.logits(subnet, images, quantised=True)
            begun = time.perf_counter()
            evaluator.logits(subnet, images, quantised=True)
            seconds = time.perf_counter() - begun
        n = sum(len(self._measurer.images.split(split)) for split in splits)
        calibration = len(self._measurer.calibration)
        share = (n + len(splits) * calibration) / (len(images) + calibration)
        return seconds * len(new) * max(1.0, share)

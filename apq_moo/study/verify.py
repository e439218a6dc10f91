"""Measuring members of a front on the real supernet."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from apq_moo.data import load_images
from apq_moo.data.assets import SUPERNET, Assets
from apq_moo.errors import UserError
from apq_moo.space import IntArray
from apq_moo.study.cache import MeasurementCache
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.sampling import Measurer


@dataclass(frozen=True)
class Verified:
    """Measured accuracies of some members of a front, in percent.

    Attributes:
        rows: which members, ascending.
        validation: on the split that the predictor was fitted to.
        test: on the test split.
    """

    rows: IntArray
    validation: NDArray[np.float64]
    test: NDArray[np.float64]


def spread(values: NDArray[np.float64], k: int) -> IntArray:
    """``k`` positions (or all, if fewer) spread evenly over the sorted values, ascending."""
    order = np.argsort(values, kind="stable")
    picked = np.linspace(0, len(order) - 1, min(k, len(order))).round().astype(int)
    chosen: IntArray = np.sort(order[picked])
    return chosen


class Verifier:
    """Measures networks on the supernet of a space.

    Args:
        assets: where the supernet lies.

    Raises:
        UserError: it has none, or the images differ from those that it was made from.
    """

    def __init__(self, assets: Assets) -> None:
        path = assets.path(SUPERNET)
        supernet, _ = load_supernet(path, assets.space)
        images = load_images(assets.images)
        if images.checksum != assets.checksums()["images"]:
            raise UserError(
                f"the images {assets.images!r} here are not those that {assets.folder} was made "
                "from; install the same version of their source"
            )
        self._space = assets.space
        self._measurer = Measurer(supernet, images)
        self._cache = MeasurementCache(assets.checksums()[SUPERNET], images.checksum)
        self._threads = 1

    def estimate_s(self, X: IntArray) -> float:
        """About how many seconds measuring takes; cached networks cost nothing."""
        new = [row for row in X if self._cache.get(row) is None]
        if not new:
            return 0.0
        evaluator = self._measurer.evaluator
        subnet = self._space.decode(new[-1])[0]
        images = torch.from_numpy(self._measurer.images.validation.images[: evaluator.batch_size])
        evaluator.logits(subnet, images, quantised=True)
        begun = time.perf_counter()
        evaluator.logits(subnet, images, quantised=True)
        seconds = time.perf_counter() - begun
        n = len(self._measurer.images.validation) + len(self._measurer.images.test)
        return seconds * len(new) * max(1.0, n / (len(images) + len(evaluator.calibration)))

    def measure(
        self, X: IntArray, callback: Callable[[int], None] | None = None
    ) -> NDArray[np.float64]:
        """Accuracies of canonical genotypes on validation and test, shape ``(n, 2)``, in percent.

        Single-threaded, so that the figures do not depend on the machine's load or cores.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        found = np.empty((len(X), 2))
        try:
            for i, row in enumerate(X):
                known = self._cache.get(row)
                if known is None or not {"validation", "test"} <= known.keys():
                    subnet = self._space.decode(row)[0]
                    known = {
                        split: self._measurer.accuracy(subnet, split, quantised=True)
                        for split in ("validation", "test")
                    }
                    self._cache.put(row, known)
                found[i] = known["validation"], known["test"]
                if callback is not None:
                    callback(i + 1)
        finally:
            torch.set_num_threads(threads)
        return found

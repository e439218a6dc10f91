"""What subnets of a supernet classify rightly, on any splits of an image set."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apq_moo.arrays import BoolArray, FloatArray
from apq_moo.data.images import ImageSet, joined
from apq_moo.space import Subnet
from apq_moo.supernet.backends import evaluator_for
from apq_moo.supernet.devices import device_of
from apq_moo.supernet.network import Supernet

_TIMED = 512
"""Images by which the time of a network is estimated."""

_CALIBRATION = 3
"""How many classified images an image of the calibration takes as long as, about."""


class Scorer:
    """Counts what subnets of a supernet classify rightly.

    A subnet is calibrated once and classifies the images of all wanted splits in one pass; the
    device is waited for when all subnets of a call are under way.

    Args:
        supernet: the weights, on any device.
        images: the data set.

    Attributes:
        space: the supernet's.
    """

    def __init__(self, supernet: Supernet, images: ImageSet) -> None:
        self.space = supernet.space
        self._images = images
        self._device = device_of(supernet)
        self._calibration = torch.from_numpy(images.calibration.pixels).to(self._device)
        self._evaluator = evaluator_for(supernet, self._calibration)
        self._together: dict[tuple[str, ...], tuple[Any, Tensor]] = {}

    def count(
        self, subnets: Sequence[Subnet], splits: Sequence[str], *, quantised: bool | BoolArray
    ) -> NDArray[np.int32]:
        """Rightly classified images, shape ``(n, n_splits)``.

        Args:
            subnets: members of the space.
            splits: of the image set, by their attributes' names.
            quantised: whether they run at their bits, one for all or shape ``(n,)``.
        """
        rows = [
            torch.stack([part.sum() for part in self._right(subnet, splits, quantised=bool(at))])
            for subnet, at in zip(subnets, np.broadcast_to(quantised, len(subnets)), strict=True)
        ]
        found: NDArray[np.int32] = torch.stack(rows).cpu().numpy().astype(np.int32)
        return found

    def accuracies(
        self, subnets: Sequence[Subnet], splits: Sequence[str], *, quantised: bool | BoolArray
    ) -> FloatArray:
        """Accuracies in percent, shape ``(n, n_splits)``; see :meth:`count`."""
        sizes = np.array([len(self._images.split(name)) for name in splits])
        accuracies: FloatArray = 100.0 * (self.count(subnets, splits, quantised=quantised) / sizes)
        return accuracies

    def hits(self, subnet: Subnet, splits: Sequence[str], *, quantised: bool) -> list[BoolArray]:
        """Which images of each split a subnet classifies rightly, shape ``(images of it,)``."""
        return [part.cpu().numpy() for part in self._right(subnet, splits, quantised=quantised)]

    def estimate_s(self, subnet: Subnet, splits: Sequence[str]) -> float:
        """About how many seconds a subnet takes at its bits, calibration included."""
        part = self._evaluator.prepare(
            torch.from_numpy(self._images.split(splits[0]).pixels[:_TIMED]).to(self._device)
        )
        for _ in range(2):  # the first is slower
            begun = time.perf_counter()
            timed = len(self._evaluator.logits(subnet, part, quantised=True).cpu())
            seconds = time.perf_counter() - begun
        images = sum(len(self._images.split(name)) for name in splits)
        calibration = _CALIBRATION * len(self._calibration)
        return seconds * max(1.0, (images + calibration) / (timed + calibration))

    def _right(self, subnet: Subnet, splits: Sequence[str], *, quantised: bool) -> Sequence[Tensor]:
        """Which images of each split are classified rightly; does not wait for the device."""
        key = tuple(splits)
        if key not in self._together:
            together = joined([self._images.split(name) for name in splits])
            images, labels = (torch.from_numpy(x) for x in (together.pixels, together.labels))
            self._together[key] = self._evaluator.prepare(images), labels.to(self._device)
        images, labels = self._together[key]
        logits = self._evaluator.logits(subnet, images, quantised=quantised)
        sizes = [len(self._images.split(name)) for name in splits]
        right: Sequence[Tensor] = (logits.argmax(1) == labels).split(sizes)
        return right

"""What subnets of a supernet classify rightly, on any splits of an image set."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apq_moo.arrays import BoolArray, FloatArray
from apq_moo.data.images import ImageSource
from apq_moo.space import Subnet
from apq_moo.supernet.backends import evaluator_for
from apq_moo.supernet.devices import device_of
from apq_moo.supernet.network import Supernet

_TIMED = 512
"""Images by which the time of a network is estimated."""

_CALIBRATION = 3
"""How many classified images an image of the calibration takes as long as, about."""

_KEPT_BYTES = 3 * 2**29
"""Of images that are held ready for later calls."""


class Scorer:
    """Counts what subnets of a supernet classify rightly.

    A subnet is calibrated once and classifies the images of all wanted splits in one pass; the
    device is waited for when all subnets of a call are under way. Of images that memory does not
    hold at once, all subnets of a call classify one block after the other.

    Args:
        supernet: the weights, on any device.
        images: the data set.

    Attributes:
        space: the supernet's.
    """

    def __init__(self, supernet: Supernet, images: ImageSource) -> None:
        self.space = supernet.space
        self._images = images
        self._device = device_of(supernet)
        self._calibration = torch.from_numpy(images.calibration.pixels).to(self._device)
        self._evaluator = evaluator_for(supernet, self._calibration)
        self._together: dict[tuple[str, ...], tuple[Any, Tensor]] = {}
        self._kept_bytes = 0

    def count(
        self, subnets: Sequence[Subnet], splits: Sequence[str], *, quantised: bool | BoolArray
    ) -> NDArray[np.int32]:
        """Rightly classified images, shape ``(n, n_splits)``.

        Args:
            subnets: members of the space.
            splits: of the image set, by their attributes' names.
            quantised: whether they run at their bits, one for all or shape ``(n,)``.
        """
        at = np.broadcast_to(quantised, len(subnets))
        rows = [
            torch.stack([part.sum() for part in parts]) for parts in self._hits(subnets, splits, at)
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

    def hits(
        self, subnets: Sequence[Subnet], splits: Sequence[str], *, quantised: bool
    ) -> list[list[BoolArray]]:
        """Which images of each split subnets classify rightly.

        Returns:
            For each subnet and split shape ``(images of it,)``.
        """
        at = np.full(len(subnets), quantised)
        return [[part.cpu().numpy() for part in parts] for parts in self._hits(subnets, splits, at)]

    def estimate_s(self, subnet: Subnet, splits: Sequence[str]) -> float:
        """About how many seconds a subnet takes at its bits, calibration included."""
        part = self._evaluator.prepare(
            torch.from_numpy(self._images.split(splits[0])[:_TIMED].pixels).to(self._device)
        )
        for _ in range(2):  # the first is slower
            begun = time.perf_counter()
            timed = len(self._evaluator.logits(subnet, part, quantised=True).cpu())
            seconds = time.perf_counter() - begun
        images = sum(len(self._images.split(name)) for name in splits)
        calibration = _CALIBRATION * len(self._calibration)
        return seconds * max(1.0, (images + calibration) / (timed + calibration))

    def _hits(
        self, subnets: Sequence[Subnet], splits: Sequence[str], quantised: BoolArray
    ) -> Iterator[Sequence[Tensor]]:
        """Which images of each split each subnet classifies rightly, on the device.

        Args:
            subnets: members of the space.
            splits: of the image set.
            quantised: whether each runs at its bits, shape ``(n,)``.
        """
        parts: list[list[Tensor]] = [[] for _ in subnets]
        for images, labels in self._blocks(splits):
            for of, subnet, at in zip(parts, subnets, quantised, strict=True):
                logits = self._evaluator.logits(subnet, images, quantised=bool(at))
                of.append(logits.argmax(1) == labels)
        sizes = [len(self._images.split(name)) for name in splits]
        for of in parts:
            yield torch.cat(of).split(sizes)

    def _blocks(self, splits: Sequence[str]) -> Iterator[tuple[Any, Tensor]]:
        """Images of splits as the evaluator reads them, and their labels, some at a time."""
        key = tuple(splits)
        if key in self._together:
            yield self._together[key]
            return
        n = sum(len(self._images.split(name)) for name in splits)
        for block in self._images.blocks(splits):
            labels = torch.from_numpy(block.labels).to(self._device)
            prepared = self._evaluator.prepare(torch.from_numpy(block.pixels)), labels
            if len(block) == n:
                self._keep(key, prepared, block.pixels.nbytes)
            yield prepared

    def _keep(self, key: tuple[str, ...], prepared: tuple[Any, Tensor], n_bytes: int) -> None:
        if self._kept_bytes + n_bytes > _KEPT_BYTES:
            self._together.clear()
            self._kept_bytes = 0
        self._together[key] = prepared
        self._kept_bytes += n_bytes

"""What subnets of a supernet classify rightly, on any splits of an image set."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apq_moo.arrays import BoolArray, FloatArray
from apq_moo.data.images import ImageSource, Split
from apq_moo.errors import warn
from apq_moo.space import Subnet
from apq_moo.supernet.backends import evaluator_for
from apq_moo.supernet.devices import device_of
from apq_moo.supernet.memory_full import none_fits
from apq_moo.supernet.network import Supernet

_TIMED = 512
"""Images by which the time of a network is estimated."""

_CALIBRATION = 3
"""How many classified images an image of the calibration takes as long as, about."""

_KEPT_BYTES = 3 * 2**29
"""Of images that are held ready for later calls."""

_Runs: TypeAlias = Sequence[tuple[Subnet, bool]]
"""Subnets, and whether each runs at its bits."""


class Scorer:
    """Counts what subnets of a supernet classify rightly.

    A subnet is calibrated once and classifies the images of all wanted splits in one pass; the
    device is waited for when all subnets of a call are under way. Of images that memory does not
    hold at once, all subnets of a call classify one block after the other. Where a GPU's memory is
    full, as many images at a time are classified as fit, which changes no result.

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
        self._most: int | None = None

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

        Raises:
            UserError: the device's memory is full, however few images are classified at a time.
        """
        runs = list(zip(subnets, quantised.tolist(), strict=True))
        sizes = [len(self._images.split(name)) for name in splits]
        parts: list[list[Tensor]] = [[] for _ in runs]
        for right in self._blocks(runs, tuple(splits), sum(sizes)):
            for of, found in zip(parts, right, strict=True):
                of.append(found)
        for of in parts:
            yield torch.cat(of).split(sizes)

    def _blocks(self, runs: _Runs, key: tuple[str, ...], n: int) -> Iterator[list[Tensor]]:
        """What each run classifies rightly of ``n`` images, some at a time."""
        if key in self._together:
            try:
                found = self._right(runs, *self._together[key])
            except torch.cuda.OutOfMemoryError:
                found = []  # what its traceback holds goes with it
            if found:
                yield found
                return
            self._forget()
        for block in self._images.blocks(key):
            yield self._of_block(runs, block, key if len(block) == n else None)

    def _of_block(self, runs: _Runs, block: Split, key: tuple[str, ...] | None) -> list[Tensor]:
        """What each run classifies rightly of a block, as many images at a time as fit.

        Args:
            runs: subnets, and whether each runs at its bits.
            block: images.
            key: what they are kept as, if they are.
        """
        fewer = False
        while True:
            some = min(len(block), self._most or len(block))
            try:
                found = [self._of_part(runs, part, key, block) for part in block.parts(some)]
                break
            except torch.cuda.OutOfMemoryError:
                fewer = True  # what its traceback holds goes with it
            self._forget()
            self._most = some // 2
            if not self._most:
                raise none_fits(len(self._calibration), self._device)
        if fewer:
            warn(f"the memory of {self._device} is full: {some} images are classified at a time")
        return [torch.cat(of) for of in zip(*found, strict=True)]

    def _of_part(
        self, runs: _Runs, part: Split, key: tuple[str, ...] | None, block: Split
    ) -> list[Tensor]:
        labels = torch.from_numpy(part.labels).to(self._device)
        prepared = self._evaluator.prepare(torch.from_numpy(part.pixels))
        found = self._right(runs, prepared, labels)
        if key is not None and len(part) == len(block):
            self._keep(key, (prepared, labels), part.pixels.nbytes)
        return found

    def _right(self, runs: _Runs, images: Any, labels: Tensor) -> list[Tensor]:
        return [
            self._evaluator.logits(subnet, images, quantised=at).argmax(1) == labels
            for subnet, at in runs
        ]

    def _forget(self) -> None:
        """Give what is kept back to the device."""
        self._together.clear()
        self._kept_bytes = 0
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _keep(self, key: tuple[str, ...], prepared: tuple[Any, Tensor], n_bytes: int) -> None:
        if self._kept_bytes + n_bytes > _KEPT_BYTES:
            self._forget()
        self._together[key] = prepared
        self._kept_bytes += n_bytes

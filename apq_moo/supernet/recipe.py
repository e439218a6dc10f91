"""Settings of a supernet's training."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from types import MappingProxyType

from apq_moo.data.augmentation import AUGMENTATIONS
from apq_moo.errors import UserError
from apq_moo.space import find_distribution
from apq_moo.supernet.distillation import DISTILLATIONS
from apq_moo.supernet.gradients import PRECISIONS

SAMPLINGS = ("random", "best-up", "worst-up")
"""Which of the networks that are drawn are trained; see :mod:`apq_moo.supernet.drawing`."""

SCALINGS: MappingProxyType[str, float] = MappingProxyType({"none": 0.0, "linear": 1.0, "sqrt": 0.5})
"""Powers of a step's images that the learning rate grows with, by name."""

_CHOICES: dict[str, Collection[str]] = {
    "distillation": DISTILLATIONS,
    "sampling": SAMPLINGS,
    "augmentation": AUGMENTATIONS,
    "scale_rate": SCALINGS,
    "precision": PRECISIONS,
}
_MOST_WARMUP = 500
"""Steps of warm-up by default, where they are at most a sixth of all."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    Attributes:
        steps: optimiser steps in all.
        warmup_steps: leading steps that train the largest subnet alone; by default 500, at most a
            sixth of the steps.
        batch_size: images a step; the default is all training images where there are fewer.
        accumulation: parts in which a step's images pass through the network, each with batch-norm
            statistics of its own; see :class:`apq_moo.supernet.accumulation.Accumulated`.
        sync_batch_norm: whether processes that share a step's images use batch-norm statistics of
            all of them, not of their share alone; with parts, of the parts of all processes that
            pass through the network at once. It changes nothing on one process.
        random_subnets: random subnets a step, beside the largest and the smallest.
        draw: how these are drawn, one of :data:`apq_moo.space.DISTRIBUTIONS`.
        shrink: whether dimensions become elastic one after the other, each for a third of the steps
            between the warm-up and the quantised phase.
        quantised_steps: last steps, in which as many random subnets again run at their bits.
        learning_rate: peak of the cosine schedule, at ``reference_batch`` images a step.
        scale_rate: how the peak grows with ``batch_size``, one of :data:`SCALINGS`: not at all
            (``none``), in proportion (``linear``: Goyal et al., "Accurate, Large Minibatch SGD",
            2017, with a ramp before), or with its square root (``sqrt``, which suits AdamW:
            Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms",
            NeurIPS 2022).
        reference_batch: images a step for which ``learning_rate`` is meant.
        precision: of convolutions where torch's own operators train in full precision, one of
            :data:`apq_moo.supernet.gradients.PRECISIONS`.
        ramp_steps: steps of linear ramp before the cosine.
        weight_decay: AdamW's.
        label_smoothing: share of the labels spread evenly over all classes.
        clip_norm: largest norm of the gradient.
        distillation: what the other subnets learn from the largest, one of
            :data:`apq_moo.supernet.distillation.DISTILLATIONS`.
        sampling: which of the random subnets that are drawn are trained: all (``random``), or of
            each ``candidates`` of like size the one that seems best or worst (``best-up`` or
            ``worst-up``).
        candidates: how many.
        bit_phases: whether the bits of the quantised phase are drawn from the widest alone at
            first, and from one option more after each of as many equal parts.
        bit_sandwich: whether in the quantised phase the largest and the smallest subnet are trained
            at their fewest bits too.
        momentum_groups: whether the smaller half of a step's students has moments of its own in
            AdamW; the weights become the mean of what both updates make of them.
        augmentation: what is done to images beyond the image set's own augmentation, one of
            :data:`apq_moo.data.augmentation.AUGMENTATIONS`.
        average_decay: share of the moving average of the weights that a step keeps; the average is
            what the training ends with. 0: the weights themselves.
        seed: of the initial weights, batches, augmentation and subnets.
    """

    steps: int = 3000
    warmup_steps: int | None = None
    batch_size: int = 128
    accumulation: int = 1
    sync_batch_norm: bool = False
    random_subnets: int = 2
    draw: str = "uniform"
    shrink: bool = False
    quantised_steps: int = 0
    learning_rate: float = 3e-3
    scale_rate: str = "none"
    reference_batch: int = 256
    precision: str = "float32"
    ramp_steps: int = 100
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    clip_norm: float = 5.0
    distillation: str = "kl"
    sampling: str = "random"
    candidates: int = 3
    bit_phases: bool = False
    bit_sandwich: bool = False
    momentum_groups: bool = False
    augmentation: str = "own"
    average_decay: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation", "candidates", "reference_batch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.warmup_steps is None:
            object.__setattr__(self, "warmup_steps", min(_MOST_WARMUP, self.steps // 6))
        if not 0 <= self.warmup <= self.steps:
            raise UserError(f"warmup_steps={self.warmup} must lie between 0 and steps={self.steps}")
        find_distribution(self.draw)
        self._check_choices()
        for name in ("learning_rate", "weight_decay", "clip_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(
                    f"{name} must be a finite number, at least 0; not {getattr(self, name)}"
                )
        for name in ("label_smoothing", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}")
        if not 0 <= self.quantised_steps <= self.steps:
            raise UserError(
                f"quantised_steps must be within 0 and steps, {self.steps}; not "
                f"{self.quantised_steps}"
            )

    def _check_choices(self) -> None:
        for name in ("bit_phases", "bit_sandwich"):
            if getattr(self, name) and not self.quantised_steps:
                raise UserError(f"{name} is of the quantised phase; quantised_steps must not be 0")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                allowed = ", ".join(known)
                raise UserError(f"{name} must be one of {allowed}; not {getattr(self, name)!r}")

    @property
    def warmup(self) -> int:
        """``warmup_steps`` as given, or by default."""
        assert self.warmup_steps is not None
        return self.warmup_steps

    @property
    def peak(self) -> float:
        """``learning_rate`` for ``batch_size`` images a step."""
        times = self.batch_size / self.reference_batch
        return float(self.learning_rate * times ** SCALINGS[self.scale_rate])

    def rate(self, step: int) -> float:
        """Learning rate at a step."""
        ramp = min(1.0, (step + 1) / max(1, self.ramp_steps))
        return self.peak * ramp * 0.5 * (1 + math.cos(math.pi * step / self.steps))


def check_shares(batch_size: int, processes: int, accumulation: int) -> None:
    """Check that each process has images for every part of a step.

    Raises:
        UserError: it has not.
    """
    if batch_size < processes:
        raise UserError(f"batch_size={batch_size} is less than {processes} processes; raise it")
    share = batch_size // processes
    if share < accumulation:
        raise UserError(
            f"accumulation={accumulation} is more than the {share} images that a process has of a "
            "step; lower it"
        )

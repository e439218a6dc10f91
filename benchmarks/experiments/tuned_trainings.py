"""Trainings of single members of a front: fine-tuned, or alone at their bits.

Each can be stopped at a time, and goes on from a checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from apq_moo.data.assets import MANIFEST, Assets
from apq_moo.data.tables import SPLITS
from apq_moo.deploy.cutting import Inheritance, inheritance
from apq_moo.deploy.tuning import Tuner, TuningConfig
from apq_moo.errors import UserError
from apq_moo.space import Subnet, load_space
from apq_moo.supernet.devices import device_of
from apq_moo.supernet.training import TrainConfig, Trainer
from apq_moo.threads import one_torch_thread

_AT_BITS = 4
"""One of so many steps of what is trained alone are at its bits."""


def recipe(assets: Assets) -> TrainConfig:
    """The recipe of a supernet among assets.

    Raises:
        UserError: their manifest does not say it, or is malformed.
    """
    path, stored = assets.folder / MANIFEST, assets.manifest.get("train")
    if not isinstance(stored, dict):
        raise UserError(f"{path} does not say how its supernet was trained; it has no 'train'")
    names = {item.name for item in fields(TrainConfig)}
    known = {name: value for name, value in stored.items() if name in names}
    try:
        return TrainConfig(**known)
    except (TypeError, UserError) as error:
        raise UserError(f"{path} is malformed: its 'train' holds odd settings: {error}") from error


def halves(config: TrainConfig, steps: int, seed: int) -> tuple[TrainConfig, TuningConfig]:
    """How a subnet is trained alone: first in full precision, then at its bits.

    Args:
        config: the supernet's recipe.
        steps: of both together.
        seed: of both.

    Raises:
        UserError: there are too few steps.
    """
    if steps < _AT_BITS:
        raise UserError(f"alone_steps={steps}: it takes at least {_AT_BITS}")
    at_bits = steps // _AT_BITS
    train = replace(
        config, steps=steps - at_bits, warmup_steps=0, quantised_steps=0, bit_phases=False,
        bit_sandwich=False, shrink=False, momentum_groups=False, sampling="random", seed=seed,
    )  # fmt: skip
    tuning = TuningConfig(steps=at_bits, batch_size=config.batch_size, labels=1.0, seed=seed)
    return train, tuning


def lengths(epochs: Sequence[int], images: int, batch: int) -> dict[str, int]:
    """Steps of each fine-tuning by its column: as many as see that many images at least."""
    return {_epochs(n): -(-n * images // batch) for n in epochs}


def _epochs(n: int) -> str:
    return f"{n} epoch{'s' if n > 1 else ''}"


@dataclass(frozen=True)
class Job:
    """One training of one member.

    Attributes:
        space: a preset's name or a file.
        subnet: the member, as JSON.
        assets: where its supernet lies; None for what ships with the package.
        tuning: of its steps at bits.
        train: of those in full precision before; None for a member that begins with the weights
            that it inherits.
        on: the device.
        checkpoint: of its unfinished training.
        until: the time at which it stops, unfinished; None for never.
    """

    space: str
    subnet: dict[str, Any]
    assets: str | None
    tuning: TuningConfig
    train: TrainConfig | None
    on: str
    checkpoint: Path
    until: float | None

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return self.tuning.steps + (0 if self.train is None else self.train.steps)

    @property
    def first_checkpoint(self) -> Path:
        """Of the steps in full precision."""
        return self.checkpoint.with_suffix(".first.training")

    @property
    def late(self) -> bool:
        """Whether its time is over."""
        return self.until is not None and time.time() >= self.until


class OutOfTimeError(Exception):
    """A training was stopped, and stored, since its time was over."""


def trained(member: int, column: str, job: Job) -> tuple[int, str, dict[str, Any] | None]:
    """Carry out a training, or what is left of it.

    Returns:
        Which one with its figures; None for these if its time was over first.
    """
    with one_torch_thread():
        try:
            return member, column, _trained(job)
        except OutOfTimeError:
            return member, column, None


def _trained(job: Job) -> dict[str, Any]:
    if job.late:
        raise OutOfTimeError
    left = inheritance(load_space(job.space), Subnet.from_dict(job.subnet), job.assets, job.on)
    supernet, seconds = left.supernet, 0.0
    if job.train is not None:
        trainer = _trained_alone(job, job.train, left)
        supernet, seconds = trainer.supernet, trainer.seconds
    tuner = Tuner(supernet, left.subnet, left.images, job.tuning)
    if job.checkpoint.is_file():
        tuner.load(job.checkpoint)

    def look(_step: int, _steps: int) -> None:
        if job.late:
            tuner.save(job.checkpoint)
            raise OutOfTimeError

    folded = tuner.run(checkpoint=job.checkpoint, callback=look)
    found = {split: round(tuner.accuracy(folded, split), 3) for split in SPLITS}
    return {**found, "steps": job.steps, "seconds": round(seconds + tuner.seconds, 1)}


def _trained_alone(job: Job, config: TrainConfig, left: Inheritance) -> Trainer:
    """Train a subnet alone in full precision, from random weights."""
    device = device_of(left.supernet)
    trainer = Trainer(left.supernet.space, left.images, config, device, alone=left.subnet)
    if job.first_checkpoint.is_file():
        trainer.load(job.first_checkpoint)

    def look(_progress: object) -> None:
        if job.late:
            trainer.save(job.first_checkpoint)
            raise OutOfTimeError

    trainer.run(checkpoint=job.first_checkpoint, callback=look)
    trainer.save(job.first_checkpoint)  # what follows begins with it, also another day
    return trainer

"""What a training would cost: time, memory, energy and CO2e, from what a few steps were measured.

All of it is arithmetic on :class:`Figures`, which :mod:`apq_moo.supernet.planning_figures`
measures.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from apq_moo.changes import changed
from apq_moo.errors import UserError
from apq_moo.files import read_json
from apq_moo.reading import Must, integer, number, read
from apq_moo.space import Space, refuse_other_space
from apq_moo.supernet.recipe import TrainConfig, check_shares

FORMAT = "apq-moo figures 1"

WARM_UP, FLOATS, BITS = "warm-up", "floats", "bits"
"""Phases of a training: the largest subnet alone, others too, and others at their bits too."""

WATTS = {"cuda": 700.0, "cpu": 150.0}
"""Of a device with its share of the host where nothing else is said: the nameplate of an H100 or
H200 (SXM), and about that of a processor of a server."""

PUE = 1.58
"""Power of a data centre over that of its computers, world-wide (Strubell et al., "Energy and
Policy Considerations for Deep Learning in NLP", ACL 2019)."""

KG_PER_KWH = 0.433
"""CO2e of a kWh: the same authors' average of the United States, 0.954 lb."""

KG_PER_GPU_HOUR = 0.2836 * 0.45359237
"""CO2e of a GPU hour in the tables of the paper (0.2836 lb: 188 W by the constants above)."""

_STUDENTS = (
    "random_subnets", "draw", "shrink", "sampling", "candidates", "bit_phases", "bit_sandwich",
    "momentum_groups", "precision",
)  # fmt: skip
"""Settings on which the time of a pass depends."""

_POSITIVE = number(1e-9, 1e9)
_FORMAT = Must(repr(FORMAT), lambda value: value == FORMAT)
_KIND = Must("cuda or cpu", lambda value: value in ("cuda", "cpu"))
_SECONDS = Must(
    "a table of seconds, each from 1e-09 to 1e+09",
    lambda value: isinstance(value, dict) and all(map(_POSITIVE.holds, value.values())),
)


@dataclass(frozen=True)
class Figures:
    """What a few steps took on one device.

    Attributes:
        format: of the file.
        space: whose networks were trained.
        digest: of the space.
        space_content: what the space says.
        device: its name.
        kind: ``cuda`` or ``cpu``.
        batch: images of a pass.
        measured_steps: passes of each phase that were timed.
        seconds: of a pass with its students, by phase.
        recipe: settings on which these depend.
        memory_bytes: at the peak, if the device tells.
        versions: of what measured.
    """

    format: Annotated[str, _FORMAT]
    space: str
    digest: str
    space_content: dict[str, Any]
    device: str
    kind: Annotated[str, _KIND]
    batch: Annotated[int, integer(1, 10**9)]
    measured_steps: Annotated[int, integer(1, 10**9)]
    seconds: Annotated[dict[str, Any], _SECONDS]
    recipe: dict[str, Any]
    memory_bytes: int | None = None
    versions: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Assumptions:
    """What is not measured.

    Attributes:
        gpus: devices that train together.
        efficiency: images a second of all, over as many times those of one; of one it is 1.
        watts: of a device with its share of the host; default: :data:`WATTS` of its kind.
        pue: power of the data centre over that of its computers.
        kg_per_kwh: CO2e of a kWh.
    """

    gpus: int = 8
    efficiency: float = 0.9
    watts: float | None = None
    pue: float = PUE
    kg_per_kwh: float = KG_PER_KWH

    def __post_init__(self) -> None:
        if self.gpus < 1:
            raise UserError(f"gpus={self.gpus}: at least 1 is needed")
        if not 0 < self.efficiency <= 1:
            raise UserError(f"efficiency={self.efficiency} must be above 0 and at most 1")
        if not 1 <= self.pue < float("inf"):
            raise UserError(f"pue={self.pue} must be a finite number, at least 1")
        for name in ("watts", "kg_per_kwh"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise UserError(f"{name}={value} must be a finite number, at least 0")


@dataclass(frozen=True)
class Plan:
    """What a training would take.

    Attributes:
        images: training images.
        steps: optimiser steps.
        epochs: times that each image is seen.
        batch_size: images of a step.
        images_per_s: that all devices train, over the whole training.
        hours: by the clock.
        gpu_hours: of all devices.
        memory_gib: of a device at its peak, or None where that was not measured.
        kwh: energy, the data centre's share included.
        co2e_kg: of that.
        co2e_kg_published: by the rate of the paper's tables.
    """

    images: int
    steps: int
    epochs: float
    batch_size: int
    images_per_s: float
    hours: float
    gpu_hours: float
    memory_gib: float | None
    kwh: float
    co2e_kg: float
    co2e_kg_published: float


def steps_of(epochs: float, images: int, batch_size: int) -> int:
    """Steps of some epochs, each of which leaves out what does not fill a batch.

    Raises:
        UserError: a batch is larger than the set, or there is not one step.
    """
    if batch_size > images:
        raise UserError(
            f"batch_size={batch_size} is more than the {images} training images; lower it"
        )
    steps = round(epochs * (images // batch_size))
    if steps < 1:
        raise UserError(f"epochs={epochs:g} of {images} images are not one step; raise them")
    return steps


def check_feasible(config: TrainConfig, images: int, gpus: int) -> None:
    """Check that a recipe can be trained with.

    Raises:
        UserError: a batch is larger than the set, or smaller than what devices are to share.
    """
    if config.batch_size > images:
        raise UserError(
            f"batch_size={config.batch_size} is more than the {images} training images; lower it"
        )
    check_shares(config.batch_size, gpus, config.accumulation)


def phases(config: TrainConfig) -> dict[str, range]:
    """The steps of each phase that a training has."""
    ends = (0, config.warmup, max(config.warmup, config.steps - config.quantised_steps))
    steps = {
        WARM_UP: range(ends[0], ends[1]),
        FLOATS: range(ends[1], ends[2]),
        BITS: range(ends[2], config.steps),
    }
    return {name: part for name, part in steps.items() if part}


def students_of(config: TrainConfig) -> dict[str, Any]:
    """The settings on which figures depend, fit for JSON."""
    return {name: getattr(config, name) for name in _STUDENTS}


def plan(config: TrainConfig, images: int, figures: Figures, assumed: Assumptions) -> Plan:
    """What a training would take.

    Every phase takes its steps times the measured seconds an image, over devices and efficiency.

    Args:
        config: the recipe.
        images: training images.
        figures: measured with this recipe's students.
        assumed: what is not measured.

    Raises:
        UserError: the figures lack a phase of the recipe, or there are too few images for a step of
            as many devices.
    """
    check_feasible(config, images, assumed.gpus)
    missing = [name for name in phases(config) if name not in figures.seconds]
    if missing:
        known = ", ".join(figures.seconds)
        raise UserError(f"the figures lack the phase {missing[0]!r}; they are of {known}")
    per_device = sum(
        len(steps) * config.batch_size * figures.seconds[name] / figures.batch
        for name, steps in phases(config).items()
    )
    at_once = assumed.gpus * (assumed.efficiency if assumed.gpus > 1 else 1.0)
    seconds = per_device / at_once
    hours = seconds / 3600
    gpu_hours = hours * assumed.gpus
    watts = WATTS[figures.kind] if assumed.watts is None else assumed.watts
    kwh = gpu_hours * watts / 1000 * assumed.pue
    seen = config.steps * config.batch_size
    memory = figures.memory_bytes
    return Plan(
        images=images,
        steps=config.steps,
        epochs=seen / images,
        batch_size=config.batch_size,
        images_per_s=seen / seconds,
        hours=hours,
        gpu_hours=gpu_hours,
        memory_gib=None if memory is None else memory / 2**30,
        kwh=kwh,
        co2e_kg=kwh * assumed.kg_per_kwh,
        co2e_kg_published=gpu_hours * KG_PER_GPU_HOUR,
    )


def read_figures(path: str | Path, space: Space, config: TrainConfig) -> Figures:
    """Figures of a file: alone, or as ``figures`` of a plan.

    Raises:
        UserError: it is malformed, of another space, or of a recipe with other students.
    """
    data = read_json(path)
    if isinstance(data, dict) and isinstance(data.get("figures"), dict):
        data = data["figures"]
    figures: Figures = read(Figures, data, str(path))
    refuse_other_space(asdict(figures), space, path)
    if figures.recipe != students_of(config):
        raise UserError(
            f"the figures of {path} are of other students "
            f"({changed(figures.recipe, students_of(config))}); plan with those, or measure anew"
        )
    return figures

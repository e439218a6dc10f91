"""What a pipeline is: everything its results depend on."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields
from pathlib import Path

from apq_moo.defaults import DEFAULT_SPACE, MAX_JOBS
from apq_moo.errors import UserError, shown
from apq_moo.study.config import RunConfig


@dataclass(frozen=True)
class PipelineConfig:
    """The configuration of a pipeline.

    Attributes:
        folder: where everything goes.
        space: a preset's name or a TOML file.
        steps: of the training.
        warmup_steps: of these, first ones for the largest subnet alone; by default 500, at most a
            sixth of the steps.
        fp: full-precision samples.
        mp: mixed-precision samples.
        held_out: held-out samples of each.
        finetune_steps: quantisation-aware steps of each mixed-precision sample.
        init: what the supernet's weights begin with: a preset whose supernet ships, or a file of
            weights; default: at random.
        stream: whether images of one's own stay in their files, however few they are.
        skip_unreadable: whether those that cannot be read are left out.
        draw: how training draws subnets, one of :data:`apq_moo.space.DISTRIBUTIONS`.
        algo: of the search.
        objectives: of the search.
        device: of the search: the cost model of latency and energy, a name or a file.
        missing: what comes of layers that a device's table lacks, ``error`` or ``infeasible``.
        limits: of the search: constraints by name, in the objective's unit.
        budget: evaluations of the search.
        verify: members of the front that are measured in the end.
        jobs: processes that measure samples.
        seed: of everything random.
    """

    folder: str | Path
    space: str = DEFAULT_SPACE
    steps: int = 3600
    warmup_steps: int | None = None
    fp: int = 3000
    mp: int = 1500
    held_out: int = 1000
    finetune_steps: int = 0
    init: str | None = None
    stream: bool = False
    skip_unreadable: bool = False
    draw: str = "uniform"
    algo: str = RunConfig.algo
    objectives: tuple[str, ...] = RunConfig.objectives
    device: str = RunConfig.device
    missing: str = RunConfig.missing
    limits: dict[str, float] = field(default_factory=dict)
    budget: int = RunConfig.budget
    verify: int = 10
    jobs: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        bounds = {
            "fp": (2, 10_000_000),
            "mp": (2, 10_000_000),
            "held_out": (3, 1_000_000),
            "finetune_steps": (0, 1_000_000),
            "jobs": (1, MAX_JOBS),
            "steps": (1, 100_000_000),
            "verify": (1, 1_000_000),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if value < low:
                raise UserError(f"{name} must be at least {low}, not {shown(value)}")
            if value > high:
                raise UserError(f"{name} must be at most {high:,}, not {shown(value)}")

    @property
    def search(self) -> RunConfig:
        """The search on what was made."""
        return RunConfig(
            algo=self.algo,
            objectives=self.objectives,
            space=self.space,
            device=self.device,
            missing=self.missing,
            limits=self.limits,
            assets=str(self.folder),
            budget=self.budget,
            seed=self.seed,
        )

    @property
    def command(self) -> str:
        """The command that does the same, with every option that differs from its default."""
        words = ["apq-moo", "pipeline", "--out", str(self.folder)]
        default = PipelineConfig(self.folder)
        for name in (item.name for item in fields(self) if item.name != "limits"):
            value = getattr(self, name)
            if value != getattr(default, name):
                text = ",".join(value) if isinstance(value, tuple) else str(value)
                words += [f"--{name.replace('_', '-')}", *([] if value is True else [text])]
        for name, limit in self.limits.items():
            words += ["--max", f"{name}={limit!r}"]
        return shlex.join(words)

"""What a pipeline is: everything its results depend on."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
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
        fp: full-precision samples.
        mp: mixed-precision samples.
        held_out: held-out samples of each.
        finetune_steps: quantisation-aware steps of each mixed-precision sample.
        draw: how training draws subnets, one of :data:`apq_moo.space.DISTRIBUTIONS`.
        algo: of the search.
        objectives: of the search.
        budget: evaluations of the search.
        jobs: processes that measure samples.
        seed: of everything random.
    """

    folder: str | Path
    space: str = DEFAULT_SPACE
    steps: int = 3600
    fp: int = 3000
    mp: int = 1500
    held_out: int = 1000
    finetune_steps: int = 0
    draw: str = "uniform"
    algo: str = RunConfig.algo
    objectives: tuple[str, ...] = RunConfig.objectives
    budget: int = RunConfig.budget
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
            assets=str(self.folder),
            budget=self.budget,
            seed=self.seed,
        )

    @property
    def command(self) -> str:
        """The command that does the same, with every option that differs from its default."""
        words = ["apq-moo", "pipeline", "--out", str(self.folder)]
        for item in fields(self)[1:]:
            value = getattr(self, item.name)
            if value != item.default:
                text = ",".join(value) if isinstance(value, tuple) else str(value)
                words += [f"--{item.name.replace('_', '-')}", text]
        return shlex.join(words)

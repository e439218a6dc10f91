"""Collecting D_FP and D_MP: random subnets of a supernet and their accuracies.

Which subnets are drawn depends on the seed alone; measuring them can stop and go on at any time, in
any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from apq_moo.arrays import IntArray, distinct
from apq_moo.data import load_images
from apq_moo.data.samples import SETS, SampleTable, load_samples
from apq_moo.errors import UserError
from apq_moo.files import sha256, with_defaults
from apq_moo.space import SamplingDistribution, Space, find_distribution
from apq_moo.supernet.finetuning import FineTuning
from apq_moo.supernet.measuring import measure, provenance
from apq_moo.threads import one_torch_thread


@dataclass(frozen=True)
class SampleConfig:
    """How many subnets to draw, and how.

    Attributes:
        fp: full-precision samples to fit to.
        mp: mixed-precision samples to fit to.
        fp_held_out: full-precision samples to judge by.
        mp_held_out: mixed-precision samples to judge by.
        finetune_steps: quantisation-aware training steps of each mixed-precision sample.
        seed: of the draw, and of the fine-tuning batches.
        draw: how they are drawn, one of :data:`apq_moo.space.DISTRIBUTIONS`.
    """

    fp: int = 3000
    mp: int = 1500
    fp_held_out: int = 1000
    mp_held_out: int = 1000
    finetune_steps: int = 0
    seed: int = 0
    draw: str = "uniform"

    def __post_init__(self) -> None:
        find_distribution(self.draw)


def draw(space: Space, config: SampleConfig) -> SampleTable:
    """Draw the subnets, distinct over all sets, with accuracies still NaN.

    Raises:
        UserError: the space has too few members.
    """
    rng = np.random.default_rng([config.seed, 3])
    parts: list[IntArray] = []
    for quantised in (False, True):
        suffix = "mp" if quantised else "fp"
        sizes = [getattr(config, suffix), getattr(config, f"{suffix}_held_out")]
        limit = space.count() if quantised else space.count_architectures()
        if sum(sizes) > limit // 2:
            raise UserError(
                f"space {space.name!r} has {limit} distinct members; {sum(sizes)} "
                f"{suffix} samples are more than half of them"
            )
        rows = _distinct(
            space, sum(sizes), rng, find_distribution(config.draw), quantised=quantised
        )
        parts += [rows[: sizes[0]], rows[sizes[0] :]]
    drawn = dict(zip(("fp", "fp_held_out", "mp", "mp_held_out"), parts, strict=True))
    group = np.concatenate(
        [
            np.full(len(drawn[name]), i, dtype=np.int8)
            for i, name in enumerate(SETS)
            if name in drawn
        ]
    )
    X = np.vstack([drawn[name] for name in SETS if name in drawn])
    return SampleTable(X, group, np.full(len(X), np.nan))


def _distinct(
    space: Space, n: int, rng: np.random.Generator, method: SamplingDistribution, *, quantised: bool
) -> IntArray:
    rows = np.empty((0, space.n_var), dtype=np.int64)
    while len(rows) < n:
        drawn = method(space, n, rng)
        rows = distinct(np.vstack([rows, drawn if quantised else space.architecture(drawn)]))
    return rows[:n]


def collect(
    space: Space,
    checkpoint: str | Path,
    images: str,
    config: SampleConfig,
    out: str | Path,
    *,
    jobs: int = 1,
    on: str = "cpu",
    callback: Callable[[int, int], None] | None = None,
) -> SampleTable:
    """Measure all samples, continuing a table that is already there.

    Args:
        space: the space.
        checkpoint: the supernet's file.
        images: the name of the data set.
        config: what to draw.
        out: the table's file; it is stored now and then, and read first if it is there.
        jobs: processes, each on one thread, on which figures in full precision depend.
        on: the device of all of them.
        callback: told ``(done, total)``.

    Raises:
        UserError: see :func:`apq_moo.supernet.measuring.measure`, or the space has too few members.
    """
    header = {
        **provenance(space, sha256(checkpoint), load_images(images).checksum),
        "images": images,
        "config": asdict(config),
    }
    finetuning = None
    if config.finetune_steps:
        finetuning = FineTuning(config.finetune_steps, seed=config.seed)
        header["finetuning"] = asdict(finetuning)
    with one_torch_thread():
        return measure(
            space, checkpoint, images, replace(draw(space, config), provenance=header), out,
            partial(_read, space), finetuning=finetuning, jobs=jobs, on=on, callback=callback,
        )  # fmt: skip


def _read(space: Space, path: Path) -> SampleTable:
    table = load_samples(path, space)
    config = with_defaults(table.provenance.get("config"), SampleConfig)
    return replace(table, provenance={**table.provenance, "config": config})

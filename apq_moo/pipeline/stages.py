"""The stages from raw images to a verified front, each of which continues what it finds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.data import load_images
from apq_moo.data.assets import SAMPLES, SUPERNET, Assets, predictor_file, write_manifest
from apq_moo.data.images import ImageSource, check_images
from apq_moo.data.noise import few_images
from apq_moo.data.samples import load_samples
from apq_moo.data.tables import SPLITS
from apq_moo.defaults import DEFAULT_PREDICTOR
from apq_moo.errors import UserError
from apq_moo.files import growing
from apq_moo.predictors import PREDICTORS, fit_to_samples
from apq_moo.predictors.metrics import kendall_tau
from apq_moo.space import Space, Subnet, embed, find_distribution, superspace
from apq_moo.supernet.beginning import Beginning
from apq_moo.supernet.checkpoint import load_supernet, save_supernet
from apq_moo.supernet.devices import torch_device
from apq_moo.supernet.distributed import join
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.sampling import collect
from apq_moo.supernet.scoring import Scorer
from apq_moo.supernet.training import Progress, TrainConfig, Trainer
from apq_moo.supernet.watching import watched
from apq_moo.versions import processor, versions

__all__ = ["Evaluation", "collect", "complete", "evaluate", "fit_predictors", "manifest", "train"]


def train(
    space: Space,
    images: str,
    config: TrainConfig,
    out: str | Path,
    callback: Callable[[Progress], None] | None = None,
    *,
    on: str = "cpu",
    split: str = "images",
    init: str | Path | None = None,
    began: Callable[[Beginning], None] = lambda _begun: None,
) -> float:
    """Train a supernet and store it; an interrupted training goes on where it stopped.

    Under ``torchrun`` all processes train it together, and the first one stores it.

    Args:
        space: the space.
        images: the name of the data set.
        config: settings.
        out: the supernet's file; the unfinished training lies beside it as ``*.training``.
        callback: told about every step.
        on: the device to train on.
        split: what of a step several processes share, its ``images`` or its ``subnets``.
        init: what the weights begin with, see :func:`apq_moo.supernet.beginning.begin_with`;
            default: at random.
        began: told what was copied.

    Returns:
        Seconds of training in all.

    Raises:
        UserError: the space shares the supernet of another, an unfinished training there is of
            other settings, a file cannot be written or is being written by another process, or
            there is no such device.
    """
    check_trainable(space)
    out = Path(out)
    unfinished = out.with_suffix(".training")
    group, device = join(on)
    loaded = load_images(images)
    trainer = Trainer(space, loaded, config, device, group, split=split)
    with growing(out) if group.leads else nullcontext():
        if unfinished.is_file():
            trainer.load(unfinished)
            _refuse_other_init(trainer.begun, init, unfinished)
        elif init is not None:
            begun = trainer.begin(init)
            if group.leads:
                began(begun)
        group.wait()  # all have read it
        with watched(group, device):
            supernet = trainer.run(checkpoint=unfinished, callback=callback)
            if group.leads:
                save_supernet(
                    out,
                    supernet,
                    images=images,
                    images_skipped=loaded.skipped,
                    seconds=trainer.seconds,
                    steps=config.steps,
                    train=asdict(config),
                    **({} if trainer.begun is None else {"begun": asdict(trainer.begun)}),
                )
                unfinished.unlink(missing_ok=True)
            group.wait()
    return trainer.seconds


def _refuse_other_init(begun: Beginning | None, init: str | Path | None, unfinished: Path) -> None:
    then, now = None if begun is None else begun.path, None if init is None else str(init)
    if then != now:
        how = "at random" if then is None else f"with init={then}"
        raise UserError(f"{unfinished} began {how}; say the same, or name another file")


def check_trainable(space: Space) -> None:
    """Refuse a space that has no supernet of its own.

    Raises:
        UserError: it is part of another space, whose supernet it shares.
    """
    if space.spec.part_of:
        raise UserError(
            f"space {space.name!r} is part of {space.spec.part_of!r} and shares its supernet: "
            "train that one, or leave out part_of"
        )


@dataclass(frozen=True)
class Evaluation:
    """How well a supernet tells its subnets apart.

    Attributes:
        named: for the largest and the smallest subnet, accuracies in percent by split, in full
            precision (``fp``) and at the subnet's bits (``mp``).
        mean: mean validation accuracy of random subnets, ``fp`` and ``mp``.
        tau: Kendall tau between validation and test over them.
        spread: standard deviation of the validation accuracy over them.
        noise: of the images: standard deviation of half the difference between two random halves of
            validation.
        calibration_noise: standard deviation over calibration sets drawn anew from the training
            images, with replacement; root mean square over a few of the random subnets.
        images: of each split.
    """

    named: dict[str, dict[str, dict[str, float]]]
    mean: dict[str, float]
    tau: dict[str, float]
    spread: dict[str, float]
    noise: dict[str, float]
    calibration_noise: dict[str, float]
    images: dict[str, int]

    def total_noise(self, kind: str) -> float:
        """Root of the sum of squares of both kinds of noise."""
        return math.hypot(self.noise[kind], self.calibration_noise[kind])

    @property
    def of_few_images(self) -> str | None:
        """How noisy the accuracies are, if they are; see :func:`apq_moo.data.noise.few_images`."""
        kinds = [kinds for of in self.named.values() for kinds in of.values()]
        return few_images(
            {
                split: (n, sum(kind[split] for kind in kinds) / len(kinds))
                for split, n in self.images.items()
            }
        )


def evaluate(
    space: Space,
    checkpoint: str | Path,
    images: str,
    *,
    n_random: int = 200,
    draw: str = "uniform",
    seed: int = 0,
    on: str = "cpu",
    callback: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure the largest, the smallest and random subnets of a supernet.

    Args:
        space: of the subnets.
        checkpoint: the supernet of the space, or of what it is part of.
        images: the name of the data set.
        n_random: random subnets, each in full precision and at its bits.
        draw: how they are drawn, one of :data:`apq_moo.space.DISTRIBUTIONS`.
        seed: of the random subnets and halves.
        on: the device to measure on.
        callback: told ``(done, total)``.

    Raises:
        UserError: the checkpoint is unusable, or there is no such way to draw.
    """
    sample = find_distribution(draw)
    whole = superspace(space)
    supernet, _ = load_supernet(checkpoint, whole)
    data = load_images(images)
    check_images(space, data)
    scorer = Scorer(supernet.to(torch_device(on)), data)
    named = _named(scorer, data, whole.decode(embed(space, _both_ends(space))))
    rng = np.random.default_rng([seed, 7])
    subnets = whole.decode(embed(space, sample(space, n_random, rng)))
    n = len(data.validation)
    first = rng.permutation(n) < n // 2
    mean, tau, spread, noise = {}, {}, {}, {}
    for number, kind in enumerate(("fp", "mp")):
        right = np.empty((n_random, n), dtype=bool)
        test = np.empty(n_random)
        for first_row in range(0, n_random, _AT_ONCE):
            rows = slice(first_row, first_row + _AT_ONCE)
            found_hits = scorer.hits(subnets[rows], SPLITS, quantised=kind == "mp")
            right[rows] = [of_validation for of_validation, _ in found_hits]
            test[rows] = [100 * of_test.mean() for _, of_test in found_hits]
            if callback is not None:
                callback(number * n_random + min(rows.stop, n_random), 2 * n_random)
        validation = 100 * right.mean(axis=1)
        halves = 100 * (right[:, first].mean(axis=1) - right[:, ~first].mean(axis=1)) / 2
        mean[kind] = float(validation.mean())
        if n_random > 1:
            tau[kind] = kendall_tau(test, validation)
            spread[kind] = float(validation.std())
            noise[kind] = float(halves.std())
    sizes = {name: len(data.split(name)) for name in ("validation", "test")}
    again = _calibration_noise(supernet, data, subnets[:_RECALIBRATED], rng) if noise else {}
    return Evaluation(named, mean, tau, spread, noise, again, sizes)


def _both_ends(space: Space) -> IntArray:
    """The largest and the smallest subnet, each twice."""
    return np.vstack([space.largest(), space.smallest()]).repeat(2, axis=0)


def _named(
    scorer: Scorer, data: ImageSource, subnets: Sequence[Subnet]
) -> dict[str, dict[str, dict[str, float]]]:
    """See :class:`Evaluation`; all images are classified in one pass, so that each is read once."""
    splits = ["validation", "test"]
    distorted = data.split("test_clean") is not data.split("test")
    at = np.array([False, True, False, True])
    found = scorer.accuracies(subnets, [*splits, *["test_clean"] * distorted], quantised=at)
    rows = [{"validation": row[0], "test": row[1], "test_clean": row[-1]} for row in found.tolist()]
    return {
        "largest": {"fp": rows[0], "mp": rows[1]},
        "smallest": {"fp": rows[2], "mp": rows[3]},
    }


def _calibration_noise(
    supernet: Supernet, data: ImageSource, subnets: Sequence[Subnet], rng: np.random.Generator
) -> dict[str, float]:
    found: dict[str, list[FloatArray]] = {"fp": [], "mp": []}
    for _ in range(_CALIBRATIONS):
        # With replacement, since a small set calibrates with all its training images.
        drawn = rng.integers(0, len(data.train), len(data.calibration))
        split = data.train[drawn]
        scorer = Scorer(supernet, data.calibrated_by(split))
        for kind, values in found.items():
            accuracies = scorer.accuracies(subnets, ["validation"], quantised=kind == "mp")
            values.append(accuracies[:, 0])
    return {
        kind: float(np.sqrt(np.var(values, axis=0, ddof=1).mean()))
        for kind, values in found.items()
    }


_AT_ONCE = 16
"""Subnets that classify images while these are in memory."""

_CALIBRATIONS, _RECALIBRATED = 4, 12
"""How many calibration sets are drawn anew, and for how many subnets."""

KEPT = tuple(dict.fromkeys(("mlp", "xgboost-stacked", DEFAULT_PREDICTOR)))
"""Predictors that are stored among assets; any other is fitted to the samples when asked for."""


def fit_predictors(
    space: Space,
    folder: str | Path,
    *,
    seed: int = 0,
    callback: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Fit every predictor to ``samples.npz`` of a folder, and store those of :data:`KEPT`.

    Args:
        space: the space.
        folder: of assets.
        seed: of the fits.
        callback: told ``(done, total)``.

    Returns:
        Kendall tau of each on the held-out mixed-precision samples.
    """
    folder = Path(folder)
    X, y = load_samples(folder / SAMPLES, space).rows("mp_held_out")
    taus = {}
    names = [name for name, _ in PREDICTORS.usable()]
    for name in names:
        predictor = fit_to_samples(name, space, folder / SAMPLES, seed=seed)
        if name in KEPT:
            predictor.save(folder / predictor_file(name))
        taus[name] = kendall_tau(y, predictor.predict(X))
        if callback is not None:
            callback(len(taus), len(names))
    return taus


def manifest(
    space: Space, images: str, folder: str | Path, *, command: str, seed: int, **figures: Any
) -> dict[str, Any]:
    """Write the manifest of a folder of assets that is complete.

    Args:
        space: the space.
        images: the name of the data set.
        folder: of assets.
        command: what made them.
        seed: of all stages.
        **figures: what was measured on the way.
    """
    folder = Path(folder)
    table = load_samples(folder / SAMPLES, space)
    counts = table.counts()
    predictors = sorted(folder.glob(predictor_file("*")))
    loaded = load_images(images)
    names = [SUPERNET, SAMPLES, *(str(path.relative_to(folder)) for path in predictors)]
    return write_manifest(
        folder,
        space,
        names,
        command=command,
        seed=seed,
        versions=versions(),
        processor=processor(),
        threads=torch.get_num_threads(),
        images=images,
        images_sha256=loaded.checksum,
        images_skipped=loaded.skipped,
        n_fp=counts["fp"],
        n_mp=counts["mp"],
        counts=counts,
        **figures,
    )


def complete(space: Space, folder: str | Path) -> bool:
    """Whether a folder holds finished assets of a space, every file of them intact."""
    assets = Assets(Path(folder), space)
    try:
        for name in assets.manifest["files"]:
            assets.path(name)
    except UserError:
        return False
    return True

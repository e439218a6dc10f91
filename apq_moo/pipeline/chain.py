"""All stages one after the other: from raw images to a verified front."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from apq_moo.data.assets import MANIFEST, SAMPLES, SUPERNET
from apq_moo.errors import UserError
from apq_moo.files import read_json, with_defaults, write_json
from apq_moo.pipeline import stages
from apq_moo.space import Space
from apq_moo.supernet.sampling import SampleConfig, collect
from apq_moo.supernet.training import TrainConfig

_STATE = "pipeline.json"


@dataclass(frozen=True)
class Listener:
    """What the chain tells while it goes.

    Attributes:
        stage: the name of a stage that begins.
        progress: ``(done, total)`` within it.
    """

    stage: Callable[[str], None]
    progress: Callable[[int, int], None]


def make_assets(
    space: Space,
    images: str,
    folder: str | Path,
    listener: Listener,
    *,
    train: TrainConfig,
    samples: SampleConfig,
    jobs: int,
) -> dict[str, Any]:
    """Train, sample and fit, continuing what is already in the folder.

    Args:
        space: the space.
        images: the name of the data set.
        folder: where the assets go.
        listener: told what happens.
        train: settings of the training.
        samples: settings of the samples.
        jobs: processes that measure samples.

    Returns:
        The manifest.

    Raises:
        UserError: the folder was begun with other settings, or cannot be written.
    """
    folder = Path(folder)
    settings = {
        "space": space.name,
        "digest": space.digest,
        "images": images,
        "train": asdict(train),
        "samples": asdict(samples),
    }
    state = _begin(folder, settings)
    seconds: dict[str, float] = state["seconds"]

    def timed(name: str, begun: float) -> None:
        seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - begun, 1)
        write_json(folder / _STATE, state)

    if stages.complete(space, folder):
        manifest: dict[str, Any] = read_json(folder / MANIFEST)
        return manifest
    if not (folder / SUPERNET).is_file():
        listener.stage("training the supernet")
        seconds["train"] = round(
            stages.train(
                space, images, train, folder / SUPERNET,
                lambda p: listener.progress(p.step, p.steps),
            ),
            1,
        )  # fmt: skip
        write_json(folder / _STATE, state)
    begun = time.perf_counter()
    listener.stage("collecting samples")
    collect(
        space,
        folder / SUPERNET,
        images,
        samples,
        folder / SAMPLES,
        jobs=jobs,
        callback=listener.progress,
    )
    timed("samples", begun)
    begun = time.perf_counter()
    listener.stage("fitting predictors")
    taus = stages.fit_predictors(space, folder, seed=samples.seed, callback=listener.progress)
    timed("predictors", begun)
    begun = time.perf_counter()
    listener.stage("evaluating the supernet")
    quality = stages.evaluate(
        space, folder / SUPERNET, images, seed=samples.seed, callback=listener.progress
    )
    timed("evaluate", begun)
    largest = quality.named["largest"]["fp"]
    return stages.manifest(
        space,
        images,
        folder,
        command=_command(space, train),
        seed=train.seed,
        train=asdict(train),
        samples=asdict(samples),
        acc_test=largest["test"],
        acc_test_clean=largest["test_clean"],
        supernet=asdict(quality),
        held_out_kendall_tau=taus,
        seconds=seconds,
    )


def _command(space: Space, train: TrainConfig) -> str:
    """The command that makes such assets."""
    draw = f" --draw {train.draw}" if train.draw != TrainConfig.draw else ""
    return f"apq-moo pipeline --space {space.name} --seed {train.seed}{draw}"


def _begin(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    path = folder / _STATE
    if path.is_file():
        state: dict[str, Any] = read_json(path)
        if (
            not isinstance(state, dict)
            or not isinstance(known := state.get("settings"), dict)
            or {
                **known,
                "train": with_defaults(known.get("train"), TrainConfig),
                "samples": with_defaults(known.get("samples"), SampleConfig),
            }
            != settings
            or not isinstance(state.get("seconds"), dict)
        ):
            raise UserError(
                f"{folder} was begun with other settings; repeat those, or name another folder"
            )
        return state
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no pipeline; name another folder")
    state = {"settings": settings, "seconds": {}}
    write_json(path, state)
    return state

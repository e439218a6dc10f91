"""All stages one after the other, each of which continues what it finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apq_moo.errors import UserError
from apq_moo.pipeline.config import PipelineConfig

if TYPE_CHECKING:
    from apq_moo.study.folder import RunFolder
    from apq_moo.supernet.training import TrainConfig

_STATE = "pipeline.json"
_EARLIER = {"init": None, "stream": False, "skip_unreadable": False}
"""Settings that earlier versions did not know, as they were then."""

_RUN = "run"
_DIGESTS = {"space": "digest", "pictures": "pictures"}
"""What may have changed since, and what its checksum is called among the settings."""
_MEND = "name another folder"


@dataclass(frozen=True)
class Listener:
    """What a pipeline tells while it goes; every function may be replaced.

    Attributes:
        stage: the name of a stage that begins.
        progress: ``(done, total)`` within it.
        say: a line of text.
    """

    stage: Callable[[str], None] = lambda _name: None
    progress: Callable[[int, int], None] = lambda _done, _total: None
    say: Callable[[str], None] = lambda _text: None


def run(config: PipelineConfig, listener: Listener | None = None) -> RunFolder:
    """From raw images to a verified front: train, sample, fit, search, verify.

    What an interrupted pipeline left in its folder is continued.

    Args:
        config: the configuration.
        listener: told what happens.

    Returns:
        The finished run, in ``run`` of the pipeline's folder.

    Raises:
        UserError: the search cannot work, which is found before any training; the folder was begun
            with other settings, cannot be written, or another process works in it.
    """
    from apq_moo.files import locked
    from apq_moo.study.folder import LOCK
    from apq_moo.study.inputs import input_digests
    from apq_moo.study.search import check

    listener = listener or Listener()
    problem = check(config.search)
    data = input_digests(config.search, problem.space, problem.device)
    _training(config)
    refusal = (
        f"another process carries out the pipeline in {config.folder}; wait for its end, or name "
        "another folder"
    )
    with locked(Path(config.folder) / LOCK, refusal):
        return _run(config, data, listener)


def _run(config: PipelineConfig, data: dict[str, str], listener: Listener) -> RunFolder:
    from apq_moo.files import refuse_links
    from apq_moo.results.run import Listener as RunListener
    from apq_moo.results.run import execute
    from apq_moo.study.folder import RunFolder
    from apq_moo.study.inputs import check_inputs, keep_inputs

    path = Path(config.folder) / _RUN
    if path.parent.is_dir():
        refuse_links(*path.parent.iterdir())
    begun = _begun(path, config, data) if (path / "run.json").is_file() else None
    make_assets(config, listener)
    check_inputs(config.search, data, config.folder)
    folder = begun
    if folder is None:
        search, verify = config.search, config.verify
        folder = RunFolder.create(path, search, verify=verify, overwrite=False)
        folder.store(data=data)
    elif not folder.finished:
        keep_inputs(path, config.search)  # what was checked, whatever lies there
    if not folder.finished:
        listener.stage("searching")
        execute(folder, RunListener(listener.progress, listener.say, listener.progress))
    return folder


def _begun(path: Path, config: PipelineConfig, data: dict[str, str]) -> RunFolder:
    """The search that was begun, with files named as they are named now.

    Raises:
        UserError: it has other settings, or its space or device has changed.
    """
    from apq_moo.changes import refuse_other_settings
    from apq_moo.study.folder import RunFolder
    from apq_moo.study.inputs import input_files, refuse_changes

    folder = RunFolder.open(path)
    search = replace(config.search, start=folder.config.start)  # which has no setting here
    files = input_files(folder.config).keys() & input_files(search).keys()
    named = {name: getattr(search, name) for name in ("assets", *files)}
    earlier = {**folder.config.to_dict(), "verify": folder.record.get("verify"), **named}
    what = f"the search in {path}"
    refuse_other_settings(what, earlier, {**search.to_dict(), "verify": config.verify}, _MEND)
    refuse_changes(data, folder.record.get("data"), what)
    return RunFolder(path, {**folder.record, "config": search.to_dict()})


def _training(config: PipelineConfig) -> TrainConfig:
    from apq_moo.supernet.training import TrainConfig

    return TrainConfig(
        steps=config.steps,
        warmup_steps=config.warmup_steps,
        draw=config.draw,
        quantised_steps=config.steps // 4,
        seed=config.seed,
    )


def make_assets(config: PipelineConfig, listener: Listener) -> None:
    """Train, sample and fit, continuing what is already in the folder.

    Raises:
        UserError: the folder was begun with other settings, or cannot be written; or the space
            shares the supernet of another.
    """
    from apq_moo.data import folders, images_of, load_images
    from apq_moo.data.assets import SAMPLES, SUPERNET
    from apq_moo.data.images import check_images
    from apq_moo.files import write_json
    from apq_moo.pipeline import stages
    from apq_moo.space import load_space
    from apq_moo.supernet.beginning import begin_with
    from apq_moo.supernet.network import Supernet
    from apq_moo.supernet.sampling import SampleConfig

    space, folder = load_space(config.space), Path(config.folder)
    stages.check_trainable(space)
    images = images_of(space, stream=config.stream, skip_unreadable=config.skip_unreadable)
    seed, n = config.seed, config.held_out
    train = _training(config)
    samples = SampleConfig(config.fp, config.mp, n, n, config.finetune_steps, seed)
    settings = {
        "space": space.name,
        "digest": space.digest,
        "images": space.spec.images,
        "pictures": folders.files_digest(images),
        "train": asdict(train),
        "samples": asdict(samples),
        "init": config.init,
        "stream": config.stream,
        "skip_unreadable": config.skip_unreadable,
    }
    if not (folder / _STATE).is_file():
        folders.load_named_folder.cache_clear()  # pictures may have changed since
        check_images(space, load_images(images))
        if config.init is not None:
            begin_with(Supernet(space), config.init)  # refused before there is a folder
    state = _begin(folder, settings)
    seconds: dict[str, float] = state["seconds"]

    @contextmanager
    def stage(name: str, text: str) -> Iterator[None]:
        listener.stage(text)
        begun = time.perf_counter()
        yield
        seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - begun, 1)
        write_json(folder / _STATE, state)

    if stages.complete(space, folder):
        return
    if not (folder / SUPERNET).is_file():
        listener.stage("training the supernet")
        if config.warmup_steps is None:
            listener.say(f"the first {train.warmup:,} of {train.steps:,} steps are its warm-up")
        spent = stages.train(
            space, images, train, folder / SUPERNET, lambda p: listener.progress(p.step, p.steps),
            init=config.init, began=lambda begun: listener.say(f"beginning with {begun}"),
        )  # fmt: skip
        seconds["train"] = round(spent, 1)
        write_json(folder / _STATE, state)
    with stage("samples", "collecting samples"):
        stages.collect(
            space, folder / SUPERNET, images, samples, folder / SAMPLES, jobs=config.jobs,
            callback=listener.progress,
        )  # fmt: skip
    with stage("predictors", "fitting predictors"):
        taus = stages.fit_predictors(space, folder, seed=seed, callback=listener.progress)
    with stage("evaluate", "evaluating the supernet"):
        quality = stages.evaluate(
            space, folder / SUPERNET, images, seed=seed, callback=listener.progress
        )
    largest = quality.named["largest"]["fp"]
    stages.manifest(
        space,
        images,
        folder,
        command=config.command,
        seed=seed,
        train=asdict(train),
        samples=asdict(samples),
        acc_test=largest["test"],
        acc_test_clean=largest["test_clean"],
        supernet=asdict(quality),
        held_out_kendall_tau=taus,
        seconds=seconds,
    )


def _begin(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    from apq_moo.changes import refuse_other_settings
    from apq_moo.files import read_json, with_defaults, write_json
    from apq_moo.study.folder import is_empty
    from apq_moo.study.inputs import refuse_changes
    from apq_moo.supernet.sampling import SampleConfig
    from apq_moo.supernet.training import TrainConfig

    path = folder / _STATE
    if path.is_file():
        state: dict[str, Any] = read_json(path)
        if (
            not isinstance(state, dict)
            or not isinstance(known := state.get("settings"), dict)
            or not isinstance(state.get("seconds"), dict)
        ):
            raise UserError(f"{path} is damaged; name another folder")
        known = {
            **_EARLIER,
            **known,
            "train": with_defaults(known.get("train"), TrainConfig),
            "samples": with_defaults(known.get("samples"), SampleConfig),
        }
        same = dict.fromkeys(_DIGESTS.values())
        refuse_other_settings(folder, {**known, **same}, {**settings, **same}, _MEND)
        # Pictures that are gone have no digest, which a finished pipeline does not mind.
        then, now = (
            {name: of[key] for name, key in _DIGESTS.items() if of.get(key)}
            for of in (known, settings)
        )
        refuse_changes(now, then, str(folder))
        return state
    if not is_empty(folder):
        raise UserError(f"{folder} is not empty and holds no pipeline; name another folder")
    state = {"settings": settings, "seconds": {}}
    write_json(path, state)
    return state

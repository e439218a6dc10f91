"""Networks whose measured accuracies are known: of tables of samples, and of runs that measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.data.assets import SAMPLES, SUPERNET, find_assets
from apq_moo.data.samples import SampleTable, load_samples
from apq_moo.errors import UserError
from apq_moo.files import is_file, is_folder, sha256
from apq_moo.hardware import ACC, minimised
from apq_moo.problems import AccuracySource, APQProblem, is_measured
from apq_moo.space import Space
from apq_moo.study.config import RefitConfig, RunConfig
from apq_moo.study.folder import RunFolder
from apq_moo.study.inputs import SPACE
from apq_moo.study.record import ARCHIVE, finished
from apq_moo.texts import by_commas

SHIPPED = "shipped"
"""Stands for the samples among a space's assets."""


@dataclass(frozen=True)
class Known:
    """Measured networks to begin with.

    Attributes:
        X: canonical genotypes, shape ``(n, n_var)``.
        acc: their accuracies in percent, shape ``(n,)``.
        digest: SHA-256 of the file that they come from, by the name that the user gave.
    """

    X: IntArray
    acc: FloatArray
    digest: dict[str, str] = field(default_factory=dict)


def known_networks(config: RunConfig, problem: APQProblem, source: AccuracySource) -> Known | None:
    """The networks that a search begins with, each once; None for none.

    Raises:
        UserError: there are no such samples, or they were not measured by the same supernet on the
            same images.
    """
    refit = config.refit or RefitConfig()
    if refit.samples is None:
        return None
    parts = [_named(name, config, problem, source) for name in by_commas(refit.samples)]
    if not parts:
        raise UserError(f"samples {refit.samples!r} name nothing")
    X, rows = np.unique(np.vstack([part.X for part in parts]), axis=0, return_index=True)
    acc = np.concatenate([part.acc for part in parts])[rows]
    return Known(X, acc, {key: value for part in parts for key, value in part.digest.items()})


def _named(name: str, config: RunConfig, problem: APQProblem, source: AccuracySource) -> Known:
    if name == SHIPPED:
        path = find_assets(problem.space, config.assets).path(SAMPLES)
        return _of_table(load_samples(path, problem.space), source, SHIPPED, {})
    path = Path(name)
    if is_folder(path):
        return measured_by_run(path, problem.space, source.digest)
    if not is_file(path):
        raise UserError(f"samples {name!r}: write shipped, a file, or a run's folder")
    return _of_table(load_samples(path, problem.space), source, name, {name: sha256(path)})


def _of_table(
    table: SampleTable, source: AccuracySource, name: str, digest: dict[str, str]
) -> Known:
    said = table.provenance
    wanted = {"supernet_sha256": source.digest.get(SUPERNET)}
    wanted["images_sha256"] = source.digest.get("images")
    if (
        any(said.get(key) != value for key, value in wanted.items())
        or _fine_tuned(table)
        or not source.measures
    ):
        raise UserError(
            f"samples {name!r} were not measured as {source.name} measures: by the same supernet, "
            "on the same images, without fine-tuning"
        )
    X, acc = table.to_fit()
    if not len(X):
        raise UserError(f"samples {name!r} hold no mixed-precision networks")
    return Known(X, acc, digest)


def measured_by_run(path: Path, space: Space, digest: Mapping[str, str]) -> Known:
    """What a finished run measured.

    Args:
        path: its folder.
        space: of its networks.
        digest: of what accuracies are measured on, by the names of a run's record.

    Raises:
        UserError: there is no such run, it has not ended, it predicted accuracies, or it measured
            on something else.
    """
    folder = RunFolder.open(path)
    config, what = folder.config, f"the run in {path}"
    if not is_measured(config.predictor) or ACC not in config.objectives:
        raise UserError(f"{what} predicted accuracies; name one that measured them")
    recorded = folder.record.get("data") or {}
    if recorded.get(SPACE, space.digest) != space.digest:
        raise UserError(f"{what} is of space {config.space!r}, not of this {space.name!r}")
    other = [name for name in sorted(digest) if recorded.get(name, digest[name]) != digest[name]]
    if other:
        raise UserError(f"{what} measured with other files, which differ in {', '.join(other)}")
    found = finished(path)
    if found is None:
        raise UserError(f"{what} has not ended; go on with RunFolder.open({str(path)!r}) first")
    archive, _ = found
    acc = minimised(config.objectives, archive.F)[:, config.objectives.index(ACC)]
    X = space.canonical(space.check(archive.genotypes))
    return Known(X, acc, {str(path): sha256(path / ARCHIVE)})


def add_measured(file: str | Path, runs: Sequence[str | Path], space: Space) -> SampleTable:
    """Samples, and beside them what runs have measured.

    Args:
        file: the samples.
        runs: folders of runs that measured on the same supernet and images.
        space: of all of them.

    Raises:
        UserError: see :func:`measured_by_run`, or the samples were fine-tuned.
    """
    table = load_samples(file, space)
    said = table.provenance
    if _fine_tuned(table):
        raise UserError(f"{file}: its networks were fine-tuned, and those of runs were not")
    wanted = {SUPERNET: said.get("supernet_sha256"), "images": said.get("images_sha256")}
    digest = {name: str(value) for name, value in wanted.items() if value is not None}
    earlier = said.get("found")
    added = dict(earlier) if isinstance(earlier, dict) else {}
    for path in map(Path, runs):
        known = measured_by_run(path, space, digest)
        table = table.with_found(known.X, known.acc)
        config = RunFolder.open(path).config
        added[known.digest[str(path)]] = {
            "objectives": list(config.objectives),
            "limits": config.limits,
            "device": config.device,
            "algo": config.algo,
            "seed": config.seed,
        }
    return replace(table, provenance={**said, "found": added})


def _fine_tuned(table: SampleTable) -> bool:
    settings = table.provenance.get("config")
    return isinstance(settings, dict) and bool(settings.get("finetune_steps"))

"""What a search that measures predicts by, from its configuration."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from moocore import pareto_rank

from apq_moo.algorithms import ALGORITHMS
from apq_moo.algorithms.surrogate.inner import searched_by
from apq_moo.algorithms.surrogate.refit import Refit, require_std
from apq_moo.arrays import FloatArray, IntArray
from apq_moo.data.assets import SAMPLES, SUPERNET, find_assets
from apq_moo.data.samples import SampleTable, load_samples
from apq_moo.errors import UserError
from apq_moo.files import is_file, is_folder, sha256
from apq_moo.hardware import ACC, minimised
from apq_moo.predictors import Predictor, create_predictor
from apq_moo.predictors.finding import SubspacePredictor
from apq_moo.problems import AccuracySource, APQProblem, is_measured
from apq_moo.space import Space, load_space, superspace
from apq_moo.study.config import RefitConfig, RunConfig
from apq_moo.study.epsilon_constraint import strategy_of, with_parts
from apq_moo.study.folder import RunFolder
from apq_moo.study.inputs import SPACE, refuse_changes
from apq_moo.study.record import ARCHIVE, finished
from apq_moo.texts import by_commas

SHIPPED = "shipped"
"""Stands for the samples among a space's assets."""

MOST_SAMPLES = 2000
"""That a search begins with: fits take the cube of their number, and are many."""


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


def check_refit(config: RunConfig) -> RefitConfig:
    """Check, before anything is loaded, what a search that measures is configured with.

    Raises:
        UserError: a predictor that is unknown or has no standard deviations, an inner algorithm
            that is unknown or needs more than predictions, accuracies that are not measured, or no
            accuracies at all.
    """
    refit = config.refit or RefitConfig()
    require_std(
        refit.predictor, create_predictor(refit.predictor, load_space(config.space)).has_std
    )
    entry = ALGORITHMS.get(refit.inner)
    if {"refit", "surrogate"} & set(entry.needs):
        raise UserError(
            f"inner={refit.inner!r} cannot search a predictor that is refitted; nsga2 can, for one"
        )
    entry.check(len(config.objectives))
    if not is_measured(config.predictor):
        raise UserError(
            f"{config.algo} measures networks: predictor={config.predictor!r} does not; name "
            "predictor='supernet', or 'table' where all networks are in one"
        )
    if ACC not in config.objectives:
        raise UserError(f"{config.algo} fits accuracies: add acc to the objectives")
    if refit.samples is not None and config.warm_start is not None:
        raise UserError("samples and warm_start both say how the search begins: give one of them")
    return refit


def refit_of(
    config: RunConfig, problem: APQProblem, source: AccuracySource, known: Known | None
) -> Refit:
    """What a search predicts by.

    Args:
        config: the search, checked.
        problem: its problem.
        source: measures; it is told what is known of the networks that begin the search.
        known: what it begins with, or None.

    Raises:
        UserError: the predictor needs samples that are not there.
    """
    refit = config.refit or RefitConfig()
    entry = ALGORITHMS.get(refit.inner)
    inner = searched_by(
        lambda: strategy_of(entry),
        budget=max(refit.inner_budget, config.smallest(entry.swept)),
        pop_size=config.pop_size,
        split=(lambda context: with_parts(context, config.sweep)) if entry.swept else None,
    )
    found = Refit(
        _predictor(refit.predictor, problem.space, config),
        inner,
        first=refit.first,
        batch=refit.batch,
    )
    if known is None:
        return found
    ranks = _ranks(problem, known)
    front = np.flatnonzero(ranks == 0)
    source.remember(known.X[front], known.acc[front])
    rows = nearest_and_others(ranks, MOST_SAMPLES, np.random.default_rng([config.seed, 7]))
    return replace(found, samples=(known.X[rows], known.acc[rows]), adopted=known.X[front])


def nearest_and_others(ranks: IntArray, most: int, rng: np.random.Generator) -> IntArray:
    """At most so many networks: one half those nearest to the front, the others any.

    Args:
        ranks: of the networks, 0 on the front, shape ``(n,)``.
        most: how many.
        rng: chooses the others.

    Returns:
        Their positions, ascending.
    """
    if len(ranks) <= most:
        return np.arange(len(ranks))
    order = np.argsort(ranks, kind="stable")
    near, others = order[: most // 2], order[most // 2 :]
    return np.sort(np.concatenate([near, rng.permutation(others)[: most - len(near)]]))


def _predictor(name: str, space: Space, config: RunConfig) -> Predictor:
    """A predictor, pre-trained on full-precision samples where it transfers.

    Raises:
        UserError: it needs samples that are not there.
    """
    predictor = create_predictor(name, space, seed=config.seed % 2**31)
    if not predictor.transfers:
        return predictor
    assets, whole = find_assets(space, config.assets), space
    if space.spec.part_of and not assets.has(SAMPLES):
        whole = superspace(space)
        assets = find_assets(whole)
        predictor = create_predictor(name, whole, seed=predictor.seed)
    predictor.pretrain(*load_samples(assets.path(SAMPLES), whole).rows("fp"))
    return predictor if whole is space else SubspacePredictor(space, predictor)


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
        return _of_run(path, problem, source)
    if not is_file(path):
        raise UserError(f"samples {name!r}: write shipped, a file, or a run's folder")
    return _of_table(load_samples(path, problem.space), source, name, {name: sha256(path)})


def _of_table(
    table: SampleTable, source: AccuracySource, name: str, digest: dict[str, str]
) -> Known:
    said = table.provenance
    wanted = {"supernet_sha256": source.digest.get(SUPERNET)}
    wanted["images_sha256"] = source.digest.get("images")
    settings = said.get("config")
    if (
        any(said.get(key) != value for key, value in wanted.items())
        or (isinstance(settings, dict) and settings.get("finetune_steps"))
        or not source.measures
    ):
        raise UserError(
            f"samples {name!r} were not measured as {source.name} measures: by the same supernet, "
            "on the same images, without fine-tuning"
        )
    X, acc = table.rows("mp")
    if not len(X):
        raise UserError(f"samples {name!r} hold no mixed-precision networks")
    return Known(X, acc, digest)


def _of_run(path: Path, problem: APQProblem, source: AccuracySource) -> Known:
    """What a finished run measured."""
    folder = RunFolder.open(path)
    config, what = folder.config, f"the run in {path}"
    if not is_measured(config.predictor) or ACC not in config.objectives:
        raise UserError(f"{what} predicted accuracies; name one that measured them")
    refuse_changes({SPACE: problem.space.digest, **source.digest}, folder.record.get("data"), what)
    found = finished(path)
    if found is None:
        raise UserError(f"{what} has not ended; go on with RunFolder.open({str(path)!r}) first")
    archive, _ = found
    X = archive.genotypes
    acc = minimised(config.objectives, archive.F)[:, config.objectives.index(ACC)]
    return Known(
        problem.space.canonical(problem.space.check(X)), acc, {str(path): sha256(path / ARCHIVE)}
    )


def _ranks(problem: APQProblem, known: Known) -> IntArray:
    """Of feasible networks how many fronts are before them; of others more."""
    index = problem.space.block_index(known.X)
    F, G = problem.judge(problem.costs(index) | {ACC: known.acc}, index)
    inside = np.all(G <= 0, axis=1)
    ranks = np.full(len(F), len(F), dtype=np.int64)
    if inside.any():
        ranks[inside] = pareto_rank(F[inside])
    return ranks

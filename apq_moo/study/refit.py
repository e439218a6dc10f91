"""What a search that measures predicts by, from its configuration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from moocore import pareto_rank

from apq_moo.algorithms import ALGORITHMS
from apq_moo.algorithms.surrogate.inner import searched_by
from apq_moo.algorithms.surrogate.refit import Refit, require_std
from apq_moo.arrays import IntArray
from apq_moo.data.assets import SAMPLES, find_assets
from apq_moo.data.samples import load_samples
from apq_moo.errors import UserError
from apq_moo.hardware import ACC
from apq_moo.predictors import Predictor, create_predictor
from apq_moo.predictors.finding import SubspacePredictor
from apq_moo.problems import AccuracySource, APQProblem, is_measured
from apq_moo.space import Space, load_space, superspace
from apq_moo.study.config import RefitConfig, RunConfig
from apq_moo.study.epsilon_constraint import strategy_of, with_parts
from apq_moo.study.known import Known

MOST_SAMPLES = 2000
"""That a search begins with: fits take the cube of their number, and are many."""


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
    within = replace(config, budget=refit.inner_budget)
    points = within.points(entry.swept)
    inner = searched_by(
        lambda: strategy_of(entry),
        budget=max(refit.inner_budget, within.smallest(entry.swept)),
        pop_size=config.pop_size,
        split=(lambda context: with_parts(context, points)) if entry.swept else None,
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
    return replace(
        found, samples=(known.X[rows], known.acc[rows]), adopted=known.X[front], known=known.X
    )


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


def _ranks(problem: APQProblem, known: Known) -> IntArray:
    """Of feasible networks how many fronts are before them; of others more."""
    index = problem.space.block_index(known.X)
    F, G = problem.judge(problem.costs(index) | {ACC: known.acc}, index)
    inside = np.all(G <= 0, axis=1)
    ranks = np.full(len(F), len(F), dtype=np.int64)
    if inside.any():
        ranks[inside] = pareto_rank(F[inside])
    return ranks

"""Learning curves: every predictor on growing numbers of samples, judged on held-out networks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.errors import UserError
from apq_moo.predictors import metrics
from apq_moo.predictors.base import Predictor
from apq_moo.predictors.specification import create_predictor
from apq_moo.space import Space
from apq_moo.workers import in_workers

Samples = tuple[ArrayLike, ArrayLike]
"""Genotypes ``(n, n_var)`` and their accuracies in percent ``(n,)``."""


@dataclass(frozen=True)
class Row:
    """One fitted predictor and its figures on the held-out samples.

    Attributes:
        predictor: its name.
        n_fp: full-precision samples that it learnt from.
        n_mp: mixed-precision samples that it was fitted to.
        seed: seed of the choice of samples and of the fit.
        kendall_tau: see :mod:`apq_moo.predictors.metrics`, as for the figures that follow.
        spearman: rank correlation.
        pairwise_accuracy: share of pairs in the right order.
        rmse: root mean squared error in percent points.
        top_k_regret: in percent points.
        fit_seconds: wall time of the fit, without pre-training.
        predict_seconds: wall time of predicting the held-out networks.
        kendall_tau_test: by the labels of other images than those of the fit; NaN if not known.
        pairwise_accuracy_test: likewise.
    """

    predictor: str
    n_fp: int
    n_mp: int
    seed: int
    kendall_tau: float
    spearman: float
    pairwise_accuracy: float
    rmse: float
    top_k_regret: float
    fit_seconds: float
    predict_seconds: float
    kendall_tau_test: float
    pairwise_accuracy_test: float


def compare(
    space: Space,
    names: Sequence[str],
    fp: Samples,
    mp: Samples,
    held_out_mp: Samples,
    sizes: Sequence[int],
    seeds: Sequence[int],
    *,
    test_accuracies: ArrayLike | None = None,
    k: int = 10,
    jobs: int = 1,
    callback: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Fit each predictor to growing numbers of mixed-precision samples.

    For each seed the samples are shuffled once; the smaller choices are contained in the larger
    ones and are the same for every predictor. A predictor that transfers is pre-trained once for
    each seed, on all full-precision samples.

    Args:
        space: the search space.
        names: of predictors, see :func:`apq_moo.predictors.create_predictor`.
        fp: full-precision samples.
        mp: mixed-precision samples.
        held_out_mp: other mixed-precision samples to judge by.
        sizes: numbers of mixed-precision samples to fit to.
        seeds: of the choices and the fits.
        test_accuracies: of the held-out networks on other images than those that the samples were
            classified on, NaN where not known. The noise of the latter is in the accuracies that a
            predictor is fitted to as in those of ``held_out_mp``, so that it can be learnt.
        k: of the top-k regret.
        jobs: processes, each of which takes one predictor and seed at a time.
        callback: told ``(done, total)`` of these.

    Returns:
        A row for each predictor, seed and size, in this order.

    Raises:
        UserError: an unknown name, malformed samples, a size that is out of range, a held-out
            network is among the samples, or a worker was killed.
    """
    X, y = space.canonical(space.check(mp[0])), np.asarray(mp[1], dtype=np.float64)
    X_test, y_test = space.check(held_out_mp[0]), np.asarray(held_out_mp[1], dtype=np.float64)
    other = np.full(len(y_test), np.nan) if test_accuracies is None else test_accuracies
    y_other = np.asarray(other, dtype=np.float64)
    if y_other.shape != y_test.shape:
        raise UserError(
            f"there are {len(y_test)} held-out networks, and test accuracies of shape "
            f"{y_other.shape}"
        )
    _check_disjoint(X, space.canonical(X_test))
    for size in sizes:
        if not 2 <= size <= len(X):
            raise UserError(f"sizes must be from 2 to the {len(X)} samples there are, not {size}")
    predictors = [create_predictor(name, space) for name in names]
    # A mistake in these would otherwise show only after the first fit.
    metrics.top_k_regret(y_test, y_test, k)
    curves = [
        (name, predictor, seed)
        for name, predictor in zip(names, predictors, strict=True)
        for seed in seeds
    ]
    calls = ((*curve, fp, (X, y), (X_test, y_test, y_other), sizes, k) for curve in curves)
    rows: list[Row] = []
    with closing(in_workers(_curve, calls, jobs, ordered=True, threads=None)) as fitted:
        for done, found in enumerate(fitted, 1):
            rows += found
            if callback is not None:
                callback(done, len(curves))
    return rows


def _curve(
    name: str,
    predictor: Predictor,
    seed: int,
    fp: Samples,
    mp: tuple[IntArray, FloatArray],
    held_out: tuple[IntArray, FloatArray, FloatArray],
    sizes: Sequence[int],
    k: int,
) -> list[Row]:
    (X, y), (X_test, y_test, y_other) = mp, held_out
    known = np.isfinite(y_other)
    order = np.random.default_rng(seed).permutation(len(X))
    predictor.set_params(seed=seed)
    if predictor.transfers:
        predictor.pretrain(*fp)
    rows = []
    for size in sizes:
        chosen = order[:size]
        start = time.perf_counter()
        predictor.fit(X[chosen], y[chosen])
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        predicted = predictor.predict(X_test)
        predict_seconds = time.perf_counter() - start
        rows.append(
            Row(
                predictor=name,
                n_fp=len(np.asarray(fp[1])) if predictor.transfers else 0,
                n_mp=size,
                seed=seed,
                kendall_tau=metrics.kendall_tau(y_test, predicted),
                spearman=metrics.spearman(y_test, predicted),
                pairwise_accuracy=metrics.pairwise_accuracy(y_test, predicted),
                rmse=metrics.rmse(y_test, predicted),
                top_k_regret=metrics.top_k_regret(y_test, predicted, k),
                fit_seconds=seconds,
                predict_seconds=predict_seconds,
                kendall_tau_test=_of(metrics.kendall_tau, y_other[known], predicted[known]),
                pairwise_accuracy_test=_of(
                    metrics.pairwise_accuracy, y_other[known], predicted[known]
                ),
            )
        )
    return rows


def _of(
    figure: Callable[[ArrayLike, ArrayLike], float], true: FloatArray, predicted: FloatArray
) -> float:
    return figure(true, predicted) if len(true) > 1 else float("nan")


def _check_disjoint(X: IntArray, X_test: IntArray) -> None:
    known = {row.tobytes() for row in X}
    shared = sum(row.tobytes() in known for row in X_test)
    if shared:
        raise UserError(
            f"{shared} of the {len(X_test)} held-out networks are among the samples to fit to; "
            "leave them out of one side"
        )

"""ChamNet: an accuracy predictor that grows by active sampling, then a genetic search on it.

X. Dai et al., ChamNet: Towards Efficient Network Design through Platform-Aware Model Adaptation,
CVPR 2019. Its search was never published: its numbers of networks, and the genetic search, are
settings.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats.qmc import Sobol

from apq_moo.algorithms.apq.strategy import ApqStrategy
from apq_moo.algorithms.base import check_least
from apq_moo.algorithms.baselines.system import Asking, System, Target
from apq_moo.algorithms.strategy import Context
from apq_moo.arrays import FloatArray, IntArray, distinct
from apq_moo.errors import UserError, shown
from apq_moo.hardware import cost_table
from apq_moo.problems import APQProblem
from apq_moo.problems.accuracy import AccuracySource
from apq_moo.problems.evaluated import Evaluated
from apq_moo.space import Space

MOST = 1000
"""Networks that the process is fitted to at most; a fit takes the third power of their number."""


class ChamNet(System):
    """A Gaussian process on scored networks, which all targets share, and evolution on it.

    The first networks to be scored are of a quasi-random pool. Then, batch by batch, the process
    is fitted, and the next are random ones of the pool and, in as many bands of equally many
    networks by their operations, those with the highest predicted accuracy. Under each target
    APQ's evolution searches the predictions, and the networks that end best are scored.

    Args:
        samples: networks that the process is fitted to; 0 for as many as the budget holds, at
            most :data:`MOST`.
        batch: scored between two fits.
        explore: share of random networks in a batch.
        pool: networks to choose from, rounded up to a power of two before those that are not
            distinct go.
        predictions: of the evolution under each target.
        finals: networks that are scored for each target, at most a quarter of its budget.

    Raises:
        UserError: a parameter is out of range.
    """

    title = "chamnet"

    def __init__(
        self,
        samples: int = 240,
        batch: int = 40,
        explore: float = 0.5,
        pool: int = 4096,
        predictions: int = 5000,
        finals: int = 10,
    ) -> None:
        check_least(0, samples=samples)
        check_least(1, batch=batch, pool=pool, predictions=predictions, finals=finals)
        if samples > MOST:
            raise UserError(f"{self.title}: samples is {MOST} at most, not {samples}")
        if not 0 <= explore <= 1:
            raise UserError(f"{self.title}: explore must lie in [0, 1], not {shown(explore)}")
        self.samples, self.batch, self.explore = samples, batch, explore
        self.pool, self.predictions, self.finals = pool, predictions, finals

    def reach(self, target: Target, base: IntArray | None = None) -> Asking[Any]:
        """See :class:`System`."""
        del base  # it chooses everything
        yield from self.search([target])

    def search(self, targets: Sequence[Target]) -> Asking[Any]:
        """See :class:`System`; one process serves all targets."""
        finals = [min(self.finals, max(1, target.budget // 4)) for target in targets]
        room = sum(target.budget for target in targets) - sum(finals)
        process = yield from self._grow(targets[0], min(self.samples or MOST, room))
        for target, n in zip(targets, finals, strict=True):
            yield self._best(target, process, n)

    def _grow(self, target: Target, n: int) -> Asking[ProcessSource | None]:
        """Score networks of the pool, as the process says.

        Returns:
            The process, fitted to all; None where there are none.
        """
        rng, space = target.rng, target.problem.space
        pool = quasi_random(target.problem, self.pool, rng)
        cost = cost_table(space, "macs", device=target.problem.device).gather(pool)
        ranks = cost.argsort(kind="stable").argsort(kind="stable")
        rows = np.arange(min(self.batch, n, len(pool)))
        known, scores = np.empty(0, np.int64), np.empty(0)
        process = None
        while len(rows):
            told = yield pool[rows]
            known, scores = np.r_[known, rows], np.r_[scores, told]
            process = ProcessSource(space, pool[known], scores, int(rng.integers(2**31)))
            more = min(self.batch, n - len(known), len(pool) - len(known))
            rows = self._next(process.predict_blocks(pool), ranks, known, max(more, 0), rng)
        return process

    def _next(
        self,
        predicted: FloatArray,
        ranks: IntArray,
        known: IntArray,
        n: int,
        rng: np.random.Generator,
    ) -> IntArray:
        """Which networks of the pool to score next; none twice."""
        free = np.ones(len(predicted), bool)
        free[known] = False
        n_best = n - round(self.explore * n)
        chosen: list[int] = []
        for band in range(n_best):
            inside = np.flatnonzero(free & (ranks * n_best // len(ranks) == band))
            if len(inside):
                chosen.append(int(inside[predicted[inside].argmax()]))
        free[chosen] = False
        rest = rng.permutation(np.flatnonzero(free))[: n - len(chosen)]
        return np.array([*chosen, *rest], dtype=np.int64)

    def _best(self, target: Target, process: ProcessSource | None, n: int) -> IntArray:
        """The networks of a target with the highest predictions, that evolution finds."""
        space = target.problem.space
        if process is None:
            return space.block_index(target.problem.draw(n, target.rng))
        seed = int(target.rng.integers(2**31))
        context = Context(target.problem.with_accuracy(process), self.predictions, seed)
        found = Evaluated.join(list(ApqStrategy().rounds(replace(context, parts=(context,)))))
        index = space.block_index(found.genotypes)
        index = index[target.region.contains_blocks(index)]
        order = (-process.predict_blocks(index)).argsort(kind="stable")
        return distinct(index[order])[:n]


def quasi_random(problem: APQProblem, n: int, rng: np.random.Generator) -> IntArray:
    """Networks at scrambled Sobol points over all genes, the nearest that the device can run.

    Args:
        problem: whose space.
        n: how many points, rounded up to a power of two.
        rng: source of randomness.

    Returns:
        Distinct networks in the order of the sequence, shape ``(n_distinct, n_blocks)``.
    """
    space = problem.space
    points = Sobol(space.n_var, scramble=True, rng=rng).random_base2(max(n - 1, 1).bit_length())
    genes = np.minimum((points * space.n_options).astype(np.int64), space.n_options - 1)
    return distinct(problem.region.options.repair(space.block_index(space.canonical(genes))))


class ProcessSource(AccuracySource):
    """A Gaussian process on scaled genes: Matern 5/2 with one length scale, and noise.

    Args:
        space: the space.
        index: scored networks, shape ``(n, n_blocks)``.
        scores: their accuracies, shape ``(n,)``.
        seed: of the fit's second start.
    """

    def __init__(self, space: Space, index: IntArray, scores: FloatArray, seed: int) -> None:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        super().__init__(ChamNet.title, space)
        kernel = ConstantKernel() * Matern(space.n_var**0.5 / 4, (1e-2, 1e3), nu=2.5)
        self._process = GaussianProcessRegressor(
            kernel + WhiteKernel(0.1),
            normalize_y=True,
            n_restarts_optimizer=1,
            random_state=seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parameters at their bounds
            self._process.fit(self._features(index), scores)

    def _features(self, index: IntArray) -> FloatArray:
        """Genes from 0 to 1, those of skipped blocks 0."""
        features: FloatArray = self.space.from_block_index(index) / np.maximum(
            self.space.n_options - 1, 1
        )
        return features

    def predict_blocks(self, index: IntArray) -> FloatArray:
        """See :class:`AccuracySource`."""
        predicted: FloatArray = self._process.predict(self._features(index))
        return predicted.clip(0.0, 100.0)

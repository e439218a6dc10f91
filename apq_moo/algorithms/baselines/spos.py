"""Single Path One-Shot's evolution: scored accuracies, limits kept by sampling.

Z. Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from apq_moo.algorithms.base import check_least
from apq_moo.algorithms.baselines.system import Asking, System, Target
from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.errors import UserError, shown
from apq_moo.space import Space

TRIES = 10
"""Candidates of a kind that are drawn, for each that is wanted, before random ones take over."""

MAX_DRAWS = 10_000
"""Random candidates in a row that break a limit, after which uniform draws are given up."""


class Spos(System):
    """Mutants and crossovers of the best networks scored so far, under a limit, none twice.

    A generation has mutants of the top networks (each gene drawn anew with a probability), children
    of two of them (each gene from either), and random networks in place of those that were not
    found within ten draws for each. Random networks are drawn from the feasible region.

    Args:
        size: networks of a generation.
        top: parents, the best of all that were scored.
        mutants: of a generation.
        crossovers: of a generation.
        prob: that a mutant's gene is drawn anew.
        generations: after the first population; 0 for as many as the budget holds. The published
            setting, 20, is 1,050 evaluations.
        faithful: slips to repeat, see :attr:`slips`.

    Raises:
        UserError: a parameter is out of range.
    """

    title = "spos"
    slips: ClassVar[dict[str, str]] = {
        "forgotten-generation": "the last generation is scored, but never enters the top networks",
        "rejection": "random networks are drawn uniformly until one meets the limits",
    }

    def __init__(
        self,
        size: int = 50,
        top: int = 10,
        mutants: int = 25,
        crossovers: int = 25,
        prob: float = 0.1,
        generations: int = 0,
        faithful: str = "",
    ) -> None:
        check_least(1, size=size, top=top)
        check_least(0, mutants=mutants, crossovers=crossovers, generations=generations)
        if mutants + crossovers > size:
            raise UserError(
                f"{self.title}: mutants={mutants} and crossovers={crossovers} are more than a "
                f"generation of size={size}"
            )
        if not 0 < prob <= 1:
            raise UserError(f"{self.title}: prob must lie in (0, 1], not {shown(prob)}")
        self.size, self.top, self.mutants, self.crossovers = size, top, mutants, crossovers
        self.prob, self.generations = prob, generations
        self._choose_slips(faithful)
        self.reports_kept = self.repeats("forgotten-generation")
        self._space: Space | None = None
        self._begin()

    def _begin(self) -> None:
        """See :class:`System`."""
        self._tops: list[IntArray] = []

    def population(self) -> IntArray | None:
        """The top networks of all targets."""
        if self._space is None or not self._tops:
            return None
        held: IntArray = self._space.from_block_index(np.vstack(self._tops))
        return held

    def reach(self, target: Target, base: IntArray | None = None) -> Asking[Any]:
        """See :class:`System`."""
        del base  # it chooses everything
        space = self._space = target.region.space
        breed = _Breeding(target, self.prob, by_rejection=self.repeats("rejection"))
        place, done, generation = len(self._tops), 0, 0
        tops, worth = np.empty((0, space.n_blocks), dtype=np.int64), np.empty(0)
        self._tops.append(tops)
        index = breed.random(self.size)
        while len(index):
            scores = yield index
            done += len(index)
            last = done >= target.budget or (generation > 0 and generation == self.generations)
            if not (last and self.repeats("forgotten-generation")):
                tops, worth = _best(np.vstack([tops, index]), np.r_[worth, scores], self.top)
                self._tops[place] = tops
            if last:
                return
            generation += 1
            mutants = breed.mutants(tops, self.mutants)
            crossovers = breed.crossovers(tops, self.crossovers)
            rest = self.size - len(mutants) - len(crossovers)
            index = np.vstack([mutants, crossovers, breed.random(rest)])


def _best(index: IntArray, scores: FloatArray, n: int) -> tuple[IntArray, FloatArray]:
    """The most accurate networks, best first; of equal ones those scored first."""
    order = np.argsort(-scores, kind="stable")[:n]
    return index[order], scores[order]


class _Breeding:
    """Networks under a target that were not drawn before.

    Args:
        target: the limits.
        prob: that a mutant's gene is drawn anew.
        by_rejection: whether random networks are drawn without looking at the limits.
    """

    def __init__(self, target: Target, prob: float, *, by_rejection: bool) -> None:
        self._target, self._region, self._rng = target, target.region, target.rng
        self._space, self._prob, self._by_rejection = target.region.space, prob, by_rejection
        self._seen: set[bytes] = set()

    def random(self, n: int) -> IntArray:
        """Random networks; fewer where there are no more."""
        found = self._space.block_index(np.empty((0, self._space.n_var), dtype=np.int64))
        for _ in range(TRIES):
            if len(found) >= n:
                break
            draw = self._rejected if self._by_rejection else self._drawn
            found = np.vstack([found, self._fresh(draw(n - len(found)), n - len(found))])
        return found

    def _drawn(self, n: int) -> IntArray:
        """From the feasible region; more than are wanted once many of them are known."""
        X = self._target.problem.draw(n + min(len(self._seen), 4 * n), self._rng)
        return self._space.block_index(X)

    def _rejected(self, n: int) -> IntArray:
        """Uniform ones that meet the limits.

        Raises:
            UserError: next to none does.
        """
        found: list[IntArray] = []
        missing, in_vain = n, 0
        while missing > 0:
            index = self._space.block_index(self._space.sample(256, self._rng))
            inside = index[self._region.contains_blocks(index)][:missing]
            found.append(inside)
            missing, in_vain = missing - len(inside), 0 if len(inside) else in_vain + len(index)
            if in_vain >= MAX_DRAWS:
                raise UserError(
                    f"spos drew {in_vain:,} random networks in a row that break a limit; the "
                    "authors' code would go on forever: raise the limit, or leave out rejection"
                )
        return np.vstack(found)

    def mutants(self, tops: IntArray, n: int) -> IntArray:
        """Networks of which each gene is drawn anew with a probability."""

        def make(need: int) -> IntArray:
            X = self._completed(tops[self._rng.integers(0, len(tops), need)])
            anew = self._rng.random(X.shape) < self._prob
            return self._within_rules(np.where(anew, self._uniform(need), X))

        return self._bred(make, n if len(tops) else 0)

    def crossovers(self, tops: IntArray, n: int) -> IntArray:
        """Networks with each gene of either of two; a block that one lacks is the other's."""

        def make(need: int) -> IntArray:
            places = self._rng.integers(0, len(tops), (2, need))
            one, other = (self._space.from_block_index(tops[rows]) for rows in places)
            has, has_other = (self._space.active_genes(X) for X in (one, other))
            first = (self._rng.random(one.shape) < 0.5) & has | ~has_other
            X = np.where(first, one, other)
            return self._within_rules(np.where(has | has_other, X, self._uniform(need)))

        return self._bred(make, n if len(tops) else 0)

    def _completed(self, index: IntArray) -> IntArray:
        """Genotypes whose inactive genes, which depths may wake, are drawn."""
        X = self._space.from_block_index(index)
        return np.where(self._space.active_genes(X), X, self._uniform(len(X)))

    def _uniform(self, n: int) -> IntArray:
        return self._rng.integers(0, self._space.n_options, (n, self._space.n_var))

    def _within_rules(self, X: IntArray) -> IntArray:
        """Networks with the nearest configurations that no rule forbids."""
        return self._region.options.repair(self._space.block_index(X))

    def _bred(self, make: Callable[[int], IntArray], n: int) -> IntArray:
        found = np.empty((0, self._space.n_blocks), dtype=np.int64)
        for _ in range(TRIES):
            if len(found) == n:
                break
            index = make(n - len(found))
            inside: BoolArray = self._region.contains_blocks(index)
            found = np.vstack([found, self._fresh(index[inside], n - len(found))])
        return found

    def _fresh(self, index: IntArray, most: int) -> IntArray:
        """The first networks that were not drawn before, which are now."""
        rows: list[int] = []
        for row, network in enumerate(index):
            key = np.ascontiguousarray(network).tobytes()
            if key not in self._seen and len(rows) < most:
                self._seen.add(key)
                rows.append(row)
        return index[np.array(rows, dtype=np.int64)]

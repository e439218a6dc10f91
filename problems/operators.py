"""pymoo operators that know the space: which genes are active, and which blocks are feasible.

They serve any genetic algorithm of pymoo on an :class:`apq_moo.problems.APQProblem`. Canonical
genotypes come out whatever goes in, and no step computes anything one individual at a time. Their
``do`` methods draw and return what pymoo's do, but spend less on reading and making individuals,
which takes most of the time where populations are large.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.individual import Individual
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.repair import Repair
from pymoo.core.sampling import Sampling
from pymoo.core.variable import get

from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.problems.variation import block_genes, cross, n_units, resample

if TYPE_CHECKING:
    from apq_moo.problems.region import FeasibleRegion
    from apq_moo.space import Space


class SpaceProblem(Protocol):
    """What the operators need of an :class:`apq_moo.problems.APQProblem`.

    Attributes:
        space: the space.
        region: the networks that meet the limits on costs.
    """

    space: Space
    region: FeasibleRegion

    def genotypes(self, X: IntArray, /) -> IntArray:
        """Canonical genotypes of what an algorithm hands over."""


_KEY = "_canonical_key"


_CONFIG = Individual.default_config()


def _matrix(people: Any) -> IntArray:
    """The genotypes of individuals, shape ``(n, n_var)``."""
    return np.array([person.X for person in np.ravel(people).tolist()])


def _population(X: IntArray) -> Population:
    """New individuals, which share one configuration."""
    people = np.empty(len(X), dtype=object)
    for i, row in enumerate(X):
        person = people[i] = Individual(config=_CONFIG)
        person.X = row.copy()
    return people.view(Population)


def _replace(pop: Population, X: IntArray) -> None:
    for person, row in zip(pop.tolist(), X, strict=True):
        person.X = row.copy()


class FeasibleSampling(Sampling):  # type: ignore[misc]
    """Distinct networks that satisfy the limits on costs, see :meth:`FeasibleRegion.sample`.

    Returns fewer where no more were found.
    """

    def _do(
        self, problem: SpaceProblem, n_samples: int, *_args: Any, random_state: Any, **_kwargs: Any
    ) -> IntArray:
        return problem.region.sample(n_samples, random_state)


class SpaceCrossover(Crossover):  # type: ignore[misc]
    """Uniform crossover, by whole blocks or by single genes.

    Half of the matings swap depth genes and whole blocks, the others swap genes within the blocks
    that are active in both parents; where that makes an infeasible block, it is taken whole. So
    every active gene of a child is a parent's, and feasible parents have feasible children.

    Args:
        prob: probability of recombining a pair at all.
        prob_genes: share of the matings that mix genes within blocks.
    """

    def __init__(self, prob: float = 0.9, prob_genes: float = 0.5, **kwargs: Any) -> None:
        super().__init__(2, 2, prob=prob, **kwargs)
        self.prob_genes = prob_genes

    def do(
        self,
        problem: SpaceProblem,
        pop: Any,
        parents: Any = None,
        *args: Any,
        random_state: Any,
        **kwargs: Any,
    ) -> Population:
        """Children of pairs of individuals, two of each; see pymoo's ``Crossover``."""
        if parents is not None:
            pop = [pop[mating] for mating in parents]
        n = len(pop)
        X = np.swapaxes(_matrix(pop).reshape(n, self.n_parents, -1), 0, 1)
        crossed = random_state.random(n) < get(self.prob, size=n)
        children = X
        if crossed.any():
            made = self._do(problem, X, *args, random_state=random_state, **kwargs)
            children = np.where(crossed[:, None], made, X)
        return _population(children.reshape(-1, X.shape[-1]))

    def _do(
        self, problem: SpaceProblem, X: IntArray, *_args: Any, random_state: Any, **_kwargs: Any
    ) -> IntArray:
        space = problem.space
        A, B = problem.genotypes(X[0]), problem.genotypes(X[1])
        units = random_state.random((len(A), n_units(space))) < 0.5
        genes = random_state.random(A.shape) < 0.5
        whole = random_state.random((len(A), 1)) >= self.prob_genes
        children = []
        for from_b, genes_from_b in ((units, genes), (~units, ~genes)):
            blockwise = cross(space, A, B, from_b)
            mixed = cross(space, A, B, from_b, genes_from_b)
            infeasible = ~problem.region.options.feasible_blocks(mixed)
            children.append(np.where(whole | block_genes(space, infeasible), blockwise, mixed))
        return np.stack(children)


class SpaceMutation(Mutation):  # type: ignore[misc]
    """Moves active genes to other options, and redraws whole blocks.

    A chosen gene takes any other option, or one next to its own. Blocks that are chosen whole, that
    a deeper stage adds, or that would become infeasible are redrawn uniformly over their feasible
    configurations.

    Args:
        prob_gene: probability that an active gene is chosen; by default one is, on average.
        prob_step: share of the chosen genes that move to a neighbouring option.
        prob_block: probability that a block is redrawn.
    """

    def __init__(
        self,
        prob_gene: float | None = None,
        prob_step: float = 0.3,
        prob_block: float = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prob_gene = prob_gene
        self.prob_step = prob_step
        self.prob_block = prob_block

    def do(
        self,
        problem: SpaceProblem,
        pop: Population,
        inplace: bool = True,
        *args: Any,
        random_state: Any,
        **kwargs: Any,
    ) -> Population:
        """Mutate individuals; see pymoo's ``Mutation``."""
        if not inplace:
            pop = deepcopy(pop)
        mutants = self._do(problem, _matrix(pop), *args, random_state=random_state, **kwargs)
        chosen = random_state.random(size=len(pop)) <= get(self.prob, size=len(pop))
        _replace(pop[chosen], mutants[chosen])
        return pop

    def _do(
        self, problem: SpaceProblem, X: IntArray, *_args: Any, random_state: Any, **_kwargs: Any
    ) -> IntArray:
        space, options = problem.space, problem.region.options
        X = problem.genotypes(X)
        active = space.active_genes(X)
        prob = 1 / active.sum(axis=1, keepdims=True) if self.prob_gene is None else self.prob_gene
        chosen = active & (random_state.random(X.shape) < prob)
        step = random_state.random(X.shape) < self.prob_step
        u = random_state.random(X.shape)
        last = space.n_options - 1
        changed = np.where(chosen, np.where(step, _neighbour(X, last, u), _other(X, last, u)), X)
        changed = space.canonical(changed)

        redrawn = space.active(changed) & ~space.active(X)
        redrawn |= ~options.feasible_blocks(changed)
        redrawn |= random_state.random(redrawn.shape) < self.prob_block
        units = np.concatenate(
            [np.zeros((len(X), n_units(space) - space.n_blocks), bool), redrawn], axis=1
        )
        return resample(options, changed, units, random_state.random(units.shape))


def _other(X: IntArray, last: IntArray, u: FloatArray) -> IntArray:
    """Another option of each gene, uniformly by ``u`` in [0, 1); its own if it has no other."""
    option = (u * last).astype(np.int64)
    return np.minimum(option + (option >= X), last)


def _neighbour(X: IntArray, last: IntArray, u: FloatArray) -> IntArray:
    """The option below or above each gene's, by ``u`` in [0, 1), or the one that there is."""
    up = ((u < 0.5) | (X == 0)) & (last > X)
    return np.maximum(X + np.where(up, 1, -1), 0)


class FeasibleRepair(Repair):  # type: ignore[misc]
    """Rounds, clips and canonicalises; infeasible blocks become the nearest feasible ones.

    Limits on costs are left to the algorithm's handling of constraints.
    """

    def do(self, problem: SpaceProblem, pop: Population, **kwargs: Any) -> Population:
        """Repair individuals; see pymoo's ``Repair``."""
        _replace(pop, self._do(problem, _matrix(pop), **kwargs))
        return pop

    def _do(self, problem: SpaceProblem, X: IntArray, **_kwargs: Any) -> IntArray:
        return problem.region.options.mend(problem.genotypes(X))


class CanonicalDuplicateElimination(DuplicateElimination):  # type: ignore[misc]
    """Finds equal networks by hashing canonical genotypes, in time linear in their number.

    Args:
        problem: whose networks they are.
    """

    def __init__(self, problem: SpaceProblem) -> None:
        super().__init__()
        self.problem = problem

    def _keys(self, population: Population) -> list[bytes]:
        """Bytes of the canonical genotypes, which individuals remember with what they are of."""
        known = [vars(individual).get(_KEY) for individual in population]
        fresh = [
            place
            for place, (entry, individual) in enumerate(zip(known, population, strict=True))
            if entry is None or entry[0] is not individual.X
        ]
        if fresh:
            X = self.problem.genotypes(np.array([population[place].X for place in fresh]))
            for place, row in zip(fresh, X.astype(self.problem.space.gene_type), strict=True):
                individual = population[place]
                known[place] = vars(individual)[_KEY] = individual.X, row.tobytes()
        return [key for _, key in known]

    def _do(self, pop: Population, other: Population | None, is_duplicate: BoolArray) -> BoolArray:
        seen = set() if other is None else set(self._keys(other))
        for i, key in enumerate(self._keys(pop)):
            is_duplicate[i] = key in seen
            if other is None:
                seen.add(key)
        return is_duplicate


def operators(problem: SpaceProblem) -> dict[str, Any]:
    """All of them with their defaults, as keyword arguments of pymoo's genetic algorithms."""
    return {
        "sampling": FeasibleSampling(),
        "crossover": SpaceCrossover(),
        "mutation": SpaceMutation(),
        "repair": FeasibleRepair(),
        "eliminate_duplicates": CanonicalDuplicateElimination(problem),
    }

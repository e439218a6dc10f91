"""pymoo operators that know the space: which genes are active, and which blocks are feasible.

They serve any genetic algorithm of pymoo on an :class:`apq_moo.problems.APQProblem`. Canonical
genotypes come out whatever goes in, and no step computes anything one individual at a time. Between
the operators networks are rows of block configurations, which individuals remember beside their
genotypes (:func:`block_index`). Their ``do`` methods draw and return what pymoo's do, but spend
less on reading and making individuals, which takes most of the time where populations are large.
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
from apq_moo.problems.variation import cross, mix, n_units
from apq_moo.space.spec import FIELDS

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

    def variables(self, X: IntArray, /) -> IntArray:
        """What algorithms handle of genotypes."""

    def draw(self, n: int, rng: np.random.Generator, /) -> IntArray:
        """Distinct networks that meet the limits on costs, to begin a search with."""


_KNOWN = "_block_index"
"""Where an individual remembers its genotype, the bytes of its block configurations, the digest of
their space, and whether the genotype is canonical."""

_UNKNOWN = (object(), b"", "", False)
_CONFIG = Individual.default_config()


def block_index(problem: SpaceProblem, people: Any) -> IntArray:
    """The networks of individuals as block configurations, shape ``(n, n_blocks)``.

    What our operators made is known; whatever else is in a population is encoded once, and again
    when another array is set as its genotype.

    Args:
        problem: whose networks they are.
        people: individuals, or an array of them in any shape.

    Raises:
        UserError: a genotype is unusable, see :meth:`APQProblem.genotypes`.
    """
    keys = _keys(problem, people)
    return np.frombuffer(b"".join(keys), dtype=np.int64).reshape(len(keys), problem.space.n_blocks)


def _keys(problem: SpaceProblem, people: Any) -> list[bytes]:
    """Bytes of the block configurations; equal for equal networks."""
    space, digest = problem.space, problem.space.digest
    flat = np.ravel(people).tolist()
    known = [vars(person).get(_KNOWN, _UNKNOWN) for person in flat]
    fresh = [
        i
        for i, (person, entry) in enumerate(zip(flat, known, strict=True))
        if entry[0] is not person.X or entry[2] != digest
    ]
    if fresh:
        X = problem.genotypes(np.array([flat[i].X for i in fresh]))
        for i, row in zip(fresh, space.block_index(X), strict=True):
            known[i] = vars(flat[i])[_KNOWN] = flat[i].X, row.tobytes(), digest, False
    return [entry[1] for entry in known]


def set_values(people: Population, F: FloatArray, G: FloatArray) -> None:
    """What pymoo's ``Evaluator`` does, without its cost for large populations.

    Args:
        people: individuals.
        F: their objectives, shape ``(n, n_obj)``.
        G: their constraints, shape ``(n, n_ieq_constr)``.
    """
    violation = np.maximum(G, 0.0).sum(axis=1, keepdims=True)
    for person, f, g, cv in zip(people.tolist(), F, G, violation, strict=True):
        person.F, person.G, person.CV = f, g, cv
        person.evaluated.update(("F", "G", "H"))


def _assign(problem: SpaceProblem, people: list[Any], index: IntArray) -> None:
    """Give individuals networks, in canonical form, which they remember."""
    space = problem.space
    data, size = index.tobytes(), index.shape[1] * index.itemsize
    keys = [data[start : start + size] for start in range(0, len(data), size)]
    others = [
        i
        for i, (person, key) in enumerate(zip(people, keys, strict=True))
        if (entry := vars(person).get(_KNOWN, _UNKNOWN))[1] != key
        or entry[0] is not person.X
        or entry[2:] != (space.digest, True)
    ]
    X = problem.variables(space.from_block_index(index[others]))
    for i, row in zip(others, X, strict=True):
        own = people[i].X = row.copy()
        vars(people[i])[_KNOWN] = own, keys[i], space.digest, True


def _population(problem: SpaceProblem, index: IntArray) -> Population:
    """New individuals, which share one configuration."""
    people = np.empty(len(index), dtype=object)
    people[:] = [Individual(config=_CONFIG) for _ in range(len(index))]
    _assign(problem, people.tolist(), index)
    return people.view(Population)


class FeasibleSampling(Sampling):  # type: ignore[misc]
    """Distinct networks that satisfy the limits on costs, see :meth:`APQProblem.draw`.

    Returns fewer where no more were found.
    """

    def _do(
        self, problem: SpaceProblem, n_samples: int, *_args: Any, random_state: Any, **_kwargs: Any
    ) -> IntArray:
        return problem.variables(problem.draw(n_samples, random_state))


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
        *_args: Any,
        random_state: Any,
        **_kwargs: Any,
    ) -> Population:
        """Children of pairs of individuals, two of each; see pymoo's ``Crossover``."""
        if parents is not None:
            pop = [pop[mating] for mating in parents]
        n = len(pop)
        space = problem.space
        parents = block_index(problem, pop).reshape(n, self.n_parents, space.n_blocks)
        A, B = parents[:, 0], parents[:, 1]
        crossed = random_state.random(n) < get(self.prob, size=n)
        children = np.stack([A, B])
        if crossed.any():
            children[:, crossed] = self.children(problem, A, B, random_state)[:, crossed]
        return _population(problem, children.reshape(-1, space.n_blocks))

    def children(
        self, problem: SpaceProblem, A: IntArray, B: IntArray, rng: np.random.Generator
    ) -> IntArray:
        """Two children of each pair of networks.

        Args:
            problem: whose networks they are.
            A: block configurations, shape ``(n, n_blocks)``.
            B: their partners.
            rng: source of randomness.

        Returns:
            Shape ``(2, n, n_blocks)``.
        """
        space, layout = problem.space, problem.space.layout
        n, n_depth = len(A), len(space.depth_columns)
        units = rng.random((n, n_units(space))) < 0.5
        genes = rng.random((n, space.n_var))[:, n_depth:] < 0.5
        whole = rng.random((n, 1)) >= self.prob_genes
        A, B, whole = np.concatenate([A, A]), np.concatenate([B, B]), np.concatenate([whole, whole])
        blockwise = cross(space, A, B, np.concatenate([units, ~units]))
        mixed, shared = mix(layout, A, B, np.concatenate([genes, ~genes]))
        mixed = np.where(~whole & shared & layout.active(blockwise), mixed, blockwise)
        feasible = problem.region.options.feasible_blocks(mixed)
        return np.where(feasible, mixed, blockwise).reshape(2, n, -1)


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
        *_args: Any,
        random_state: Any,
        **_kwargs: Any,
    ) -> Population:
        """Mutate individuals; see pymoo's ``Mutation``."""
        if not inplace:
            pop = deepcopy(pop)
        mutants = self.mutants(problem, block_index(problem, pop), random_state)
        chosen = random_state.random(size=len(pop)) <= get(self.prob, size=len(pop))
        _assign(problem, pop[chosen].tolist(), mutants[chosen])
        return pop

    def mutants(self, problem: SpaceProblem, index: IntArray, rng: np.random.Generator) -> IntArray:
        """A mutant of each network.

        Args:
            problem: whose networks they are.
            index: block configurations, shape ``(n, n_blocks)``.
            rng: source of randomness.

        Returns:
            Shape ``(n, n_blocks)``.
        """
        space, layout, options = problem.space, problem.space.layout, problem.region.options
        shape, n_depth = (len(index), space.n_var), len(space.depth_columns)
        before = layout.active(index)
        active = np.ones(shape, dtype=bool)
        active[:, n_depth:] = before.repeat(len(FIELDS), axis=1)
        prob = 1 / active.sum(axis=1, keepdims=True) if self.prob_gene is None else self.prob_gene
        row, column = np.nonzero(active & (rng.random(shape) < prob))
        step = rng.random(shape)[row, column] < self.prob_step
        u = rng.random(shape)[row, column]

        X = space.from_block_index(index)
        gene, last = X[row, column], space.n_options[column] - 1
        moved = np.where(step, _neighbour(gene, last, u), _other(gene, last, u))
        X[row, column] = moved
        after = space.active(X)

        inner = column >= n_depth
        place = column[inner] - n_depth
        changed = np.where(before, index, 0)
        steps = (moved - gene)[inner] * layout.strides.ravel()[place]
        np.add.at(changed, (row[inner], place // len(FIELDS)), steps)
        redrawn = (after & ~before) | ~options.feasible_blocks(changed)
        redrawn |= rng.random(redrawn.shape) < self.prob_block
        drawn = options.draw(rng.random((len(index), n_units(space)))[:, n_depth:])
        return np.where(after, np.where(redrawn, drawn, changed), layout.sizes)


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

    def do(self, problem: SpaceProblem, pop: Population, **_kwargs: Any) -> Population:
        """Repair individuals; see pymoo's ``Repair``."""
        repaired = problem.region.options.repair(block_index(problem, pop))
        _assign(problem, pop.tolist(), repaired)
        return pop


class CanonicalDuplicateElimination(DuplicateElimination):  # type: ignore[misc]
    """Finds equal networks by hashing their block configurations, in time linear in their number.

    Args:
        problem: whose networks they are.
    """

    def __init__(self, problem: SpaceProblem) -> None:
        super().__init__()
        self.problem = problem

    def _do(self, pop: Population, other: Population | None, is_duplicate: BoolArray) -> BoolArray:
        seen = set() if other is None else set(_keys(self.problem, other))
        for i, key in enumerate(_keys(self.problem, pop)):
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

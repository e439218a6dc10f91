import copy
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.duplicate import DefaultDuplicateElimination
from pymoo.core.population import Population
from pymoo.optimize import minimize

from apq_moo.algorithms import (
    CanonicalDuplicateElimination,
    FeasibleRepair,
    FeasibleSampling,
    SpaceCrossover,
    SpaceMutation,
)
from apq_moo.problems import APQProblem
from apq_moo.problems.operators import block_index
from apq_moo.problems.variation import cross, n_units
from apq_moo.space import Space

fixtures = settings(
    deadline=None,
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="session")
def problem(space, problem_of):
    return problem_of(space)


def canonical_and_feasible(problem, X):
    X = np.asarray(X)
    assert X.dtype == np.int64
    assert (X >= 0).all()
    assert (problem.space.n_options > X).all()
    np.testing.assert_array_equal(X, problem.space.canonical(X))
    return problem.region.contains(X).all()


# -- crossover -------------------------------------------------------------------------------------


def crossed(problem, seed, **options):
    rng = np.random.default_rng(seed)
    parents = problem.region.sample(30, rng)
    pairs = rng.integers(0, len(parents), size=(40, 2))
    operator = SpaceCrossover(**options)
    children = operator.do(problem, Population.new(X=parents), pairs, random_state=rng)
    return parents[pairs], children.get("X").reshape(2, 40, -1)


@fixtures
@given(seed=seeds, prob_genes=st.sampled_from([0.0, 0.5, 1.0]))
def test_active_genes_of_children_are_a_parents(problem, seed, prob_genes):
    space = problem.space
    parents, children = crossed(problem, seed, prob_genes=prob_genes)
    for child in children:
        assert canonical_and_feasible(problem, child)
        possible = np.zeros(child.shape, dtype=bool)
        for parent in (parents[:, 0], parents[:, 1]):
            possible |= (child == parent) & space.active_genes(parent)
        assert (possible | ~space.active_genes(child)).all()


@fixtures
@given(seed=seeds)
def test_blockwise_crossover_takes_blocks_whole(problem, seed):
    space = problem.space
    parents, children = crossed(problem, seed, prob_genes=0.0)
    ours, first, second = (space.block_index(X) for X in (children[0], *parents.swapaxes(0, 1)))
    inactive = ours == space.block_sizes
    assert ((ours == first) | (ours == second) | inactive).all()


def test_genewise_crossover_mixes_within_blocks(problem):
    space = problem.space
    parents, children = crossed(problem, 0, prob_genes=1.0)
    ours, first, second = (space.block_index(X) for X in (children[0], *parents.swapaxes(0, 1)))
    inactive = ours == space.block_sizes
    mixed = ~((ours == first) | (ours == second) | inactive)
    assert mixed.mean() > 0.1


def test_the_two_children_share_out_what_both_parents_have(problem):
    """Where a block is active in all four networks, each parent's configuration is inherited."""
    space = problem.space
    parents, children = crossed(problem, 1, prob_genes=0.0, prob=1.0)
    index = [space.block_index(X) for X in (*children, *parents.swapaxes(0, 1))]
    everywhere = np.all([i < space.block_sizes for i in index], axis=0)
    ours, theirs = np.sort(index[:2], axis=0), np.sort(index[2:], axis=0)
    np.testing.assert_array_equal(ours[:, everywhere], theirs[:, everywhere])
    swapped = (index[0] != index[2])[everywhere & (index[2] != index[3])]
    assert 0.4 < swapped.mean() < 0.6


def test_a_deeper_child_never_gets_inactive_genes(problem_of):
    space = problem_of("digits").space
    ends = space.block_index(np.stack([space.smallest(), space.largest()]))
    shallow, deep = np.repeat(ends[:1], 200, axis=0), np.repeat(ends[1:], 200, axis=0)
    coins = np.random.default_rng(0).random((200, n_units(space))) < 0.5
    child = cross(space, shallow, deep, coins)
    added = space.layout.active(child) & ~space.layout.active(shallow)
    assert added.any()
    np.testing.assert_array_equal(child[added], deep[added])


# -- mutation --------------------------------------------------------------------------------------


def mutated(problem, seed, n=40, **options):
    rng = np.random.default_rng(seed)
    parents = problem.region.sample(n, rng)
    population = Population.new(X=parents.copy())
    SpaceMutation(**options).do(problem, population, random_state=rng)
    return parents, population.get("X")


@fixtures
@given(seed=seeds, prob_gene=st.sampled_from([None, 0.3, 1.0]), prob_block=st.floats(0, 1))
def test_mutants_are_canonical_and_feasible(problem, seed, prob_gene, prob_block):
    _, X = mutated(problem, seed, prob_gene=prob_gene, prob_block=prob_block)
    assert canonical_and_feasible(problem, X)


def test_one_gene_changes_on_average(problem_of):
    problem = problem_of("digits")
    X, Y = mutated(problem, 0, 3000, prob_block=0.0)
    same_depths = (problem.space.depths(X) == problem.space.depths(Y)).all(axis=1)
    changed = (X != Y)[same_depths]
    n_depth = len(problem.space.depth_columns)
    movable = problem.space.n_options > 1
    active = problem.space.active_genes(X)[same_depths]
    chosen = active / active.sum(axis=1, keepdims=True)
    expected = (chosen * movable)[:, n_depth:].sum(axis=1).mean()
    assert changed.sum(axis=1).mean() == pytest.approx(expected, rel=0.1)


def test_steps_go_to_neighbouring_options(problem_of):
    problem = problem_of("imagenet")
    X, Y = mutated(problem, 0, 300, prob_gene=0.02, prob_step=1.0, prob_block=0.0)
    both = problem.space.active_genes(X) & problem.space.active_genes(Y)
    index, again = problem.space.block_index(X), problem.space.block_index(Y)
    genes = problem.space.block_columns
    # A block that a step would make infeasible is redrawn as a whole.
    distance = np.abs(X - Y)[:, genes].max(axis=2)
    stepped = (index != again) & both[:, genes[:, 0]]
    assert stepped.any()
    assert (distance[stepped] == 1).mean() > 0.9
    last = problem.space.n_options - 1
    at_the_end = both & (last == X) & (X != Y)
    assert at_the_end.any()


def test_whole_blocks_are_redrawn_uniformly(problem_of):
    problem = problem_of("digits")
    X, Y = mutated(problem, 0, 4000, prob_gene=0.0, prob_block=1.0)
    np.testing.assert_array_equal(problem.space.depths(X), problem.space.depths(Y))
    first = problem.space.block_columns[0]
    for column in first:
        n = problem.space.n_options[column]
        shares = np.bincount(Y[:, column], minlength=n) / len(Y)
        allowed = problem.space.block_genes(0, np.flatnonzero(problem.feasible[0]))
        expected = np.bincount(allowed[:, list(first).index(column)], minlength=n) / len(allowed)
        np.testing.assert_allclose(shares, expected, atol=5 * np.sqrt(0.25 / len(Y)))


def smallest(space):
    return Population.new(X=space.smallest()[None])


def test_blocks_that_a_mutation_adds_are_drawn(problem_of):
    problem = problem_of("digits")
    space = problem.space
    X = np.repeat(FeasibleRepair().do(problem, smallest(space))[0].X[None], 500, axis=0)
    population = Population.new(X=X.copy())
    mutation = SpaceMutation(prob_gene=0.2, prob_block=0.0)
    Y = mutation.do(problem, population, random_state=np.random.default_rng(0)).get("X")
    added = space.active(Y) & ~space.active(X)
    for b in np.flatnonzero(added.any(axis=0)):
        index = space.block_index(Y)[added[:, b], b]
        assert len(np.unique(index)) > 0.5 * min(len(index), problem.feasible[b].sum())


# -- twins on genotypes ----------------------------------------------------------------------------


def usable(problem, X):
    """Whether each block is inactive or feasible, shape ``(n, n_blocks)``, block by block."""
    index = problem.space.block_index(X)
    columns = [
        np.append(mask, True)[index[:, b]] for b, mask in enumerate(problem.region.options.feasible)
    ]
    return np.stack(columns, axis=1)


def genes_of(space, blocks):
    mask = np.zeros((len(blocks), space.n_var), dtype=bool)
    mask[:, space.block_columns] = blocks[:, :, None]
    return mask


def slow_children(problem, A, B, rng, prob_genes):
    space = problem.space
    n_depth = len(space.depth_columns)
    units = rng.random((len(A), n_units(space))) < 0.5
    genes = rng.random(A.shape) < 0.5
    whole = rng.random((len(A), 1)) >= prob_genes
    in_a, in_b = space.active(A), space.active(B)
    children = []
    for from_b, genes_from_b in ((units, genes), (~units, ~genes)):
        take = genes_of(space, np.where(in_a & in_b, from_b[:, n_depth:], in_b))
        take[:, :n_depth] = from_b[:, :n_depth]
        blockwise = space.canonical(np.where(take, B, A))
        inner = np.where(genes_of(space, in_a & in_b), genes_from_b, take)
        inner[:, :n_depth] = from_b[:, :n_depth]
        mixed = space.canonical(np.where(inner, B, A))
        kept = whole | genes_of(space, ~usable(problem, mixed))
        children.append(np.where(kept, blockwise, mixed))
    return np.stack(children)


def slow_mutants(problem, X, rng, prob_gene, prob_step, prob_block):
    space, options = problem.space, problem.region.options
    active = space.active_genes(X)
    prob = 1 / active.sum(axis=1, keepdims=True) if prob_gene is None else prob_gene
    chosen = active & (rng.random(X.shape) < prob)
    step = rng.random(X.shape) < prob_step
    u = rng.random(X.shape)
    changed = X.copy()
    for i, j in np.argwhere(chosen):
        last, gene = space.n_options[j] - 1, X[i, j]
        if step[i, j]:
            up = (u[i, j] < 0.5 or gene == 0) and gene < last
            changed[i, j] = max(gene + (1 if up else -1), 0)
        else:
            option = int(u[i, j] * last)
            changed[i, j] = min(option + (option >= gene), last)
    changed = space.canonical(changed)
    redrawn = (space.active(changed) & ~space.active(X)) | ~usable(problem, changed)
    redrawn |= rng.random(redrawn.shape) < prob_block
    v = rng.random((len(X), n_units(space)))[:, len(space.depth_columns) :]
    for i, b in np.argwhere(redrawn):
        feasible = np.flatnonzero(options.feasible[b])
        number = feasible[int(v[i, b] * len(feasible))] if len(feasible) else 0
        changed[i, space.block_columns[b]] = space.block_genes(b, number)
    return space.canonical(changed)


@fixtures
@given(seed=seeds, prob_genes=st.sampled_from([0.0, 0.5, 1.0]))
def test_crossover_by_a_slow_twin(problem, seed, prob_genes):
    space = problem.space
    X = space.sample(40, np.random.default_rng(seed))
    A, B = X[:20], X[20:]
    index = space.block_index(X)
    found = SpaceCrossover(prob_genes=prob_genes).children(
        problem, index[:20], index[20:], np.random.default_rng(seed)
    )
    wanted = slow_children(problem, A, B, np.random.default_rng(seed), prob_genes)
    for ours, twins in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(space.from_block_index(ours), twins)


@fixtures
@given(
    seed=seeds,
    prob_gene=st.sampled_from([None, 0.3, 1.0]),
    prob_step=st.sampled_from([0.0, 0.3, 1.0]),
    prob_block=st.sampled_from([0.0, 0.1]),
)
def test_mutation_by_a_slow_twin(problem, seed, prob_gene, prob_step, prob_block):
    space = problem.space
    X = space.sample(20, np.random.default_rng(seed))
    settings = (prob_gene, prob_step, prob_block)
    found = SpaceMutation(*settings).mutants(
        problem, space.block_index(X), np.random.default_rng(seed)
    )
    wanted = slow_mutants(problem, X, np.random.default_rng(seed), *settings)
    np.testing.assert_array_equal(space.from_block_index(found), wanted)


# -- what individuals remember ---------------------------------------------------------------------


def test_children_remember_their_blocks_and_nothing_is_encoded_again(problem, monkeypatch):
    space = problem.space
    rng = np.random.default_rng(0)
    parents = Population.new(X=problem.region.sample(30, rng))
    first = block_index(problem, parents)
    np.testing.assert_array_equal(first, space.block_index(parents.get("X")))
    pairs = rng.integers(0, 30, size=(20, 2))
    with monkeypatch.context() as patch:
        for name in ("canonical", "block_index"):
            patch.setattr(type(space), name, None)
        children = SpaceCrossover().do(problem, parents, pairs, random_state=rng)
        children = SpaceMutation().do(problem, children, random_state=rng)
        children = FeasibleRepair().do(problem, children)
        children = CanonicalDuplicateElimination(problem).do(children, parents)
        remembered = block_index(problem, children)
        copied = block_index(problem, copy.deepcopy(children))
    np.testing.assert_array_equal(remembered, space.block_index(children.get("X")))
    np.testing.assert_array_equal(copied, remembered)


def test_whatever_is_handed_over_is_encoded(problem):
    space, rng = problem.space, np.random.default_rng(1)
    reals = rng.uniform(-2, space.n_options + 2, size=(10, space.n_var))
    wanted = space.block_index(problem.genotypes(reals))
    people = Population.new(X=reals)
    np.testing.assert_array_equal(block_index(problem, people), wanted)
    np.testing.assert_array_equal(people.get("X"), reals)
    named = Population.new(X=np.array([dict(zip(problem.vars, row, strict=True)) for row in reals]))
    np.testing.assert_array_equal(block_index(problem, named), wanted)
    children = FeasibleRepair().do(problem, people)
    assert canonical_and_feasible(problem, children.get("X"))
    people.set("X", reals[::-1])
    np.testing.assert_array_equal(block_index(problem, people), wanted[::-1])
    assert block_index(problem, people[:0]).shape == (0, space.n_blocks)


def test_what_is_remembered_holds_for_its_own_space(problem_of):
    one = problem_of("digits")
    turned = replace(
        one.space.spec,
        stages=tuple(replace(stage, kernels=(3,)) for stage in one.space.spec.stages),
    )
    other = APQProblem(Space(turned), objectives=("macs",))
    assert other.space.n_var == one.space.n_var
    X = one.space.largest()[None]
    people = FeasibleRepair().do(one, Population.new(X=X))
    wanted = other.space.block_index(other.genotypes(people.get("X")))
    assert not np.array_equal(wanted, block_index(one, people))
    np.testing.assert_array_equal(block_index(other, people), wanted)


# -- repair, sampling, duplicates ------------------------------------------------------------------


@fixtures
@given(seed=seeds)
def test_repair_makes_networks_of_any_reals(problem, seed):
    rng = np.random.default_rng(seed)
    X = rng.uniform(-2, problem.space.n_options + 2, size=(20, problem.space.n_var))
    population = FeasibleRepair().do(problem, Population.new(X=X), random_state=rng)
    repaired = population.get("X")
    assert canonical_and_feasible(problem, repaired)
    again = FeasibleRepair().do(problem, Population.new(X=repaired)).get("X")
    np.testing.assert_array_equal(again, repaired)


def test_sampling_is_distinct_feasible_and_seeded(problem_of):
    problem = problem_of("digits", quantile=0.01)
    draws = [
        FeasibleSampling().do(problem, 100, random_state=np.random.default_rng(4)).get("X")
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*draws)
    assert len(np.unique(draws[0], axis=0)) == 100
    assert canonical_and_feasible(problem, draws[0])


@fixtures
@given(seed=seeds, n=st.integers(1, 30), m=st.integers(0, 30))
def test_duplicates_are_those_that_pairwise_distances_find(problem, seed, n, m):
    space = problem.space
    rng = np.random.default_rng(seed)
    pool = space.sample(8, rng)
    X = pool[rng.integers(0, 8, size=n)]
    others = Population.new(X=pool[rng.integers(0, 8, size=m)])
    noise = rng.integers(0, space.n_options, size=X.shape)
    disguised = np.where(space.active_genes(X), X, noise)
    ours = CanonicalDuplicateElimination(problem)
    _, kept, dropped = ours.do(Population.new(X=disguised), others, return_indices=True)
    _, slow_kept, slow_dropped = DefaultDuplicateElimination().do(
        Population.new(X=X), others, return_indices=True
    )
    assert (kept, dropped) == (slow_kept, slow_dropped)


def test_copies_of_the_operators_share_the_problem(problem):
    copied = copy.deepcopy(problem.operators()["eliminate_duplicates"])
    assert copied.problem is problem


# -- together --------------------------------------------------------------------------------------


def test_nsga2_with_the_operators_keeps_to_the_space(space, problem_of):
    problem = problem_of(space)
    results = [
        minimize(problem, NSGA2(pop_size=40, **problem.operators()), ("n_gen", 10), seed=seed)
        for seed in (1, 1, 2)
    ]
    X = results[0].pop.get("X")
    assert len(np.unique(X, axis=0)) == 40
    assert canonical_and_feasible(problem, X)
    np.testing.assert_array_equal(X, results[1].pop.get("X"))
    assert not np.array_equal(X, results[2].pop.get("X"))

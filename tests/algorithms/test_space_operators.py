import copy

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
from apq_moo.problems.variation import cross, n_units, resample

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
    shallow, deep = space.smallest()[None], space.largest()[None]
    deep = np.repeat(deep, 200, axis=0)
    shallow = np.repeat(shallow, 200, axis=0)
    coins = np.random.default_rng(0).random((200, n_units(space))) < 0.5
    child = cross(space, shallow, deep, coins)
    added = space.active(child) & ~space.active(shallow)
    assert added.any()
    full = space.block_index(deep)
    np.testing.assert_array_equal(space.block_index(child)[added], full[added])


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


def test_blocks_that_a_mutation_adds_are_drawn(problem_of):
    problem = problem_of("digits")
    space = problem.space
    X = np.repeat(problem.region.options.mend(space.smallest()[None]), 500, axis=0)
    population = Population.new(X=X.copy())
    mutation = SpaceMutation(prob_gene=0.2, prob_block=0.0)
    Y = mutation.do(problem, population, random_state=np.random.default_rng(0)).get("X")
    added = space.active(Y) & ~space.active(X)
    for b in np.flatnonzero(added.any(axis=0)):
        index = space.block_index(Y)[added[:, b], b]
        assert len(np.unique(index)) > 0.5 * min(len(index), problem.feasible[b].sum())


def test_resampling_nothing_changes_nothing_and_added_blocks_are_drawn(problem):
    space, options = problem.space, problem.region.options
    rng = np.random.default_rng(0)
    X = problem.region.sample(50, rng)
    u = rng.random((50, n_units(space)))
    nothing = np.zeros(u.shape, dtype=bool)
    np.testing.assert_array_equal(resample(options, X, nothing, u), X)

    shallow = np.repeat(options.mend(space.smallest()[None]), 50, axis=0)
    depths = nothing.copy()
    depths[:, : len(space.depth_columns)] = True
    deeper = resample(options, shallow, depths, u)
    assert canonical_and_feasible(problem, deeper)
    kept = space.active(shallow)
    np.testing.assert_array_equal(space.block_index(deeper)[kept], space.block_index(shallow)[kept])
    added = space.active(deeper) & ~kept
    assert added.any()
    assert len(np.unique(space.block_index(deeper)[added])) > 5


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

"""The ablation of operators: its scores, its variants, and what it takes for granted."""

import sys
from itertools import combinations, product

import numpy as np
import pytest
from pymoo.operators.mutation.nom import NoMutation

from apq_moo.algorithms import SpaceCrossover
from apq_moo.benchmarks.compare.scores import Bounds, hypervolume
from apq_moo.benchmarks.experiments.operators import (
    FULL,
    POP_SIZE,
    VARIANTS,
    Case,
    Score,
    Variant,
    cases,
    check,
    compare,
    main,
    nsga2_with,
    search,
    table,
)
from apq_moo.benchmarks.experiments.synthetic import SyntheticAccuracy
from apq_moo.problems import APQProblem
from apq_moo.space import load_space

NAMED = {variant.name: variant for variant in VARIANTS}
NOTHING = {"crossover": SpaceCrossover(prob=0.0), "mutation": NoMutation()}


@pytest.fixture(scope="module")
def case():
    """Searches begin with uniform networks, so that operators have something to do."""
    problem = APQProblem("digits", constraints={"latency": 0.01}, start="uniform")
    return Case.of("digits", problem, 500)


def swept(case, F, feasible):
    """Hypervolume by a sweep in two dimensions, as a share of the box."""
    (ref_acc, ref_cost), volume = case.bounds.nadir, 0.0
    for acc, cost in sorted(map(tuple, F[feasible])):
        if acc < ref_acc and cost < ref_cost:
            volume += (ref_acc - acc) * (ref_cost - cost)
            ref_cost = cost
    return volume / np.prod(np.subtract(case.bounds.nadir, case.bounds.ideal))


# -- scores ----------------------------------------------------------------------------------------


def test_hypervolume_of_a_hand_worked_example(case):
    bounds = Bounds(case.problem.objectives, (-100.0, 0.0), (-50.0, 10.0), reference=1.0)
    simple = Case("", case.problem, bounds)
    F = np.array([[-80.0, 5.0], [-90.0, 8.0], [-70.0, 6.0], [-99.0, 20.0], [-95.0, 1.0]])
    feasible = np.array([True, True, True, True, False])
    # 40 x 2 above the second network, and 30 x 3 more above the first; of 50 x 10.
    assert hypervolume(F[feasible], bounds) == pytest.approx(170 / 500)
    assert swept(simple, F, feasible) == pytest.approx(170 / 500)
    assert hypervolume(F[~feasible], bounds) == pytest.approx(45 * 9 / 500)


def test_the_reference_is_the_worst_of_feasible_draws(case):
    X = case.problem.region.sample(500, np.random.default_rng(0))
    values = case.problem.evaluate_raw(X)
    np.testing.assert_array_equal(
        case.bounds.nadir, [-values["acc"].min(), values["latency"].max()]
    )
    assert case.bounds.nadir[1] <= 0.01


def test_scores_are_those_of_the_searches(case):
    names = (FULL, "random feasible draws")
    scores = compare(case, [NAMED[name] for name in names], seeds=2, budget=250)
    assert [score.name for score in scores] == list(names)
    for score in scores:
        assert score.hypervolumes.shape == (2,)
        assert score.evaluations == 250
        assert score.seconds > 0
        for seed, volume in enumerate(score.hypervolumes):
            found = search(case.problem, NAMED[score.name].make(case.problem), 250, seed)
            assert volume == pytest.approx(swept(case, found.F, found.feasible), rel=1e-12)
            assert 0 < volume < 1
    full, random = (score.hypervolumes for score in scores)
    assert full.mean() > random.mean()


def test_tables_hold_medians_quartiles_and_ratios():
    scores = [
        Score("full", np.array([0.1, 0.2, 0.3, 0.4, 0.5]), 1000, 1.5),
        Score("other", np.array([0.01, 0.02, 0.03, 0.04, 0.05]), 900, 0.25),
    ]
    head, full, other = table(scores)
    assert head.split()[:4] == ["variant", "median", "quartiles", "ratio"]
    assert full.split() == ["full", "0.30000", "0.20000", "0.40000", "1.0000", "-", "1,000", "1.50"]
    # Of the 252 ways to split ten values, two are as extreme: p = 0.0079.
    assert other.split() == [
        *("other", "0.03000", "0.02000", "0.04000", "0.1000", "0.0079", "900", "0.25")
    ]


# -- variants --------------------------------------------------------------------------------------


def test_all_variants_evaluate_the_same_number_and_the_problem_agrees(case):
    assert len(NAMED) == len(VARIANTS)
    check(case, VARIANTS)


def test_a_variant_that_runs_dry_is_not_compared(case):
    stuck = Variant("stuck", nsga2_with(**NOTHING))
    assert len(search(case.problem, stuck.make(case.problem), 300, seed=0).X) == POP_SIZE
    with pytest.raises(AssertionError, match="stuck"):
        check(case, [stuck])


def rows(X):
    return {tuple(row) for row in X.tolist()}


def test_without_crossover_and_mutation_no_network_is_new(case):
    make = nsga2_with(**NOTHING, eliminate_duplicates=False)
    found = search(case.problem, make(case.problem), 350, seed=3)
    assert len(found.X) == 350
    first = rows(found.X[:POP_SIZE])
    assert len(first) == POP_SIZE
    assert rows(found.X) == first


@pytest.mark.parametrize("genes", [0.0, 0.5])
def test_without_mutation_nothing_is_made_of_what_was_not_drawn(case, genes):
    """Whole blocks stay those of the first population; mixed ones consist of its genes."""
    make = nsga2_with(crossover=SpaceCrossover(prob_genes=genes), mutation=NoMutation())
    X = search(case.problem, make(case.problem), 500, seed=1).X
    space = case.problem.space
    assert len(rows(X)) > 3 * POP_SIZE
    active = space.active_genes(X)
    for column in range(space.n_var):
        drawn = set(X[:POP_SIZE, column][active[:POP_SIZE, column]])
        assert set(X[:, column][active[:, column]]) <= drawn
    index = space.block_index(X)
    new = [
        len(set(index[:, b]) - set(index[:POP_SIZE, b]) - {space.block_sizes[b]})
        for b in range(space.n_blocks)
    ]
    assert (sum(new) > 0) == (genes > 0)


# -- problems --------------------------------------------------------------------------------------


def test_one_in_ten_random_networks_meets_the_limit_on_digits():
    free, limited = cases("digits")
    assert not free.problem.constraints
    X = free.problem.space.sample(5000, np.random.default_rng(7))
    assert limited.problem.feasible_rows(X).mean() == pytest.approx(0.1, abs=0.02)


def test_the_synthetic_accuracy_is_what_it_says():
    space = load_space("imagenet")
    synthetic = SyntheticAccuracy(space)
    X = space.sample(6, np.random.default_rng(0))
    offsets = space.one_hot_offsets
    expected = []
    for row, active in zip(X, space.active(X), strict=True):
        inputs = [offsets[b] + row[space.block_columns[b]] for b in np.flatnonzero(active)]
        gains = sum(synthetic.gains[i] for block in inputs for i in block)
        pairs = [pair for block in inputs for pair in combinations(block, 2)]
        by_block = dict(zip(np.flatnonzero(active).tolist(), inputs, strict=True))
        for b, ours in by_block.items():
            pairs += product(ours, by_block.get(b + 1, []))
        hidden = synthetic.hidden
        expected.append([gains, sum(float(hidden[i] @ hidden[j]) for i, j in pairs)])
    np.testing.assert_allclose(synthetic.parts(X).T, expected, rtol=1e-9)

    many = space.sample(4000, np.random.default_rng(1))
    accuracy = synthetic.predict(many)
    np.testing.assert_array_equal(accuracy, SyntheticAccuracy(space).predict(many))
    assert accuracy.mean() == pytest.approx(65, abs=0.05)
    assert accuracy.std() == pytest.approx(np.hypot(0.5, 0.25), rel=0.2)
    assert not np.array_equal(accuracy, SyntheticAccuracy(space, seed=1).predict(many))


# -- the command -----------------------------------------------------------------------------------


def test_the_command_prints_a_line_for_each_variant_and_problem(monkeypatch, capsys):
    arguments = ["operators", "--space", "digits", "--seeds", "2", "--budget", "150"]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "digits, no limit: 150 evaluations, 2 seeds"
    size = len(VARIANTS) + 3  # a title, a head, and an empty line
    assert len(lines) == 2 * size
    for part in (lines[:size], lines[size:]):
        rows = part[2:-1]
        assert [row[:32].strip() for row in rows] == list(NAMED)
        numbers = [row[32:].split() for row in rows]
        assert {len(row) for row in numbers} == {7}
        assert {row[5] for row in numbers} == {"150"}
        assert numbers[0][3:5] == ["1.0000", "-"]
        # Two against two: the smallest p value that there is, 1/3.
        assert all(0.33 <= float(row[4]) <= 1 for row in numbers[1:])


def test_another_space_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["operators", "--space", "tiny"])
    with pytest.raises(SystemExit):
        main()
    assert "--space takes digits and imagenet, not tiny" in capsys.readouterr().err

"""What every algorithm promises, and what those of the registry promise beside."""

import numpy as np
import pytest
from moocore import hypervolume
from pymoo.optimize import minimize
from pymoo.problems import get_problem
from scipy.stats import chisquare

from apq_moo.algorithms import ALGORITHMS, RandomSearch
from apq_moo.algorithms.catalogue import reference_directions
from apq_moo.errors import UserError
from apq_moo.testing import AlgorithmConformance, drive

SYSTEMS = [name for name in ALGORITHMS if ALGORITHMS.get(name).system]  # see test_systems.py
DRAWING = [name for name in ALGORITHMS if name not in ("exact", "surrogate", *SYSTEMS)]
RELEASED = "apq-ga-released"
FORGETFUL = ["ctaea", "moead", "rvea"]  # keep a network for its direction, not as a best one


class TestAlgorithms(AlgorithmConformance):
    @pytest.fixture(params=[name for name in DRAWING if name not in (*FORGETFUL, RELEASED)])
    def algorithm(self, request):
        return ALGORITHMS.get(request.param)

    def test_the_first_population_meets_tight_limits(self, entry, make_problem):
        problem = make_problem(0.001)
        _, seen = drive(entry, problem, 30)
        assert problem.feasible_rows(seen.get("X")).all()
        assert len(np.unique(seen.get("X"), axis=0)) == 30


class TestForgetfulAlgorithms(TestAlgorithms):
    elitist = False

    @pytest.fixture(params=FORGETFUL)
    def algorithm(self, request):
        return ALGORITHMS.get(request.param)


class TestReleased(TestAlgorithms):
    """It ranks by accuracies at the widest bits, which it asks for too."""

    elitist = False
    asks_its_context = False

    @pytest.fixture
    def algorithm(self):
        return ALGORITHMS.get(RELEASED)


class TestExact(AlgorithmConformance):
    draws = False

    @pytest.fixture
    def algorithm(self):
        return ALGORITHMS.get("exact")


@pytest.fixture(params=DRAWING)
def entry(request):
    return ALGORITHMS.get(request.param)


def problem_for(entry, problem_of, quantile=0.1):
    single = entry.kind == "single-objective-sweep"
    return problem_of("digits", ("acc",) if single else ("acc", "latency"), quantile)


SINGLE = ("apq-ga", "apq-ga-released", "regularized-evolution", "local-search")


def test_entries_say_what_they_are():
    assert {name for name in ALGORITHMS if ALGORITHMS.get(name).kind != "multi-objective"} == {
        *SINGLE,
        *SYSTEMS,
    }
    for name in ALGORITHMS:
        entry = ALGORITHMS.get(name)
        assert entry.name == name
        assert entry.summary
        assert any(year in entry.citation for year in map(str, range(1970, 2027)))
    with pytest.raises(UserError, match="unknown algorithm 'sa'; known: apq-ga, apq-ga-released"):
        ALGORITHMS.get("sa")


def test_a_single_objective_is_taken_or_refused_with_what_fits(problem_of):
    problem = problem_of("digits", ("acc",), quantile=0.3)
    takes = []
    for name in ALGORITHMS:
        entry = ALGORITHMS.get(name)
        if entry.least_objectives > 1:
            with pytest.raises(UserError, match=f"{name} needs at least 2 objectives; with 1 use"):
                entry.check(1)
            continue
        entry.check(1)
        takes.append(name)
        if name in DRAWING:
            _, seen = drive(entry, problem, 90)
            assert problem.feasible_rows(seen.get("X")).mean() > 0.3
    assert takes == [*SINGLE[:2], "nsga2", "random", *SINGLE[2:], "surrogate", "exact", *SYSTEMS]


@pytest.mark.parametrize("name", SINGLE)
def test_several_objectives_need_a_sweep(name, problem_of):
    algorithm = ALGORITHMS.get(name).factory(problem_of("digits"))
    with pytest.raises(UserError, match=f"{name} optimises one objective, not acc, latency"):
        algorithm.setup(problem_of("digits"), seed=0)


def test_up_to_six_objectives(entry, problem_of):
    names = ("acc", "latency", "energy", "bitops", "params", "size")
    if entry.kind != "multi-objective":
        return
    problem = problem_of("digits", names)
    _, seen = drive(entry, problem, 120, pop_size=40)
    assert np.isfinite(seen.get("F")).all()
    assert seen.get("F").shape == (120, 6)


def test_searches_beat_random_draws(entry, problem_of):
    """At equal evaluations: hypervolume of everything seen, or the best accuracy under a limit."""
    if entry.name in ("random", "apq-ga-released"):
        return  # the released search, blind to bits, is no better than random draws here
    problem = problem_for(entry, problem_of, quantile=0.3)
    scores = {}
    for chosen in (entry, ALGORITHMS.get("random")):
        runs = [drive(chosen, problem, 1500, seed=seed)[1] for seed in range(3)]
        scores[chosen.name] = [score(run) for run in runs]
    assert np.median(scores[entry.name]) > np.median(scores["random"]), scores


def score(seen):
    F = seen.get("F")[seen.get("FEAS").ravel()]
    if F.shape[1] == 1:
        return -F.min()
    return hypervolume(F / [100, 0.03], ref=[0, 1])


def test_weights_are_as_many_as_fit():
    for n_obj, n, expected in ((2, 100, 100), (3, 100, 91), (6, 100, 56), (4, 3, 4), (2, 2, 2)):
        weights = reference_directions(n_obj, n)
        assert weights.shape == (expected, n_obj)
        np.testing.assert_allclose(weights.sum(axis=1), 1)


@pytest.mark.parametrize("name", ["nsga2", "random"])
def test_problems_without_a_region_are_refused(name):
    problem = get_problem("zdt1")
    with pytest.raises(UserError, match=f"{name} needs an APQProblem"):
        ALGORITHMS.get(name).factory(problem).setup(problem, seed=0)


def test_options_reach_the_algorithm(problem_of):
    problem = problem_of("digits")
    assert ALGORITHMS.get("apq-ga").factory(problem, n_top=3, prob=0.5).n_top == 3
    assert ALGORITHMS.get("nsga2").factory(problem, pop_size=8, n_offsprings=4).n_offsprings == 4
    with pytest.raises(UserError, match="pop_size must be at least 1, not 0"):
        ALGORITHMS.get("random").factory(problem, pop_size=0)


def test_random_search_is_uniform_within_blocks(problem_of):
    problem = problem_of("digits", start="uniform")
    result = minimize(problem, RandomSearch(pop_size=3000), ("n_gen", 1), seed=0)
    X = result.pop.get("X")
    index = problem.space.block_index(X)[:, 0]
    share = np.isin(index, np.flatnonzero(problem.feasible[0])[::2])
    n_half = len(np.flatnonzero(problem.feasible[0])[::2])
    expected = n_half / problem.feasible[0].sum()
    observed = [share.sum(), (~share).sum()]
    assert chisquare(observed, [3000 * expected, 3000 * (1 - expected)]).pvalue > 1e-3


def test_random_search_keeps_the_front_of_all_batches(problem_of):
    problem = problem_of("digits")
    algorithm, seen = drive(ALGORITHMS.get("random"), problem, 200, pop_size=20)
    F = seen.get("F")
    dominated = ((F[:, None] >= F).all(axis=2) & (F[:, None] > F).any(axis=2)).any(axis=1)
    front = np.unique(F[~dominated], axis=0)
    np.testing.assert_array_equal(np.unique(algorithm.opt.get("F"), axis=0), front)


def test_nsga2_improves_on_random_search(problem_of):
    problem = problem_of("imagenet")
    sides = []
    for name in ("nsga2", "random"):
        _, seen = drive(ALGORITHMS.get(name), problem, 2000, pop_size=100)
        sides.append(seen.get("F"))
    nsga2, random = sides
    better = (nsga2[:, None] <= random).all(axis=2).any(axis=0)
    assert better.mean() > 0.95

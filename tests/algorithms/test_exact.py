"""Exact fronts against brute force, against each other, and as searches."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moocore import hypervolume, is_nondominated
from pymoo.core.termination import NoTermination

from apq_moo.algorithms import ALGORITHMS
from apq_moo.algorithms.exact.front import GAIN_UNIT, exact_front
from apq_moo.algorithms.exact.search import ExactSearch
from apq_moo.errors import UserError
from apq_moo.hardware import cost_table, feasible_options
from apq_moo.predictors import find_predictor
from apq_moo.predictors.additive import AdditivePredictor
from apq_moo.problems import APQProblem
from apq_moo.space import Space, SpaceSpec, load_space


class Gains:
    """An additive accuracy of seeded gains, on the grid that sums are exact on."""

    def __init__(self, space, seed=0, coarse=False):
        self.space = space
        rng = np.random.default_rng(seed)
        step = 0.5 if coarse else GAIN_UNIT
        self.gains = [
            np.rint(rng.normal(1.0, 2.0, size) / step) * step for size in space.block_sizes
        ]

    def block_gains(self):
        return 50.0, self.gains

    def predict(self, X):
        index = self.space.block_index(X)
        padded = [np.append(gain, 0.0) for gain in self.gains]
        return 50.0 + sum(gain[index[:, b]] for b, gain in enumerate(padded))


def everything(space):
    """All valid canonical genotypes, made block by block."""
    parts = [np.zeros((1, space.n_var), dtype=np.int64)]
    first = 0
    for number, stage in enumerate(space.spec.stages):
        grown = []
        for i, depth in enumerate(stage.depths):
            for part in parts:
                X = part.copy()
                if number in space.depth_columns:
                    X[:, space.depth_columns[number]] = i
                for b in range(first, first + depth):
                    allowed = space.allowed(b)
                    X = np.repeat(X, len(allowed), axis=0)
                    genes = space.block_genes(b, np.tile(allowed, len(X) // len(allowed)))
                    X[:, space.block_columns[b]] = genes
                grown.append(X)
        parts = [np.vstack(grown)]
        first += max(stage.depths)
    return parts[0]


@pytest.fixture(scope="module")
def tiny():
    return load_space(Path(__file__).parents[1] / "problems" / "tiny.toml")


@pytest.fixture(scope="module")
def million():
    """A space of 681,408 networks."""
    return Space(
        SpaceSpec.from_dict(
            {
                "name": "million",
                "input_size": 8,
                "input_channels": 1,
                "classes": 2,
                "channel_step": 8,
                "expand": [1, 2],
                "bits": {"w_pw": [4, 8], "a_pw": [4, 8], "w_dw": [8], "a_dw": [8]},
                "stem": {"channels": 8},
                "stages": [
                    {"width": 8, "stride": 1, "depths": [1, 2, 3], "kernels": [3, 5]},
                    {"width": 8, "stride": 2, "depths": [1, 2], "kernels": [3], "expand": [1, 3]},
                ],
            }
        )
    )


def brute_front(space, accuracy, name="latency", limit=np.inf):
    X = everything(space)
    assert len(X) == space.count() == len(np.unique(X, axis=0))
    cost = cost_table(space, name)(X)
    X, cost = X[cost <= limit], cost[cost <= limit]
    F = np.column_stack([-accuracy.predict(X), cost])
    front = F[is_nondominated(F, keep_weakly=False)]
    front = front[np.argsort(front[:, 1])]
    # Equal costs of networks differ in the last bits, by the order in which they were added.
    return np.array([p for p, q in zip(front, [*front[1:], [0, np.inf]], strict=True)
                     if q[1] > p[1] * (1 + 1e-12)])  # fmt: skip


def exact(space, accuracy, name="latency", limit=np.inf):
    table = cost_table(space, name)
    intercept, gains = accuracy.block_gains()
    feasible = feasible_options(space, [table])
    found = exact_front(space, intercept, gains, table.fixed, table.blocks, feasible, limit)
    np.testing.assert_allclose(found.acc, accuracy.predict(found.X), rtol=1e-12)
    np.testing.assert_allclose(found.cost, table(found.X), rtol=1e-12)
    np.testing.assert_array_equal(found.X, space.canonical(found.X))
    assert space.valid(found.X).all()
    assert (np.diff(found.acc) > 0).all()
    assert (np.diff(found.cost) > 0).all()
    return np.column_stack([-found.acc, found.cost])


@pytest.mark.parametrize("coarse", [False, True], ids=["fine", "many ties"])
@pytest.mark.parametrize("name", ["latency", "energy", "size", "macs"])
def test_exact_fronts_by_brute_force(tiny, name, coarse):
    for seed in range(5):
        accuracy = Gains(tiny, seed, coarse)
        expected = brute_front(tiny, accuracy, name)
        np.testing.assert_allclose(exact(tiny, accuracy, name), expected, rtol=1e-12)
        assert len(expected) > 2


def test_a_front_of_many_networks_by_brute_force(million):
    assert million.count() == 681_408
    accuracy = Gains(million, 7)
    expected = brute_front(million, accuracy)
    np.testing.assert_allclose(exact(million, accuracy), expected, rtol=1e-12)
    limit = float(np.median(expected[:, 1]))
    kept = expected[expected[:, 1] <= limit]
    np.testing.assert_allclose(exact(million, accuracy, limit=limit), kept, rtol=1e-12)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(quantile=st.floats(0, 1), seed=st.integers(0, 99))
def test_limits_cut_the_front_and_nothing_else(quantile, seed):
    space = load_space(Path(__file__).parents[1] / "problems" / "tiny.toml")
    accuracy = Gains(space, seed)
    whole = exact(space, accuracy)
    limit = float(np.quantile(whole[:, 1], quantile))
    kept = whole[whole[:, 1] <= limit]
    np.testing.assert_array_equal(exact(space, accuracy, limit=limit), kept)


def test_an_unreachable_limit(tiny):
    with pytest.raises(UserError, match="no network of space 'tiny' meets the limit"):
        exact(tiny, Gains(tiny), limit=1e-9)


def test_additive_predictors_give_their_gains():
    """Sums over blocks are predictions, for the shipped samples."""
    space = load_space("digits")
    predictor = find_predictor(space, "additive")
    assert isinstance(predictor, AdditivePredictor)
    intercept, gains = predictor.block_gains()
    X = space.sample(500, np.random.default_rng(0))
    index = space.block_index(X)
    padded = [np.append(gain, 0.0) for gain in gains]
    total = intercept + sum(gain[index[:, b]] for b, gain in enumerate(padded))
    np.testing.assert_array_equal(total, predictor.predict(X))


# -- as a search -----------------------------------------------------------------------------------


def search(problem, surrogate, **options):
    algorithm = ALGORITHMS.get("exact").factory(problem, surrogate=surrogate, **options)
    algorithm.setup(problem, termination=NoTermination(), seed=0)
    assert algorithm.has_next()
    infills = algorithm.ask()
    algorithm.evaluator.eval(problem, infills)
    algorithm.tell(infills=infills)
    assert not algorithm.has_next()
    return infills


def test_no_search_beats_the_exact_front(tiny):
    """Where the surrogate is the predictor, its front dominates whatever others find."""
    accuracy = Gains(tiny, 3)
    problem = APQProblem(tiny, ("acc", "latency"), predictor=accuracy)
    front = search(problem, accuracy).get("F")
    everyone = problem.evaluate(everything(tiny), return_values_of=["F"])
    expected = everyone[is_nondominated(everyone, keep_weakly=False)]
    np.testing.assert_allclose(np.sort(front, axis=0), np.sort(expected, axis=0), rtol=1e-12)


def test_one_objective_gives_one_network(tiny):
    accuracy = Gains(tiny, 4)
    table = cost_table(tiny, "latency")
    X = everything(tiny)
    limit = float(np.quantile(table(X), 0.3))
    problem = APQProblem(tiny, ("acc",), {"latency": limit}, predictor=accuracy)
    found = search(problem, accuracy)
    assert len(found) == 1
    assert -found[0].F[0] == pytest.approx(accuracy.predict(X[table(X) <= limit]).max())
    free = search(APQProblem(tiny, ("acc",), predictor=accuracy), accuracy)
    assert -free[0].F[0] == pytest.approx(accuracy.predict(X).max())


def test_several_costs_by_integer_programs(tiny):
    """Each network is non-dominated, and the corners of the front are there."""
    accuracy = Gains(tiny, 5)
    problem = APQProblem(tiny, ("acc", "latency", "size"), predictor=accuracy)
    found = search(problem, accuracy, n_grid=5).get("F")
    everyone = problem.evaluate(everything(tiny), return_values_of=["F"])
    front = everyone[is_nondominated(everyone, keep_weakly=False)]
    gaps = np.abs(found[:, None] - front).max(axis=2).min(axis=1)
    assert gaps.max() < 1e-6
    assert found[:, 0].min() == pytest.approx(front[:, 0].min())
    for column in (1, 2):
        assert found[:, column].min() == pytest.approx(front[:, column].min())
    assert len(found) > 4


def test_limits_on_further_costs_are_met(tiny):
    accuracy = Gains(tiny, 6)
    tables = {name: cost_table(tiny, name) for name in ("latency", "size", "memory")}
    X = everything(tiny)
    limits = {name: float(np.quantile(tables[name](X), 0.6)) for name in ("size", "memory")}
    problem = APQProblem(tiny, ("acc", "latency"), limits, predictor=accuracy)
    found = search(problem, accuracy)
    inside = np.all([tables[name](X) <= limit for name, limit in limits.items()], axis=0)
    best = accuracy.predict(X[inside]).max()
    assert -found.get("F")[:, 0].min() == pytest.approx(best)
    assert problem.feasible_rows(found.get("X")).all()


@pytest.mark.parametrize(
    ("objectives", "words"),
    [(("latency", "size"), "exact maximises acc"), (("acc", "memory"), "which memory does not")],
)
def test_what_exact_cannot_do(tiny, objectives, words):
    problem = APQProblem(tiny, objectives, predictor=Gains(tiny))
    with pytest.raises(UserError, match=words):
        ExactSearch(Gains(tiny)).setup(problem, seed=0)


def test_the_exact_front_of_the_shipped_space_holds_up():
    """Every search with the additive predictor stays behind the exact front."""
    space = load_space("digits")
    predictor = find_predictor(space, "additive")
    problem = APQProblem(space, ("acc", "latency"), predictor=predictor)
    front = search(problem, predictor).get("F")
    assert len(front) > 1000
    box = np.array([100, 0.03])
    best = hypervolume(front / box, ref=[0, 1])
    algorithm = ALGORITHMS.get("nsga2").factory(problem, pop_size=100)
    algorithm.setup(problem, ("n_gen", 30), seed=0)
    while algorithm.has_next():
        algorithm.next()
    found = algorithm.opt.get("F")
    assert 0.97 * best < hypervolume(found / box, ref=[0, 1]) < best
    for point in found:
        assert ((front <= point * (1 + np.sign(point) * 1e-12)).all(axis=1)).any()

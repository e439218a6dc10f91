"""What a problem knows of itself: its scale, its front, and the same under other limits."""

import numpy as np
import pytest
from pymoo.algorithms.moo.moead import MOEAD
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.optimize import minimize
from pymoo.util.ref_dirs import get_reference_directions

from apq_moo.algorithms import ApqGA
from apq_moo.data.assets import find_assets
from apq_moo.data.tables import load_table
from apq_moo.errors import UserError
from apq_moo.hardware import cost_table
from apq_moo.problems import APQProblem
from apq_moo.space import load_space


@pytest.fixture(scope="module")
def tiny():
    return APQProblem("tiny", "acc,latency", predictor="table")


def test_the_true_front_and_set_of_a_space_that_is_known_whole(tiny):
    table = load_table(find_assets(tiny.space).path("table.npz"), tiny.space)
    F = np.column_stack([-table.accuracies()[:, 0], cost_table(tiny.space, "latency")(table.X)])
    front, networks = tiny.pareto_front(), tiny.pareto_set()
    # A slow twin: nothing in the table dominates a member, and every other network is dominated.
    for member in front:
        assert not ((member >= F).all(axis=1) & (member > F).any(axis=1)).any()
    covered = (front[:, None] <= F[::97]).all(axis=2).any(axis=0)
    assert covered.all()
    np.testing.assert_array_equal(tiny.evaluate(networks), front)
    assert (np.diff(front[:, 0]) > 0).all()


def test_the_true_front_under_limits(tiny):
    limited = tiny.with_limits({"latency": 0.15, "acc": 90.0})
    front = limited.pareto_front()
    assert front[:, 1].max() <= 0.15
    assert front[:, 0].max() <= -90.0
    inside = (tiny.pareto_front()[:, 1] <= 0.15) & (tiny.pareto_front()[:, 0] <= -90.0)
    np.testing.assert_array_equal(front, tiny.pareto_front()[inside])


def test_a_published_front_is_that_of_the_shipped_predictor_without_limits():
    problem = APQProblem("fashion", ("acc", "latency"))
    front = problem.pareto_front()
    assert front.shape[1] == 2
    assert len(front) > 50
    assert not (front[:, None] < front).all(axis=2).any()
    assert problem.with_limits({"latency": 0.3}).pareto_front() is None
    other = APQProblem("fashion", ("acc", "latency"), predictor=lambda X: X[:, 0])
    assert other.pareto_front() is None
    assert APQProblem("digits").pareto_front() is None
    assert APQProblem("digits", ("latency",)).pareto_set() is None


def test_scales_belong_to_the_problem(tiny):
    np.testing.assert_array_equal(tiny.ideal_point()[0], -100.0)
    np.testing.assert_array_equal(tiny.nadir_point()[0], -80.0)
    front = tiny.pareto_front()
    assert (tiny.ideal_point() <= front.min(axis=0)).all()
    assert tiny.with_limits({"latency": 0.2}).nadir_point()[1] == 0.2
    assert tiny.with_limits({"acc": 91.0}).nadir_point()[0] == -91.0
    renamed = APQProblem("imagenet", ("acc", "latency"), predictor=lambda X: X[:, 0])
    np.testing.assert_allclose(renamed.ideal_point(), [-100.0, 2.959], rtol=1e-3)
    np.testing.assert_allclose(renamed.nadir_point(), [-0.1, 46.79], rtol=1e-3)


def test_other_limits_share_all_but_the_region(tiny):
    other = tiny.with_limits({"latency": 0.2, "size": 40.0}, "acc")
    assert other.objectives == ("acc",)
    assert other.names == ("acc", "latency", "size")
    assert other.accuracy is tiny.accuracy
    assert other.tables["latency"] is tiny.tables["latency"]
    assert tiny.constraints == {}
    made = APQProblem("tiny", ("acc",), {"latency": 0.2, "size": 40.0}, "table")
    X = tiny.space.sample(50, np.random.default_rng(0))
    for found, expected in zip(other.evaluate(X), made.evaluate(X), strict=True):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(UserError, match="this problem has no accuracies"):
        APQProblem("tiny", ("latency",)).with_limits({"acc": 90.0})


def test_no_constraint_where_nothing_can_be_infeasible(tiny):
    assert tiny.n_ieq_constr == 0
    assert tiny.evaluate(tiny.space.smallest()[None]).shape == (1, 2)
    assert tiny.with_limits({"latency": 0.2}).n_ieq_constr == 1
    # Bits that the device does not run, and a rule of the space.
    assert APQProblem("imagenet", ("latency",)).n_ieq_constr == 1
    free = APQProblem("tiny", ("size", "memory"), predictor="table")
    low, high = free.reachable()
    assert free.with_limits({"memory": (low[1] + high[1]) / 2}).n_ieq_constr == 2


def test_pymoos_own_algorithms_take_the_operators(tiny):
    directions = get_reference_directions("das-dennis", 2, n_partitions=19)
    for algorithm in (
        MOEAD(directions, **tiny.operators(MOEAD)),
        NSGA2(20, **tiny.operators()),
        NSGA2(20),
    ):
        result = minimize(tiny, algorithm, ("n_gen", 5), seed=1)
        subnets = tiny.space.decode(result.X)
        X = tiny.space.encode(subnets)
        np.testing.assert_array_equal(tiny.evaluate(X), result.F)


def test_genes_with_one_option_can_be_left_out(tiny):
    """As libraries want it that take no variable whose bounds are equal."""
    free = APQProblem("tiny", "acc,latency", predictor="table", fixed_genes=False)
    assert tiny.n_var == tiny.space.n_var == 31
    assert free.n_var == 16
    assert (free.xu > free.xl).all()
    assert set(free.vars) < set(tiny.vars)
    X = tiny.space.sample(40, np.random.default_rng(3))
    np.testing.assert_array_equal(free.genotypes(free.variables(X)), X)
    np.testing.assert_array_equal(free.evaluate(free.variables(X)), tiny.evaluate(X))
    results = [
        minimize(problem, NSGA2(20, **problem.operators()), ("n_gen", 8), seed=4)
        for problem in (tiny, free)
    ]
    np.testing.assert_array_equal(results[0].F, results[1].F)
    assert len(free.space.decode(free.genotypes(results[1].X))) == len(results[1].F)
    with pytest.raises(
        UserError, match="apq-ga needs all genes: make the problem with fixed_genes"
    ):
        minimize(free.with_limits({"latency": 0.2}, "acc"), ApqGA(), ("n_gen", 2))


class Frame:
    """As much of a data frame as is looked at."""

    def __init__(self, columns, values):
        self.columns, self.values = columns, values

    def to_numpy(self):
        return self.values


def test_data_frames_are_read_by_their_columns(tiny):
    rng = np.random.default_rng(5)
    X = tiny.space.sample(6, rng)
    order = rng.permutation(tiny.n_var)
    names = [gene.name for gene in tiny.space.genes]
    frame = Frame([names[i] for i in order], X[:, order])
    np.testing.assert_array_equal(tiny.evaluate(frame), tiny.evaluate(X))
    np.testing.assert_array_equal(tiny.evaluate_raw(frame)["acc"], tiny.evaluate_raw(X)["acc"])
    np.testing.assert_array_equal(tiny.feasible_rows(frame), tiny.feasible_rows(X))
    with pytest.raises(UserError, match="the column 'stage9' is no gene"):
        tiny.evaluate(Frame(["stage9", *names[1:]], X))


def test_objectives_may_be_one_text():
    assert APQProblem("digits", "latency, size").objectives == ("latency", "size")
    with pytest.raises(UserError, match="at least one objective is needed"):
        APQProblem("digits", ",")
    assert load_space("digits") is APQProblem("digits", "size").space

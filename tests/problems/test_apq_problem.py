import copy
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.mixed import MixedVariableGA
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding
from pymoo.optimize import minimize

from apq_moo.errors import UserError
from apq_moo.hardware import QUANTITIES, cost_table, minimum
from apq_moo.predictors import create_predictor
from apq_moo.problems import APQProblem
from apq_moo.problems import problem as problem_module
from apq_moo.space import load_space

# Depth 1; block 0: kernel 3, 4 channels, W4A8 pointwise, W8A8 depthwise; block 2: kernel 3, 4
# channels, W8A8 pointwise, W8A4 depthwise.
SHALLOW = [0, *(0, 0, 0, 0, 0, 1), *(0, 0, 0, 0, 0, 0), *(0, 0, 1, 0, 0, 0)]
# MACs x weight bits x activation bits, layer by layer: stem; expand, depthwise, project of block 0
# on 8x8 maps; the same of block 2, which halves the maps; classifier.
SHALLOW_BITOPS = (
    9 * 1 * 4 * 64 * 64
    + (4 * 4 * 64 * 32 + 9 * 4 * 64 * 64 + 4 * 4 * 64 * 32)
    + (4 * 4 * 64 * 64 + 9 * 4 * 16 * 32 + 4 * 4 * 16 * 64)
    + 4 * 2 * 64
) / 1e9


def additive(X):
    return 50.0 + X.sum(axis=1)


def make(tiny, objectives=("acc", "bitops"), constraints=None, predictor=additive):
    return APQProblem(tiny, objectives, constraints, predictor)


def test_objectives_and_constraints_equal_a_hand_worked_example(tiny):
    problem = make(tiny, constraints={"bitops": 4e-4, "acc": 60})
    F, G = problem.evaluate(np.array([SHALLOW]))
    assert pytest.approx(461312e-9) == SHALLOW_BITOPS
    np.testing.assert_allclose(F, [[-52.0, 461312e-9]])
    np.testing.assert_allclose(G, [[461312 / 400000 - 1, (60 - 52) / 60, 0]])


def test_raw_values_have_natural_signs_and_units(tiny):
    problem = make(tiny, ("acc",), {"bitops": 5e-4})
    values = problem.evaluate_raw(SHALLOW)
    assert list(values) == ["acc", "bitops"]
    assert values["acc"] == pytest.approx([52.0])
    assert values["bitops"] == pytest.approx([461312e-9])
    assert problem.units == {"acc": "%", "bitops": "G"}


def test_order_of_objectives_is_the_order_of_columns(tiny):
    X = tiny.sample(20, np.random.default_rng(0))
    one = make(tiny, ("acc", "bitops", "size")).evaluate(X, return_values_of=["F"])
    other = make(tiny, ("size", "acc", "bitops")).evaluate(X, return_values_of=["F"])
    np.testing.assert_array_equal(one, other[:, [1, 2, 0]])


def test_forbidden_blocks_are_counted_and_only_where_active(tiny):
    problem = make(tiny, ("bitops",))
    bad = [1, 0, 0, 0, 0, 0]  # kernel 5 with a_dw 4
    good = [0, 0, 0, 0, 0, 0]
    X = np.array([[0, *bad, *bad, *good], [1, *bad, *bad, *good], [1, *good, *bad, *good]])
    _, G = problem.evaluate(X)
    np.testing.assert_array_equal(G, [[1], [2], [1]])
    np.testing.assert_array_equal(problem.feasible_rows(X), [False, False, False])
    assert problem.feasible_rows([[0, *good, *bad, *good]]).all()


def test_unsupported_blocks_get_the_largest_finite_cost_and_a_violation(
    tiny, table_of, monkeypatch
):
    blocks = [np.arange(n, dtype=float) for n in tiny.block_sizes]
    blocks[0][5] = np.inf
    blocks[1][15] = 40.0
    table = table_of(tiny, blocks, fixed=1.0)
    monkeypatch.setattr(problem_module, "cost_table", lambda *_args, **_kwargs: table)
    problem = APQProblem(tiny, ("latency",), {"latency": 60.0})
    X = np.zeros((2, tiny.n_var), dtype=int)
    X[0, tiny.block_columns[0]] = tiny.block_genes(0, 5)
    X[1, tiny.block_columns[0]] = tiny.block_genes(0, 4)
    F, G = problem.evaluate(X)
    np.testing.assert_allclose(F, [[1 + 40 + 0], [1 + 4 + 0]])
    np.testing.assert_allclose(G, [[41 / 60 - 1, 1], [5 / 60 - 1, 0]])
    assert not problem.feasible[0][5]


@pytest.mark.parametrize("name", list(QUANTITIES))
def test_every_objective_is_its_table(name):
    space = load_space("digits")
    X = space.sample(50, np.random.default_rng(3))
    problem = APQProblem(space, (name,), predictor=additive)
    expected = -additive(X) if name == "acc" else cost_table(space, name)(X)
    F = problem.evaluate(X, return_values_of=["F"])
    feasible = problem.feasible_rows(X)
    assert feasible.any()
    np.testing.assert_allclose(F[feasible, 0], expected[feasible])


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_values_are_finite_and_depend_on_the_canonical_form_only(seed):
    rng = np.random.default_rng(seed)
    space = load_space("digits")
    names = list(QUANTITIES)
    problem = APQProblem(space, names, {"latency": 1e3, "acc": 60.0}, additive)
    X = rng.integers(0, space.n_options, size=(20, space.n_var))
    F, G = problem.evaluate(X)
    assert np.isfinite(F).all()
    assert np.isfinite(G).all()
    noisy = np.where(space.active_genes(X), X, rng.integers(0, space.n_options, size=X.shape))
    for values, again in zip((F, G), problem.evaluate(noisy), strict=True):
        np.testing.assert_array_equal(values, again)
    np.testing.assert_array_equal(problem.feasible_rows(X), (G <= 0).all(axis=1))


def test_reals_are_rounded_and_clipped(tiny):
    problem = make(tiny)
    X = np.array([SHALLOW], dtype=float)
    nearby = X + np.where(X == 0, 0.45, -0.45)
    nearby[0, 1], nearby[0, -1] = -3.7, 9.0
    expected = X.copy()
    expected[0, -1] = 1
    np.testing.assert_array_equal(problem.genotypes(nearby), expected)
    np.testing.assert_array_equal(problem.evaluate(nearby)[0], problem.evaluate(expected)[0])


def test_dictionaries_of_mixed_variable_algorithms_are_read(tiny):
    problem = make(tiny)
    row = dict(zip(problem.vars, SHALLOW, strict=True))
    np.testing.assert_array_equal(problem.genotypes(np.array([row], dtype=object)), [SHALLOW])
    algorithm = MixedVariableGA(pop_size=20, survival=RankAndCrowding())
    result = minimize(problem, algorithm, ("n_gen", 3), seed=1)
    X = problem.genotypes(result.pop.get("X"))
    np.testing.assert_array_equal(problem.evaluate_raw(X)["acc"], -result.pop.get("F")[:, 0])


@pytest.mark.parametrize(
    "bad",
    [np.zeros((2, 3)), np.full((1, 19), np.nan), ["a"] * 19, [{}], [None]],
)
def test_unusable_x_is_refused(tiny, bad):
    with pytest.raises(UserError, match="X must hold"):
        make(tiny).genotypes(bad)


def test_pymoo_copies_share_the_problem(tiny):
    problem = make(tiny)
    assert copy.deepcopy(problem) is problem


def test_default_nsga2_of_pymoo_runs():
    problem = APQProblem("digits", predictor=additive)
    result = minimize(problem, NSGA2(), ("n_gen", 5), seed=1)
    assert (result.G <= 0).all()
    np.testing.assert_array_equal(problem.evaluate(result.X)[0], result.F)
    first = minimize(problem, NSGA2(), ("n_gen", 1), seed=1)
    assert result.F[:, 0].min() <= first.F[:, 0].min()
    assert result.F[:, 1].min() <= first.F[:, 1].min()


# -- predictors ------------------------------------------------------------------------------------


def test_a_fitted_predictor_is_used_as_it_is():
    space = load_space("digits")
    X = space.sample(200, np.random.default_rng(0))
    predictor = create_predictor("additive", space).fit(X, 50 + X.sum(axis=1) / 10)
    problem = APQProblem(space, ("acc",), predictor=predictor)
    np.testing.assert_array_equal(problem.evaluate_raw(X)["acc"], predictor.predict(X))


def test_a_predictor_of_another_space_is_refused(tiny):
    with pytest.raises(UserError, match=r"another space \('digits'\), not to this 'tiny': "):
        make(tiny, predictor=create_predictor("additive", load_space("digits")))


def test_no_predictor_is_resolved_without_acc(tiny):
    problem = make(tiny, ("bitops",), predictor=None)
    assert problem.evaluate_raw(SHALLOW)["bitops"] == pytest.approx([461312e-9])
    with pytest.raises(UserError, match="predictor None is neither"):
        make(tiny, ("bitops",), {"acc": 50}, predictor=None)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda X: np.zeros((len(X), 1)), r"shape \(3, 1\) for 3 networks; it must be \(3,\)"),
        (lambda X: 5.0, r"shape \(\) for 3 networks"),
        (lambda X: [1.0, float("nan"), 2.0], "nan for network 1 of 3"),
        (lambda X: [1.0, 2.0, float("-inf")], "-inf for network 2 of 3"),
        (lambda X: ["high"] * len(X), "not numbers"),
    ],
)
def test_unusable_predictions_are_refused(tiny, answer, message):
    problem = make(tiny, predictor=answer)
    with pytest.raises(UserError, match=message):
        problem.evaluate(np.array([SHALLOW] * 3))


def test_predictors_get_canonical_integers(tiny):
    seen = []

    def spy(X):
        seen.append(X)
        return additive(X)

    row = np.array([SHALLOW], dtype=float)
    row[0, 7:13] = 1  # genes of a block that is not active
    make(tiny, predictor=spy).evaluate(row)
    assert seen[0].dtype == np.int64
    np.testing.assert_array_equal(seen[0], [SHALLOW])


# -- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objectives": ()}, "at least one objective is needed; known: acc, latency, energy"),
        ({"objectives": ("acc", "speed")}, "unknown objective 'speed'; known: acc, latency"),
        ({"objectives": ("acc", "size", "acc")}, "objective 'acc' is given twice"),
        ({"constraints": {"speed": 1}}, "unknown constraint 'speed'; known: acc, latency"),
        ({"constraints": ("size", 1)}, "constraints map names to limits, .* not \\('size', 1\\)"),
        ({"constraints": {"size": "small"}}, "limit of size must be a finite number, not 'small'"),
        ({"constraints": {"size": float("nan")}}, "must be a finite number, not nan"),
        ({"constraints": {"size": True}}, "must be a finite number, not True"),
        ({"constraints": {"acc": 101}}, "limit of acc is in percent, from 0 to 100, not 101"),
        ({"constraints": {"acc": -5}}, "limit of acc is in percent, from 0 to 100, not -5"),
    ],
)
def test_mistakes_are_named(tiny, arguments, message):
    with pytest.raises(UserError, match=message):
        make(tiny, **arguments)


def test_an_unreachable_limit_names_the_minimum_rounded_up(tiny):
    # Every choice at its cheapest: 346,624 bit operations.
    with pytest.raises(
        UserError, match=r"bitops <= 0.0003 G; the smallest reachable bitops is 0.0003467 G"
    ):
        make(tiny, constraints={"bitops": 3e-4})
    with pytest.raises(UserError, match=r"<= 9.99989e-321 G; the smallest reachable bitops"):
        make(tiny, constraints={"bitops": 1e-320})
    make(tiny, constraints={"bitops": 0.0003467})
    make(tiny, constraints={"bitops": 346624e-9 * (1 + 1e-9)})
    with pytest.raises(UserError, match="smallest reachable"):
        make(tiny, constraints={"bitops": 346624e-9 * (1 - 1e-9)})


def test_the_exact_minimum_of_a_device_is_a_possible_limit():
    space = load_space("digits")
    free = APQProblem(space, ("latency",))
    _, row = minimum(cost_table(space, "latency"), free.feasible)
    least = float(free.evaluate_raw(row)["latency"][0])
    problem = APQProblem(space, ("latency",), {"latency": least})
    assert problem.feasible_rows(row).all()
    below = float(np.nextafter(least, 0))
    with pytest.raises(UserError, match="smallest reachable latency"):
        APQProblem(space, ("latency",), {"latency": below})


def test_a_name_may_stand_for_a_single_objective(tiny):
    assert make(tiny, "bitops").objectives == ("bitops",)


def test_objectives_can_be_added(tiny, monkeypatch, table_of):
    lut = table_of(tiny, [np.ones(n) for n in tiny.block_sizes], name="carbon", unit="g")
    carbon = replace(QUANTITIES.get("latency"), name="carbon", unit="g")
    monkeypatch.setattr(QUANTITIES, "_items", {**QUANTITIES._items, "carbon": carbon})
    monkeypatch.setattr(problem_module, "cost_table", lambda *_args, **_kwargs: lut)
    problem = APQProblem(tiny, ("carbon",))
    assert problem.evaluate_raw(SHALLOW)["carbon"] == [2.0]

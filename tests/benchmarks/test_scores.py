"""Indicators against their definitions, by loops and by counting cells, and hand-worked cases."""

import doctest
import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apq_moo.benchmarks.compare import anytime as anytime_curves
from apq_moo.benchmarks.compare import scores
from apq_moo.benchmarks.compare.anytime import anytime, attainment, marks
from apq_moo.benchmarks.compare.scores import (
    INDICATORS,
    Bounds,
    coverage,
    epsilon,
    hypervolume,
    igd_plus,
    regret,
)
from apq_moo.errors import UserError

NAMES = ("acc", "latency", "energy", "size", "params")


def tens(n_obj, reference=1.1):
    """Whole numbers become tenths, and cells of a grid have a volume of a power of ten."""
    return Bounds(NAMES[:n_obj], (0.0,) * n_obj, (10.0,) * n_obj, reference)


def whole_points(n_obj, max_size=12, min_size=0):
    row = st.tuples(*[st.integers(-1, 12)] * n_obj)
    return st.lists(row, min_size=min_size, max_size=max_size).map(
        lambda rows: np.array(rows, dtype=float).reshape(len(rows), n_obj)
    )


fronts = st.integers(1, 4).flatmap(
    lambda n_obj: st.tuples(whole_points(n_obj), whole_points(n_obj, min_size=1))
)


def cells_dominated(F, n_obj):
    """Hypervolume of whole points up to 11, by counting unit cells from -1 on."""
    axis = np.arange(-1, 11)
    corners = np.stack(np.meshgrid(*[axis] * n_obj, indexing="ij"), axis=-1).reshape(-1, n_obj)
    dominated = np.zeros(len(corners), dtype=bool)
    for point in F:
        dominated |= (point <= corners).all(axis=1)
    return int(dominated.sum()) / 10**n_obj


def staircase(F):
    """Hypervolume of two objectives, one step after another, with exact fractions."""
    reference = Fraction(11, 10)
    points = sorted({(Fraction(int(a), 10), Fraction(int(b), 10)) for a, b in F})
    total, height = Fraction(0), reference
    for a, b in points:
        if a < reference and b < height:
            total += (reference - a) * (height - b)
            height = b
    return float(total)


def looped_igd_plus(F, known, span=10.0):
    total = 0.0
    for z in known:
        total += min(
            math.sqrt(sum(max((a - b) / span, 0.0) ** 2 for a, b in zip(f, z, strict=True)))
            for f in F
        )
    return total / len(known)


def looped_epsilon(F, known, span=10.0):
    return max(
        min(max((a - b) / span for a, b in zip(f, z, strict=True)) for f in F) for z in known
    )


@given(whole_points(2, max_size=20))
@settings(max_examples=100, deadline=None)
def test_hypervolume_of_two_objectives_is_a_staircase(F):
    assert hypervolume(F, tens(2)) == pytest.approx(staircase(F), abs=1e-12)


@pytest.mark.parametrize("n_obj", [1, 2, 3, 4])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_hypervolume_counts_cells(n_obj, data):
    F = data.draw(whole_points(n_obj))
    assert hypervolume(F, tens(n_obj)) == pytest.approx(cells_dominated(F, n_obj), abs=1e-12)


def test_hypervolume_of_five_objectives_is_near_and_always_the_same():
    F = np.random.default_rng(0).integers(0, 11, size=(30, 5)).astype(float)
    bounds = tens(5)
    found = hypervolume(F, bounds)
    assert found == pytest.approx(cells_dominated(F, 5), rel=0.005)
    assert hypervolume(F[::-1], bounds) == found
    assert hypervolume(np.zeros((1, 5)), bounds) == pytest.approx(1.1**5, rel=1e-3)


def test_published_hypervolume():
    """The four points of moocore's documentation: 38 up to (10, 10)."""
    F = [[5, 5], [4, 6], [2, 7], [7, 4]]
    assert hypervolume(F, tens(2, reference=1.0)) == pytest.approx(0.38, abs=1e-12)


def test_points_not_below_the_reference_count_nothing():
    bounds = tens(2)
    assert hypervolume([[11, 0], [0, 11], [12, -5], [np.inf, 0]], bounds) == 0.0
    assert hypervolume([[11, 0], [1, 1]], bounds) == hypervolume([[1, 1]], bounds)
    assert hypervolume([[10.999, 0]], bounds) == pytest.approx(0.0001 * 1.1, rel=1e-9)
    assert hypervolume(np.empty((0, 2)), bounds) == 0.0
    assert hypervolume([], bounds) == 0.0


def test_hypervolume_depends_on_the_frame_alone():
    """Accuracy with its sign flipped, a cost that starts far from 0."""
    bounds = Bounds(("acc", "latency"), (-90.0, 5.0), (-50.0, 25.0))
    # Normalised (0.5, 0.2): (1.1 - 0.5) (1.1 - 0.2)
    assert hypervolume([[-70.0, 9.0]], bounds) == pytest.approx(0.54)
    assert hypervolume([[-90.0, 5.0]], bounds) == pytest.approx(1.1**2)


@pytest.mark.parametrize("n_obj", [1, 2, 3, 4])
def test_hypervolume_of_the_box(n_obj):
    bounds = tens(n_obj)
    assert hypervolume(np.zeros((1, n_obj)), bounds) == pytest.approx(1.1**n_obj)


@given(fronts)
@settings(max_examples=100, deadline=None)
def test_igd_plus_and_epsilon_by_their_definitions(pair):
    F, known = pair
    bounds = tens(known.shape[1])
    if not len(F):
        assert igd_plus(F, bounds, known) == math.inf
        assert epsilon(F, bounds, known) == math.inf
    else:
        assert igd_plus(F, bounds, known) == pytest.approx(looped_igd_plus(F, known), abs=1e-12)
        assert epsilon(F, bounds, known) == pytest.approx(looped_epsilon(F, known), abs=1e-12)


def test_published_igd_plus():
    """Example 4 of Ishibuchi et al. 2015, where plain IGD prefers the worse set."""
    known = [[10, 0], [6, 1], [2, 2], [1, 6], [0, 10]]
    bounds = tens(2)
    assert igd_plus([[4, 2], [3, 3], [2, 4]], bounds, known) == pytest.approx(0.1483, abs=5e-5)
    assert igd_plus([[8, 2], [4, 4], [2, 8]], bounds, known) == pytest.approx(0.2260, abs=5e-5)


def test_published_epsilon():
    """The sets of moocore's documentation: 2.5."""
    F = [[3.5, 5.5], [3.6, 4.1], [4.1, 3.2], [5.5, 1.5]]
    known = [[1, 6], [2, 5], [3, 4], [4, 3], [5, 2], [6, 1]]
    assert epsilon(F, tens(2), known) == pytest.approx(0.25)
    assert epsilon([[1, 1]], tens(2), [[3, 2]]) == pytest.approx(-0.1)


def test_regret_by_hand():
    bounds = tens(2, reference=1.0)
    known = [[0, 5], [5, 0]]  # dominates 3/4 of the box
    assert regret([[5, 0]], bounds, known) == pytest.approx(1 - 0.5 / 0.75)
    assert regret(known[::-1], bounds, known) == 0.0
    assert regret([], bounds, known) == 1.0
    assert regret([[0, 0]], bounds, known) == pytest.approx(1 - 1 / 0.75)
    with pytest.raises(UserError, match="no point of the known front is below the reference"):
        regret([[5, 0]], bounds, [[10, 0]])


def test_coverage_by_hand():
    bounds = Bounds(("acc", "latency"), (-100.0, 0.0), (0.0, 1000.0))
    known = [[-90, 50], [-80, 20], [-80, 20], [-60, 10]]  # three distinct ones
    assert coverage([[-90, 50], [-80, 20], [-1, 999]], bounds, known) == pytest.approx(2 / 3)
    assert coverage([[-80, 20 + 1e-7]], bounds, known) == pytest.approx(1 / 3)
    assert coverage([[-80, 20 + 1e-5]], bounds, known) == 0.0
    assert coverage([[-80, 20 + 1e-5]], bounds, known, rtol=1e-7) == pytest.approx(1 / 3)
    near = [[-80 + 0.8e-7, 20 + 0.8e-6]]  # in each objective
    assert coverage(near, bounds, known) == pytest.approx(1 / 3)
    # An objective of a small span tells apart what one of a large span does not.
    assert coverage([[-80 + 5e-7, 20]], bounds, known) == 0.0
    assert coverage([[-80, np.inf]], bounds, known) == 0.0
    assert coverage([], bounds, known) == 0.0


@given(fronts)
@settings(max_examples=50, deadline=None)
def test_coverage_counts_shared_vectors(pair):
    F, known = pair
    wanted = {tuple(row) for row in known}
    expected = len(wanted & {tuple(row) for row in F}) / len(wanted)
    assert coverage(F, tens(known.shape[1]), known) == expected


def test_the_registry():
    assert INDICATORS.names() == ["hv", "igd+", "epsilon", "regret", "coverage"]
    assert [INDICATORS.get(name).larger_is_better for name in INDICATORS] == [
        True,
        False,
        False,
        False,
        True,
    ]
    assert [name for name in INDICATORS if not INDICATORS.get(name).needs_known] == ["hv"]
    for name in INDICATORS:
        summary = INDICATORS.get(name).summary
        assert summary
        assert "\n" not in summary
    with pytest.raises(UserError, match=r"unknown indicator 'igd'; known: hv, igd\+, epsilon"):
        INDICATORS.get("igd")


def test_indicators_that_need_a_known_front_refuse_an_empty_one():
    bounds = tens(2)
    F = np.array([[3.0, 4.0]])
    for name in INDICATORS:
        entry = INDICATORS.get(name)
        if entry.needs_known:
            with pytest.raises(UserError, match="known front is empty"):
                entry.function(F, bounds, np.empty((0, 2)))
            with pytest.raises(UserError, match="known front has infinite values"):
                entry.function(F, bounds, [[0.0, np.inf]])
        else:
            value = entry.function(F, bounds, np.empty((0, 2)))
            assert value == entry.function(F, bounds, [[1.0, 1.0]])


def test_sets_that_found_nothing_have_the_worst_values():
    bounds, known = tens(2), [[1.0, 2.0]]
    worst = {"hv": 0.0, "igd+": math.inf, "epsilon": math.inf, "regret": 1.0, "coverage": 0.0}
    for name in INDICATORS:
        function = INDICATORS.get(name).function
        assert function(np.empty((0, 2)), bounds, known) == worst[name]
        assert function([[np.inf, np.inf]], bounds, known) == worst[name]


@pytest.mark.parametrize("name", ["hv", "igd+", "epsilon", "regret", "coverage"])
@given(pair=fronts, seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_invariances(name, pair, seed):
    """Order, repetition, dominated points and the unit of an objective change nothing."""
    F, known = pair
    known = np.minimum(known, 10.0)  # inside the box, so that regret is defined
    n_obj = known.shape[1]
    bounds, function = tens(n_obj), INDICATORS.get(name).function
    value = function(F, bounds, known)
    rng = np.random.default_rng(seed)
    assert function(rng.permutation(F), bounds, rng.permutation(known)) == pytest.approx(value)
    assert function(np.vstack([F, F]), bounds, known) == pytest.approx(value)
    if name != "coverage":
        assert function(np.vstack([F, F + 1.0]), bounds, known) == pytest.approx(value)
    scale, shift = rng.uniform(0.5, 5.0, n_obj), rng.uniform(-50.0, 50.0, n_obj)
    ideal, nadir = shift, 10.0 * scale + shift
    moved = Bounds(NAMES[:n_obj], tuple(ideal.tolist()), tuple(nadir.tolist()))
    # A point on the reference may be rounded to its other side, where it dominates next to nothing.
    assert function(F * scale + shift, moved, known * scale + shift) == pytest.approx(
        value, abs=1e-9
    )


@pytest.mark.parametrize("name", ["hv", "igd+", "epsilon", "regret", "coverage"])
@given(pair=fronts, seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_more_points_are_never_worse(name, pair, seed):
    F, known = pair
    known = np.minimum(known, 10.0)
    bounds, entry = tens(known.shape[1]), INDICATORS.get(name)
    more = np.vstack([F, np.random.default_rng(seed).integers(0, 11, size=(3, known.shape[1]))])
    before, after = (entry.function(points, bounds, known) for points in (F, more))
    assert (after >= before - 1e-12) if entry.larger_is_better else (after <= before + 1e-12)
    # With the known front among them nothing is left to be found.
    best = {"hv": None, "igd+": 0.0, "epsilon": 0.0, "regret": 0.0, "coverage": 1.0}[name]
    whole = entry.function(known, bounds, known)
    if best is None:
        assert entry.function(np.vstack([F, known]), bounds, known) >= whole - 1e-12
    else:
        assert whole == pytest.approx(best, abs=1e-12)


def test_malformed_points():
    bounds = tens(2)
    with pytest.raises(UserError, match=r"F must be of shape \(n, 2\), got \(1, 3\)"):
        hypervolume([[1, 2, 3]], bounds)
    with pytest.raises(UserError, match=r"F must be of shape \(n, 2\), got \(2,\)"):
        hypervolume([1, 2], bounds)
    with pytest.raises(UserError, match=r"the known front must be of shape \(n, 2\), got \(1, 1\)"):
        igd_plus([[1, 2]], bounds, [[1]])
    with pytest.raises(UserError, match=r"row 1 of F is \[nan, 3.0\]; leave out"):
        hypervolume([[1, 2], [np.nan, 3]], bounds)
    with pytest.raises(UserError, match="row 0 of F is"):
        hypervolume([[-np.inf, 2]], bounds)


def test_infinite_values_stay_so():
    bounds = Bounds(("acc", "latency"), (-95.0, 0.5), (-80.0, 3.25), 1.2)
    np.testing.assert_array_equal(
        bounds.normalise([[-95.0, 3.25], [-80.0, np.inf]]), [[0, 1], [1, np.inf]]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objectives": ("acc", "acc")}, "must be distinct names"),
        ({"objectives": ()}, "must be distinct names"),
        (
            {"ideal": (0.0,)},
            "normalisation bounds of 2 objectives need as many values .* got 1 and 2",
        ),
        ({"nadir": (10.0, 0.0)}, "ideal of latency must be below its nadir .* got 0.0 and 0.0"),
        ({"nadir": (math.inf, 10.0)}, "ideal of acc must be below its nadir and both finite"),
        ({"ideal": (math.nan, 0.0)}, "ideal of acc must be below its nadir and both finite"),
        ({"reference": 0}, "the reference of normalisation bounds must be above 0, not 0"),
    ],
)
def test_malformed_bounds(change, message):
    with pytest.raises(UserError, match=message):
        replace(Bounds(("acc", "latency"), (0.0, 0.0), (10.0, 10.0)), **change)


def attains(points, at):
    return any((point <= at).all() for point in points)


@given(st.lists(whole_points(2, max_size=6), min_size=1, max_size=7))
@settings(max_examples=60, deadline=None)
def test_attainment_surfaces_by_counting(runs):
    """At every place of a grid: below the surface if and only if enough runs attain it."""
    levels = (25, 50, 75, 100 / 3, 200 / 3, 100)
    exact = (Fraction(1, 4), Fraction(1, 2), Fraction(3, 4), Fraction(1, 3), Fraction(2, 3), 1)
    surfaces = attainment(runs, levels)
    assert list(surfaces) == list(levels)
    for at in itertools.product(range(-2, 14), repeat=2):
        reached = sum(attains(run, at) for run in runs)
        for level, share in zip(levels, exact, strict=True):
            assert attains(surfaces[level], at) == (reached >= share * len(runs)), (level, at)
    for surface in surfaces.values():
        # Corners only: ascending in the first objective, descending in the second.
        assert (np.diff(surface[:, 0]) > 0).all()
        assert (np.diff(surface[:, 1]) < 0).all()


def test_attainment_by_hand():
    runs = [[[1, 4], [3, 2]], [[2, 3]], [[4, 1]]]
    surfaces = attainment(runs, levels=(25, 50, 100))
    np.testing.assert_array_equal(surfaces[25], [[1, 4], [2, 3], [3, 2], [4, 1]])
    np.testing.assert_array_equal(surfaces[50], [[2, 4], [3, 3], [4, 2]])
    np.testing.assert_array_equal(surfaces[100], [[4, 3]])


def test_levels_that_are_rounded_quotients():
    """A share of k / n of n runs is k runs, though 100 k / n may be rounded upwards."""
    for n in range(1, 40):
        runs = [[[float(i), float(i)]] for i in range(1, n + 1)]
        levels = [100 * k / n for k in range(1, n + 1)]
        found = [surface.tolist() for surface in attainment(runs, levels).values()]
        assert found == runs


def test_runs_that_found_nothing_count():
    """Of four runs two found something: the median is what both attain, and no more."""
    runs = [[[1.0, 2.0]], [], [[2.0, 1.0]], np.empty((0, 2))]
    surfaces = attainment(runs)
    np.testing.assert_array_equal(surfaces[25], [[1, 2], [2, 1]])
    np.testing.assert_array_equal(surfaces[50], [[2, 2]])
    assert surfaces[75].shape == (0, 2)
    infinite = [runs[0], [[np.inf, 3.0]], runs[2], [[np.inf, np.inf]]]
    for level, surface in attainment(infinite).items():
        np.testing.assert_array_equal(surface, surfaces[level])


@pytest.mark.parametrize("runs", [[], [[]], [np.empty((0, 2)), []]])
def test_nothing_is_attained_without_points(runs):
    surfaces = attainment(runs)
    assert list(surfaces) == [25, 50, 75]
    assert all(surface.shape == (0, 2) for surface in surfaces.values())


def test_one_point_is_its_own_surface():
    for surface in attainment([[[3.0, 5.0]]], levels=(0.1, 50, 100)).values():
        np.testing.assert_array_equal(surface, [[3, 5]])


def test_malformed_attainment():
    with pytest.raises(UserError, match=r"run 1 must be of shape \(n, 2\), got \(1, 3\)"):
        attainment([[[1, 2]], [[1, 2, 3]]])
    for level in (0, -5, 101, math.nan):
        with pytest.raises(UserError, match="above 0 and at most 100 percent"):
            attainment([[[1, 2]]], levels=(level,))


def test_marks_by_hand():
    assert marks(1000, 3).tolist() == [10, 100, 1000]
    assert marks(14).tolist() == [10, 11, 12, 13, 14]
    assert marks(10).tolist() == [10]
    assert marks(7).tolist() == [7]
    assert marks(1).tolist() == [1]
    with pytest.raises(UserError, match="at least 1 evaluation, not 0"):
        marks(0)
    with pytest.raises(UserError, match="at least 2 marks, not 1"):
        marks(100, 1)


@given(st.integers(10, 10**7), st.integers(2, 60))
@settings(max_examples=100, deadline=None)
def test_marks_are_distinct_and_end_at_the_budget(budget, n):
    found = marks(budget, n)
    assert found[0] == 10
    assert found[-1] == budget
    assert (np.diff(found) > 0).all()
    assert len(found) <= n
    if budget >= 10 * 40 and n <= 10:  # neighbours are then too far apart to be rounded together
        assert len(found) == n
        steps = np.diff(np.log(found))
        assert steps.max() - steps.min() < 0.2


@pytest.mark.parametrize("n_obj", [1, 2, 3, 4, 5])
def test_anytime_is_the_hypervolume_of_what_came_before(n_obj):
    rng = np.random.default_rng(n_obj)
    F = rng.uniform(1, 14, size=(300, n_obj))
    feasible = rng.random(300) < 0.6
    F[~feasible] -= 1.0  # better than any that counts
    at = [0, 1, 3, 3, 10, 50, 300, 400]
    bounds = tens(n_obj)
    expected = [hypervolume(F[:end][feasible[:end]], bounds) for end in at]
    found = anytime(F, feasible, at, bounds)
    assert found.shape == (len(at),)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    assert found[0] == 0.0
    assert found[-1] > found[3]
    assert (np.diff(found) >= -1e-12).all()


def test_anytime_by_hand():
    bounds = tens(2, reference=1.0)
    F = [[5, 5], [np.nan, 0], [10, 0], [0, 5], [5, 0]]
    feasible = [True, False, True, True, True]
    np.testing.assert_allclose(anytime(F, feasible, [1, 3, 4, 5], bounds), [0.25, 0.25, 0.5, 0.75])
    assert anytime(F, [False] * 5, [5], bounds).tolist() == [0.0]
    assert anytime(np.empty((0, 2)), [], [10, 20], bounds).tolist() == [0.0, 0.0]
    assert anytime(F, feasible, [], bounds).shape == (0,)


def test_malformed_anytime():
    bounds, F = tens(2), [[5, 5], [6, 4]]
    with pytest.raises(UserError, match=r"feasible must be of shape \(2,\), got \(1,\)"):
        anytime(F, [True], [1], bounds)
    for at in ([2, 1], [-1, 2], [[1, 2]]):
        with pytest.raises(UserError, match="ascending counts of at least 0"):
            anytime(F, [True, True], at, bounds)
    with pytest.raises(UserError, match="row 0 of F"):
        anytime([[np.nan, 1]], [True], [1], bounds)


def test_examples_in_the_documentation():
    for module, least in ((scores, 4), (anytime_curves, 2)):
        results = doctest.testmod(module)
        assert results.attempted >= least
        assert results.failed == 0

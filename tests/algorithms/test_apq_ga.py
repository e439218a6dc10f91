"""APQ's evolution against a plain loop that follows Algorithm 1 one network at a time."""

import math

import numpy as np
import pytest
from pymoo.optimize import minimize
from pymoo.problems import get_problem

from apq_moo.algorithms import ApqGA
from apq_moo.algorithms.apq.top_k import TopK
from apq_moo.errors import UserError
from apq_moo.hardware import cost_table


class PlainLoop:
    """Algorithm 1 in plain Python, with the same draws from the same generator."""

    def __init__(self, problem, seed, n=100, k=25, prob=0.1, max_redraws=10):
        self.problem, self.space = problem, problem.space
        self.n, self.k, self.prob, self.max_redraws = n, k, prob, max_redraws
        self.rng = np.random.default_rng(seed)
        self.limits = [
            (cost_table(self.space, name), limit) for name, limit in problem.constraints.items()
        ]
        self.stage_of = [plan.stage for plan in self.space.plans]
        self.position = [plan.position for plan in self.space.plans]
        self.n_depth = len(self.space.depth_columns)
        self.n_units = self.n_depth + self.space.n_blocks
        self.repaired = 0
        self.rates = [0.5, 0.5]
        self.log = []

    def depth(self, row, stage):
        column = self.space.depth_columns.get(stage)
        depths = self.space.spec.stages[stage].depths
        return depths[0] if column is None else depths[row[column]]

    def active(self, row, b):
        return self.position[b] < self.depth(row, self.stage_of[b])

    def genes(self, b):
        start = self.n_depth + 6 * b
        return slice(start, start + 6)

    def candidates(self, top, n_cross, n_mutants):
        """Crossovers, then mutants; blocks that must be drawn are drawn last, in their order."""
        k = len(top)
        u = self.rng.random((n_cross + n_mutants, 2 + self.n_depth + self.n_units))
        children, holes = [], []
        for i, row in enumerate(u):
            crossing = i < n_cross
            first = int(row[0] * k)
            second = (first + 1 + int(row[1] * max(k - 1, 1))) % k
            a, b = top[first], top[second]
            values, chosen = row[2 : 2 + self.n_depth], row[2 + self.n_depth :]
            child = np.zeros(self.space.n_var, dtype=int)
            for stage, column in self.space.depth_columns.items():
                child[column] = a[column]
                if crossing and chosen[column] < 0.5:
                    child[column] = b[column]
                elif not crossing and chosen[column] < self.prob:
                    child[column] = int(values[column] * len(self.space.spec.stages[stage].depths))
            for block in range(self.space.n_blocks):
                if not self.active(child, block):
                    continue
                picked = chosen[self.n_depth + block]
                if crossing:
                    donor, other = (b, a) if picked < 0.5 else (a, b)
                    donor = donor if self.active(donor, block) else other
                    child[self.genes(block)] = donor[self.genes(block)]
                elif picked < self.prob or not self.active(a, block):
                    holes.append((child, block))
                else:
                    child[self.genes(block)] = a[self.genes(block)]
            children.append(child)
        for (child, block), value in zip(holes, self.rng.random(len(holes)), strict=True):
            options = np.flatnonzero(self.problem.feasible[block])
            option = options[int(value * len(options))]
            child[self.genes(block)] = self.space.block_genes(block, option)
        return children[:n_cross], children[n_cross:]

    def children(self, top):
        need, found = [self.n // 2, self.n - self.n // 2], ([], [])
        for attempt in range(self.max_redraws + 1):
            drawn = need
            if self.limits:
                drawn = [
                    math.ceil(1.2 * n / rate) + 2 if n else 0
                    for n, rate in zip(need, self.rates, strict=True)
                ]
            kinds = self.candidates(top, *drawn)
            fits = [[self.meets_limits(child) for child in kind] for kind in kinds]
            if attempt == 0:
                self.rates = [min(max(sum(f) / len(f), 0.05), 1.0) for f in fits]
            for i, (kind, good) in enumerate(zip(kinds, fits, strict=True)):
                kept = [child for child, ok in zip(kind, good, strict=True) if ok][: need[i]]
                found[i].extend(kept)
            need = [need[i] - sum(fits[i][: len(fits[i])]) for i in range(2)]
            need = [max(n, 0) for n in need]
            if not any(need):
                return found[0] + found[1]
        for i, (kind, good) in enumerate(zip(kinds, fits, strict=True)):
            broken = [child for child, ok in zip(kind, good, strict=True) if not ok][: need[i]]
            if broken:
                self.repaired += len(broken)
                found[i].extend(self.problem.region.repair(np.array(broken), self.rng))
        return found[0] + found[1]

    def meets_limits(self, row):
        return all(table(row[None])[0] <= limit for table, limit in self.limits)

    def best(self, candidates):
        """Candidates are (accuracy, network), older first; the k best distinct ones."""
        top, seen = [], set()
        for accuracy, row in sorted(candidates, key=lambda candidate: -candidate[0]):
            if tuple(row) not in seen and len(top) < self.k:
                seen.add(tuple(row))
                top.append((accuracy, row))
        return top

    def evaluate(self, rows):
        self.log.append(np.array(rows))
        return list(zip(self.problem.evaluate_raw(np.array(rows))["acc"], rows, strict=True))

    def run(self, rounds):
        population = self.problem.draw(self.n, self.rng)
        top = self.best(self.evaluate(list(population)))
        for _ in range(rounds):
            parents = [row for _, row in top]
            top = self.best(top + self.evaluate(self.children(parents)))
        return top


class Log:
    def __init__(self):
        self.X = []

    def __call__(self, algorithm):
        self.X.append(algorithm.off.get("X"))


@pytest.mark.parametrize(
    ("space", "quantile", "options"),
    [
        ("digits", 0.3, {}),
        ("digits", 0.001, {"max_redraws": 0}),
        ("digits", None, {"pop_size": 31, "n_top": 7, "prob": 0.3}),
        ("imagenet", 0.05, {"pop_size": 40}),
    ],
)
def test_equals_a_plain_loop_bit_for_bit(problem_of, space, quantile, options):
    start = "uniform" if "max_redraws" in options else "sizes"  # of which none need repair
    problem = problem_of(space, ("acc",), quantile, start)
    log = Log()
    algorithm = ApqGA(callback=log, **options)
    result = minimize(problem, algorithm, ("n_gen", 36), seed=11, copy_algorithm=False)
    names = {"pop_size": "n", "n_top": "k"}
    twin = PlainLoop(problem, 11, **{names.get(key, key): v for key, v in options.items()})
    top = twin.run(35)
    assert len(log.X) == len(twin.log) == 36
    for ours, theirs in zip(log.X, twin.log, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(result.pop.get("X"), [row for _, row in top])
    np.testing.assert_array_equal(-result.pop.get("F")[:, 0], [accuracy for accuracy, _ in top])
    if "max_redraws" in options:
        assert twin.repaired > 0  # so that repair is part of the comparison


def test_every_candidate_meets_the_limits_and_evaluations_are_counted(problem_of):
    problem = problem_of("digits", ("acc",), 0.02, size=1e6)
    log = Log()
    algorithm = ApqGA(callback=log)
    result = minimize(problem, algorithm, ("n_gen", 21), seed=0, copy_algorithm=False)
    assert [len(X) for X in log.X] == [100] * 21
    assert result.algorithm.evaluator.n_eval == 100 * (20 + 1)
    assert problem.feasible_rows(np.vstack(log.X)).all()
    assert len(np.unique(log.X[0], axis=0)) == 100


def test_search_beats_its_first_sample(problem_of):
    problem = problem_of("imagenet", ("acc",), 0.02)
    first = minimize(problem, ApqGA(), ("n_gen", 1), seed=0)
    later = minimize(problem, ApqGA(), ("n_gen", 30), seed=0)
    assert -later.F[0] > -first.F[0] + 2


def test_a_limit_with_a_single_network_ends(problem_of):
    from apq_moo.hardware import minimum

    free = problem_of("digits", ("latency",))
    table = cost_table(free.space, "latency")
    _, row = minimum(table, free.feasible)
    problem = problem_of("digits", ("acc",), latency=float(table(row[None])[0]))
    result = minimize(problem, ApqGA(pop_size=20), ("n_gen", 5), seed=0)
    assert result.algorithm.evaluator.n_eval == 100
    assert problem.feasible_rows(result.pop.get("X")).all()


def test_top_is_distinct_and_ties_keep_the_older(problem_of):
    problem = problem_of("digits", ("acc",))
    rng = np.random.default_rng(0)
    search = TopK([problem.region], [rng], pop_size=8, n_top=4, prob=0.1, max_redraws=1)
    index = problem.space.block_index(problem.region.sample(6, rng))
    rows = index[[0, 1, 2, 1, 3, 0, 4, 5]]
    F = np.array([5.0, 3.0, 3.0, 3.0, 1.0, 5.0, 3.0, 9.0])
    assert search.tell(0, rows[:3], np.zeros(3), F[:3]).tolist() == [1, 2, 0]
    # The new ones are 3 to 7; what is known comes first.
    assert search.tell(0, rows[3:], np.zeros(5), F[3:]).tolist() == [4, 0, 1, 6]
    np.testing.assert_array_equal(search.index[0], index[[3, 1, 2, 4]])


@pytest.mark.parametrize("quantile", [None, 0.3, 0.01])
def test_searches_side_by_side_take_the_same_course_as_alone(problem_of, quantile):
    """Limits, populations' worth and sizes of Top_k differ from search to search."""
    problems = [
        problem_of("digits", ("acc",), quantile and quantile * share) for share in (1.0, 2.5, 0.7)
    ]

    def run(chosen):
        rngs = [np.random.default_rng([3, i]) for i in chosen]
        regions = [problems[i].region for i in chosen]
        search = TopK(regions, rngs, pop_size=20, n_top=6, prob=0.2, max_redraws=2)
        course = {i: [] for i in chosen}
        for _ in range(12):
            known = len(search.index[0])
            parts = (
                search.children(range(len(chosen)))
                if known
                else [
                    problems[i].space.block_index(problems[i].draw(20, rng))
                    for i, rng in zip(chosen, rngs, strict=True)
                ]
            )
            for place, (i, index) in enumerate(zip(chosen, parts, strict=True)):
                X = problems[i].space.from_block_index(index)
                assert problems[i].region.contains(X).all()
                acc = problems[i].evaluate_raw(X)["acc"]
                search.tell(place, index, np.zeros(len(acc)), -acc)
                course[i].append(X)
        return course

    together = run([0, 1, 2])
    for i in range(3):
        np.testing.assert_array_equal(run([i])[i], together[i])


def test_a_limit_on_accuracy_ranks_what_breaks_it_last(problem_of):
    free = problem_of("digits", ("latency",))
    problem = problem_of("digits", ("latency",), acc=70.0)
    result = minimize(problem, ApqGA(pop_size=40, n_top=10), ("n_gen", 40), seed=0)
    accuracy = problem.evaluate_raw(result.pop.get("X"))["acc"]
    assert (accuracy >= 70).all()
    cheapest = minimize(free, ApqGA(pop_size=40, n_top=10), ("n_gen", 40), seed=0)
    assert problem.evaluate_raw(cheapest.X)["acc"][0] < 70
    assert cheapest.F[0] < result.F[0]


# -- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pop_size": 1}, "pop_size must be at least 2, not 1"),
        ({"n_top": 0}, "n_top must be at least 1, not 0"),
        ({"prob": 0.0}, r"prob must lie in \(0, 1\], not 0.0"),
        ({"max_redraws": -1}, "max_redraws must be at least 0, not -1"),
    ],
)
def test_arguments_out_of_range_are_named(options, message):
    with pytest.raises(UserError, match=message):
        ApqGA(**options)


def test_several_objectives_are_refused(problem_of):
    with pytest.raises(UserError, match="one objective, not acc, latency; keep one and limit"):
        ApqGA().setup(problem_of("digits"), seed=0)


def test_other_problems_are_refused():
    with pytest.raises(UserError, match="apq-ga needs an APQProblem"):
        ApqGA().setup(get_problem("sphere"), seed=0)

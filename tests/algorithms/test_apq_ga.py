"""APQ's evolution against a plain loop that follows Algorithm 1 one network at a time."""

import numpy as np
import pytest
from pymoo.core.population import Population
from pymoo.optimize import minimize
from pymoo.problems import get_problem

from apq_moo.algorithms import ApqGA
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

    def crossover(self, top, n):
        k = len(top)
        first = self.rng.integers(0, k, size=n)
        second = (first + self.rng.integers(1, max(k, 2), size=n)) % k
        coins = self.rng.random((n, self.n_units))
        children = []
        for i in range(n):
            a, b = top[first[i]], top[second[i]]
            child = np.zeros(self.space.n_var, dtype=int)
            for d in range(self.n_depth):
                child[d] = b[d] if coins[i, d] < 0.5 else a[d]
            for block in range(self.space.n_blocks):
                if not self.active(child, block):
                    continue
                donor = b if coins[i, self.n_depth + block] < 0.5 else a
                if not self.active(donor, block):
                    donor = a if donor is b else b
                child[self.genes(block)] = donor[self.genes(block)]
            children.append(child)
        return children

    def mutation(self, top, n):
        parents = self.rng.integers(0, len(top), size=n)
        chosen = self.rng.random((n, self.n_units))
        u = self.rng.random((n, self.n_units))
        children = []
        for i in range(n):
            parent = top[parents[i]]
            child = parent.copy()
            for stage, column in self.space.depth_columns.items():
                if chosen[i, column] < self.prob:
                    child[column] = int(u[i, column] * len(self.space.spec.stages[stage].depths))
            for block in range(self.space.n_blocks):
                unit = self.n_depth + block
                if not self.active(child, block):
                    child[self.genes(block)] = 0
                elif chosen[i, unit] < self.prob or not self.active(parent, block):
                    options = np.flatnonzero(self.problem.feasible[block])
                    option = options[int(u[i, unit] * len(options))]
                    child[self.genes(block)] = self.space.block_genes(block, option)
            children.append(child)
        return children

    def meets_limits(self, row):
        return all(table(row[None])[0] <= limit for table, limit in self.limits)

    def constrained(self, vary, top, n):
        children = vary(top, n)
        for _ in range(self.max_redraws):
            broken = [i for i in range(n) if not self.meets_limits(children[i])]
            if not broken:
                return children
            for i, child in zip(broken, vary(top, len(broken)), strict=True):
                children[i] = child
        self.repaired += sum(not self.meets_limits(child) for child in children)
        return list(self.problem.region.repair(np.array(children), self.rng))

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
        population = self.problem.region.sample(self.n, self.rng)
        top = self.best(self.evaluate(list(population)))
        for _ in range(rounds):
            parents = [row for _, row in top]
            children = self.constrained(self.crossover, parents, self.n // 2)
            children += self.constrained(self.mutation, parents, self.n - self.n // 2)
            top = self.best(top + self.evaluate(children))
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
        ("digits", 0.001, {"max_redraws": 1}),
        ("digits", None, {"pop_size": 31, "n_top": 7, "prob": 0.3}),
        ("imagenet", 0.05, {"pop_size": 40}),
    ],
)
def test_equals_a_plain_loop_bit_for_bit(problem_of, space, quantile, options):
    problem = problem_of(space, ("acc",), quantile)
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
    X = problem.region.sample(6, np.random.default_rng(0))
    rows = X[[0, 1, 2, 1, 3, 0, 4, 5]]
    F = np.array([5.0, 3.0, 3.0, 3.0, 1.0, 5.0, 3.0, 9.0])[:, None]
    population = Population.new(X=rows, F=F, G=np.zeros((8, 1)))
    top = ApqGA(n_top=4)
    top.problem = problem
    np.testing.assert_array_equal(top._top(population).get("X"), X[[3, 1, 2, 4]])


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

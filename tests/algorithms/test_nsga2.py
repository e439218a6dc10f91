"""NSGA-II on columns against pymoo's own."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2, binary_tournament
from pymoo.core.population import Population
from pymoo.operators.selection.tournament import TournamentSelection
from pymoo.optimize import minimize

from apq_moo.algorithms.pymoo.nsga2 import QuickNSGA2, QuickPopulation
from apq_moo.algorithms.pymoo.tournaments import by_dominance
from apq_moo.problems import APQProblem
from apq_moo.space import Layout, Space


def test_nsga2_tournaments_decide_as_pymoos_do():
    """Everywhere but in ties, which either draws from its generator."""
    rng = np.random.default_rng(0)
    n = 60
    F = rng.integers(0, 5, (n, 2)).astype(float)
    G = np.maximum(rng.integers(-3, 3, (n, 1)), 0).astype(float)
    pop = Population.new(X=np.arange(n)[:, None], F=F, G=G)
    pop.set("crowding", rng.integers(0, 4, n).astype(float))
    pop.set("rank", np.zeros(n, dtype=int))
    P = rng.integers(0, n, (4000, 2))

    def theirs(seed):
        algorithm = SimpleNamespace(
            tournament_type="comp_by_dom_and_crowding", random_state=np.random.default_rng(seed)
        )
        return binary_tournament(pop, P, algorithm)[:, 0]

    def ours(seed):
        return by_dominance(pop, P, np.random.default_rng(seed))[:, 0]

    runs = np.array([theirs(seed) for seed in range(12)])
    decided = (runs == runs[0]).all(axis=0)
    assert 0.6 < decided.mean() < 0.97
    assert (ours(0)[decided] == runs[0][decided]).all()
    # Ties go either way; a pair of one individual is no tie.
    both = np.array([ours(seed) for seed in range(12)])
    tied = ~decided & (P[:, 0] != P[:, 1])
    assert (both[:, tied] != both[0, tied]).any(axis=0).mean() > 0.99


def test_nsga2_takes_the_same_course_as_pymoos(problem_of):
    for quantile in (None, 0.05):
        problem = problem_of("digits", ("acc", "latency"), quantile)
        selection = TournamentSelection(func_comp=by_dominance)
        plain = NSGA2(pop_size=40, selection=selection, **problem.operators())
        quick = QuickNSGA2(pop_size=40, **problem.operators())
        runs = [minimize(problem, made, ("n_gen", 15), seed=4) for made in (plain, quick)]
        for part in ("X", "F", "rank"):
            np.testing.assert_array_equal(*(run.pop.get(part) for run in runs))
        np.testing.assert_array_equal(runs[0].opt.get("X"), runs[1].opt.get("X"))
    assert isinstance(runs[1].pop, QuickPopulation)
    names = ("X", "F", "G", "CV", "FEAS", "rank", "crowding", "n_gen")
    for ours, theirs in zip(
        runs[1].pop.get(*names), runs[1].pop.view(Population).get(*names), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_nothing_is_encoded_in_a_round(monkeypatch):
    """Individuals remember the numbers of their blocks' configurations."""
    problem = APQProblem("digits", ("latency", "params"))
    algorithm = QuickNSGA2(pop_size=30, **problem.operators())
    algorithm.setup(problem, termination=("n_gen", 6), seed=1)
    algorithm.next()
    calls = Counter()

    def counting(owner, name):
        method = getattr(owner, name)

        def counted(*args, **kwargs):
            calls[name] += 1
            return method(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    for owner, name in ((Space, "canonical"), (Space, "block_index"), (Layout, "number")):
        counting(owner, name)
    while algorithm.has_next():
        algorithm.next()
    assert calls["canonical"] == calls["block_index"] == 0
    assert 5 <= calls["number"] < 20  # once for each mating

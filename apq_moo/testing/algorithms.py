"""What every search algorithm promises."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import ClassVar, TypeAlias

import numpy as np
import pytest
from pymoo.core.algorithm import Algorithm
from pymoo.core.evaluator import Evaluator
from pymoo.core.individual import Individual
from pymoo.core.population import Population
from pymoo.core.termination import NoTermination
from pymoo.termination import get_termination

from apq_moo.algorithms import AlgorithmEntry, AlgorithmFactory
from apq_moo.algorithms.strategy import Context
from apq_moo.problems import AdditiveSource, APQProblem, additive_surrogate
from apq_moo.space import Space
from apq_moo.study.epsilon_constraint import strategy_of
from apq_moo.testing.checks import Suite, global_generators, missing
from apq_moo.testing.strategies import check_resuming, contexts_of, limited_problem

ProblemMaker: TypeAlias = Callable[[float], APQProblem]
"""Makes a problem whose limit on latency is that quantile of random networks' latencies."""


class AlgorithmConformance(Suite):
    """Checks of an algorithm: subclass it and override ``algorithm``.

    Fixtures:
        algorithm: an :class:`AlgorithmEntry`, or a factory ``(problem, pop_size, **needs)`` of a
            multi-objective algorithm without needs; has to be overridden.
        space: the space to search; by default the preset ``digits``.
        make_problem: a :data:`ProblemMaker`; by default of accuracy by the additive predictor, and
            latency too where the algorithm takes several objectives.

    Attributes:
        pop_size: what the factory is given.
        draws: whether the algorithm is random, so that another seed gives another run.
        elitist: whether the network that is best in the first objective always stays in the
            optimum.
        asks_its_context: whether it asks for accuracies only of networks that it has evaluated, so
            that it costs none to run it again.
    """

    pop_size: ClassVar[int] = 30
    draws: ClassVar[bool] = True
    elitist: ClassVar[bool] = True
    asks_its_context: ClassVar[bool] = True

    @pytest.fixture
    def algorithm(self) -> AlgorithmEntry | AlgorithmFactory:
        """The algorithm."""
        raise missing("algorithm")

    @pytest.fixture
    def entry(self, algorithm: AlgorithmEntry | AlgorithmFactory) -> AlgorithmEntry:
        """The algorithm as an entry."""
        return as_entry(algorithm)

    @pytest.fixture
    def make_problem(self, entry: AlgorithmEntry, space: Space) -> ProblemMaker:
        """Makes the problem under limits of various tightness."""
        return problems_for(entry, space)

    def _drive(
        self, entry: AlgorithmEntry, problem: APQProblem, budget: int, seed: int = 0
    ) -> tuple[Algorithm, Population]:
        return drive(entry, problem, budget, seed=seed, pop_size=self.pop_size)

    def _check_optimum(self, problem: APQProblem, algorithm: Algorithm, seen: Population) -> None:
        """Where anything feasible was seen, the optimum is feasible and as good as the best."""
        feasible = seen[problem.feasible_rows(seen.get("X"))]
        if not len(feasible):
            return
        opt = algorithm.opt
        assert opt is not None, "it has no optimum"
        assert problem.feasible_rows(opt.get("X")).all(), "its optimum is not feasible"
        found, best = opt.get("F")[:, 0].min(), feasible.get("F")[:, 0].min()
        assert found >= best, f"its optimum has {found}, but the best evaluated is {best}"
        if self.elitist:
            assert found == best, f"its optimum has {found}, but it has seen {best}"

    def test_says_what_it_is(self, entry: AlgorithmEntry) -> None:
        """A name, a line about it, and where it comes from."""
        for field in ("name", "summary", "citation"):
            text = getattr(entry, field)
            assert len(text.splitlines()) == 1, f"{field} must be one line of text, not {text!r}"
        assert entry.kind in {"single-objective-sweep", "multi-objective"}
        assert entry.least_objectives >= 1
        known = {"budget", "surrogate", "refit"}
        assert set(entry.needs) <= known, f"needs {entry.needs}; a run offers {sorted(known)}"

    @pytest.mark.parametrize("budget", [7, 30, 100])
    def test_ask_and_tell_with_a_cut_last_batch(
        self, entry: AlgorithmEntry, make_problem: ProblemMaker, budget: int
    ) -> None:
        """The budget is spent to the last evaluation, or the algorithm says that it has ended."""
        problem = make_problem(0.1)
        algorithm, seen = self._drive(entry, problem, budget)
        assert 0 < len(seen) <= budget
        assert len(seen) == budget or not algorithm.has_next(), (
            f"it asks for nothing after {len(seen)} evaluations, and has_next() is still true"
        )
        _check_genotypes(problem, seen)
        self._check_optimum(problem, algorithm, seen)

    def test_runs_depend_on_the_seed_only(
        self, entry: AlgorithmEntry, make_problem: ProblemMaker
    ) -> None:
        """The same seed gives the same networks in the same order, another seed others."""
        problem = make_problem(0.1)
        runs = [self._drive(entry, problem, 100, seed)[1].get("X") for seed in (3, 3, 4)]
        assert np.array_equal(runs[0], runs[1]), "the same seed gives another run"
        if self.draws:
            assert not np.array_equal(runs[0], runs[2]), "another seed gives the same run"

    def test_randomness_comes_from_pymoo_only(
        self, entry: AlgorithmEntry, make_problem: ProblemMaker
    ) -> None:
        """Global generators neither matter nor move."""
        problem = make_problem(0.1)
        runs = []
        for seed in (1, 2):
            with global_generators(seed):
                runs.append(self._drive(entry, problem, 70)[1].get("X"))
        assert np.array_equal(runs[0], runs[1]), "a global generator's seed matters"

    def test_asking_and_minimising_agree(
        self, entry: AlgorithmEntry, make_problem: ProblemMaker
    ) -> None:
        """The loop of pymoo finds what asking and telling does."""
        problem = make_problem(0.1)
        budget = 3 * self.pop_size
        looped = _make(entry, problem, budget, self.pop_size)
        looped.setup(problem, termination=get_termination("n_eval", budget), seed=5)
        rounds = 0
        while looped.has_next():
            looped.next()
            rounds += 1
            assert rounds <= budget, "rounds without evaluations never end"
        asked = _make(entry, problem, budget, self.pop_size)
        _spend(asked, problem, looped.evaluator.n_eval, seed=5)
        assert np.array_equal(looped.pop.get("X"), asked.pop.get("X"))

    def test_goes_on_where_it_was_stopped(
        self, entry: AlgorithmEntry, make_problem: ProblemMaker
    ) -> None:
        """A stopped run ends as an undisturbed one, see :class:`StrategyConformance`."""
        problem = make_problem(0.1)
        if entry.swept:
            problem = problem.with_limits(problem.constraints, ("acc", "latency"))
        surrogate = _surrogate(entry, problem.space)
        make = contexts_of(strategy_of(entry), problem, self.pop_size, surrogate)
        check_resuming(lambda: strategy_of(entry), make, counts=self.asks_its_context)

    def test_tight_limits(self, entry: AlgorithmEntry, make_problem: ProblemMaker) -> None:
        """Where one random network in a thousand is feasible, some feasible one is found."""
        problem = make_problem(0.001)
        algorithm, seen = self._drive(entry, problem, 300)
        assert problem.feasible_rows(seen.get("X")).any(), "it finds no feasible network"
        self._check_optimum(problem, algorithm, seen)


def as_entry(algorithm: AlgorithmEntry | AlgorithmFactory) -> AlgorithmEntry:
    """An entry as it is; a factory as the entry of a multi-objective algorithm."""
    if isinstance(algorithm, AlgorithmEntry):
        return algorithm
    return AlgorithmEntry("plug-in", algorithm, "multi-objective", "none", "not registered")


def problems_for(entry: AlgorithmEntry, space: Space) -> ProblemMaker:
    """Problems that an algorithm takes: accuracy by the additive predictor under limited latency.

    Args:
        entry: the algorithm.
        space: a space with samples among the shipped assets.
    """
    objectives = ("acc", "latency") if entry.kind == "multi-objective" else ("acc",)
    return lambda quantile: limited_problem(space, quantile, objectives)


def drive(
    entry: AlgorithmEntry, problem: APQProblem, budget: int, *, seed: int = 0, pop_size: int = 30
) -> tuple[Algorithm, Population]:
    """Ask, evaluate and tell until a budget is spent; the last batch is cut to what is left.

    Args:
        entry: the algorithm.
        problem: the problem.
        budget: evaluations.
        seed: of the algorithm.
        pop_size: what the factory is given.

    Returns:
        The algorithm, and everything that was evaluated, in order.

    Raises:
        AssertionError: it asks for nothing at all.
    """
    algorithm = _make(entry, problem, budget, pop_size)
    seen = _spend(algorithm, problem, budget, seed)
    assert len(seen), f"{entry.name} asks for nothing"
    return algorithm, seen


def _spend(algorithm: Algorithm, problem: APQProblem, budget: int, seed: int) -> Population:
    """Everything that an algorithm had evaluated; see :func:`drive`."""
    algorithm.setup(problem, termination=NoTermination(), seed=seed)
    evaluator = Evaluator()
    seen: list[Individual] = []
    while len(seen) < budget and algorithm.has_next():
        infills = algorithm.ask()
        if infills is None or len(infills) == 0:
            break
        infills = infills[: budget - len(seen)]
        evaluator.eval(problem, infills)
        algorithm.tell(infills=infills)
        seen += list(infills)
    return Population.create(*seen)


def _make(entry: AlgorithmEntry, problem: APQProblem, budget: int, pop_size: int) -> Algorithm:
    """An algorithm with what it needs."""
    surrogate = _surrogate(entry, problem.space)
    return entry.make(Context(problem, budget, 0, pop_size, surrogate=surrogate))


def _surrogate(entry: AlgorithmEntry, space: Space) -> AdditiveSource | None:
    return _additive(space) if "surrogate" in entry.needs else None


@lru_cache(maxsize=4)
def _additive(space: Space) -> AdditiveSource:
    return additive_surrogate(None, space)


def _check_genotypes(problem: APQProblem, seen: Population) -> None:
    """Canonical integers."""
    X = seen.get("X")
    assert X.dtype.kind in "iu", f"genotypes are of dtype {X.dtype}, not integers"
    assert np.array_equal(X, problem.genotypes(X)), "genotypes are not canonical or out of bounds"

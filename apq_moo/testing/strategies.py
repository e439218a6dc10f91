"""What every search promises, whatever it is made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import islice
from typing import ClassVar, TypeAlias

import numpy as np
import pytest

from apq_moo.algorithms.strategy import Context, Replay, Strategy
from apq_moo.arrays import FloatArray, IntArray
from apq_moo.errors import UserError
from apq_moo.problems import AccuracySource, AdditiveSource, APQProblem
from apq_moo.problems.evaluated import Evaluated
from apq_moo.space import Space
from apq_moo.study.epsilon_constraint import with_parts
from apq_moo.study.record import pack, unpack
from apq_moo.testing.checks import Suite, global_generators, missing

StrategyMaker: TypeAlias = Callable[[], Strategy]

ContextMaker: TypeAlias = Callable[[int, int, Replay | None], Context]
"""Makes what a strategy is given from a budget, a seed, and what was evaluated before."""


class StrategyConformance(Suite):
    """Checks of a strategy: subclass it and override ``make_strategy``.

    Fixtures:
        make_strategy: makes the strategy, new each time; has to be overridden.
        space: the space to search; by default the preset ``digits``.
        make_context: a :data:`ContextMaker`; by default of accuracy by the additive predictor and
            latency under a limit, in populations of 20, swept over 3 limits where the strategy
            takes the parts of a context itself.

    Attributes:
        draws: whether it is random, so that another seed gives another run.
        asks_its_context: whether it asks for accuracies by its context alone, so that it costs
            none to run it again.
    """

    draws: ClassVar[bool] = True
    asks_its_context: ClassVar[bool] = True

    @pytest.fixture
    def make_strategy(self) -> StrategyMaker:
        """The strategy."""
        raise missing("make_strategy")

    @pytest.fixture
    def make_context(self, make_strategy: StrategyMaker, space: Space) -> ContextMaker:
        """What it is given."""
        return contexts_of(make_strategy(), limited_problem(space))

    def test_the_budget_is_kept(
        self, make_strategy: StrategyMaker, make_context: ContextMaker
    ) -> None:
        """Rounds are not empty, and end with the budget or before."""
        for budget in (60, 130):
            sizes = [len(part) for part in make_strategy().rounds(make_context(budget, 0, None))]
            assert sizes, "it evaluates nothing"
            assert all(sizes), "a round is empty"
            assert sum(sizes) <= budget, f"it evaluates {sum(sizes)} networks of {budget}"

    def test_networks_are_judged_by_the_users_limits(
        self, make_strategy: StrategyMaker, make_context: ContextMaker
    ) -> None:
        """Objectives and feasibility are those of the whole problem, whatever it searched under."""
        context = make_context(150, 1, None)
        found = Evaluated.join(list(make_strategy().rounds(context)))
        F, G = context.whole.evaluate_blocks(context.whole.space.block_index(found.genotypes))
        np.testing.assert_array_equal(found.F, F)
        np.testing.assert_array_equal(found.feasible, (G <= 0).all(axis=1))

    def test_runs_depend_on_the_seed_only(
        self, make_strategy: StrategyMaker, make_context: ContextMaker
    ) -> None:
        """The same seed gives the same networks in the same order; global generators stay."""
        runs = []
        for number, seed in enumerate((3, 3, 4)):
            with global_generators(number):
                parts = list(make_strategy().rounds(make_context(120, seed, None)))
            runs.append(Evaluated.join(parts).X)
        assert np.array_equal(runs[0], runs[1]), "the same seed gives another run"
        if self.draws:
            assert not np.array_equal(runs[0], runs[2]), "another seed gives the same run"

    def test_goes_on_where_it_was_stopped(
        self, make_strategy: StrategyMaker, make_context: ContextMaker
    ) -> None:
        """Run again from its record, or from its own state, it ends as if nothing had happened."""
        check_resuming(make_strategy, make_context, counts=self.asks_its_context)


class Counted(AccuracySource):
    """Counts the networks that a source is asked for."""

    def __init__(self, of: AccuracySource) -> None:
        super().__init__(of.name, of.space, of.digest)
        self.of, self.n = of, 0

    def predict_blocks(self, index: IntArray) -> FloatArray:
        """See :class:`AccuracySource`."""
        self.n += len(index)
        return self.of(index)


@lru_cache(maxsize=16)
def limited_problem(
    space: Space, quantile: float = 0.3, objectives: tuple[str, ...] = ("acc", "latency")
) -> APQProblem:
    """Accuracy by the additive predictor, and latency under a limit.

    Args:
        space: a space with samples among the shipped assets.
        quantile: of random networks' latencies, which is the limit.
        objectives: of the problem.
    """
    free = APQProblem(space, ("acc", "latency"), predictor="additive")
    probe = space.block_index(free.region.sample(500, np.random.default_rng(0)))
    limit = float(np.quantile(free.costs(probe)["latency"], quantile))
    return free.with_limits({"latency": limit}, objectives)


def contexts_of(
    strategy: Strategy,
    problem: APQProblem,
    pop_size: int = 20,
    surrogate: AdditiveSource | None = None,
) -> ContextMaker:
    """What a strategy is given on a problem: swept over 3 limits where it takes parts."""

    def make(budget: int, seed: int, replay: Replay | None = None) -> Context:
        of = problem
        if problem.accuracy is not None:
            of = problem.with_accuracy(Counted(problem.accuracy))
        context = Context(
            of, budget, seed, pop_size, surrogate=surrogate, replay=replay or Replay()
        )
        return with_parts(context, 3) if strategy.takes_parts else context

    return make


def check_resuming(
    make_strategy: StrategyMaker, make_context: ContextMaker, *, counts: bool = True
) -> None:
    """Check that a stopped search ends as an undisturbed one.

    Args:
        make_strategy: makes the strategy.
        make_context: makes what it is given.
        counts: whether a strategy that is run again may ask for no accuracy that is recorded.

    Raises:
        AssertionError: it takes another course, asks for known accuracies, or cannot go on.
    """
    budget, seed = 160, 6
    undisturbed = list(make_strategy().rounds(make_context(budget, seed, None)))
    for stop in sorted({1, len(undisturbed) // 2} - {0}):
        stopped = make_strategy()
        known = list(islice(stopped.rounds(make_context(budget, seed, None)), stop))
        state, record = stopped.dump(), Evaluated.join(known)
        context = make_context(budget, seed, Replay(record))
        try:
            again = list(make_strategy().rounds(context))
        except UserError as error:
            raise AssertionError(f"it cannot be run again: {error}") from error
        _check_same(again, undisturbed, "run again from its record")
        if counts and isinstance(context.whole.accuracy, Counted):
            twice = context.whole.accuracy.n - (sum(map(len, again)) - len(record))
            assert twice <= 0, f"it asks for {twice} accuracies that are recorded"
        if state is not None:
            arrays: dict[str, np.ndarray] = {}
            stored = unpack(json.loads(json.dumps(pack(state, arrays))), arrays)
            resumed = make_strategy()
            try:
                resumed.load(stored)
                parts = [*known, *resumed.rounds(make_context(budget, seed, None))]
            except UserError as error:
                raise AssertionError(f"it does not go on from its state: {error}") from error
            _check_same(parts, undisturbed, "from its own state")


def _check_same(parts: Sequence[Evaluated], expected: Sequence[Evaluated], how: str) -> None:
    found, wanted = Evaluated.join(parts), Evaluated.join(expected)
    for name in ("X", "F", "feasible"):
        same = np.array_equal(getattr(found, name), getattr(wanted, name))
        assert same, f"{how}, it takes another course: {name} differs"

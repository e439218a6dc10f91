"""What systems share that train a distribution over networks, and return networks of it.

Such a system has no hard limit: a cost in its loss pulls towards one. So its budget goes to several
trials, each of which trains a distribution under another weight of the cost, and scores the most
probable network and draws that meet the limits; the weight goes up or down until the most
probable network just meets them.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from apq_moo.algorithms.base import check_least
from apq_moo.algorithms.baselines.choice import Choice
from apq_moo.algorithms.baselines.descent import Adam, WeightSearch
from apq_moo.algorithms.baselines.distribution import Distribution, Probabilities
from apq_moo.algorithms.baselines.reference import reference_network
from apq_moo.algorithms.baselines.system import Asking, System, Target
from apq_moo.arrays import FloatArray, IntArray
from apq_moo.errors import UserError, shown
from apq_moo.problems import APQProblem
from apq_moo.problems.trained import TrainedNetwork, require_trained

CHUNK = 20
"""Networks that are scored between two rounds."""

_ATTEMPTS = 24

_ROUNDING = 1e-12

LOSSES = ("add", "mul")


class Goal:
    """The limits as one cost that adds up: the mean of costs over limits, 1 where all just hold.

    Args:
        problem: with the limits.
        model: the candidates.

    Attributes:
        region: the networks within the limits.
        costs: of each block's candidates, shape ``(n_candidates,)``.
        fixed: of the other layers.
        limited: whether there are limits.
    """

    def __init__(self, problem: APQProblem, model: Distribution) -> None:
        self.region = problem.region
        limits = self.region.limits
        self.limited, n = bool(limits), max(1, len(limits))
        self.fixed = sum(table.fixed / limit for table, limit in limits) / n
        self.costs: list[FloatArray] = []
        for b, of in enumerate(model.blocks):
            parts = [table.blocks[b][of.numbers] / limit for table, limit in limits]
            total = np.sum(parts, axis=0) / n if parts else np.zeros(len(of.numbers))
            # Blocks that the network never has may have no configuration.
            self.costs.append(np.where(np.isfinite(total), total, 0.0))


@dataclass
class Trial:
    """A distribution in training.

    Attributes:
        model: the distribution.
        goal: the limits.
        weight: of the cost.
        rng: source of randomness.
        evaluations: that the training may spend.
        seen: networks that were scored, with their accuracies.
    """

    model: Distribution
    goal: Goal
    weight: float
    rng: np.random.Generator
    evaluations: int
    seen: dict[bytes, float]

    def unseen(self, index: IntArray) -> IntArray:
        """The networks that were not scored yet, each once."""
        keys: dict[bytes, int] = {}
        for row, network in enumerate(index):
            key = key_of(network)
            if key not in self.seen:
                keys.setdefault(key, row)
        return index[list(keys.values())]

    def scored(self, index: IntArray) -> Asking[None]:
        """Have networks scored that were not yet."""
        new = self.unseen(index)
        if len(new):
            scores = yield new
            for network, score in zip(new, scores, strict=True):
                self.seen[key_of(network)] = float(score)

    def picks(self, n: int) -> IntArray:
        """Networks within the limits that were not scored: the most probable one, then draws.

        Where draws exceed the limits, cheaper networks become more probable; where they are known
        already, all become more alike.
        """
        model, region = self.model, self.goal.region
        first = self._best()
        found: IntArray = first if first is not None else np.empty((0, model.space.n_blocks), int)
        tilt, temperature = 0.0, 1.0
        for _ in range(_ATTEMPTS):
            found = self.unseen(found)
            if len(found) >= n:
                break
            p = model.tilted(model.probabilities(temperature), self.goal.costs, tilt)
            drawn = model.networks(*model.sample(max(64, 4 * n), p, self.rng))
            inside = region.contains_blocks(drawn)
            found = np.vstack([found, drawn[inside]])
            if inside.mean() < 0.1:
                tilt = max(2 * tilt, 1.0)
            else:
                temperature *= 1.5
        return self.unseen(found)[:n]

    def _best(self) -> IntArray | None:
        """The most probable network, with as little of a tilt as it needs; shape (1, n_blocks)."""
        model, low, high = self.model, 0.0, 1.0
        p = model.probabilities()

        def at(tilt: float) -> IntArray:
            return model.mode(model.tilted(p, self.goal.costs, tilt))[None]

        def fits(tilt: float) -> bool:
            return bool(self.goal.region.contains_blocks(at(tilt))[0])

        if fits(0.0):
            return at(0.0)
        while not fits(high):
            low, high = high, 4 * high
            if high > 1e9:
                return None
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (low, middle) if fits(middle) else (middle, high)
        return at(high)


Learning: TypeAlias = Generator[IntArray, FloatArray, int]
"""Trains a trial's distribution; may ask for scores, and returns how many it asked for.

What it pays for steps it adds to the target's account."""


class TrainedChoices(System):
    """Trains a distribution over networks under a cost, and scores networks of it.

    Args:
        share: of the budget that goes to training.
        trials: distributions that are trained, under different weights of the cost.
        steps: most that one of them is trained for; what is left scores networks.
        rate: Adam's learning rate.
        loss: ``add`` or ``mul``, see :class:`Loss`.
        weight: of the cost, in the first trial.
        batch_size: training images of a step.
        steps_per_evaluation: gradient steps that count as one scored network; 0 to count the images
            that a step runs, forward and backward, over those of scoring a network.
        faithful: slips to repeat.

    Raises:
        UserError: a parameter is out of range.
    """

    without_gradients: ClassVar[str] = ""
    """What to use where there is no supernet, for the message."""

    def __init__(
        self,
        share: float,
        trials: int,
        steps: int,
        rate: float,
        loss: str,
        weight: float,
        batch_size: int,
        steps_per_evaluation: float,
        faithful: str,
    ) -> None:
        check_least(1, trials=trials, steps=steps, batch_size=batch_size)
        if not 0 <= share < 1:
            raise UserError(f"{self.title}: share must lie in [0, 1), not {shown(share)}")
        for name, value in (("rate", rate), ("weight", weight)):
            if not 0 < value < math.inf:
                raise UserError(f"{self.title}: {name} must be positive, not {shown(value)}")
        if not 0 <= steps_per_evaluation < math.inf:
            raise UserError(
                f"{self.title}: steps_per_evaluation must be positive, or 0 to count images, not "
                f"{shown(steps_per_evaluation)}"
            )
        self._known(loss=(loss, LOSSES))
        self.share, self.trials, self.steps, self.rate = share, trials, steps, rate
        self.loss, self.weight, self.batch_size = loss, weight, batch_size
        self.steps_per_evaluation = steps_per_evaluation
        self._choose_slips(faithful)
        self._network: TrainedNetwork | None = None

    def _known(self, **chosen: tuple[str, tuple[str, ...]]) -> None:
        """Check that names are among the known ones."""
        for name, (value, known) in chosen.items():
            if value not in known:
                raise UserError(
                    f"{self.title}: {name} must be one of {', '.join(known)}, not {shown(value)}"
                )

    # -- what systems bring ------------------------------------------------------------------------

    @abstractmethod
    def distribution(self, choice: Choice) -> Distribution:
        """Over all that it chooses from."""

    @abstractmethod
    def learn(self, trial: Trial, target: Target) -> Learning:
        """Train a trial's distribution."""

    @property
    def descends(self) -> bool:
        """Whether it needs gradients of the supernet."""
        return True

    # -- searching ---------------------------------------------------------------------------------

    def check(self, problem: APQProblem, base: IntArray) -> None:
        """See :class:`System`."""
        super().check(problem, base)
        if self.descends and problem.accuracy is not None:
            try:
                require_trained(problem.accuracy)
            except UserError as error:
                raise UserError(
                    f"{self.title} needs the supernet of space "
                    f"{problem.space.name!r}{self.without_gradients}: {error}"
                ) from error

    def reach(self, target: Target, base: IntArray | None = None) -> Asking[Any]:
        """See :class:`System`."""
        start = reference_network(target.problem) if base is None else base
        (choice,) = self.choices(target.problem, start)
        model = self.distribution(choice)
        goal = Goal(target.problem, model)
        trials = self.trials if goal.limited else 1
        search, left, seen = WeightSearch(self.weight), target.budget, dict[bytes, float]()
        for number in range(min(trials, left)):
            model.logits[:] = 0
            part = -(-left // (trials - number))
            trial = Trial(model, goal, search.weight, target.rng, part, seen)
            before = target.account.paid
            asked = yield from self.learn(trial, target)
            spent = asked + target.account.paid - before
            mode = model.mode(model.probabilities())[None]
            search.tell(over=not goal.region.contains_blocks(mode)[0])
            picks = trial.picks(part - spent)
            for first in range(0, len(picks), CHUNK):
                yield from trial.scored(picks[first : first + CHUNK])
            left -= spent + len(picks)
        if left and not seen:  # of several limits, which no draw met together
            yield choice.cheapest()[None]

    # -- descending --------------------------------------------------------------------------------

    def _trained(self, problem: APQProblem) -> TrainedNetwork:
        if self._network is None:
            assert problem.accuracy is not None
            self._network = TrainedNetwork(problem.accuracy)
        return self._network

    def _price(self, network: TrainedNetwork, passes: float) -> float:
        """A step in evaluations.

        Args:
            network: what it runs on.
            passes: of a batch, forward or backward.
        """
        if self.steps_per_evaluation:
            return 1 / self.steps_per_evaluation
        return network.price(self.batch_size, passes)

    def _steps(self, trial: Trial, price: float) -> int:
        """Steps of a trial: what its share buys, with an evaluation left to score with.

        Args:
            trial: with its evaluations.
            price: of a step.
        """
        most = min(self.share * trial.evaluations, trial.evaluations - 1)
        return min(self.steps, int(most / price))

    @staticmethod
    def _pay(target: Target, evaluations: float) -> None:
        """Charge a target for steps, in whole evaluations."""
        paid = math.ceil(evaluations * (1 - _ROUNDING))
        target.account.paid += paid
        assert target.problem.accuracy is not None
        target.problem.accuracy.gradient_evaluations += paid


def descend(
    trial: Trial, adam: Adam, at: Probabilities, by: Probabilities, temperature: float = 1.0
) -> FloatArray:
    """Change a trial's logits by one step; returns the change."""
    change = adam.step(trial.model.back(at, by, temperature))
    trial.model.logits += change
    return change


def key_of(network: IntArray) -> bytes:
    """Names a network of shape ``(n_blocks,)``."""
    return np.ascontiguousarray(network, dtype=np.int64).tobytes()

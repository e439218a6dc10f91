"""ProxylessNAS: gradients through binary gates and expected costs; or REINFORCE.

H. Cai, L. Zhu and S. Han, ProxylessNAS: Direct Neural Architecture Search on Target Task and
Hardware, ICLR 2019.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from apq_moo.algorithms.base import check_least
from apq_moo.algorithms.baselines.candidates import ChannelLevels, architectures, block_of
from apq_moo.algorithms.baselines.choice import DEPTH, Choice
from apq_moo.algorithms.baselines.descent import Adam, Loss
from apq_moo.algorithms.baselines.distribution import (
    Distribution,
    Probabilities,
    added,
    through_softmax,
)
from apq_moo.algorithms.baselines.system import Target
from apq_moo.algorithms.baselines.trained_choices import (
    Learning,
    TrainedChoices,
    Trial,
    descend,
    key_of,
)
from apq_moo.arrays import FloatArray, IntArray
from apq_moo.problems import APQProblem
from apq_moo.problems.trained import TrainedNetwork
from apq_moo.space import Block

if TYPE_CHECKING:
    from torch import Tensor

ESTIMATORS = ("full", "two", "reinforce")

_MEMORY = 0.99
"""How much of itself REINFORCE's baseline keeps."""


class ProxylessNAS(TrainedChoices):
    """Chooses depths, kernels and channels of the reference network.

    A step draws one path, runs it on training images, and moves the logits by the gradients of its
    gates and of the expected cost. With ``two`` each choice has two candidates in a step, drawn by
    their probabilities, and the other probabilities stay. With ``reinforce`` scored accuracies of
    drawn networks take the place of gradients: the reward is ``acc / cost ** weight``.

    Args:
        estimator: ``full``, ``two`` or ``reinforce``.
        levels: channel numbers that a block chooses from.
        draws: networks of an update of ``reinforce``.
        share: see :class:`TrainedChoices`.
        trials: see :class:`TrainedChoices`.
        steps: see :class:`TrainedChoices`.
        rate: see :class:`TrainedChoices`.
        loss: see :class:`TrainedChoices`.
        weight: see :class:`TrainedChoices`.
        batch_size: see :class:`TrainedChoices`.
        steps_per_evaluation: see :class:`TrainedChoices`.
        faithful: slips to repeat, see :attr:`slips`.

    Raises:
        UserError: a parameter is out of range.
    """

    title = "proxylessnas"
    fields: ClassVar[tuple[str, ...]] = ("kernel", "channels", DEPTH)
    slips: ClassVar[dict[str, str]] = {
        "dropped-skips": "blocks that a path skips get no gradient at all, not even of their cost",
        "forgetful-baseline": "REINFORCE's baseline keeps a hundredth of itself, not all but one",
    }
    without_gradients = " (estimator=reinforce needs none)"

    def __init__(
        self,
        estimator: str = "full",
        levels: int = 3,
        draws: int = 10,
        share: float = 0.5,
        trials: int = 3,
        steps: int = 1000,
        rate: float = 0.1,
        loss: str = "add",
        weight: float = 0.1,
        batch_size: int = 64,
        steps_per_evaluation: float = 0.0,
        faithful: str = "",
    ) -> None:
        super().__init__(
            share, trials, steps, rate, loss, weight, batch_size, steps_per_evaluation, faithful
        )
        check_least(1, levels=levels, draws=draws)
        self._known(estimator=(estimator, ESTIMATORS))
        self.estimator, self.levels, self.draws = estimator, levels, draws

    @property
    def descends(self) -> bool:
        """See :class:`TrainedChoices`."""
        return self.estimator != "reinforce"

    def choices(self, problem: APQProblem, base: IntArray) -> list[Choice]:
        """See :class:`System`."""
        return [ChannelLevels(problem, base, self.fields, self.title, self.levels)]

    def distribution(self, choice: Choice) -> Distribution:
        """See :class:`TrainedChoices`."""
        return architectures(choice)

    def learn(self, trial: Trial, target: Target) -> Learning:
        """See :class:`TrainedChoices`."""
        if self.estimator == "reinforce":
            return (yield from self._reinforce(trial))
        network = self._trained(target.problem)
        counts = [len(of.numbers) for of in trial.model.blocks]
        again = float(np.mean(counts)) - 1 if self.estimator == "full" else 1.0
        price = self._price(network, 2 + again)
        steps = self._steps(trial, price)
        batches = network.batches(self.batch_size, int(trial.rng.integers(2**31)))
        adam, loss = Adam(len(trial.model.logits), self.rate), Loss(self.loss)
        for _, batch in zip(range(steps), batches, strict=False):
            descent = Path(trial, two=self.estimator == "two")
            entropy, gates = descent.gates(network, batch)
            descent.step(adam, loss, entropy, gates, skips=self.repeats("dropped-skips"))
        self._pay(target, steps * price)
        return 0

    def _reinforce(self, trial: Trial) -> Learning:
        model, goal = trial.model, trial.goal
        updates = min(self.steps, int(self.share * trial.evaluations) // self.draws)
        adam, baseline, spent = Adam(len(model.logits), self.rate), None, 0
        for _ in range(updates):
            p = model.probabilities()
            chosen, depths = model.sample(self.draws, p, trial.rng)
            index = model.networks(chosen, depths)
            spent += len(trial.unseen(index))
            yield from trial.scored(index)
            accuracies = np.array([trial.seen[key_of(network)] for network in index]) / 100
            costs = costs_of(model, chosen, depths, goal.costs, goal.fixed)
            rewards = accuracies * (costs**-trial.weight if goal.limited else 1.0)
            forgetful = self.repeats("forgetful-baseline")
            baseline = baseline_after(baseline, float(rewards.mean()), forgetful=forgetful)
            descend(trial, adam, p, policy_gradient(model, p, chosen, depths, rewards - baseline))
        return spent


def baseline_after(baseline: float | None, mean: float, *, forgetful: bool) -> float:
    """The moving average of rewards, which begins as the first ones' mean."""
    if baseline is None:
        return mean
    keeps = 1 - _MEMORY if forgetful else _MEMORY
    return keeps * baseline + (1 - keeps) * mean


def costs_of(
    model: Distribution, chosen: IntArray, depths: IntArray, costs: list[FloatArray], fixed: float
) -> FloatArray:
    """Costs of drawn networks, shape ``(n,)``."""
    parts = np.stack([cost[chosen[:, b]] for b, cost in enumerate(costs)], axis=1)
    total: FloatArray = fixed + (parts * model.active(depths)).sum(axis=1)
    return total


def policy_gradient(
    model: Distribution,
    p: Probabilities,
    chosen: IntArray,
    depths: IntArray,
    advantages: FloatArray,
) -> Probabilities:
    """Of minus the mean advantage, by the probabilities: R. Williams, REINFORCE, 1992."""
    total = model.nothing()
    for network, depth, advantage in zip(chosen, depths, advantages, strict=True):
        score = model.score(p, network, depth)
        total = added(total, score, -float(advantage) / len(chosen))
    return total


class Path:
    """One path, drawn by a trial's distribution, and what its gates say.

    Args:
        trial: what is trained.
        two: whether each choice is between two candidates, see :class:`ProxylessNAS`.

    Attributes:
        compared: for each block, and then each stage, what its choice is between.
        chosen: candidates of all blocks, on the path or not, shape ``(n_blocks,)``.
        depth: which depth each stage has, shape ``(n_stages,)``.
    """

    def __init__(self, trial: Trial, *, two: bool) -> None:
        self._trial, self._model = trial, trial.model
        self._p = self._model.probabilities()
        sets = _sets(self._p)
        if two:
            self.compared = [_pair(p, trial.rng) for p in sets]
            taken = [
                pair[_one(p[pair] / p[pair].sum(), trial.rng)]
                for p, pair in zip(sets, self.compared, strict=True)
            ]
        else:
            self.compared = [np.arange(len(p)) for p in sets]
            taken = [_one(p, trial.rng) for p in sets]
        n = len(self._model.blocks)
        self.chosen, self.depth = np.array(taken[:n]), np.array(taken[n:])
        self._two = two
        self._active = self._model.active(self.depth[None])[0]

    def gates(
        self, network: TrainedNetwork, batch: tuple[Tensor, Tensor]
    ) -> tuple[float, Probabilities]:
        """The cross entropy on a batch, and its derivatives by the gates that are compared.

        Those of others are 0.
        """
        from apq_moo.supernet.gates import StagePath

        model, stages = self._model, []
        n = len(model.blocks)
        for stage, blocks in enumerate(model.space.layout.stage_blocks):
            inside = range(blocks.start, blocks.start + int(model.depths[stage][-1]))
            depth = int(model.depths[stage][self.depth[stage]])
            stages.append(
                StagePath(
                    [self._block(b, self.chosen[b]) for b in inside],
                    depth,
                    [[self._block(b, j) for j in self.compared[b]] for b in inside[:depth]],
                    model.depths[stage][self.compared[n + stage]].tolist(),
                )
            )
        found = network.gates(batch, stages)
        gradient = model.nothing()
        for stage, blocks in enumerate(model.space.layout.stage_blocks):
            for position, values in enumerate(found.candidates[stage]):
                b = blocks.start + position
                gradient.blocks[b][self.compared[b]] = values
            gradient.depths[stage][self.compared[n + stage]] = found.depths[stage]
        return found.loss, gradient

    def _block(self, b: int, candidate: int) -> Block:
        return block_of(self._model.space, b, int(self._model.blocks[b].numbers[candidate]))

    def step(
        self, adam: Adam, loss: Loss, entropy: float, gates: Probabilities, *, skips: bool = False
    ) -> None:
        """Descend.

        Args:
            adam: the optimiser.
            loss: of cross entropy and cost.
            entropy: cross entropy of the path.
            gates: its derivatives by gates.
            skips: whether skipped blocks get no gradient.
        """
        trial, model = self._trial, self._model
        cost, by_cost = model.expected(self._p, trial.goal.costs, trial.goal.fixed)
        of_entropy, of_cost = loss.gradients(entropy, cost, trial.weight)
        of_cost = of_cost if trial.goal.limited else 0.0
        if skips:
            for b in np.flatnonzero(~self._active):
                by_cost.blocks[b][:] = 0
        if not self._two:
            scaled = added(model.nothing(), gates, of_entropy)
            descend(trial, adam, self._p, added(scaled, by_cost, of_cost))
            return
        gradient, places = np.zeros_like(model.logits), self._places()
        for place, pair, p, of_gates, of_costs in zip(
            places, self.compared, _sets(self._p), _sets(gates), _sets(by_cost), strict=True
        ):
            both = p[pair].sum()  # stays, so that a share of it changes the cost by as much
            by = of_entropy * of_gates[pair] + of_cost * both * of_costs[pair]
            gradient[place] = through_softmax(p[pair] / both, by)
        before = model.logits.copy()
        model.logits += adam.step(gradient)
        for place in places:
            model.logits[place] -= _total(model.logits[place]) - _total(before[place])

    def _places(self) -> list[IntArray]:
        """Where the logits of what is compared lie."""
        spans = self._model.spans
        return [
            np.arange(span.start, span.stop)[pair]
            for span, pair in zip(spans, self.compared, strict=True)
        ]


def _sets(of: Probabilities) -> list[FloatArray]:
    return [*of.blocks, *of.depths]


def _total(logits: FloatArray) -> float:
    """The logarithm of the sum of exponentials."""
    return float(np.logaddexp.reduce(logits))


def _one(p: FloatArray, rng: np.random.Generator) -> int:
    return int(np.searchsorted(np.cumsum(p)[:-1], rng.random(), side="right"))


def _pair(p: FloatArray, rng: np.random.Generator) -> IntArray:
    """Two candidates without replacement, by their probabilities; the only one where it is alone.

    Those with the largest logarithms plus Gumbel noise are such a draw.
    """
    with np.errstate(divide="ignore"):
        keys = np.log(p) + rng.gumbel(size=len(p))
    best: IntArray = np.sort(np.argsort(-keys, kind="stable")[:2])
    return best

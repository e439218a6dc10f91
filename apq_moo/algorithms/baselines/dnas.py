"""DNAS for mixed precision: mixtures of bit-widths, whose shares are trained under a cost.

B. Wu et al., Mixed Precision Quantization of ConvNets via Differentiable Neural Architecture
Search, 2018; and with one convolution for all widths Z. Cai and N. Vasconcelos, Rethinking
Differentiable Search for Mixed-Precision Neural Networks (EdMIPS), CVPR 2020.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from apq_moo.algorithms.baselines.candidates import bit_widths
from apq_moo.algorithms.baselines.choice import Choice
from apq_moo.algorithms.baselines.descent import Adam, Loss
from apq_moo.algorithms.baselines.distribution import Distribution, Probabilities, added
from apq_moo.algorithms.baselines.system import Target
from apq_moo.algorithms.baselines.trained_choices import Learning, TrainedChoices, Trial, descend
from apq_moo.arrays import FloatArray
from apq_moo.space.spec import ROLES

FORWARDS = ("composite", "gumbel", "hard")

_PASSES = 3
"""A batch forward, and backward by weights and by activations; rounding to a width is another."""

_HOTTEST, _COOLING = 5.0, 0.025 * 90
"""Temperature of the first step, and by which power of e it has fallen at the end."""


class Dnas(TrainedChoices):
    """Chooses the bits of all blocks of the reference network.

    Each weight and activation is the sum of its quantised forms times their probabilities: those of
    the logits (``composite``, EdMIPS), of a Gumbel softmax that cools down from 5 (``gumbel``,
    DNAS), or 1 for the most probable of that draw, with the gradients of the soft ones (``hard``).

    Args:
        forward: ``composite``, ``gumbel`` or ``hard``.
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

    title = "dnas"
    fields: ClassVar[tuple[str, ...]] = ROLES
    slips: ClassVar[dict[str, str]] = {
        "scaled-log": "the weight of loss=mul multiplies the cost's logarithm, where it should be "
        "its power: it scales the loss, and changes nothing (a port of FBNet)",
    }

    def __init__(
        self,
        forward: str = "composite",
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
        self._known(forward=(forward, FORWARDS))
        self.forward = forward

    def distribution(self, choice: Choice) -> Distribution:
        """See :class:`TrainedChoices`."""
        return bit_widths(choice)

    def learn(self, trial: Trial, target: Target) -> Learning:
        """See :class:`TrainedChoices`."""
        yield from ()  # it asks for no scores
        network, model = self._trained(target.problem), trial.model
        counts = [len(model.space.spec.bits[role]) for role in ROLES]
        price = self._price(network, _PASSES + float(np.mean(counts)))
        steps = self._steps(trial, price)
        batches = network.batches(self.batch_size, int(trial.rng.integers(2**31)))
        adam = Adam(len(model.logits), self.rate)
        loss = Loss(self.loss, scaled=self.repeats("scaled-log"))
        space = model.space
        base = model.mode(model.probabilities())
        (subnet,) = space.decode(space.from_block_index(base[None]))
        blocks = np.flatnonzero(space.layout.active(base[None])[0]).tolist()
        widths = [[space.plans[b].options[role] for role in ROLES] for b in blocks]
        for step, batch in zip(range(steps), batches, strict=False):
            temperature, noise = 1.0, None
            if self.forward != "composite":
                temperature = _HOTTEST * math.exp(-_COOLING * step / steps)
                noise = trial.rng.gumbel(size=len(model.logits))
            p = model.probabilities(temperature, noise)
            used = hardened(p) if self.forward == "hard" else p
            shares = [model.marginals(b, used.blocks[b]) for b in blocks]
            mixtures = [
                {
                    role: (bits[: len(share)], share)
                    for role, bits, share in zip(ROLES, offered, of, strict=True)
                }
                for offered, of in zip(widths, shares, strict=True)
            ]
            entropy, found = network.mixtures(batch, subnet, mixtures)
            cost, by_cost = model.expected(used, trial.goal.costs, trial.goal.fixed)
            of_entropy, of_cost = loss.gradients(entropy, cost, trial.weight)
            by = model.nothing()
            for b, gradients in zip(blocks, found, strict=True):
                by.blocks[b][:] = of_entropy * of_candidates(model, b, gradients)
            by = added(by, by_cost, of_cost if trial.goal.limited else 0.0)
            descend(trial, adam, p, by, temperature)
        self._pay(target, steps * price)
        return 0


def of_candidates(model: Distribution, block: int, gradients: dict[str, FloatArray]) -> FloatArray:
    """Derivatives by a block's candidates, of those by the options of each of its roles."""
    options = model.blocks[block].options
    total = np.zeros(len(options))
    for column, role in enumerate(ROLES):
        total += gradients[role][options[:, column]]
    return total


def hardened(p: Probabilities) -> Probabilities:
    """1 for the most probable, 0 for the others."""
    return Probabilities(
        [(np.arange(len(of)) == of.argmax()).astype(float) for of in p.blocks],
        [(np.arange(len(of)) == of.argmax()).astype(float) for of in p.depths],
    )

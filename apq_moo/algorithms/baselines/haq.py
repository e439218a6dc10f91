"""HAQ: an agent chooses bits layer by layer; what breaks a limit is decremented until it fits.

K. Wang et al., HAQ: Hardware-Aware Automated Quantization with Mixed Precision, CVPR 2019.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from apq_moo.algorithms.baselines.agents import AgentSystem
from apq_moo.algorithms.baselines.choice import Choice, broken, brought_under, saved
from apq_moo.algorithms.baselines.decisions import Decisions, scaled
from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.space.spec import FIELDS, ROLES

OF_A_BLOCK = tuple((role, FIELDS.index(role)) for role in ROLES)
"""The roles in the order of decisions, and their genes' places: the weights' before the inputs'."""


class Haq(AgentSystem):
    """Bits of the reference network's weights and activations, by an agent.

    Args:
        episodes: networks that the agent makes for a target; 0 for as many as the budget holds.
            Published: 600.
        warmup: episodes of random actions, at most a quarter of all.
        agent: see :data:`~apq_moo.algorithms.baselines.agents.AGENTS`.
        hidden: width of both hidden layers of actor and critic.
        faithful: slips to repeat, see :attr:`slips`.

    Raises:
        UserError: a parameter is out of range.
    """

    title = "haq"
    fields = ROLES
    decay = 0.99
    replay = 128
    reward_scale = 0.1
    slips: ClassVar[dict[str, str]] = {
        "inverted-flag": "the state says weights for activations, but in the first decision",
        "stale-state": "an episode begins with the last one's first bits in its state",
        "late-warmup": "the warm-up has one more episode",
    }

    def __init__(
        self,
        episodes: int = 0,
        warmup: int = 20,
        agent: str = "ddpg",
        hidden: int = 300,
        faithful: str = "",
    ) -> None:
        super().__init__(episodes, warmup, agent, hidden, faithful)

    def decisions(self, choice: Choice) -> Decisions:
        """See :class:`AgentSystem`."""
        return BitDecisions(
            choice,
            inverted=self.repeats("inverted-flag"),
            stale=self.repeats("stale-state"),
        )


class BitDecisions(Decisions):
    """Bits of every layer's weights, then of its inputs; pointwise layers of a block share both.

    Actions fall into equal bins, one for each width that the block can still run with. In the end
    the network is decremented, see :func:`decremented`.

    Args:
        choice: networks that differ in bits.
        inverted: whether the flag of weights and activations is the wrong way round, but in the
            first decision.
        stale: whether the last episode's first bits stay in the first state.
    """

    n_state = 13

    def __init__(self, choice: Choice, *, inverted: bool = False, stale: bool = False) -> None:
        super().__init__(choice)
        self._stale = stale
        bits = self.space.spec.bits
        self._steps = [
            (b, role, field)
            for b in self.blocks
            for role, field in OF_A_BLOCK
            if len(bits[role]) > 1
        ]
        self.n_steps = len(self._steps)
        self._genes = self.space.layout.split(self.space.layout.genes)
        rows = []
        for i, (b, role, _) in enumerate(self._steps):
            sizes = self.dimensions(b, choice.base[b])
            layer = "depthwise" if role.endswith("dw") else "pointwise"
            of_weights = role.startswith("w") != (inverted and i > 0)
            names = ("block", "c_in", "c_mid", "c_out", "kernel", "stride", "size")
            rows.append(
                [layer == "depthwise", of_weights, *(sizes[name] for name in names), sizes[layer]]
            )
        self._features = scaled(rows) if rows else np.empty((0, 10))
        self._first_bits = 1.0

    def reset(self) -> FloatArray:
        """See :class:`Decisions`."""
        self._place = 0
        self._last = self._first_bits if self._stale else 1.0
        self._index = self.choice.base.copy()
        self._possible = [mask.copy() for mask in self.choice.open]
        return self._state()

    def _state(self) -> FloatArray:
        place = min(self._place, self.n_steps - 1)
        block = self._steps[place][0]
        done = [b for b in self.blocks if b < block]
        rest = [b for b in self.blocks if b >= block]
        costs = self.share(self._index, done), self.share(self.cheapest, rest)
        return np.array([*self._features[place], self._last, *costs])

    def options(self) -> IntArray:
        """Genes that the present decision leaves, ascending."""
        b, _, field = self._steps[self._place]
        return np.unique(self._genes[b][:-1][self._possible[b], field]).astype(np.int64)

    def step(self, action: float) -> tuple[FloatArray, bool]:
        """See :class:`Decisions`."""
        b, role, field = self._steps[self._place]
        options = self.options()
        gene = options[min(int(action * len(options)), len(options) - 1)]
        self._possible[b] &= self._genes[b][:-1, field] == gene
        self._index[b] = int(self._possible[b].argmax())
        bits = self.space.plans[b].options[role]
        self._last = bits[gene] / max(bits)
        if self._place == 0:
            self._first_bits = self._last
        self._place += 1
        return self._state(), self._place == self.n_steps

    def network(self) -> IntArray:
        """See :class:`Decisions`."""
        return decremented(self.choice, self._index)


def decremented(choice: Choice, index: IntArray) -> IntArray:
    """Lower bits by one option at a time until all limits are met.

    In sweeps from the last layer to the first, of each the activations' bits before the weights',
    to the next lower option with which the block can run and costs less. Where a sweep changes
    nothing, blocks take their cheapest bits, the last first.

    Args:
        choice: networks that differ in bits.
        index: one of them, shape ``(n_blocks,)``.

    Returns:
        A network that meets all limits by the tables.

    Raises:
        UserError: none does; the smallest cost is named.
    """
    space, region = choice.problem.space, choice.problem.region
    blocks = np.flatnonzero(space.layout.active(index[None])[0])[::-1].tolist()
    genes, strides = space.layout.split(space.layout.genes), space.layout.strides
    index = index.copy()
    over = broken(region, index)
    changed = True
    while changed and over:
        changed = False
        for b in blocks:
            for _, field in reversed(OF_A_BLOCK):
                lower = index[b] - strides[b, field] * np.arange(1, genes[b][index[b], field] + 1)
                usable: BoolArray = choice.open[b][lower] & (saved(over, index, b)[lower] > 0)
                if usable.any():
                    index[b] = lower[usable.argmax()]
                    changed, over = True, broken(region, index)
                    if not over:
                        return index
    return brought_under(choice, index)

"""AMC: an agent chooses channels block by block, and never more than the limits leave.

Y. He et al., AMC: AutoML for Model Compression and Acceleration on Mobile Devices, ECCV 2018.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from apq_moo.algorithms.baselines.agents import AgentSystem
from apq_moo.algorithms.baselines.choice import Choice
from apq_moo.algorithms.baselines.decisions import Decisions, scaled
from apq_moo.arrays import FloatArray, IntArray
from apq_moo.errors import UserError
from apq_moo.space.spec import FIELDS

CHANNELS = FIELDS.index("channels")


class Amc(AgentSystem):
    """Channels of the reference network's blocks, by an agent.

    Args:
        episodes: networks that the agent makes for a target; 0 for as many as the budget holds.
            Published: 800.
        warmup: episodes of random actions, at most a quarter of all.
        lbound: the smallest share of a block's channels that an action means.
        rbound: the largest.
        agent: see :data:`~apq_moo.algorithms.baselines.agents.AGENTS`.
        hidden: width of both hidden layers of actor and critic.
        faithful: slips to repeat, see :attr:`slips`.

    Raises:
        UserError: a parameter is out of range.
    """

    title = "amc"
    fields = ("channels",)
    decay = 0.95
    replay = 100
    reward_scale = 0.01
    slips: ClassVar[dict[str, str]] = {
        "rounding-up": "channels are rounded up, also beyond what the limits leave",
        "unused-rbound": "rbound is not applied",
        "pruned-rest": "the state counts undecided blocks as pruned already",
        "weights-first": "the first state's rest is a share of weights, not of costs",
        "late-warmup": "the warm-up has one more episode",
    }

    def __init__(
        self,
        episodes: int = 0,
        warmup: int = 100,
        lbound: float = 0.2,
        rbound: float = 1.0,
        agent: str = "ddpg",
        hidden: int = 300,
        faithful: str = "",
    ) -> None:
        super().__init__(episodes, warmup, agent, hidden, faithful)
        if not 0 < lbound <= rbound <= 1:
            raise UserError(
                f"{self.title}: 0 < lbound <= rbound <= 1 must hold, not lbound={lbound:g} and "
                f"rbound={rbound:g}"
            )
        self.lbound, self.rbound = lbound, rbound

    def decisions(self, choice: Choice) -> Decisions:
        """See :class:`AgentSystem`."""
        return ChannelDecisions(
            choice,
            self.lbound,
            1.0 if self.repeats("unused-rbound") else self.rbound,
            round_up=self.repeats("rounding-up"),
            pruned=self.repeats("pruned-rest"),
            by_weights=self.repeats("weights-first"),
        )


class ChannelDecisions(Decisions):
    """The share of its channels that each block keeps, of those that the limits leave.

    An option is left if the following blocks can still be brought under all limits; that is exact
    with one limit, and on the safe side with several. Of these it is the one nearest to what the
    action says.

    Args:
        choice: networks that differ in channels.
        lbound: the smallest share that an action means.
        rbound: the largest.
        round_up: whether the option is the next one above instead, left or not.
        pruned: whether states count undecided blocks as pruned already.
        by_weights: whether the first state's rest is a share of weights.
    """

    n_state = 11

    def __init__(
        self,
        choice: Choice,
        lbound: float = 0.2,
        rbound: float = 1.0,
        *,
        round_up: bool = False,
        pruned: bool = False,
        by_weights: bool = False,
    ) -> None:
        super().__init__(choice)
        self._bounds, self._round_up = (lbound, rbound), round_up
        self._pruned, self._by_weights = pruned, by_weights
        self._configurations = {b: np.flatnonzero(choice.open[b]) for b in self.blocks}
        self._steps = [b for b in self.blocks if len(self._configurations[b]) > 1]
        self.n_steps = len(self._steps)
        names = ("block", "stage", "stride", "kernel", "c_in", "c_mid", "c_out", "size")
        rows = []
        for b in self._steps:
            sizes = self.dimensions(b, choice.base[b])
            cost = self.share(choice.base, [b])
            rows.append([*(float(sizes[name]) for name in names if name != "c_mid"), cost])
        self._features = scaled(rows) if rows else np.empty((0, 8))

    def reset(self) -> FloatArray:
        """See :class:`Decisions`."""
        self._place, self._last = 0, 1.0
        self._index = self.cheapest.copy()
        return self._state()

    def _state(self) -> FloatArray:
        block = self._steps[min(self._place, self.n_steps - 1)]
        done = [b for b in self.blocks if b < block]
        rest = [b for b in self.blocks if b >= block]
        spent = self.share(self._index, self.blocks if self._pruned else done)
        least = self.share(self.cheapest, rest)
        if self._by_weights and self._place == 0:
            least = self._weights(rest) / self._weights(self.blocks)
        features = self._features[min(self._place, self.n_steps - 1)]
        return np.array([*features, spent, least, self._last])

    def _weights(self, blocks: list[int]) -> float:
        sizes = [self.dimensions(b, self.choice.base[b]) for b in blocks]
        return float(sum(of["pointwise"] + of["depthwise"] for of in sizes))

    def left(self) -> IntArray:
        """Configurations of the present block that the limits leave, by ascending channels."""
        b = self._steps[self._place]
        numbers = self._configurations[b]
        rows = np.tile(self._index, (len(numbers), 1))
        rows[:, b] = numbers
        return numbers[self.choice.problem.region.contains_blocks(rows)]

    def step(self, action: float) -> tuple[FloatArray, bool]:
        """See :class:`Decisions`."""
        b = self._steps[self._place]
        widest = self._channels(b, self.choice.base[[b]])[0]
        wanted = np.clip(action, *self._bounds) * widest
        left, numbers = self.left(), self._configurations[b]
        if not len(left):  # only after channels were rounded up
            left = self.cheapest[[b]]
        chosen = left[np.abs(self._channels(b, left) - wanted).argmin()]
        if self._round_up:
            largest = numbers[min(np.searchsorted(numbers, left[-1]) + 1, len(numbers) - 1)]
            above = numbers[self._channels(b, numbers) >= wanted * (1 - _ROUNDING)]
            chosen = min(above[0], largest)
        self._index[b] = chosen
        # What is kept, not what was wished: limits may have left less.
        self._last = min(float(self._channels(b, np.array([chosen]))[0] / widest), 1.0)
        self._place += 1
        return self._state(), self._place == self.n_steps

    def _channels(self, b: int, numbers: IntArray) -> IntArray:
        options = np.array(self.space.plans[b].options["channels"])
        return options[self.space.block_genes(b, numbers)[:, CHANNELS]]

    def network(self) -> IntArray:
        """See :class:`Decisions`."""
        return self._index.copy()


_ROUNDING = 1e-9

"""Networks that come about by one number after the other, as agents make them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from apq_moo.algorithms.baselines.choice import Choice
from apq_moo.arrays import FloatArray, IntArray


class Decisions(ABC):
    """An episode: states and actions in [0, 1] in turn, and the network that they lead to.

    Args:
        choice: the networks; all have the same depths.

    Attributes:
        choice: as given.
        space: its space.
        blocks: which blocks are active.
        n_steps: decisions of an episode.
        n_state: numbers of a state.
    """

    n_steps: int
    n_state: int

    def __init__(self, choice: Choice) -> None:
        self.choice, self.space = choice, choice.problem.space
        self.blocks: list[int] = np.flatnonzero(
            self.space.layout.active(choice.base[None])[0]
        ).tolist()
        self.cheapest = choice.cheapest()
        self._limits = choice.problem.region.limits

    @abstractmethod
    def reset(self) -> FloatArray:
        """Begin anew.

        Returns:
            The first state, shape ``(n_state,)``.
        """

    @abstractmethod
    def step(self, action: float) -> tuple[FloatArray, bool]:
        """Take a decision.

        Args:
            action: from 0 to 1.

        Returns:
            The next state (after the last decision the same again), and whether that was the last.
        """

    @abstractmethod
    def network(self) -> IntArray:
        """The network, once all decisions are taken, shape ``(n_blocks,)``."""

    # -- what states are made of -------------------------------------------------------------------

    def share(self, index: IntArray, blocks: list[int]) -> float:
        """What blocks of a network cost, relative to the limit of which they take most; at most 1.

        Args:
            index: the network, shape ``(n_blocks,)``.
            blocks: which.
        """
        shares = [
            sum(float(table.blocks[b][index[b]]) for b in blocks) / max(limit, _TINY)
            for table, limit in self._limits
        ]
        return min(max(shares, default=0.0), 1.0)

    def dimensions(self, b: int, number: int) -> dict[str, int]:
        """Sizes of a block with a configuration."""
        plan = self.space.plans[b]
        genes = self.space.block_genes(b, np.array([number]))[0]
        kernel, channels = (
            plan.options[field][genes[i]] for i, field in enumerate(("kernel", "channels"))
        )
        return {
            "block": b,
            "stage": plan.stage,
            "stride": plan.stride,
            "kernel": kernel,
            "c_in": plan.c_in,
            "c_mid": channels,
            "c_out": plan.c_out,
            "size": plan.size,
            "pointwise": channels * (plan.c_in + plan.c_out),
            "depthwise": channels * kernel**2,
        }


_TINY = 1e-100


def scaled(rows: Sequence[Sequence[float]]) -> FloatArray:
    """Features of all steps, each scaled to [0, 1] over them; 0 where they do not differ."""
    features = np.array(rows, dtype=np.float64)
    low, high = features.min(axis=0), features.max(axis=0)
    result: FloatArray = (features - low) / np.where(high > low, high - low, 1.0)
    return result

"""What an agent decides, as an environment of gymnasium's form; needs the extra apq-moo[rl]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from apq_moo.algorithms.baselines.decisions import Decisions
from apq_moo.arrays import IntArray


class NetworkEnvironment(gymnasium.Env):  # type: ignore[misc]
    """A network in each episode, block by block; the reward comes with the last action.

    States and actions are vectors of reals from 0 to 1. The last step's info has the network under
    ``network``, as block configurations of shape ``(n_blocks,)``.

    Args:
        decisions: what is decided; at least one step.
        score: the reward of a network.
    """

    def __init__(self, decisions: Decisions, score: Callable[[IntArray], float]) -> None:
        self.decisions, self._score = decisions, score
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (decisions.n_state,), np.float32)
        self.action_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin a network; see gymnasium's ``Env``. Nothing is random."""
        super().reset(seed=seed, options=options)
        return self.decisions.reset().astype(np.float32), {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take a decision; see gymnasium's ``Env``."""
        state, done = self.decisions.step(float(np.clip(action[0], 0.0, 1.0)))
        if not done:
            return state.astype(np.float32), 0.0, False, False, {}
        network = self.decisions.network()
        return state.astype(np.float32), self._score(network), True, False, {"network": network}

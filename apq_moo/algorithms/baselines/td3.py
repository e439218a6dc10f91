"""TD3 of stable-baselines3 as an agent; needs the extra apq-moo[rl].

S. Fujimoto et al., Addressing Function Approximation Error in Actor-Critic Methods, ICML 2018.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from stable_baselines3 import TD3
from stable_baselines3.common.logger import Logger

from apq_moo.algorithms.baselines.decisions import Decisions
from apq_moo.algorithms.baselines.environment import NetworkEnvironment
from apq_moo.arrays import FloatArray
from apq_moo.threads import one_torch_thread

NOISE = 0.1
"""Standard deviation of what is added to the actor's actions."""


class Td3:
    """Two critics, a policy that is updated half as often, and rewards at the end of episodes.

    The reward is less that of the first episode, so that worths are near 0. Discount 1, batches of
    64, an update for each step, and the library's other defaults. It draws from global generators,
    which are its own while it works, and are restored.

    Args:
        decisions: what it decides.
        episodes: that are remembered.
        warmup: episodes of uniform actions.
        hidden: width of both hidden layers.
        rng: source of all randomness.
        device: where the networks lie.
    """

    def __init__(
        self,
        decisions: Decisions,
        episodes: int,
        warmup: int,
        hidden: int,
        rng: np.random.Generator,
        device: str = "cpu",
    ) -> None:
        self._rng, self._warmup, self._episode, self._first = rng, warmup, 0, 0.0
        self._states: Any = None
        seed = int(rng.integers(2**31))
        with self._own_generators():
            self._model = TD3(
                "MlpPolicy",
                NetworkEnvironment(decisions, lambda _network: 0.0),
                buffer_size=max(1, episodes * decisions.n_steps),
                batch_size=64,
                gamma=1.0,
                policy_kwargs={"net_arch": [hidden, hidden]},
                seed=seed,
                device=device,
            )
        self._model.set_logger(Logger(None, []))

    def act(self, state: FloatArray) -> float:
        """An action from 0 to 1 for a state of shape ``(n_state,)``."""
        if self._episode < self._warmup:
            return float(self._rng.random())
        with one_torch_thread():
            action, _ = self._model.predict(state.astype(np.float32), deterministic=True)
        return float(np.clip(action[0] + NOISE * self._rng.standard_normal(), 0.0, 1.0))

    def learn(self, states: FloatArray, actions: FloatArray, reward: float) -> None:
        """Remember an episode and update once for each step; see :class:`Ddpg`."""
        if not self._episode:
            self._first = reward
        n = len(actions)
        scaled = self._model.policy.scale_action(actions[:, None].astype(np.float32))
        for i in range(n):
            done = i + 1 == n
            self._model.replay_buffer.add(
                states[[i]].astype(np.float32),
                states[[i + 1]].astype(np.float32),
                scaled[[i]],
                np.array([reward - self._first if done else 0.0]),
                np.array([done]),
                [{}],
            )
        self._episode += 1
        if self._episode > self._warmup:
            with self._own_generators(), one_torch_thread():
                self._model.train(gradient_steps=n, batch_size=self._model.batch_size)

    @contextmanager
    def _own_generators(self) -> Iterator[None]:
        """The global generators go on from where they were here, and then from where they were."""
        outside = _states()
        if self._states is not None:
            _restore(self._states)
        try:
            yield
        finally:
            self._states = _states()
            _restore(outside)


def _states() -> tuple[Any, Any, torch.Tensor]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002


def _restore(states: tuple[Any, Any, torch.Tensor]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])

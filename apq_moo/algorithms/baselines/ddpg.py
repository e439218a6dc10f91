"""Deep deterministic policy gradient for actions in [0, 1], as AMC and HAQ train it.

T. Lillicrap et al., Continuous Control with Deep Reinforcement Learning, ICLR 2016. All transitions
of an episode carry its final reward, from which a moving average of batches' means is taken.

Randomness comes from the generator that is handed over alone.
"""

from __future__ import annotations

from collections import deque
from copy import deepcopy
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor
from torch.nn import functional as F

from apq_moo.arrays import FloatArray
from apq_moo.threads import one_torch_thread

Weights: TypeAlias = list[Tensor]
"""Matrices and biases of layers in turn."""


@dataclass(frozen=True)
class Settings:
    """How an agent learns; the defaults are AMC's.

    Attributes:
        warmup: episodes of uniform actions.
        decay: of the noise, each episode after the warm-up.
        replay: episodes that are remembered.
        hidden: width of both hidden layers of actor and critic.
        sigma: standard deviation of the noise before it decays.
        batch: transitions an update.
        actor_lr: learning rate of the actor.
        critic_lr: learning rate of the critic.
        tau: share of the new weights that the followers take over.
        discount: of the next state's worth.
        rate: at which the mean reward moves.
    """

    warmup: int
    decay: float = 0.95
    replay: int = 100
    hidden: int = 300
    sigma: float = 0.5
    batch: int = 64
    actor_lr: float = 1e-4
    critic_lr: float = 1e-3
    tau: float = 0.01
    discount: float = 1.0
    rate: float = 0.5


class Ddpg:
    """An actor, a critic, slow followers of both, and what they remember.

    Args:
        n_state: numbers of a state.
        settings: see :class:`Settings`.
        rng: source of all randomness.
    """

    def __init__(self, n_state: int, settings: Settings, rng: np.random.Generator) -> None:
        self._settings, self._rng = settings, rng
        width = settings.hidden
        self.actor = _layers([(n_state, width), (width, width), (width, 1)], rng)
        self.critic = _layers([(n_state, width), (1, width), (width, width), (width, 1)], rng)
        self._followers = deepcopy((self.actor, self.critic))
        self._optimizers = [
            torch.optim.Adam(weights, lr=lr, fused=True)
            for weights, lr in (
                (self.actor, settings.actor_lr),
                (self.critic, settings.critic_lr),
            )
        ]
        self.memory: deque[tuple[FloatArray, float, float, FloatArray, float]] = deque()
        self._mean: float | None = None
        self._episode = 0

    def act(self, state: FloatArray) -> float:
        """An action, with the noise of this episode.

        Args:
            state: shape ``(n_state,)``.
        """
        if self._episode < self._settings.warmup:
            return float(self._rng.random())
        with torch.no_grad(), one_torch_thread():
            center = float(_act(self.actor, _tensor(state[None]))[0, 0])
        past = self._episode - self._settings.warmup
        return self._noisy(center, self._settings.sigma * self._settings.decay**past)

    def _noisy(self, center: float, sigma: float) -> float:
        """A normal draw truncated to [0, 1], by the inverse of its distribution."""
        if sigma < 1e-6:
            return center
        low, high = ndtr(-center / sigma), ndtr((1 - center) / sigma)
        drawn = ndtri(low + self._rng.random() * (high - low))
        return float(np.clip(center + sigma * drawn, 0.0, 1.0))

    def learn(self, states: FloatArray, actions: FloatArray, reward: float) -> None:
        """Remember an episode, and update once for each of its steps.

        Args:
            states: before each action and after the last, shape ``(n + 1, n_state)``.
            actions: shape ``(n,)``.
            reward: of the episode.
        """
        n = len(actions)
        for i, action in enumerate(actions.tolist()):
            going = float(i + 1 < n)
            self.memory.append((states[i], action, reward, states[i + 1], going))
        while len(self.memory) > self._settings.replay * n:
            self.memory.popleft()
        self._episode += 1
        if self._episode > self._settings.warmup:
            with one_torch_thread():
                for _ in range(n):
                    self._update()

    def _update(self) -> None:
        s = self._settings
        rows = self._rng.choice(len(self.memory), min(s.batch, len(self.memory)), replace=False)
        state, action, reward, following, going = (
            _tensor(np.array(column))
            for column in zip(*(self.memory[i] for i in rows), strict=True)
        )
        mean = float(reward.mean())
        self._mean = mean if self._mean is None else self._mean + s.rate * (mean - self._mean)
        with torch.no_grad():
            slow_actor, slow_critic = self._followers
            worth = _judge(slow_critic, following, _act(slow_actor, following))[:, 0]
            wanted = reward - self._mean + s.discount * going * worth
        missed = F.mse_loss(_judge(self.critic, state, action[:, None])[:, 0], wanted)
        _descend(self._optimizers[1], self.critic, missed)
        judged = _judge(self.critic, state, _act(self.actor, state))
        _descend(self._optimizers[0], self.actor, -judged.mean())
        with torch.no_grad():
            for slow, new in zip(self._followers, (self.actor, self.critic), strict=True):
                for follower, weights in zip(slow, new, strict=True):
                    follower.lerp_(weights, s.tau)


def _layers(shapes: list[tuple[int, int]], rng: np.random.Generator) -> Weights:
    """Uniform weights and biases, as torch's linear layers begin with."""
    return [
        _tensor(rng.uniform(-(n_in**-0.5), n_in**-0.5, shape)).requires_grad_()
        for n_in, n_out in shapes
        for shape in ((n_out, n_in), (n_out,))
    ]


def _tensor(array: FloatArray) -> Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float32))


def _act(weights: Weights, state: Tensor) -> Tensor:
    """Actions, shape ``(n, 1)``."""
    hidden = F.relu(F.linear(state, *weights[0:2]))
    return F.linear(F.relu(F.linear(hidden, *weights[2:4])), *weights[4:6]).sigmoid()


def _judge(weights: Weights, state: Tensor, action: Tensor) -> Tensor:
    """What actions are worth, shape ``(n, 1)``."""
    hidden = F.relu(F.linear(state, *weights[0:2]) + F.linear(action, *weights[2:4]))
    return F.linear(F.relu(F.linear(hidden, *weights[4:6])), *weights[6:8])


def _descend(optimizer: torch.optim.Optimizer, weights: Weights, loss: Tensor) -> None:
    """A step along the gradient of these weights alone."""
    for tensor, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        tensor.grad = gradient
    optimizer.step()

"""Deep deterministic policy gradient for actions in [0, 1], as AMC and HAQ train it.

T. Lillicrap et al., Continuous Control with Deep Reinforcement Learning, ICLR 2016. All transitions
of an episode carry its final reward, from which a moving average of batches' means is taken.

Randomness comes from the generator that is handed over alone. Networks are so small that torch's
bookkeeping would take longer than their matrices: their gradients are written out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor

from apq_moo.arrays import FloatArray
from apq_moo.threads import one_torch_thread


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
        device: where the networks lie.

    Attributes:
        memory: transitions, the oldest first, as rows of a state, an action, a reward, the next
            state, and 0 for the last of an episode or else 1.
    """

    def __init__(
        self,
        n_state: int,
        settings: Settings,
        rng: np.random.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self._settings, self._rng, self._device = settings, rng, device
        self._n_state, width = n_state, settings.hidden
        top = [(width, width), (width, 1)]
        self.actor = Network.drawn([(n_state, width), *top], rng, device)
        self.critic = Network.drawn([(n_state, width), (1, width), *top], rng, device)
        self._slow_actor, self._slow_critic = self.actor.copy(), self.critic.copy()
        self._optimizers = [
            torch.optim.Adam([network.vector], lr=lr, fused=True)
            for network, lr in (
                (self.actor, settings.actor_lr),
                (self.critic, settings.critic_lr),
            )
        ]
        self.memory = np.empty((0, 2 * n_state + 3), dtype=np.float32)
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
            row = torch.from_numpy(state[None].astype(np.float32)).to(self._device)
            center = float(_act(self.actor, row)[-1])
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
        going = np.arange(n) + 1 < n
        rows = np.column_stack([states[:-1], actions, np.full(n, reward), states[1:], going])
        known = np.vstack([self.memory, rows.astype(np.float32)])
        self.memory = known[-self._settings.replay * n :]
        self._episode += 1
        if self._episode > self._settings.warmup:
            with torch.no_grad(), one_torch_thread():
                for _ in range(n):
                    self._update()

    def _update(self) -> None:
        """One step of the critic, then of the actor, then of their followers."""
        s = self._settings
        chosen = self._rng.choice(len(self.memory), min(s.batch, len(self.memory)), replace=False)
        batch = torch.from_numpy(self.memory[chosen])
        mean = float(batch[:, self._n_state + 1].mean())
        self._mean = mean if self._mean is None else self._mean + s.rate * (mean - self._mean)
        parts = batch.to(self._device).split([self._n_state, 1, 1, self._n_state, 1], dim=1)
        state, following = parts[0], parts[3]
        action, reward, going = (parts[i][:, 0] for i in (1, 2, 4))

        _, _, acted = _act(self._slow_actor, following)
        _, _, worth = _judge(self._slow_critic, following, acted)
        wanted = reward - self._mean + s.discount * going * worth
        first, second, judged = _judge(self.critic, state, action)
        slope = _back(self.critic, first, second, 2 / len(state) * (judged - wanted))
        _keep(self.critic.slopes[:2], state, slope)
        _keep(self.critic.slopes[2:4], action[:, None], slope)
        self._optimizers[1].step()

        first, second, acted = _act(self.actor, state)
        rise = torch.full_like(acted, -1 / len(state))
        slope = _back(self.critic, *_judge(self.critic, state, acted)[:2], rise, weights=False)
        rise = slope.mv(self.critic.weights[2][0]) * acted * (1 - acted)
        _keep(self.actor.slopes[:2], state, _back(self.actor, first, second, rise))
        self._optimizers[0].step()

        self._slow_actor.vector.lerp_(self.actor.vector, s.tau)
        self._slow_critic.vector.lerp_(self.critic.vector, s.tau)


class Network:
    """Layers whose weights are views of one vector, and their gradients of another.

    Args:
        vector: all weights.
        shapes: inputs and outputs of each layer.

    Attributes:
        vector: as given; its ``grad`` holds the gradients.
        weights: a matrix, shape ``(n_in, n_out)``, and a bias of each layer in turn.
        slopes: their gradients.
    """

    def __init__(self, vector: Tensor, shapes: Sequence[tuple[int, int]]) -> None:
        self.vector, self._shapes = vector, shapes
        vector.grad = torch.zeros_like(vector)
        self.weights, self.slopes = self._views(vector), self._views(vector.grad)

    @classmethod
    def drawn(
        cls,
        shapes: Sequence[tuple[int, int]],
        rng: np.random.Generator,
        device: torch.device | str,
    ) -> Network:
        """One of uniform weights and biases, as torch's linear layers begin with."""
        parts = []
        for n_in, n_out in shapes:
            bound = n_in**-0.5
            parts.append(rng.uniform(-bound, bound, (n_out, n_in)).T.ravel())
            parts.append(rng.uniform(-bound, bound, n_out))
        vector = torch.from_numpy(np.concatenate(parts).astype(np.float32))
        return cls(vector.to(device), shapes)

    def copy(self) -> Network:
        """The same with a vector of its own."""
        return Network(self.vector.clone(), self._shapes)

    def _views(self, vector: Tensor) -> list[Tensor]:
        shapes = [shape for n_in, n_out in self._shapes for shape in ((n_in, n_out), (n_out,))]
        parts = vector.split([math.prod(shape) for shape in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def _act(actor: Network, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both hidden layers, shape ``(n, hidden)``, and actions, ``(n,)``."""
    weight, bias = actor.weights[:2]
    first = torch.addmm(bias, state, weight).relu_()
    second, out = _above(actor, first)
    return first, second, out.sigmoid_()


def _judge(critic: Network, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both hidden layers, shape ``(n, hidden)``, and what actions are worth, ``(n,)``."""
    weight, bias, of_action, bias_too = critic.weights[:4]
    first = torch.addmm(bias + bias_too, state, weight).addr_(action, of_action[0]).relu_()
    return first, *_above(critic, first)


def _above(network: Network, first: Tensor) -> tuple[Tensor, Tensor]:
    """The second hidden layer and the output behind the first."""
    weight, bias, last, last_bias = network.weights[-4:]
    second = torch.addmm(bias, first, weight).relu_()
    return second, torch.addmv(last_bias, second, last[:, 0])


def _back(
    network: Network, first: Tensor, second: Tensor, slope: Tensor, *, weights: bool = True
) -> Tensor:
    """The gradient before the first hidden layer's ReLU, shape ``(n, hidden)``.

    Args:
        network: whose layers these are.
        first: its first hidden layer.
        second: its second.
        slope: the gradient of its output, shape ``(n,)``.
        weights: whether the gradients of the weights behind the first hidden layer are kept.
    """
    inner, last = network.weights[-4], network.weights[-2]
    if weights:
        _keep(network.slopes[-2:], second, slope[:, None])
    at_second = torch.outer(slope, last[:, 0]).mul_(second.sign_())
    if weights:
        _keep(network.slopes[-4:-2], first, at_second)
    return at_second.mm(inner.t()).mul_(first.sign_())


def _keep(slopes: Sequence[Tensor], inputs: Tensor, slope: Tensor) -> None:
    """Keep the gradients of a layer's matrix and bias, from that of its output."""
    torch.mm(inputs.t(), slope, out=slopes[0])
    torch.sum(slope, 0, out=slopes[1])

"""Searches by agents that learn from the accuracies of the networks they make."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from apq_moo.algorithms.base import check_least
from apq_moo.algorithms.baselines.choice import Choice
from apq_moo.algorithms.baselines.decisions import Decisions
from apq_moo.algorithms.baselines.reference import reference_network
from apq_moo.algorithms.baselines.system import Asking, System, Target
from apq_moo.arrays import FloatArray, IntArray
from apq_moo.errors import UserError, shown
from apq_moo.extras import require
from apq_moo.problems import APQProblem

if TYPE_CHECKING:
    from apq_moo.algorithms.baselines.environment import NetworkEnvironment

AGENTS = {
    "ddpg": "what the authors trained",
    "td3": "of stable-baselines3; needs the extra apq-moo[rl]",
    "random": "uniform actions, which learn nothing: a control",
}


def require_rl(what: str) -> None:
    """Check that the libraries of the extra ``rl`` are installed.

    Raises:
        UserError: one is not.
    """
    for name in ("gymnasium", "stable_baselines3"):
        if find_spec(name) is None:
            raise UserError(
                f"{what} needs {name.replace('_', '-')}: pip install 'apq-moo[rl]'; agents that "
                "need nothing more are ddpg and random"
            )


class Agent(Protocol):
    """Acts, and learns from episodes."""

    def act(self, state: FloatArray) -> float:
        """An action from 0 to 1, for a state of shape ``(n_state,)``."""

    def learn(self, states: FloatArray, actions: FloatArray, reward: float) -> None:
        """Take in an episode: states before each action and after the last, actions, a reward."""


class RandomAgent:
    """Uniform actions.

    Args:
        rng: source of randomness.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def act(self, state: FloatArray) -> float:
        """See :class:`Agent`."""
        del state
        return float(self._rng.random())

    def learn(self, states: FloatArray, actions: FloatArray, reward: float) -> None:
        """See :class:`Agent`."""


class AgentSystem(System):
    """An agent makes a network in each episode; the accuracy of a known one is not asked for again.

    Args:
        episodes: for a target; 0 for as many as its budget.
        warmup: episodes of random actions, at most a quarter of all.
        agent: see :data:`AGENTS`.
        hidden: width of both hidden layers of actor and critic.
        faithful: slips to repeat.

    Attributes:
        decay: of the noise, each episode after the warm-up.
        replay: episodes that are remembered.
        reward_scale: reward for a point of accuracy.

    Raises:
        UserError: a parameter is out of range.
    """

    decay: ClassVar[float]
    replay: ClassVar[int]
    reward_scale: ClassVar[float]

    def __init__(self, episodes: int, warmup: int, agent: str, hidden: int, faithful: str) -> None:
        check_least(0, episodes=episodes, warmup=warmup)
        check_least(1, hidden=hidden)
        if agent not in AGENTS:
            raise UserError(
                f"{self.title}: agent is one of {', '.join(AGENTS)}, not {shown(agent)}"
            )
        if agent == "td3":
            require_rl(f"{self.title}:agent=td3")
        self.episodes, self.warmup, self.agent, self.hidden = episodes, warmup, agent, hidden
        self._choose_slips(faithful)

    @abstractmethod
    def decisions(self, choice: Choice) -> Decisions:
        """What the agent decides.

        Args:
            choice: the networks that it can choose.
        """

    def environment(
        self, problem: APQProblem, score: Callable[[IntArray], float] | None = None
    ) -> NetworkEnvironment:
        """What the agent decides, for agents of other libraries.

        Args:
            problem: with the limits.
            score: the reward of a network, given as block configurations of shape ``(n_blocks,)``;
                by default its accuracy at the scale of the authors' rewards.

        Raises:
            UserError: gymnasium is not installed, the limits are out of reach, there is nothing to
                choose, or there is neither ``score`` nor an accuracy.
        """
        require_rl("an environment")
        from apq_moo.algorithms.baselines.environment import NetworkEnvironment

        self.admit(problem)
        accuracy, scale = problem.accuracy, self.reward_scale
        if score is None:
            if accuracy is None:
                raise UserError("this problem has no accuracies: pass score, or make one with acc")
            source = accuracy

            def score(index: IntArray) -> float:
                return scale * float(source(index[None])[0])

        choice = Choice(problem, reference_network(problem), self.fields or (), self.title)
        return NetworkEnvironment(self.decisions(choice), score)

    def check(self, problem: APQProblem, base: IntArray) -> None:
        """See :class:`System`."""
        super().check(problem, base)
        if self.agent == "ddpg":
            require("torch", f"{self.title}:agent=ddpg")
        self._device(problem)

    def _device(self, problem: APQProblem) -> str:
        """Where the agent's networks lie: where torch is said to run, by default on the CPU.

        So without a word the same seed gives the same networks, whether there is a GPU or not.

        Raises:
            UserError: there is no such device.
        """
        on = None if problem.accuracy is None else problem.accuracy.on
        if on is None or self.agent == "random":
            return "cpu"
        from apq_moo.supernet.devices import torch_device

        return str(torch_device(on))

    def _make_agent(
        self, decisions: Decisions, episodes: int, rng: np.random.Generator, device: str = "cpu"
    ) -> Agent:
        if self.agent == "random":
            return RandomAgent(rng)
        warmup = min(self.warmup, episodes // 4) + self.repeats("late-warmup")
        if self.agent == "td3":
            from apq_moo.algorithms.baselines.td3 import Td3

            return Td3(decisions, episodes, warmup, self.hidden, rng, device)
        from apq_moo.algorithms.baselines.ddpg import Ddpg, Settings

        settings = Settings(warmup, decay=self.decay, replay=self.replay, hidden=self.hidden)
        return Ddpg(decisions.n_state, settings, rng, device)

    def reach(self, target: Target, base: IntArray | None = None) -> Asking[Any]:
        """See :class:`System`."""
        start = reference_network(target.problem) if base is None else base
        choice = Choice(target.problem, start, self.fields or (), self.title)
        decisions = self.decisions(choice)
        if not decisions.n_steps:  # a stage before left nothing to choose
            yield decisions.cheapest[None]
            return
        episodes = self.episodes or target.budget
        device = self._device(target.problem)
        agent = self._make_agent(decisions, episodes, target.rng, device)
        known: dict[bytes, float] = {}
        for _ in range(episodes):
            states, actions, done = [decisions.reset()], [], False
            while not done:
                actions.append(agent.act(states[-1]))
                state, done = decisions.step(actions[-1])
                states.append(state)
            index = decisions.network()
            key = index.tobytes()
            if key not in known:
                (accuracy,) = yield index[None]
                known[key] = float(accuracy)
            agent.learn(np.array(states), np.array(actions), self.reward_scale * known[key])

"""Decisions as environments of gymnasium's form, and an agent of another library."""

import numpy as np
import pytest

from apq_moo.algorithms import ALGORITHMS
from apq_moo.algorithms.baselines import agents
from apq_moo.algorithms.baselines.reference import reference_network
from apq_moo.algorithms.baselines.system import Target, within
from apq_moo.errors import UserError
from apq_moo.problems import APQProblem
from apq_moo.space import load_space
from apq_moo.testing.checks import global_generators

LIMITED = "size"


@pytest.fixture(scope="module")
def problem():
    """On `tiny`, whose networks' accuracies are all known."""
    free = APQProblem(load_space("tiny"), ("acc",), {LIMITED: 1e9}, predictor="table")
    cost = free.costs(reference_network(free)[None])[LIMITED][0]
    return free.with_limits({LIMITED: 0.9 * cost})


@pytest.fixture
def gymnasium():
    pytest.importorskip("stable_baselines3")
    return pytest.importorskip("gymnasium")


@pytest.mark.parametrize("name", ["amc", "haq"])
def test_environments_pass_the_checker(gymnasium, problem, name):
    from gymnasium.utils.env_checker import check_env

    environment = ALGORITHMS.get(name).system().environment(problem)
    check_env(environment, skip_render_check=True)


@pytest.mark.parametrize(("name", "scale"), [("amc", 0.01), ("haq", 0.1)])
def test_the_reward_is_the_accuracy_of_a_network_within_the_limit(gymnasium, problem, name, scale):
    system = ALGORITHMS.get(name).system()
    environment = system.environment(problem)
    environment.action_space.seed(3)
    for _ in range(20):
        state, _ = environment.reset(seed=0)
        rewards, ended = [], False
        while not ended:
            assert environment.observation_space.contains(state)
            state, reward, ended, cut, info = environment.step(environment.action_space.sample())
            assert not cut
            rewards.append(reward)
        index = info["network"][None]
        assert len(rewards) == environment.decisions.n_steps
        assert rewards[:-1] == [0.0] * (len(rewards) - 1)
        assert rewards[-1] == pytest.approx(scale * problem.accuracy(index)[0])
        assert problem.region.contains_blocks(index)[0]
    counted = system.environment(problem, lambda index: float(index.sum()))
    counted.reset()
    *_, (_, reward, *_rest, info) = [
        counted.step(np.ones(1, np.float32)) for _ in range(counted.decisions.n_steps)
    ]
    assert reward == info["network"].sum()


def test_what_an_environment_needs(gymnasium, problem, monkeypatch):
    system = ALGORITHMS.get("haq").system()
    costs_only = APQProblem(problem.space, (LIMITED,), problem.constraints)
    with pytest.raises(UserError, match="this problem has no accuracies: pass score"):
        system.environment(costs_only)
    with pytest.raises(UserError, match="that haq can choose has size <= 20 KiB; the smallest"):
        system.environment(problem.with_limits({LIMITED: 20.0}))
    for missing in ("gymnasium", "stable_baselines3"):
        with monkeypatch.context() as patch:
            patch.setattr(agents, "find_spec", lambda name, m=missing: None if name == m else name)
            said = f"haq:agent=td3 needs {missing.replace('_', '-')}: pip install 'apq-moo.rl.'"
            with pytest.raises(UserError, match=said):
                ALGORITHMS.get("haq:agent=td3")
            assert ALGORITHMS.get("haq:agent=random").system().agent == "random"


def searched(problem, name, seed):
    target = Target(problem, 14, np.random.default_rng(seed))
    search = within(ALGORITHMS.get(name).system().reach(target), 14)
    index, found = next(search), []
    try:
        while True:
            found.append(index[0])
            index = search.send(problem.accuracy(index))
    except StopIteration:
        return np.array(found)


def test_td3_repeats_itself_and_leaves_global_generators_alone(gymnasium, problem):
    runs = []
    for seed in (1, 2):
        with global_generators(seed):
            runs.append(searched(problem, "haq:agent=td3:hidden=8", 3))
    assert runs[0].tolist() == runs[1].tolist()
    assert problem.region.contains_blocks(runs[0]).all()
    assert searched(problem, "haq:agent=td3:hidden=8", 4).tolist() != runs[0].tolist()


def test_td3_learns_where_the_reward_is(gymnasium, problem):
    """One number counts, the first, and is best at 1."""
    from apq_moo.algorithms.baselines.td3 import Td3

    decisions = ALGORITHMS.get("amc").system().environment(problem).decisions
    agent = Td3(decisions, 150, 30, 32, np.random.default_rng(1))
    taken = []
    for _ in range(150):
        states, actions, done = [decisions.reset()], [], False
        while not done:
            actions.append(agent.act(states[-1]))
            state, done = decisions.step(actions[-1])
            states.append(state)
        taken.append(actions[0])
        agent.learn(np.array(states), np.array(actions), actions[0])
    assert np.mean(taken[-20:]) > 0.8

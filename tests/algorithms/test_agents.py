"""Agents that choose bits and channels: what they decide, see, and learn."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import kstest, truncnorm

from apq_moo.algorithms import ALGORITHMS
from apq_moo.algorithms.baselines.amc import ChannelDecisions
from apq_moo.algorithms.baselines.choice import Choice
from apq_moo.algorithms.baselines.ddpg import Ddpg, Settings
from apq_moo.algorithms.baselines.haq import BitDecisions, decremented
from apq_moo.algorithms.baselines.reference import reference_network
from apq_moo.algorithms.baselines.system import Target
from apq_moo.errors import UserError
from apq_moo.hardware import CostTable
from apq_moo.problems import APQProblem, FeasibleRegion
from apq_moo.space import load_space
from apq_moo.space.spec import ROLES
from apq_moo.study.config import RunConfig
from apq_moo.study.search import check
from apq_moo.supernet import devices


@pytest.fixture(scope="module")
def digits():
    return load_space("digits")


@pytest.fixture(scope="module")
def under(digits):
    """Makes problems whose limits are shares of what the reference network costs."""
    free = APQProblem(digits, ("latency", "energy"))
    costs = free.costs(reference_network(free)[None])

    def make(share, names=("latency",)):
        return free.with_limits({name: share * costs[name][0] for name in names})

    return make


def act(decisions, actions):
    """The states of an episode, and the network."""
    states, done = [decisions.reset()], False
    for action in actions:
        assert not done
        state, done = decisions.step(action)
        states.append(state)
    assert done
    return np.array(states), decisions.network()


# -- AMC -------------------------------------------------------------------------------------------


def channels(problem, **slips):
    return ChannelDecisions(
        Choice(problem, reference_network(problem), ("channels",), "amc"), **slips
    )


@pytest.mark.parametrize("share", [0.35, 0.5, 0.8])
def test_channels_never_exceed_what_the_limit_leaves(under, share):
    """An option is left if the cheapest of all later blocks fit, found here from the table."""
    problem = under(share)
    decisions, rng = channels(problem), np.random.default_rng(1)
    table, limit = problem.tables["latency"], problem.constraints["latency"]
    decisions.reset()
    tight = 0
    for _ in range(40):
        spent, done = table.fixed, False
        decisions.reset()
        for place, b in enumerate(decisions.blocks):
            open_now = np.flatnonzero(decisions.choice.open[b])
            later = decisions.blocks[place + 1 :]
            rest = sum(table.blocks[i][decisions.choice.open[i]].min() for i in later)
            costs = table.blocks[b][open_now]
            fits = spent + costs + rest <= limit
            assert decisions.left().tolist() == open_now[fits].tolist()
            tight += not fits.all()
            action = rng.random() ** 0.3
            _, done = decisions.step(action)
            wide = np.array(problem.space.plans[b].options["channels"])
            gaps = np.where(fits, np.abs(wide - max(action, 0.2) * wide[-1]), np.inf)
            chosen = gaps.argmin()
            spent += costs[chosen]
        assert done
        network = decisions.network()
        assert table.gather(network[None])[0] == pytest.approx(spent)
        assert table.gather(network[None])[0] <= limit
    assert tight > 2


def test_channels_meet_several_limits(under):
    problem = under(0.5, ("latency", "energy"))
    decisions, rng = channels(problem), np.random.default_rng(2)
    networks = np.array([act(decisions, rng.random(decisions.n_steps))[1] for _ in range(200)])
    assert problem.region.contains_blocks(networks).all()
    assert len(np.unique(networks, axis=0)) > 50


def test_full_channels_where_the_limit_allows(under):
    problem = under(1.0)
    decisions = channels(problem)
    states, network = act(decisions, np.ones(decisions.n_steps))
    assert network.tolist() == reference_network(problem).tolist()
    assert ((states >= 0) & (states <= 1)).all()
    table, limit = problem.tables["latency"], problem.constraints["latency"]
    costs = [table.blocks[b][network[b]] / limit for b in decisions.blocks]
    np.testing.assert_allclose(states[:-1, 8], np.r_[0, np.cumsum(costs)[:-1]])
    least = [table.blocks[b][decisions.choice.open[b]].min() / limit for b in decisions.blocks]
    np.testing.assert_allclose(states[:-1, 9], np.cumsum(least[::-1])[::-1])
    assert states[:, 10].tolist() == [1.0] * len(states)
    tight = channels(under(0.5))
    states, network = act(tight, np.ones(tight.n_steps))
    kept = [
        problem.space.plans[b].options["channels"][problem.space.block_genes(b, network[[b]])[0, 1]]
        / problem.space.plans[b].options["channels"][-1]
        for b in tight.blocks
    ]
    assert states[:, 10].tolist() == [1.0, *kept]  # not the actions, of which limits leave less
    assert min(kept) < 0.5


def test_slips_of_amc(under):
    """Each changes what it says, from the same actions, and nothing else."""
    problem, rng = under(0.5), np.random.default_rng(3)
    plain = channels(problem)
    actions = rng.random((30, plain.n_steps))
    states, networks = zip(*(act(plain, row) for row in actions), strict=True)
    table, limit = problem.tables["latency"], problem.constraints["latency"]
    up = np.array([act(channels(problem, round_up=True), row)[1] for row in actions])
    assert (up[:, 0] >= np.array(networks)[:, 0]).all()
    assert (up[:, 0] > np.array(networks)[:, 0]).any()
    over = table.gather(up) / limit
    assert 0.1 < (over > 1).mean() < 1
    for slip in ({"pruned": True}, {"by_weights": True}):
        other = [act(channels(problem, **slip), row) for row in actions]
        assert all((a == n).all() for (_, a), n in zip(other, networks, strict=True))
        differ = np.array([seen for seen, _ in other]) != np.array(states)
        columns = np.flatnonzero(differ.any(axis=(0, 1))).tolist()
        assert columns == ([8] if "pruned" in slip else [9])
        assert differ[:, :-1, columns[0]].any(axis=0).tolist() == (
            [True] * plain.n_steps if "pruned" in slip else [True] + [False] * (plain.n_steps - 1)
        )
    system = ALGORITHMS.get("amc:rbound=0.5").system()
    free = under(1.0)
    choice = Choice(free, reference_network(free), ("channels",), "amc")
    wide = ALGORITHMS.get("amc:rbound=0.5:faithful=unused-rbound").system()
    bound, unbound = (act(s.decisions(choice), np.ones(plain.n_steps))[1] for s in (system, wide))
    assert unbound.tolist() == reference_network(free).tolist()
    assert (bound < unbound).all()


# -- HAQ -------------------------------------------------------------------------------------------


def bits(problem, **slips):
    return BitDecisions(Choice(problem, reference_network(problem), ROLES, "haq"), **slips)


def test_bits_are_equal_bins_of_what_a_block_can_run(under):
    decisions = bits(under(1.0))
    assert decisions.n_steps == 4 * len(decisions.blocks)
    u = (np.arange(3_000) + 0.5) / 3_000
    for mask, expected in ((None, 4), (3, 3)):
        counts: dict[int, int] = {}
        decisions.reset()
        genes = decisions.space.block_genes(0, np.arange(decisions.space.block_sizes[0]))
        for action in u:
            decisions.reset()
            if mask is not None:  # the device cannot run these weights
                decisions._possible[0] = decisions._possible[0] & (genes[:, 2] != 1)
            decisions.step(action)
            gene = int(genes[decisions._index[0], 2])
            counts[gene] = counts.get(gene, 0) + 1
        assert len(counts) == expected
        assert all(abs(n / len(u) - 1 / expected) < 0.01 / expected for n in counts.values())


def test_decisions_are_the_weights_bits_then_the_inputs(under):
    """At 8 bits all over the reference network is left as it is; states are checked by hand."""
    problem = under(1.0)
    decisions = bits(problem)
    actions = np.ones(decisions.n_steps)
    actions[[0, 5, 7]] = 0
    states, network = act(decisions, actions)
    (subnet,) = problem.space.decode(problem.space.from_block_index(network[None]))
    found = [[block.w_pw, block.a_pw, block.w_dw, block.a_dw] for block in subnet.blocks]
    assert found[0] == [3, 8, 8, 8]
    assert found[1] == [8, 3, 8, 3]
    assert {width for block in found[2:] for width in block} == {8}
    assert states[:8, 0].tolist() == [0, 0, 1, 1] * 2
    assert states[:8, 1].tolist() == [1, 0] * 4
    assert states[:, 10].tolist() == [1.0, *(width / 8 for block in found for width in block)]
    assert ((states >= 0) & (states <= 1)).all()
    table, limit = problem.tables["latency"], problem.constraints["latency"]
    spent = sum(table.blocks[b][network[b]] for b in decisions.blocks[:3]) / limit
    assert states[12, 11] == pytest.approx(spent)


def test_slips_of_haq(under):
    problem = under(1.0)
    rng = np.random.default_rng(4)
    plain, inverted, stale = bits(problem), bits(problem, inverted=True), bits(problem, stale=True)
    first, second = rng.random((2, plain.n_steps))
    first[0] = 0.3
    earlier, _ = act(plain, first)
    for made in (inverted, stale):
        act(made, first)
    states, wrong, old = (act(made, second)[0] for made in (plain, inverted, stale))
    assert wrong[0, 1] == states[0, 1] == 1
    assert (wrong[1:, 1] == 1 - states[1:, 1]).all()
    assert (np.delete(wrong, 1, axis=1) == np.delete(states, 1, axis=1)).all()
    assert states[0, 10] == 1
    assert old[0, 10] == earlier[1, 10] < 1
    assert (old[1:] == states[1:]).all()


@pytest.mark.parametrize("name", ["haq", "amc"])
def test_the_warm_up_is_a_quarter_at_most_and_late_by_one(under, name):
    problem = under(0.8)
    system = ALGORITHMS.get(f"{name}:warmup=20").system()
    late = ALGORITHMS.get(f"{name}:warmup=20:faithful=late-warmup").system()
    choice = Choice(problem, reference_network(problem), system.fields, name)
    rng = np.random.default_rng(0)
    made = [
        s._make_agent(s.decisions(choice), n, rng)._settings.warmup
        for s in (system, late)
        for n in (40, 400)
    ]
    assert made == [10, 20, 11, 21]


def ragged(problem, rng, limit=None):
    """The problem with costs that know no order, and cells that cannot run, on one limit."""
    space = problem.space
    blocks = [rng.uniform(0, 1, size) for size in space.block_sizes]
    masks = []
    for mask, costs in zip(problem.feasible, blocks, strict=True):
        costs[rng.random(len(costs)) < 0.4] = np.inf
        masks.append(mask & np.isfinite(costs))
    base = reference_network(problem)
    for b, number in enumerate(base):
        blocks[b][number], masks[b][number] = rng.uniform(0.5, 1.5), True
    table = CostTable("latency", "ms", space, 0.5, tuple(blocks))
    region = FeasibleRegion(space, tuple(masks), [(table, limit or 1e9)])
    return SimpleNamespace(space=space, region=region, feasible=tuple(masks)), table, base


def beyond_of(problem, seed, limit, base):
    bound, _, _ = ragged(problem, np.random.default_rng(seed), limit)
    return Choice(bound, base, ROLES, "haq")


def test_decrementing_ends_within_any_limit(under):
    """On tables without order; below the smallest cost it says so, and names that."""
    problem = under(1.0)
    swept = 0
    for seed in range(6):
        free, table, base = ragged(problem, np.random.default_rng(seed))
        choice = Choice(free, base, ROLES, "haq")
        least = choice.least(table)
        widest = np.array([np.flatnonzero(mask)[-1] for mask in choice.open])
        cost = table.gather(widest[None])[0]
        for share in (0.0, 0.3, 0.9):
            limit = least * (1 + 1e-12) + share * (cost - least)
            bound, _, _ = ragged(problem, np.random.default_rng(seed), limit)
            choice = Choice(bound, base, ROLES, "haq")
            found = decremented(choice, widest)
            assert bound.region.contains_blocks(found[None])[0]
            assert all(mask[number] for mask, number in zip(choice.open, found, strict=True))
            swept += int((found != widest).sum())
        if least > 1.001 * table.fixed:
            with pytest.raises(UserError, match="smallest reachable latency is"):
                # Of all networks, or of those that it can choose.
                decremented(beyond_of(problem, seed, 0.999 * least, base), widest)
    assert swept > 30


def test_decrementing_takes_the_last_layer_first(under):
    """By hand: the last block's depthwise inputs, then its weights, then its pointwise inputs."""
    problem = under(1.0)
    table, base = problem.tables["latency"], reference_network(problem)
    moves, index = [], base.copy()
    while len(moves) < 6:
        cost = table.gather(index[None])[0]
        tight = problem.with_limits({"latency": cost * (1 - 1e-9)})
        found = decremented(Choice(tight, base, ROLES, "haq"), index)
        (changed,) = np.flatnonzero(found != index)
        moves.append(int(changed))
        index = found
    assert moves[0] == len(base) - 1
    last = [problem.space.block_genes(moves[0], n)[2:] for n in (base[-1], index[-1])]
    assert (last[1] <= last[0]).all()
    assert (last[1] < last[0]).any()


# -- DDPG ------------------------------------------------------------------------------------------


def test_every_transition_carries_the_final_reward():
    agent = Ddpg(2, Settings(warmup=5, replay=2), np.random.default_rng(0))
    states = np.arange(8.0).reshape(4, 2)
    agent.learn(states, np.array([0.1, 0.2, 0.3]), 0.7)
    expected = [  # state, action, reward, next state, whether it goes on
        [0, 1, 0.1, 0.7, 2, 3, 1],
        [2, 3, 0.2, 0.7, 4, 5, 1],
        [4, 5, 0.3, 0.7, 6, 7, 0],
    ]
    assert agent.memory.tolist() == np.array(expected, dtype=np.float32).tolist()
    for reward in (0.8, 0.9):
        agent.learn(states, np.array([0.1, 0.2, 0.3]), reward)
    assert agent.memory[:, 3].tolist() == pytest.approx([0.8] * 3 + [0.9] * 3)


def test_noise_is_a_truncated_normal():
    agent = Ddpg(2, Settings(warmup=0, hidden=4), np.random.default_rng(0))
    for center, sigma in ((0.5, 0.5), (0.95, 0.3), (0.0, 0.05)):
        drawn = [agent._noisy(center, sigma) for _ in range(3000)]
        expected = truncnorm(-center / sigma, (1 - center) / sigma, center, sigma)
        assert kstest(drawn, expected.cdf).pvalue > 0.01
    assert agent._noisy(0.3, 0.0) == 0.3


def test_an_update_by_hand():
    """Against torch's own layers, with rewards less their moving mean, of two updates."""
    rng = np.random.default_rng(5)
    settings = Settings(warmup=0, hidden=6, batch=4, discount=0.9)
    agent = Ddpg(3, settings, rng)
    states, actions = rng.random((5, 3)), rng.random(4)

    def weights(of):  # torch's own have a row for each output
        return [w.t().clone().requires_grad_() for w in of.weights]

    actor, critic = weights(agent.actor), weights(agent.critic)
    slow_actor, slow_critic = weights(agent.actor), weights(agent.critic)
    linear = torch.nn.functional.linear

    def policy(w, x):
        return torch.sigmoid(
            linear(torch.relu(linear(torch.relu(linear(x, w[0], w[1])), w[2], w[3])), w[4], w[5])
        )

    def worth(w, x, a):
        hidden = torch.relu(x @ w[0].T + w[1] + a @ w[2].T + w[3])
        return linear(torch.relu(linear(hidden, w[4], w[5])), w[6], w[7])

    x = torch.tensor(states[:-1], dtype=torch.float32)
    following = torch.tensor(states[1:], dtype=torch.float32)
    a = torch.tensor(actions[:, None], dtype=torch.float32)
    optimizers = torch.optim.Adam(actor, lr=1e-4), torch.optim.Adam(critic, lr=1e-3)
    agent.learn(states, actions, 0.6)  # four updates, each of all four transitions
    going = torch.tensor([1.0, 1.0, 1.0, 0.0])[:, None]
    for _ in range(4):
        later = worth(slow_critic, following, policy(slow_actor, following)).detach()
        wanted = 0.6 - 0.6 + 0.9 * going * later  # the mean of equal rewards is the reward
        for optimizer, loss in (
            (1, lambda w=wanted: ((worth(critic, x, a) - w) ** 2).mean()),
            (0, lambda: -worth(critic, x, policy(actor, x)).mean()),
        ):
            optimizers[optimizer].zero_grad()
            loss().backward()
            optimizers[optimizer].step()
        with torch.no_grad():
            for slow, new in ((slow_actor, actor), (slow_critic, critic)):
                for s, w in zip(slow, new, strict=True):
                    s.copy_(0.99 * s + 0.01 * w)
    for found, expected in ((agent.actor, actor), (agent.critic, critic)):
        for f, e in zip(found.weights, expected, strict=True):
            torch.testing.assert_close(f.t(), e.detach(), rtol=1e-4, atol=1e-6)


def test_rewards_are_less_a_moving_mean_of_batches():
    """Two episodes of two steps, all in each batch: 0.2 twice, then halfway to 0.5 twice."""
    agent = Ddpg(1, Settings(warmup=0, hidden=2, batch=4), np.random.default_rng(0))
    states, actions = np.zeros((3, 1)), np.array([0.1, 0.9])
    agent.learn(states, actions, 0.2)
    assert agent._mean == pytest.approx(0.2)
    agent.learn(states, actions, 0.8)
    assert agent._mean == pytest.approx(0.2 + 0.15 + 0.075)


def test_it_learns_where_the_reward_is():
    """One decision, whose best action is 0.8."""
    rng = np.random.default_rng(1)
    agent = Ddpg(2, Settings(warmup=20, hidden=32, actor_lr=3e-3, critic_lr=1e-2, replay=300), rng)
    state = np.array([0.5, 1.0])
    taken = []
    for _ in range(250):
        action = agent.act(state)
        taken.append(action)
        agent.learn(np.array([state, state]), np.array([action]), 1 - (action - 0.8) ** 2)
    assert abs(np.mean(taken[-20:]) - 0.8) < 0.1


def test_known_networks_are_not_asked_for_again():
    """Three blocks of two widths: 200 episodes ask for eight networks."""
    toy = load_space("tests/problems/tiny.toml")
    problem = APQProblem(toy, ("latency",), {"latency": 1e9})
    system = ALGORITHMS.get("amc:agent=random").system()
    search = system.reach(Target(problem, 200, np.random.default_rng(0)))
    asked = [next(search)]
    try:
        while True:
            asked.append(search.send(np.array([50.0])))
    except StopIteration:
        pass
    assert len(np.unique(np.vstack(asked), axis=0)) == len(asked) == 8


def test_agents_act_where_torch_is_said_to_run(monkeypatch):
    """The device reaches the networks; where none is named they stay on the CPU."""
    problem = APQProblem("tiny", "acc", {"latency": 1e9}, predictor="table")
    asked = []
    monkeypatch.setattr(devices, "torch_device", lambda name: asked.append(name) or "meta")
    system = ALGORITHMS.get("amc:hidden=4").system()
    decisions = system.decisions(
        Choice(problem, reference_network(problem), system.fields, system.title)
    )
    for on, device in ((None, "cpu"), ("cuda:1", "meta")):
        monkeypatch.setattr(problem.accuracy, "on", on)
        agent = system._make_agent(decisions, 8, np.random.default_rng(0), system._device(problem))
        for network in (agent.actor, agent.critic, agent._slow_actor, agent._slow_critic):
            assert {part.device.type for part in (*network.weights, *network.slopes)} == {device}
    assert asked == ["cuda:1"]
    assert ALGORITHMS.get("haq:agent=random").system()._device(problem) == "cpu"


def test_a_gpu_that_is_not_there_is_said_before_the_search():
    config = RunConfig(
        algo="haq",
        space="tiny",
        predictor="table",
        objectives=("acc",),
        limits={"size": 30.0},
        budget=4,
        on="cuda:99",
    )
    with pytest.raises(UserError, match="no device 'cuda:99' here: torch finds"):
        check(config)

"""The mathematics of systems that train distributions: no supernet is needed."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apq_moo.algorithms.baselines.candidates import ChannelLevels, architectures, bit_widths
from apq_moo.algorithms.baselines.choice import Choice
from apq_moo.algorithms.baselines.descent import Adam, Loss, WeightSearch
from apq_moo.algorithms.baselines.distribution import (
    Candidates,
    Distribution,
    Probabilities,
    through_softmax,
)
from apq_moo.algorithms.baselines.proxylessnas import (
    Path as GatePath,
)
from apq_moo.algorithms.baselines.proxylessnas import baseline_after, costs_of, policy_gradient
from apq_moo.algorithms.baselines.reference import reference_network
from apq_moo.algorithms.baselines.trained_choices import Goal, Trial
from apq_moo.space import load_space
from apq_moo.space.spec import ROLES
from apq_moo.testing.strategies import limited_problem

TOY = Path(__file__).parents[1] / "problems" / "tiny.toml"


@pytest.fixture(scope="module")
def problem(problem_of):
    return problem_of(TOY, ("acc",), quantile=0.5)


@pytest.fixture
def model(problem):
    found = architectures(levels_of(problem, 2))
    found.logits[:] = np.random.default_rng(3).normal(size=len(found.logits))
    return found


def levels_of(problem, levels):
    fields = ("kernel", "channels", "depth")
    return ChannelLevels(problem, reference_network(problem), fields, "a test", levels)


def bits_of(problem, base=None):
    base = reference_network(problem) if base is None else base
    return bit_widths(Choice(problem, base, ROLES, "a test"))


def everything(model):
    """All combinations of candidates and depths, with their probabilities."""
    p = model.probabilities()
    sets = [*p.blocks, *p.depths]
    rows = np.array(list(product(*(range(len(of)) for of in sets))))
    weights = np.prod([of[rows[:, i]] for i, of in enumerate(sets)], axis=0)
    n = len(p.blocks)
    return rows[:, :n], rows[:, n:], weights


def latencies(problem, model, chosen, depths):
    return problem.costs(model.networks(chosen, depths))["latency"]


def expected_latency(problem, model):
    """By the model, with its gradient by the logits."""
    table = problem.tables["latency"]
    costs = [table.blocks[b][of.numbers] for b, of in enumerate(model.blocks)]
    p = model.probabilities()
    value, by = model.expected(p, costs, table.fixed)
    return value, model.back(p, by)


def slopes(function, x, step=1e-5):
    """Central differences of a function of a vector, which is changed in place."""
    found = []
    for i in range(len(x)):
        kept = x[i]
        x[i] = kept + step
        high = function()
        x[i] = kept - step
        found.append((high - function()) / (2 * step))
        x[i] = kept
    return np.array(found)


def test_expected_cost_is_that_of_all_networks(problem, model):
    chosen, depths, weights = everything(model)
    assert weights.sum() == pytest.approx(1)
    value, gradient = expected_latency(problem, model)
    assert value == pytest.approx(weights @ latencies(problem, model, chosen, depths))
    numbers = slopes(lambda: expected_latency(problem, model)[0], model.logits)
    np.testing.assert_allclose(gradient, numbers, atol=1e-9)
    assert np.abs(gradient).max() > 1e-6


def test_expected_cost_is_the_mean_of_draws(problem, model):
    drawn = model.sample(40_000, model.probabilities(), np.random.default_rng(0))
    found = latencies(problem, model, *drawn)
    value, _ = expected_latency(problem, model)
    assert abs(found.mean() - value) < 4 * found.std() / 200
    costs = [problem.tables["latency"].blocks[b][of.numbers] for b, of in enumerate(model.blocks)]
    by_hand = costs_of(model, *drawn, costs, problem.tables["latency"].fixed)
    np.testing.assert_allclose(by_hand, found)


def test_of_one_network_it_is_that_networks_cost(problem, model):
    model.logits *= 1000
    value, _ = expected_latency(problem, model)
    mode = model.mode(model.probabilities())
    assert value == pytest.approx(problem.costs(mode[None])["latency"][0])


def test_a_tilt_weighs_networks_by_their_costs(problem, model):
    chosen, depths, weights = everything(model)
    costs = Goal(problem, model).costs
    totals = costs_of(model, chosen, depths, costs, 0.0)
    wanted = weights * np.exp(-1.7 * totals)
    tilted = model.tilted(model.probabilities(), costs, 1.7)
    # Blocks beyond a depth are no part of a network: networks, not rows, are what is weighed.
    networks = [key.tobytes() for key in model.networks(chosen, depths)]
    sets = [*tilted.blocks, *tilted.depths]
    rows = np.hstack([chosen, depths])
    found = np.prod([of[rows[:, i]] for i, of in enumerate(sets)], axis=0)
    for key in set(networks):
        same = np.array([other == key for other in networks])
        assert found[same].sum() == pytest.approx(wanted[same].sum() / wanted.sum())


def test_combinations_that_are_left_out_give_their_share_to_the_others():
    space = load_space(TOY)
    cells = np.array([[0, 0], [0, 1], [1, 0]])  # (1, 1) is forbidden
    alone = Candidates.apart(np.array([0]))
    model = Distribution(space, [Candidates(np.arange(3), cells), alone, alone], [[1], [1]])
    first, second = np.array([0.3, -0.4]), np.array([1.1, 0.2])
    model.logits[:4] = np.r_[first, second]
    soft = [np.exp(part) / np.exp(part).sum() for part in (first, second)]
    joint = np.outer(*soft)
    joint[1, 1] = 0
    joint /= joint.sum()
    p = model.probabilities()
    np.testing.assert_allclose(p.blocks[0], [joint[0, 0], joint[0, 1], joint[1, 0]])
    np.testing.assert_allclose(model.marginals(0, p.blocks[0])[0], joint.sum(axis=1))
    np.testing.assert_allclose(model.marginals(0, p.blocks[0])[1], joint.sum(axis=0))
    worth = np.array([0.5, -2.0, 3.0])
    by = Probabilities([worth, np.zeros(1), np.zeros(1)], [np.zeros(1), np.zeros(1)])
    numbers = slopes(lambda: float(model.probabilities().blocks[0] @ worth), model.logits)
    np.testing.assert_allclose(model.back(p, by), numbers, atol=1e-9)


def test_a_relaxed_draw_is_a_gumbel_softmax(problem):
    model = bits_of(problem)
    rng = np.random.default_rng(1)
    model.logits[:] = rng.normal(size=len(model.logits))
    noise = rng.gumbel(size=len(model.logits))
    p = model.probabilities(0.7, noise)
    for b, of in enumerate(model.blocks):
        if of.options.shape[1] != 4 or len(of.numbers) != of.sizes.prod():
            continue
        start = model.spans[b].start
        for size, found in zip(of.sizes, model.marginals(b, p.blocks[b]), strict=True):
            part = torch.tensor((model.logits + noise)[start : start + size])
            np.testing.assert_allclose(found, torch.softmax(part / 0.7, 0).numpy())
            start += size
    # The most probable of a draw is as frequent as its probability (Gumbel's trick).
    block = model.blocks[2]
    draws = rng.gumbel(size=(4000, len(model.logits)))
    hits = [int(model.probabilities(1.0, row).blocks[2].argmax()) for row in draws]
    frequency = np.bincount(hits, minlength=len(block.numbers)) / len(draws)
    np.testing.assert_allclose(frequency, model.probabilities().blocks[2], atol=0.03)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(-4, 4), st.floats(-4, 4)), min_size=1, max_size=9))
def test_gates_go_through_the_softmax_as_autograd_does(pairs):
    logits, gates = (torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True))
    logits.requires_grad_()
    p = torch.softmax(logits, 0)
    p.backward(gates)
    found = through_softmax(p.detach().numpy(), gates.numpy())
    np.testing.assert_allclose(found, logits.grad.numpy(), atol=1e-12)


def a_trial(problem, model, seed=0):
    return Trial(model, Goal(problem, model), 0.5, np.random.default_rng(seed), 100, {})


def random_gates(model, seed):
    rng = np.random.default_rng(seed)
    like = model.probabilities()
    return Probabilities(
        [rng.normal(size=len(of)) for of in like.blocks],
        [rng.normal(size=len(of)) for of in like.depths],
    )


def test_two_candidates_leave_the_other_probabilities(problem, model):
    """And what they move between themselves is what autograd of their softmax says."""
    trial, rate = a_trial(problem, model), 0.01
    path = GatePath(trial, two=True)
    before, logits = model.probabilities(), model.logits.copy()
    gates, cost = random_gates(model, 5), trial.goal
    path.step(Adam(len(logits), rate), Loss("add"), 1.0, gates)
    after = model.probabilities()
    _, by_cost = model.expected(before, cost.costs, cost.fixed)
    moved = 0
    sets = zip(
        path.compared,
        model.spans,
        before.blocks + before.depths,
        after.blocks + after.depths,
        gates.blocks + gates.depths,
        by_cost.blocks + by_cost.depths,
        strict=True,
    )
    for pair, span, p, q, g, c in sets:
        others = np.setdiff1d(np.arange(len(p)), pair)
        np.testing.assert_allclose(q[others], p[others], rtol=1e-12)
        assert q[pair].sum() == pytest.approx(p[pair].sum())
        if len(pair) < 2:
            continue
        own = torch.tensor(logits[span][pair], requires_grad=True)
        share = torch.softmax(own, 0)
        loss = share @ torch.tensor(g[pair] + 0.5 * p[pair].sum() * c[pair])
        loss.backward()
        # Adam's first step is the rate, against the gradient's sign.
        np.testing.assert_array_equal(np.sign(q[pair] - p[pair]), -np.sign(own.grad.numpy()))
        gap = np.diff(model.logits[span][pair]) - np.diff(logits[span][pair])
        assert abs(gap[0]) == pytest.approx(2 * rate, rel=1e-4)
        moved += 1
    assert moved >= 3


def test_skipped_blocks_move_by_their_cost_unless_the_slip_is_repeated(problem, model):
    nothing = model.nothing()
    for slip in (False, True):
        for seed in range(50):  # a path that skips block 1
            path = GatePath(a_trial(problem, model, seed), two=False)
            if model.depths[0][path.depth[0]] == 1:
                break
        else:
            raise AssertionError("no path skips")
        before = model.logits.copy()
        path.step(Adam(len(before), 0.01), Loss("add"), 1.0, nothing, skips=slip)
        skipped, walked = (np.abs(model.logits - before)[model.spans[b]].max() for b in (1, 0))
        assert walked > 0.005
        assert (skipped == 0) == slip


def test_the_policy_gradient_is_that_of_the_expected_reward(problem, model):
    chosen, depths, weights = everything(model)
    rewards = np.random.default_rng(2).uniform(size=len(chosen))
    # A reward of a network, whatever its skipped blocks would be.
    same = {
        key.tobytes(): r for key, r in zip(model.networks(chosen, depths), rewards, strict=True)
    }
    rewards = np.array([same[key.tobytes()] for key in model.networks(chosen, depths)])
    p = model.probabilities()
    total = np.zeros_like(model.logits)
    for row, weight in enumerate(weights):
        one = slice(row, row + 1)
        by = policy_gradient(model, p, chosen[one], depths[one], rewards[one] - 0.4)
        total += weight * model.back(p, by)
    numbers = slopes(lambda: -float(everything(model)[2] @ rewards), model.logits)
    np.testing.assert_allclose(total, numbers, atol=1e-7)


def test_the_baseline_remembers_unless_the_slip_is_repeated():
    assert baseline_after(None, 0.5, forgetful=False) == 0.5
    assert baseline_after(0.5, 0.9, forgetful=False) == pytest.approx(0.504)
    assert baseline_after(0.5, 0.9, forgetful=True) == pytest.approx(0.896)


@pytest.mark.parametrize("loss", [Loss("add"), Loss("mul"), Loss("mul", scaled=True)])
def test_losses_have_their_own_slopes(loss):
    for entropy, cost, weight in ((0.7, 1.3, 0.4), (1.9, 0.5, 2.0)):
        by = loss.gradients(entropy, cost, weight)
        step = 1e-6
        numbers = [
            (loss.value(entropy + a, cost + b, weight) - loss.value(entropy - a, cost - b, weight))
            / (2 * step)
            for a, b in ((step, 0), (0, step))
        ]
        np.testing.assert_allclose(by, numbers, rtol=1e-5)
    assert Loss("add").value(0.7, 1.0, 5.0) == 0.7
    assert Loss("mul").value(0.7, 1.0, 5.0) == 0.7


def test_a_power_weighs_the_cost_and_a_factor_does_not():
    """The slip: whatever the weight, cost and cross entropy count alike."""
    for scaled in (False, True):
        ratios = []
        for weight in (0.1, 0.6, 3.0):
            by_entropy, by_cost = Loss("mul", scaled=scaled).gradients(0.8, 1.5, weight)
            ratios.append(by_cost / by_entropy)
        assert np.allclose(ratios, ratios[0]) == scaled
        if not scaled:
            np.testing.assert_allclose(np.array(ratios) / ratios[0], [1, 6, 30])


@pytest.mark.parametrize("threshold", [0.003, 0.1, 7.0])
def test_the_weight_is_found_under_which_a_limit_is_met(threshold):
    search, met = WeightSearch(0.1), []
    for _ in range(12):
        weight = search.weight
        search.tell(over=weight < threshold)
        met += [weight] if weight >= threshold else []
    assert threshold <= min(met) < 1.3 * threshold


def test_adam_is_torchs(problem):
    gradients = np.random.default_rng(0).normal(size=(5, 3))
    weight = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    theirs = torch.optim.Adam([weight], lr=0.02, betas=(0.0, 0.999), eps=1e-8)
    ours, own = Adam(3, 0.02), np.zeros(3)
    for gradient in gradients:
        weight.grad = torch.tensor(gradient)
        theirs.step()
        own += ours.step(gradient)
    np.testing.assert_allclose(own, weight.detach().numpy(), rtol=1e-9)


# -- candidates ------------------------------------------------------------------------------------


def test_blocks_choose_kernels_and_channel_levels_at_8_bits(digits):
    problem = limited_problem(digits, 0.9, ("acc",))
    model = architectures(levels_of(problem, 3))
    space = problem.space
    for b, (of, plan) in enumerate(zip(model.blocks, space.plans, strict=True)):
        genes = space.block_genes(b, of.numbers)
        channels = plan.options["channels"]
        assert len(of.numbers) == len(plan.options["kernel"]) * 3
        assert set(genes[:, 1]) == {0, round((len(channels) - 1) / 2), len(channels) - 1}
        assert (genes[:, 2:] == 3).all()
    assert [d.tolist() for d in model.depths] == [[1, 2, 3], [1, 2, 3], [1, 2]]


def test_bits_are_those_that_no_rule_forbids():
    """On the toy a 7x7 kernel's stand-in, 5x5, has no 4-bit depthwise activations."""
    problem = limited_problem_of_the_toy()
    space, base = problem.space, reference_network(problem)
    wide = base.copy()
    wide[0] = space.block_index(space.encode([five(space, base)]))[0][0]
    for network, n in ((base, 4), (wide, 2)):
        (first, *_) = bits_of(problem, network).blocks
        genes = space.block_genes(0, first.numbers)
        assert len(genes) == n
        assert (genes[:, :2] == space.block_genes(0, network[0])[:2]).all()


def limited_problem_of_the_toy():
    from apq_moo.problems import APQProblem

    return APQProblem(load_space(TOY), ("latency",))


def five(space, base):
    (subnet,) = space.decode(space.from_block_index(base[None]))
    plain = subnet.to_dict()
    plain["blocks"][0] |= {"kernel": 5, "a_dw": 8}
    return plain

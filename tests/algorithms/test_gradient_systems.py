"""ProxylessNAS and DNAS as searches: budgets, limits, seeds, what they need."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from apq_moo.algorithms import ALGORITHMS
from apq_moo.algorithms.baselines.choice import Choice
from apq_moo.algorithms.baselines.reference import reference_network
from apq_moo.algorithms.baselines.trained_choices import Trial
from apq_moo.algorithms.strategy import Context
from apq_moo.errors import UserError
from apq_moo.hardware import find_device, minimum
from apq_moo.problems import APQProblem
from apq_moo.problems.evaluated import Evaluated
from apq_moo.problems.trained import TrainedNetwork
from apq_moo.space import load_space
from apq_moo.space.spec import ROLES
from apq_moo.testing import AlgorithmConformance
from apq_moo.testing.strategies import check_resuming, contexts_of, limited_problem

SMALL = "levels=2:batch_size=16:trials=2:steps_per_evaluation=0.5"
GRADIENTS = [
    f"proxylessnas:{SMALL}",
    f"proxylessnas:estimator=two:loss=mul:faithful=all:{SMALL}",
    "dnas:batch_size=16:trials=2:steps_per_evaluation=0.5",
    "dnas:forward=gumbel:loss=mul:batch_size=16:trials=2:steps_per_evaluation=0.5",
    "dnas:forward=hard:loss=mul:faithful=all:batch_size=16:trials=2:steps_per_evaluation=0.5",
]


def under_a_share(space, share, objectives=("acc",)):
    problem = limited_problem(space)
    free = problem.with_limits({})
    cost = free.costs(reference_network(free)[None])["latency"][0]
    return problem.with_limits({"latency": share * cost}, objectives)


def drive(name, problem, budget, seed=0):
    strategy = ALGORITHMS.get(name).strategy()
    return Evaluated.join(list(strategy.rounds(Context(problem, budget, seed))))


class TestReinforce(AlgorithmConformance):
    """Needs no gradients, so that it runs wherever accuracies are known.

    Draws that it learns from may exceed the limits, and cost evaluations. At 8 bits few limits of
    the whole space are met.
    """

    @pytest.fixture
    def algorithm(self):
        return ALGORITHMS.get("proxylessnas:estimator=reinforce")

    @pytest.fixture
    def make_problem(self, space):
        return lambda share: under_a_share(space, 0.45 + share)


@pytest.mark.parametrize("name", GRADIENTS)
def test_what_is_scored_meets_the_limit_and_the_budget_pays_for_steps(name, digits):
    """Costs are computed again layer by layer; what steps cost is not there to score with."""
    problem = under_a_share(digits, 0.8)
    before = problem.accuracy.gradient_steps
    found = drive(name, problem, 20)
    steps = problem.accuracy.gradient_steps - before
    assert steps == 4  # half of the budget, at 2 evaluations a step, a step short in each trial
    assert len(found) == 20 - steps * 2
    assert len(np.unique(found.X, axis=0)) == len(found)
    assert found.feasible.all()
    device = find_device("bitfusion")
    for subnet in problem.space.decode(found.genotypes):
        latency = device.layer_costs(problem.space.layers(subnet))["latency"].sum()
        assert latency <= problem.constraints["latency"] * (1 + 1e-12)
        bits = {(b.w_pw, b.a_pw, b.w_dw, b.a_dw) for b in subnet.blocks}
        shape = [(b.stage, b.kernel, b.channels) for b in subnet.blocks]
        if name.startswith("dnas"):
            assert shape == reference_shape(problem)
        else:
            assert bits == {(8, 8, 8, 8)}


def reference_shape(problem):
    space = problem.space
    (subnet,) = space.decode(space.from_block_index(reference_network(problem)[None]))
    return [(b.stage, b.kernel, b.channels) for b in subnet.blocks]


@pytest.mark.parametrize("name", GRADIENTS[:3:2])
def test_a_stopped_search_ends_as_an_undisturbed_one(name, digits):
    problem = under_a_share(digits, 0.8, ("acc", "latency"))
    strategy = ALGORITHMS.get(name.replace("=0.5", "=0.1")).strategy
    check_resuming(strategy, contexts_of(strategy(), problem))


def test_a_step_costs_the_images_that_it_runs(digits):
    """897 images calibrate, which takes as long as 3 times as many, and 3,600 are classified."""
    problem = under_a_share(digits, 0.8)
    network = TrainedNetwork(problem.accuracy)
    assert network.evaluation_images == 3600 + 3 * 897
    for name, passes in (
        ("proxylessnas:levels=2", 2 + np.mean([6, 6, 6, 4, 4, 4, 2, 2]) - 1),
        ("proxylessnas:levels=2:estimator=two", 3),
        ("dnas", 3 + 4),
    ):
        before = problem.accuracy.gradient_steps
        drive(f"{name}:trials=1:batch_size=2000", problem, 8)
        each = 897 * passes * 2.3 / 6291  # there are no more
        assert problem.accuracy.gradient_steps - before == int(4 / each), name


def test_gradients_teach(digits):
    """Without a limit: networks of a trained distribution are better than of one that is not."""
    problem = under_a_share(digits, 1.0).with_limits({}, ("acc",))
    name = "proxylessnas:levels=2:batch_size=64:steps_per_evaluation=4"
    trained, drawn = (
        -drive(f"{name}:share={share}", problem, n).F.mean() for share, n in ((0.5, 20), (0, 20))
    )
    assert trained > drawn + 1


def test_rewards_teach(digits):
    """The same of the first and the last updates of a long training, within it."""
    problem = under_a_share(digits, 1.0).with_limits({}, ("acc",))
    found = drive("proxylessnas:estimator=reinforce:share=0.9", problem, 1000)
    assert -found.F[700:900].mean() > 1 - found.F[:200].mean()


def test_slips_change_the_course(digits):
    problem = under_a_share(digits, 0.5)
    base = "proxylessnas:estimator=reinforce:trials=1"
    one, other = (
        drive(f"{base}{slip}", problem, 150).X for slip in ("", ":faithful=forgetful-baseline")
    )
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(one[:10], other[:10])  # the first update has no baseline yet


@pytest.mark.parametrize("name", ["dnas", "proxylessnas"])
@pytest.mark.parametrize("budget", [1, 2, 4])
def test_of_the_smallest_budget_something_is_left_to_score_with(name, budget, digits):
    problem = under_a_share(digits, 0.8)
    before = problem.accuracy.gradient_evaluations
    found = drive(f"{name}:batch_size=4:steps=3", problem, budget)
    assert found.feasible.any()
    assert 1 <= len(found) <= budget - (problem.accuracy.gradient_evaluations - before)


def test_where_no_draw_meets_all_limits_the_cheapest_network_is_scored(digits, monkeypatch):
    problem = under_a_share(digits, 0.8)
    monkeypatch.setattr(Trial, "picks", lambda self, _n: np.empty((0, digits.n_blocks), int))
    found = drive("dnas:batch_size=4:steps=1", problem, 6)
    cheapest = Choice(problem, reference_network(problem), ROLES, "it").cheapest()
    assert found.X.tolist() == problem.space.from_block_index(cheapest[None]).tolist()


def test_without_limits_one_distribution_is_trained(digits):
    problem = under_a_share(digits, 1.0).with_limits({}, ("acc",))
    found = drive(f"proxylessnas:{SMALL}:share=0.4", problem, 20)
    assert len(found) == 20 - math.ceil(8)
    assert found.feasible.all()


def test_what_it_needs_is_said(problem_of, digits, tmp_path):
    toy = load_space(Path(__file__).parents[1] / "problems" / "tiny.toml")
    problem = problem_of(toy, ("acc",))
    message = (
        r"proxylessnas needs the supernet of space 'tiny' \(estimator=reinforce needs none\): "
    )
    with pytest.raises(UserError, match=message) as caught:
        drive("proxylessnas", problem, 20)
    assert len(str(caught.value)) <= 300
    assert len(drive("proxylessnas:estimator=reinforce", problem, 20)) > 5
    assert (
        len(
            drive(
                "proxylessnas:estimator=reinforce", APQProblem("tiny", "acc", predictor="table"), 20
            )
        )
        > 5
    )
    with pytest.raises(UserError, match="dnas chooses bits, of which space 'mobilenet' offers"):
        ALGORITHMS.get("dnas").system().admit(APQProblem("mobilenet", ("latency",)))


@pytest.mark.parametrize("name", ["proxylessnas", "dnas"])
def test_unreachable_limits_name_the_smallest(name, digits):
    free = limited_problem(digits, 0.5, ("acc",))
    least, _ = minimum(free.tables["latency"], free.feasible)
    problem = free.with_limits({"latency": 1.02 * least})
    with pytest.raises(UserError, match=f"that {name} can choose has latency <=") as caught:
        drive(name, problem, 10)
    said = float(str(caught.value).split("reachable latency is ")[1].split()[0])
    system = ALGORITHMS.get(name).system()
    system.admit(problem.with_limits({"latency": said}))
    with pytest.raises(UserError):
        system.admit(problem.with_limits({"latency": said * 0.998}))


def test_parameters_are_checked():
    for text, said in {
        "proxylessnas:estimator=one": "estimator must be one of full, two, reinforce, not 'one'",
        "proxylessnas:share=1": r"share must lie in \[0, 1\), not 1",
        "proxylessnas:levels=0": "levels must be at least 1",
        "dnas:forward=soft": "forward must be one of composite, gumbel, hard, not 'soft'",
        "dnas:loss=div": "loss must be one of add, mul, not 'div'",
        "dnas:rate=0": "rate must be positive, not 0",
        "dnas:steps_per_evaluation=-1": "steps_per_evaluation must be positive, or 0 to count",
        "dnas:faithful=x": "no slip 'x' is known of it",
    }.items():
        with pytest.raises(UserError, match=said):
            ALGORITHMS.get(text)


@pytest.mark.parametrize("name", GRADIENTS[::2])
def test_they_train_where_torch_is_said_to_run(name, digits, monkeypatch):
    """The device that is named reaches the supernet and its images; the CPU's result stays."""
    from apq_moo.supernet import devices

    problem = under_a_share(digits, 0.8)
    plain = drive(name, problem, 20)
    asked, places = [], []
    monkeypatch.setattr(
        devices, "chosen_device", lambda on: asked.append(on) or torch.device("cpu")
    )
    batches = TrainedNetwork.batches

    def seen(network, size, seed):
        places.extend([network._device, devices.device_of(network._supernet)])
        return batches(network, size, seed)

    monkeypatch.setattr(TrainedNetwork, "batches", seen)
    monkeypatch.setattr(problem.accuracy, "on", "cuda:1")
    again = drive(name, problem, 20)
    assert asked == ["cuda:1"]
    assert set(places) == {torch.device("cpu")}
    assert (again.X == plain.X).all()
    assert (again.F == plain.F).all()

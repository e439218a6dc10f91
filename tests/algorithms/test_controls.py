"""Sensitivities, and the controls that trust in them."""

import numpy as np
import pytest

from apq_moo.algorithms import ALGORITHMS
from apq_moo.algorithms.baselines.choice import Choice
from apq_moo.algorithms.baselines.reference import reference_network
from apq_moo.algorithms.baselines.sensitivities import Sensitivities
from apq_moo.algorithms.baselines.system import Target, within
from apq_moo.errors import UserError
from apq_moo.problems import APQProblem
from apq_moo.space import all_networks, load_space
from apq_moo.space.spec import FIELDS, ROLES

ALL = ("kernel", "channels", *ROLES)


class Curves:
    """An accuracy that adds up over genes, concave in each; linear in those of even number."""

    def __init__(self, space, linear=False):
        self.space = space
        shape = (space.n_blocks, len(FIELDS), max(max(p.shape) for p in space.plans))
        steps = np.random.default_rng(3).uniform(0.1, 1.0, shape)
        steps = np.repeat(steps[:, :, :1], shape[2], axis=2) if linear else -np.sort(-steps, axis=2)
        self.worth = np.cumsum(steps, axis=2)

    def of(self, index):
        genes = self.space.layout.gather(self.space.layout.genes, index).astype(int)
        b, f = np.indices(genes.shape[1:])
        gain = self.worth[b, f, genes] * self.space.layout.active(index)[:, :, None]
        return 20 + gain.sum(axis=(1, 2))

    def predict(self, X):
        return self.of(self.space.block_index(X))


@pytest.fixture(scope="module")
def digits():
    return load_space("digits")


def problem_on(space, linear=False):
    free = APQProblem(space, ("acc",), {"latency": 1e9}, Curves(space, linear))
    return free, free.costs(reference_network(free)[None])["latency"][0]


@pytest.mark.parametrize(("linear", "most"), [(False, 10_000), (True, 49)])
def test_gains_are_those_of_an_additive_accuracy(digits, linear, most):
    """With one measurement of each of 48 genes where losses are linear."""
    problem, _ = problem_on(digits, linear=linear)
    base = reference_network(problem)
    sweep = Sensitivities(Choice(problem, base, ALL, "it"))
    networks = sweep.networks(most)
    genes = sum(n > 1 for plan in digits.plans for n in plan.shape)
    options = sum(n - 1 for plan in digits.plans for n in plan.shape)
    assert len(networks) == min(most, 1 + options)
    assert len(np.unique(networks, axis=0)) == len(networks)
    assert ((networks != base).sum(axis=1) == [0, *[1] * (len(networks) - 1)]).all()
    changed = (networks != base)[1 : 1 + genes].sum(axis=0)
    assert changed.tolist() == [sum(n > 1 for n in plan.shape) for plan in digits.plans]
    gains = sweep.gains(problem.accuracy(networks))
    others = np.tile(base, (300, 1))
    rng = np.random.default_rng(1)
    for b, part in enumerate(gains):
        others[:, b] = rng.integers(0, len(part), 300)
    predicted = problem.accuracy(base[None])[0] + sum(
        part[others[:, b]] for b, part in enumerate(gains)
    )
    np.testing.assert_allclose(predicted, problem.accuracy(others), atol=1e-9)


def test_a_gene_that_was_not_measured_is_like_the_others_of_its_field(digits):
    problem, _ = problem_on(digits, linear=True)
    sweep = Sensitivities(Choice(problem, reference_network(problem), ("channels",), "it"))
    gains = sweep.gains(np.array([50.0, 48.0, 44.0]))  # two blocks of eight lose 2 and 6 points
    steps = [
        part[:: digits.layout.strides[b, 1]][: digits.plans[b].shape[1]]
        for b, part in enumerate(gains)
    ]
    for b, worth in enumerate(steps):
        lost = [2, 6, 4][min(b, 2)]
        np.testing.assert_allclose(worth, np.linspace(-lost, 0, len(worth)))


def searched(name, problem, budget=10_000):
    system = ALGORITHMS.get(name).system()
    targets = [Target(problem, budget, np.random.default_rng(0))]
    search, batches = within(system.search(targets), budget), []
    try:
        index = next(search)
        while True:
            batches.append(index)
            index = search.send(problem.accuracy(index))
    except StopIteration:
        return np.vstack(batches)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_the_integer_program_against_all_networks(share):
    """The best of all networks of the reference network's depths, accuracies that add up."""
    toy = load_space("tests/problems/tiny.toml")
    free, cost = problem_on(toy)
    base = reference_network(free)
    index = toy.block_index(all_networks(toy))
    index = index[(toy.layout.depths(index) == toy.layout.depths(base[None])).all(axis=1)]
    least = free.costs(index)["latency"].min()
    problem = free.with_limits({"latency": least + share * (cost - least)})
    index = index[problem.region.contains_blocks(index)]
    best = problem.accuracy(index).max()
    found = searched("milp", problem)[-1:]
    assert problem.region.contains_blocks(found)[0]
    assert problem.accuracy(found)[0] == pytest.approx(best, abs=1e-9)
    greedy = searched("greedy", problem)[-1:]
    assert problem.region.contains_blocks(greedy)[0]
    assert problem.accuracy(greedy)[0] <= best + 1e-9


def test_greedy_walked_by_hand(digits):
    """Of all changes of one gene the cheapest in accuracy for its latency, again and again."""
    free, cost = problem_on(digits)
    problem = free.with_limits({"latency": 0.8 * cost})
    table, limit = problem.tables["latency"], problem.constraints["latency"]
    (found,) = searched("greedy:chooses=bits", problem)[-1:]
    index = reference_network(problem)
    while table.gather(index[None])[0] > limit:
        X = digits.from_block_index(index[None])
        rows = []
        for b, columns in enumerate(digits.block_columns):
            for f in range(2, len(FIELDS)):
                for option in range(digits.plans[b].shape[f]):
                    row = X[0].copy()
                    row[columns[f]] = option
                    rows.append(row)
        moves = digits.block_index(np.array(rows))
        saved = table.gather(index[None])[0] - table.gather(moves)
        lost = problem.accuracy(index[None])[0] - problem.accuracy(moves)
        price = np.where(saved > 1e-12, lost / np.maximum(saved, 1e-12), np.inf)
        index = moves[price.argmin()]
    assert found.tolist() == index.tolist()


def test_a_sweep_over_limits_measures_once(digits):
    free, cost = problem_on(digits)
    system = ALGORITHMS.get("milp").system()
    targets = [
        Target(free.with_limits({"latency": share * cost}), 40, np.random.default_rng(0))
        for share in (0.6, 0.8, 1.0)
    ]
    search, sizes = system.search(targets), []
    index = next(search)
    try:
        while True:
            sizes.append(len(index))
            last = index
            index = search.send(free.accuracy(index))
    except StopIteration:
        pass
    assert sizes == [50, 50, 17, 1, 1, 1]
    assert last[0].tolist() == reference_network(free).tolist()


def test_what_may_be_chosen_is_named():
    with pytest.raises(
        UserError, match="milp: chooses names some of kernel, channels, bits, joined"
    ):
        ALGORITHMS.get("milp:chooses=depth")
    mobilenet = load_space("mobilenet")
    with pytest.raises(
        UserError, match="greedy chooses bits, of which space 'mobilenet' offers one"
    ):
        ALGORITHMS.get("greedy:chooses=bits").system().admit(
            APQProblem(mobilenet, ("acc",), {"latency": 1e9}, Curves(mobilenet))
        )

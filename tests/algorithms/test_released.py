"""Where the released search departs from the paper, each shown beside the paper's algorithm."""

import numpy as np
import pytest
from pymoo.core.population import Population
from pymoo.core.termination import NoTermination

from apq_moo.algorithms import ApqGA
from apq_moo.algorithms.apq.released import MAX_TRIES, ReleasedApqGA
from apq_moo.algorithms.apq.top_k import TopK
from apq_moo.errors import UserError
from apq_moo.hardware import cost_table
from apq_moo.problems import APQProblem
from apq_moo.space import load_space


class Watch:
    """An accuracy that counts where its value comes from, and can be told to see bits only."""

    def __init__(self, space, bits=1.0, rest=0.0):
        self.space, self.bits, self.rest = space, bits, rest

    def predict(self, X):
        active = self.space.active(X)
        columns = self.space.block_columns
        share = X[:, columns] / np.maximum(self.space.n_options[columns] - 1, 1)
        bits = (share[:, :, 2:].mean(axis=2) * active).sum(axis=1) / active.sum(axis=1)
        rest = (share[:, :, :2].mean(axis=2) * active).sum(axis=1) / self.space.n_blocks
        return 100 * (self.bits * bits + self.rest * rest) / (self.bits + self.rest)


def problem_of(accuracy=None, limit=None):
    space = load_space("digits")
    accuracy = accuracy or Watch(space, 1, 1)
    limits = {} if limit is None else {"latency": limit}
    return APQProblem(space, ("acc",), limits, predictor=accuracy)


def start(kind, problem, seed=0, **options):
    algorithm = kind(pop_size=40, n_top=10, **options)
    algorithm.setup(problem, termination=NoTermination(), seed=seed)
    return algorithm


def advance(algorithm, problem, rounds):
    for _ in range(rounds):
        infills = algorithm.ask()
        algorithm.evaluator.eval(problem, infills)
        algorithm.tell(infills=infills)
    return algorithm


def test_1_it_cannot_see_bits():
    """Where bits alone matter every candidate looks the same to it, and the first ones stay."""
    problem = problem_of(Watch(load_space("digits"), bits=1, rest=0))
    released = advance(start(ReleasedApqGA, problem), problem, 30)
    first = start(ReleasedApqGA, problem).ask()[:10].get("X")
    np.testing.assert_array_equal(released.pop.get("X"), first)
    paper = advance(start(ApqGA, problem), problem, 30)
    assert -paper.pop.get("F").min() > -released.pop.get("F").min() + 10


def test_1_it_ranks_by_all_bits_at_8():
    problem = problem_of()
    algorithm = advance(start(ReleasedApqGA, problem), problem, 5)
    X = algorithm.pop.get("X").copy()
    space = problem.space
    for b in range(space.n_blocks):
        X[:, space.block_columns[b][2:]] = 3
    seen = problem.evaluate_raw(space.canonical(X))["acc"]
    assert (np.diff(seen) <= 0).all()
    real = -algorithm.pop.get("F")[:, 0]
    assert not (np.diff(real) <= 0).all()


def test_2_only_the_first_half_of_the_children_counts():
    problem = problem_of()
    algorithm = start(ReleasedApqGA, problem)
    infills = algorithm.ask()
    algorithm.evaluator.eval(problem, infills)
    algorithm.tell(infills=infills)
    first = {row.tobytes() for row in infills[:20].get("X")}
    assert all(row.tobytes() in first for row in algorithm.pop.get("X"))
    before = {row.tobytes() for row in algorithm.pop.get("X")}
    for _ in range(5):
        infills = algorithm.ask()
        # The crossover children are the best there are, and nobody looks.
        best = problem.space.largest()[None].repeat(20, axis=0)
        infills[20:].set("X", best)
        algorithm.evaluator.eval(problem, infills)
        algorithm.tell(infills=infills)
        mutants = {row.tobytes() for row in infills[:20].get("X")}
        after = {row.tobytes() for row in algorithm.pop.get("X")}
        assert after <= before | mutants
        before = after
    assert best[0].tobytes() not in before
    # What was scored and not kept is not reported.
    np.testing.assert_array_equal(algorithm.opt.get("X"), algorithm.pop.get("X")[:1])


def test_2_the_papers_algorithm_takes_crossover_children():
    problem = problem_of()
    algorithm = advance(start(ApqGA, problem), problem, 1)
    infills = algorithm.ask()
    infills[:1].set("X", problem.space.largest()[None])
    algorithm.evaluator.eval(problem, infills)
    algorithm.tell(infills=infills)
    best = problem.space.canonical(problem.space.largest()[None])[0]
    np.testing.assert_array_equal(algorithm.pop.get("X")[0], best)


def test_3_depth_never_shrinks():
    problem = problem_of()
    space = problem.space
    algorithm = advance(start(ReleasedApqGA, problem), problem, 1)
    X = space.canonical(np.vstack([space.largest(), space.smallest()]))
    algorithm.pop = Population.new(X=X)
    index = space.block_index(X)
    mutants = algorithm._mutation(index[:1], 200)
    assert (space.layout.depths(mutants) == space.depths(X[:1])).all()
    depths = space.layout.depths(algorithm._crossover(index, 400))
    largest, smallest = space.depths(X)
    # Children of the deepest stay deepest; those of the shallowest only grow.
    assert ((depths == largest).all(axis=1)).mean() > 0.45
    assert (depths >= smallest).all()
    assert len(np.unique(depths, axis=0)) > 3
    paper = advance(start(ApqGA, problem), problem, 1)
    search = TopK(
        [problem.region], [paper.random_state], pop_size=200, n_top=1, prob=0.1, max_redraws=1
    )
    search.tell(0, space.block_index(X[:1]), np.zeros(1), np.zeros(1))
    (children,) = search.children([0])
    assert (space.depths(space.from_block_index(children)) < largest).any()


def test_4_a_limit_that_children_never_meet_ends_in_an_error(monkeypatch):
    space = load_space("digits")
    table = cost_table(space, "latency")
    costs = table(space.sample(500, np.random.default_rng(0)))
    problem = problem_of(limit=float(np.median(costs[np.isfinite(costs)])))
    algorithm = advance(start(ReleasedApqGA, problem), problem, 1)
    monkeypatch.setattr("apq_moo.algorithms.apq.released.MAX_TRIES", 50)
    monkeypatch.setattr(
        problem.region, "contains_blocks", lambda X: np.zeros(len(X), dtype=bool), raising=True
    )
    with pytest.raises(UserError, match="the released code would go on forever"):
        algorithm.ask()
    assert MAX_TRIES == 10_000


def test_4_children_meet_reachable_limits():
    space = load_space("digits")
    table = cost_table(space, "latency")
    costs = table(space.sample(500, np.random.default_rng(0)))
    limit = float(np.quantile(costs[np.isfinite(costs)], 0.3))
    problem = problem_of(limit=limit)
    algorithm = start(ReleasedApqGA, problem)
    for _ in range(5):
        infills = algorithm.ask()
        assert (table(infills.get("X")) <= limit).all()
        algorithm.evaluator.eval(problem, infills)
        algorithm.tell(infills=infills)


def test_5_the_depth_of_the_last_stage_does_nothing():
    """A stage that offers one depth has no gene for it."""
    space = load_space("imagenet")
    assert len(space.spec.stages) == 6
    assert list(space.depth_columns) == [0, 1, 2, 3, 4]
    assert (space.depths(space.sample(50, np.random.default_rng(0)))[:, 5] == 1).all()

"""ChamNet: its pool, what it scores next, and what its process is worth."""

import numpy as np
import pytest

from apq_moo.algorithms import ALGORITHMS
from apq_moo.algorithms.baselines.chamnet import ChamNet, ProcessSource, quasi_random
from apq_moo.algorithms.baselines.system import Target, within
from apq_moo.errors import UserError
from apq_moo.problems import APQProblem
from apq_moo.space import load_space


@pytest.fixture(scope="module")
def digits():
    return load_space("digits")


@pytest.fixture(scope="module")
def under(digits):
    free = APQProblem(digits, ("acc",), {"latency": 1e9}, predictor="additive")
    rows = free.region.sample(300, np.random.default_rng(0))
    latencies = free.costs(digits.block_index(rows))["latency"]
    return lambda level: free.with_limits({"latency": float(np.quantile(latencies, level))})


def batches(system, problems, budget, seed=0):
    targets = [Target(p, budget, np.random.default_rng([seed, i])) for i, p in enumerate(problems)]
    search = within(system.search(targets), budget * len(targets))
    asked = []
    try:
        index = next(search)
        while True:
            asked.append(index)
            index = search.send(problems[0].accuracy(index))
    except StopIteration:
        return asked


def test_one_process_serves_all_targets(under):
    """Published: 240 networks in all; the last of each target is all that depends on its limit."""
    problems = [under(0.2), under(0.6)]
    asked = batches(ChamNet(predictions=400, samples=100), problems, 90)
    assert [len(index) for index in asked] == [40, 40, 20, 10, 10]
    assert len(np.unique(np.vstack(asked[:3]), axis=0)) == 100
    for problem, index in zip(problems, asked[-2:], strict=True):
        assert problem.region.contains_blocks(index).all()
        assert len(np.unique(index, axis=0)) == 10
    asked = batches(ChamNet(predictions=400, batch=30), problems[:1], 70)
    assert [len(index) for index in asked] == [30, 30, 10]
    assert [len(index) for index in batches(ChamNet(), problems[:1], 1)] == [1]


def test_the_pool_is_spread_evenly(under):
    """Depths and channels, which no rule concerns: all options of a gene are about as frequent."""
    problem = under(0.5)
    space = problem.space
    pool = quasi_random(problem, 200, np.random.default_rng(1))
    assert len(pool) == len(np.unique(pool, axis=0)) == 256
    assert np.all(problem.region.options.feasible_blocks(pool))
    X = space.from_block_index(pool)
    active = space.active_genes(X)
    ruled = space.block_columns[:, [0, 2, 3, 4, 5]].ravel()
    free = np.setdiff1d(np.flatnonzero(active.all(axis=0)), ruled)
    assert len(free) == 3 + 3
    for gene in free:
        options = space.n_options[gene]
        counts = np.bincount(X[:, gene], minlength=options)
        assert abs(counts - 256 / options).max() <= 4
    assert quasi_random(problem, 64, np.random.default_rng(1)).shape == (64, space.n_blocks)


def test_what_is_scored_next():
    """Against a loop over the bands; the rest is random."""
    rng = np.random.default_rng(3)
    system = ChamNet(explore=0.25)
    for _ in range(20):
        predicted, ranks = rng.random(97), rng.permutation(97)
        known = rng.choice(97, 30, replace=False)
        chosen = system._next(predicted, ranks, known, 8, rng)
        assert len(set(chosen.tolist())) == 8
        assert not set(chosen.tolist()) & set(known.tolist())
        best = []
        for band in range(6):
            inside = [
                i
                for i in range(97)
                if band * 97 / 6 <= ranks[i] < (band + 1) * 97 / 6 and i not in known
            ]
            best.append(max(inside, key=lambda i: predicted[i]))
        assert chosen[:6].tolist() == best


def test_the_process_predicts_what_it_has_not_seen(under):
    problem = under(1.0)
    rng = np.random.default_rng(2)
    index = problem.space.block_index(problem.region.sample(260, rng))
    scores = problem.accuracy(index)
    process = ProcessSource(problem.space, index[:160], scores[:160], 0)
    missed = process.predict_blocks(index[160:]) - scores[160:]
    assert np.sqrt((missed**2).mean()) < 0.7 * scores[160:].std()
    again = ProcessSource(problem.space, index[:160], scores[:160], 0)
    assert (again.predict_blocks(index) == process.predict_blocks(index)).all()


def test_it_beats_random_draws(under):
    problem = under(0.3)
    found = batches(ChamNet(predictions=2000, samples=0), [problem], 150)
    best = problem.accuracy(np.vstack(found))[
        problem.region.contains_blocks(np.vstack(found))
    ].max()
    drawn = problem.draw(150, np.random.default_rng(1))
    assert best > problem.accuracy(problem.space.block_index(drawn)).max()


def test_parameters():
    for text, said in {
        "chamnet:samples=1001": "chamnet: samples is 1000 at most, not 1001",
        "chamnet:explore=1.5": r"chamnet: explore must lie in \[0, 1\], not 1.5",
        "chamnet+haq": "chamnet chooses everything: it is no stage",
    }.items():
        with pytest.raises(UserError, match=said):
            ALGORITHMS.get(text)

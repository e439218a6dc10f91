"""Problems with a made-up accuracy that rewards what costs more."""

from pathlib import Path

import numpy as np
import pytest

from apq_moo.problems import APQProblem
from apq_moo.space import load_space


class Additive:
    """Accuracy that grows with every option of every active block, at seeded rates."""

    def __init__(self, space, seed=5):
        self.space = space
        self.rates = np.random.default_rng(seed).uniform(0.1, 1.0, space.block_columns.shape)

    def predict(self, X):
        options = self.space.n_options[self.space.block_columns]
        share = (X[:, self.space.block_columns] + 1) / options
        gain = (np.sqrt(share) * self.rates).sum(axis=2) * self.space.active(X)
        return 100 * gain.sum(axis=1) / self.rates.sum()


@pytest.fixture(scope="session", params=["tiny", "digits", "imagenet"])
def space(request):
    if request.param == "tiny":
        return load_space(Path(__file__).parents[1] / "problems" / "tiny.toml")
    return load_space(request.param)


@pytest.fixture(scope="session")
def problem_of():
    """Makes problems; latency limits are given as quantiles of random networks' latencies."""

    def make(
        space="digits", objectives=("acc", "latency"), quantile=None, start="sizes", **constraints
    ):
        space = load_space(space)
        limits = dict(constraints)
        if quantile is not None:
            free = APQProblem(space, ("latency",))
            probe = free.region.sample(500, np.random.default_rng(0))
            limits["latency"] = float(np.quantile(free.evaluate_raw(probe)["latency"], quantile))
        return APQProblem(space, objectives, limits, Additive(space), start=start)

    return make

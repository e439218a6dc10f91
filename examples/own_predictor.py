"""A predictor of one's own: the mean accuracy of the samples that are most alike.

Four methods make a kind of predictor, whose files `--predictor FILE` reads too. In a package of your
own declare an entry point instead of registering it by hand (see docs/extending.md):

    [project.entry-points."apq_moo.predictors"]
    neighbours = "my_plugins:Neighbours"
"""

import numpy as np
from scipy.spatial.distance import cdist

from apq_moo.data.assets import SAMPLES, find_assets
from apq_moo.data.samples import load_samples
from apq_moo.predictors import PREDICTORS, Predictor, find_predictor
from apq_moo.predictors.metrics import kendall_tau
from apq_moo.problems import APQProblem
from apq_moo.space import load_space


@PREDICTORS.add("neighbours")
class Neighbours(Predictor):
    """Averages the ten samples that differ in the fewest genes."""

    name = "neighbours"

    def _fit(self, X, y):
        self.rows, self.accuracies = X, y

    def _predict(self, X):
        differing = cdist(self.space.canonical(X), self.rows, "hamming")
        nearest = np.argsort(differing, axis=1, kind="stable")[:, :10]
        return self.accuracies[nearest].mean(axis=1)

    def _state(self):
        return {"rows": self.rows, "accuracies": self.accuracies}, {}

    def _restore(self, arrays, settings):
        self._fit(arrays["rows"], arrays["accuracies"])


if __name__ == "__main__":
    space = load_space("digits")
    samples = load_samples(find_assets(space).path(SAMPLES), space)
    X, measured = samples.rows("mp_held_out")
    for name in ("neighbours", "additive", "mlp"):
        predictor = find_predictor(space, name)
        print(f"{name}: Kendall tau {kendall_tau(measured, predictor.predict(X)):.3f}")

    problem = APQProblem(space, ("acc",), {"latency": 0.01}, predictor="neighbours")
    drawn = problem.region.sample(2000, np.random.default_rng(0))
    best = drawn[np.argmin(problem.evaluate(drawn)[0])]
    expected = find_predictor(space, "mlp").predict(np.vstack([best, drawn]))
    print(
        f"its best of 2000 networks: {expected[0]:.2f} % by mlp, mean {expected[1:].mean():.2f} %"
    )

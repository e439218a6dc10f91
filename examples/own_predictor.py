"""A predictor of one's own: a sum of parabolas, by least squares.

Four methods make a kind of predictor, whose files `--predictor FILE` reads too. In a package of
your own declare an entry point instead of registering it by hand (see docs/extending.md):

    [project.entry-points."apq_moo.predictors"]
    parabola = "my_plugins:Parabola"
"""

import numpy as np
from sklearn.model_selection import cross_val_score

from apq_moo.data.assets import SAMPLES, find_assets
from apq_moo.data.samples import load_samples
from apq_moo.predictors import PREDICTORS, Predictor, find_predictor
from apq_moo.predictors.metrics import kendall_tau
from apq_moo.problems import APQProblem
from apq_moo.space import load_space


@PREDICTORS.add("parabola")
class Parabola(Predictor):
    """Every gene adds a parabola of its option's index, every block a constant."""

    name = "parabola"

    def _features(self, X):
        X = self.space.canonical(X)
        return np.column_stack([np.ones(len(X)), self.space.active(X), X, X**2])

    def _fit(self, X, y):
        self.weights = np.linalg.lstsq(self._features(X), y)[0]

    def _predict(self, X):
        # A matrix product would round differently in batches of different sizes.
        return (self._features(X) * self.weights).sum(axis=1)

    def _state(self):
        return {"weights": self.weights}, {}

    def _restore(self, arrays, _settings):
        self.weights = arrays["weights"]


if __name__ == "__main__":
    space = load_space("digits")
    samples = load_samples(find_assets(space).path(SAMPLES), space)
    X, measured = samples.rows("mp_held_out")
    for name in ("parabola", "additive", "mlp"):
        predictor = find_predictor(space, name)
        print(f"{name}: Kendall tau {kendall_tau(measured, predictor.predict(X)):.3f}")

    r2 = cross_val_score(Parabola(space), *samples.rows("mp"), cv=5).mean()
    print(f"parabola: R^2 {r2:.3f} in cross-validation")
    problem = APQProblem(space, ("acc",), {"latency": 0.01}, predictor="parabola")
    drawn = problem.region.sample(2000, np.random.default_rng(0))
    best = drawn[np.argmin(problem.evaluate(drawn)[0])]
    acc = find_predictor(space, "mlp").predict(np.vstack([best, drawn]))
    print(f"its best of 2000 networks: {acc[0]:.2f} % by mlp, their mean {acc[1:].mean():.2f} %")

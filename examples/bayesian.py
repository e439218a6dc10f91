"""Bayesian optimisation by hand: a Gaussian process, ParEGO, a batch at a time.

Each network of a batch maximises the expected improvement of another weighting of the objectives
(J. Knowles, ParEGO, IEEE Transactions on Evolutionary Computation 10(1), 2006), over networks that
are drawn from the feasible region or are mutants of the best.
"""

import numpy as np
from moocore import hypervolume
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from apq_moo.problems import APQProblem

LIMIT_MS = 0.012
START, BATCHES, BATCH = 60, 12, 8

problem = APQProblem("digits", ("acc", "latency"), {"latency": LIMIT_MS})
space, region = problem.space, problem.region
rng = np.random.default_rng(0)


def measure(X):
    """Accuracy and latency as losses between 0 and 1, shape (n, 2)."""
    values = problem.evaluate_raw(X)
    return np.column_stack([1 - values["acc"] / 100, values["latency"] / LIMIT_MS])


def mutants(X, n):
    """Networks of the region that differ from some of X in about two genes."""
    parents = X[rng.integers(0, len(X), n)]
    changed = rng.random(parents.shape) < 2 / space.n_var
    other = rng.integers(0, space.n_options, parents.shape)
    return region.repair(space.canonical(np.where(changed, other, parents)), rng)


X = region.sample(START, rng)
F = measure(X)
kernel = ConstantKernel(1.0) * RBF(5.0) + WhiteKernel(1e-3)
for _batch in range(BATCHES):
    for _ in range(BATCH):
        weights = rng.dirichlet(np.ones(2))
        weighted = weights * (F - F.min(axis=0)) / np.ptp(F, axis=0)
        loss = weighted.max(axis=1) + 0.05 * weighted.sum(axis=1)
        process = GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True)
        process.fit(space.one_hot(X), loss)
        pool = np.vstack([region.sample(300, rng), mutants(X[np.argsort(loss)[:20]], 700)])
        mean, deviation = process.predict(space.one_hot(pool), return_std=True)
        z = (loss.min() - mean) / deviation
        gain = deviation * (z * norm.cdf(z) + norm.pdf(z))
        X = np.vstack([X, pool[np.argmax(gain)]])
        F = np.vstack([F, measure(X[-1:])])
    print(f"{len(F)} evaluations: best {100 - 100 * F[:, 0].min():.2f} %")

random = measure(region.sample(len(F), np.random.default_rng(1)))
shares = [hypervolume(points, ref=[1, 1]) for points in (F, random)]
print(f"hypervolume {shares[0]:.4f}, random draws {shares[1]:.4f}")

"""NSGA-II on the problem: with the operators of pymoo, and with those that know the space.

Genotypes are option indices. Operators for real numbers work too, since the problem rounds what it
is given; those of `problem.operators()` know which genes are active and which blocks can run.
"""

import numpy as np
from moocore import hypervolume
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.optimize import minimize

from apq_moo.problems import APQProblem

LIMIT_MS = 0.012
EVALUATIONS = 4000

problem = APQProblem("digits", ("acc", "latency"), {"latency": LIMIT_MS})


def score(F):
    """Share of the box from 0 to 100 % and from 0 ms to the limit that the networks dominate."""
    return hypervolume(F / [100, LIMIT_MS], ref=[0, 1])


drawn = problem.region.sample(EVALUATIONS, np.random.default_rng(0))
print(f"random draws:        hypervolume {score(problem.evaluate(drawn)[0]):.4f}")
for name, algorithm in (
    ("pymoo's operators:  ", NSGA2(pop_size=100)),
    ("problem.operators():", NSGA2(pop_size=100, **problem.operators())),
):
    result = minimize(problem, algorithm, ("n_eval", EVALUATIONS), seed=1)
    print(f"{name} hypervolume {score(result.F):.4f}, {len(result.F)} networks")

best = np.argmin(result.F[:, 0])
(subnet,) = problem.space.decode(problem.genotypes(result.X[best]))
values = problem.evaluate_raw(result.X[best])
print(f"most accurate: {values['acc'][0]:.2f} %, {values['latency'][0] * 1000:.2f} us")
for block in subnet.blocks:
    print(f"  stage {block.stage}: {block.kernel}x{block.kernel}, {block.channels} channels")

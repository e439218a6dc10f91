"""nevergrad: differential evolution on the problem, asked and told, by real numbers.

nevergrad needs a parametrisation: here an array within bounds, which the problem rounds (a choice
for each gene is cleaner, and ten times slower to ask for). Bounds have to differ, so genes with a
single option are left out. It is told both objectives, and how far each limit is broken, where
that is positive.
"""

import nevergrad as ng
import numpy as np
from moocore import hypervolume

from apq_moo.problems import APQProblem

EVALUATIONS = 400

problem = APQProblem(
    "tiny", ("acc", "latency"), {"latency": 0.2}, predictor="table", fixed_genes=False
)
evaluated = []


def score(X):
    """Hypervolume of what meets the limit, in the box around the true front."""
    F, G = problem.evaluate(np.array(X), return_values_of=["F", "G"])
    best, worst = problem.pareto_front().min(axis=0), problem.pareto_front().max(axis=0)
    return hypervolume((F[(G <= 0).all(axis=1)] - best) / (worst - best), ref=[1, 1])


reals = ng.p.Array(init=problem.xu / 2, lower=problem.xl - 0.49, upper=problem.xu + 0.49)
reals.random_state.seed(1)
search = ng.optimizers.TwoPointsDE(parametrization=reals, budget=EVALUATIONS)
search.tell(ng.p.MultiobjectiveReference(), problem.nadir_point().tolist())
for _ in range(EVALUATIONS):
    asked = search.ask()
    evaluated.append(asked.value)
    F, G = problem.evaluate(asked.value, return_values_of=["F", "G"])
    search.tell(asked, F.tolist(), np.maximum(G, 0).tolist())
drawn = np.random.default_rng(0).integers(0, problem.xu + 1, (EVALUATIONS, problem.n_var))
print(f"{len(evaluated)} evaluations of {problem.n_var} numbers")
print(f"hypervolume {score(evaluated):.4f}, random draws {score(drawn):.4f}")

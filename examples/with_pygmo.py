"""pygmo: its NSGA-II on the problem, as a user-defined problem with integer variables.

pygmo needs an object with `fitness`, `get_bounds`, `get_nobj` and `get_nix` (how many of the last
variables are integers). Its algorithms for several objectives take no constraints, so what breaks a
limit is made worse by as much here. Fixed genes would do no harm (both bounds are 0).
"""

import numpy as np
import pygmo
from moocore import hypervolume

from apq_moo.problems import APQProblem

POPULATION, GENERATIONS = 40, 9
EVALUATIONS = POPULATION * (1 + GENERATIONS)

problem = APQProblem(
    "tiny", ("acc", "latency"), {"latency": 0.2}, predictor="table", fixed_genes=False
)
evaluated = []


class Networks:
    """The problem as pygmo wants it."""

    def fitness(self, x):
        """Objectives, minimised."""
        evaluated.append(x)
        F, G = problem.evaluate(x, return_values_of=["F", "G"])
        return F + np.maximum(G, 0).sum() * 100

    def get_bounds(self):
        """Of all variables."""
        return problem.xl, problem.xu

    def get_nobj(self):
        """How many objectives."""
        return problem.n_obj

    def get_nix(self):
        """How many integers."""
        return problem.n_var


def score(X):
    """Hypervolume of what meets the limit, in the box around the true front."""
    F, G = problem.evaluate(np.array(X), return_values_of=["F", "G"])
    best, worst = problem.pareto_front().min(axis=0), problem.pareto_front().max(axis=0)
    return hypervolume((F[(G <= 0).all(axis=1)] - best) / (worst - best), ref=[1, 1])


population = pygmo.population(pygmo.problem(Networks()), POPULATION, seed=1)
# As often as usual for integers, by distributions that reach all options.
nsga2 = pygmo.nsga2(gen=GENERATIONS, m=1 / problem.n_var, eta_c=2, eta_m=2, seed=1)
pygmo.algorithm(nsga2).evolve(population)
random = np.random.default_rng(0).integers(0, problem.xu + 1, (EVALUATIONS, problem.n_var))
print(f"{len(evaluated)} evaluations of {problem.n_var} integers")
print(f"hypervolume {score(evaluated):.4f}, random draws {score(random):.4f}")

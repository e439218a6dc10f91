"""jMetalPy: its NSGA-II on the problem, by real numbers that are rounded.

jMetalPy needs a subclass with bounds as lists, and constraints that are negative where broken. Its
crossover of integers cuts fractions off, which draws options towards the first: hence reals.
"""

import random

import numpy as np
from jmetal.algorithm.multiobjective import NSGAII
from jmetal.core.problem import FloatProblem
from jmetal.operator.crossover import SBXCrossover
from jmetal.operator.mutation import PolynomialMutation
from jmetal.util.termination_criterion import StoppingByEvaluations
from moocore import hypervolume

from apq_moo.problems import APQProblem

EVALUATIONS = 400

problem = APQProblem(
    "tiny", ("acc", "latency"), {"latency": 0.2}, predictor="table", fixed_genes=False
)
evaluated = []


class Networks(FloatProblem):
    """The problem as jMetalPy wants it."""

    def __init__(self):
        super().__init__()
        self.lower_bound, self.upper_bound = problem.xl.tolist(), problem.xu.tolist()

    name = staticmethod(lambda: "networks")
    number_of_objectives = staticmethod(lambda: problem.n_obj)
    number_of_constraints = staticmethod(lambda: problem.n_ieq_constr)

    def evaluate(self, solution):
        """Fill in objectives and constraints."""
        evaluated.append(list(solution.variables))
        F, G = problem.evaluate(np.array(solution.variables), return_values_of=["F", "G"])
        solution.objectives[:], solution.constraints[:] = F.tolist(), (-G).tolist()
        return solution


def score(X):
    """Hypervolume of what meets the limit, in the box around the true front."""
    F, G = problem.evaluate(np.array(X), return_values_of=["F", "G"])
    best, worst = problem.pareto_front().min(axis=0), problem.pareto_front().max(axis=0)
    return hypervolume((F[(G <= 0).all(axis=1)] - best) / (worst - best), ref=[1, 1])


random.seed(1)
mutation, crossover = PolynomialMutation(1 / problem.n_var, 2), SBXCrossover(0.9, 2)
end = StoppingByEvaluations(EVALUATIONS)
NSGAII(Networks(), 40, 40, mutation, crossover, termination_criterion=end).run()
drawn = np.random.default_rng(0).integers(0, problem.xu + 1, (EVALUATIONS, problem.n_var))
print(f"{len(evaluated)} evaluations of {problem.n_var} numbers")
print(f"hypervolume {score(evaluated):.4f}, random draws {score(drawn):.4f}")

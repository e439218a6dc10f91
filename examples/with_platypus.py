"""Platypus: its NSGA-II on the problem, with integers that it codes as bits.

Platypus needs a type for each variable; its `Integer` codes options in Gray's code, which takes at
least two of them, so genes with a single option are left out. Constraints are numbers compared with
a rule such as `<=0`.
"""

import random

import numpy as np
from moocore import hypervolume
from platypus import HUX, NSGAII, BitFlip, CompoundOperator, Integer, Problem

from apq_moo.problems import APQProblem

EVALUATIONS = 400

problem = APQProblem(
    "tiny", ("acc", "latency"), {"latency": 0.2}, predictor="table", fixed_genes=False
)
evaluated = []


def judge(x):
    """Objectives, minimised, and how far each limit is broken."""
    evaluated.append(list(x))
    F, G = problem.evaluate(np.array(x), return_values_of=["F", "G"])
    return F.tolist(), G.tolist()


def score(X):
    """Hypervolume of what meets the limit, in the box around the true front."""
    F, G = problem.evaluate(np.array(X), return_values_of=["F", "G"])
    best, worst = problem.pareto_front().min(axis=0), problem.pareto_front().max(axis=0)
    return hypervolume((F[(G <= 0).all(axis=1)] - best) / (worst - best), ref=[1, 1])


of_platypus = Problem(problem.n_var, problem.n_obj, problem.n_ieq_constr, function=judge)
of_platypus.types[:] = [Integer(0, int(top)) for top in problem.xu]
of_platypus.constraints[:] = "<=0"

random.seed(1)
search = NSGAII(of_platypus, population_size=40, variator=CompoundOperator(HUX(), BitFlip()))
search.run(EVALUATIONS)
drawn = np.random.default_rng(0).integers(0, problem.xu + 1, (EVALUATIONS, problem.n_var))
print(f"{len(evaluated)} evaluations of {problem.n_var} integers")
print(f"hypervolume {score(evaluated):.4f}, random draws {score(drawn):.4f}")

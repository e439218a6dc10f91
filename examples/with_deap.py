"""DEAP: an NSGA-II of its operators for lists of integers.

DEAP needs individuals that are lists with a fitness, and the loop is one's own. It knows no
constraints, so what breaks a limit is made worse by as much here. Genes with a single option do no
harm, but a mutation of one is wasted.
"""

import random

import numpy as np
from deap import base, creator, tools
from moocore import hypervolume

from apq_moo.problems import APQProblem

POPULATION, GENERATIONS = 40, 9
EVALUATIONS = POPULATION * (1 + GENERATIONS)

problem = APQProblem(
    "tiny", ("acc", "latency"), {"latency": 0.2}, predictor="table", fixed_genes=False
)
evaluated = []


def judge(x):
    """Objectives, minimised; those of a network that breaks a limit are made worse by as much."""
    evaluated.append(list(x))
    F, G = problem.evaluate(np.array(x), return_values_of=["F", "G"])
    return tuple(F + np.maximum(G, 0).sum() * 100)


def score(X):
    """Hypervolume of what meets the limit, in the box around the true front."""
    F, G = problem.evaluate(np.array(X), return_values_of=["F", "G"])
    best, worst = problem.pareto_front().min(axis=0), problem.pareto_front().max(axis=0)
    return hypervolume((F[(G <= 0).all(axis=1)] - best) / (worst - best), ref=[1, 1])


creator.create("Fitness", base.Fitness, weights=(-1.0,) * problem.n_obj)
creator.create("Network", list, fitness=creator.Fitness)
random.seed(1)  # of DEAP's operators
first = np.random.default_rng(1).integers(0, problem.xu + 1, (POPULATION, problem.n_var))
networks = [creator.Network(x) for x in first.tolist()]
children = networks
for _generation in range(GENERATIONS + 1):
    for child in children:
        child.fitness.values = judge(child)
    both = networks if children is networks else networks + children
    networks = tools.selNSGA2(both, POPULATION)
    children = [creator.Network(parent) for parent in tools.selTournamentDCD(networks, POPULATION)]
    for one, other in zip(children[::2], children[1::2], strict=True):
        tools.cxUniform(one, other, indpb=0.5)
    for child in children:
        tools.mutUniformInt(child, 0, problem.xu.tolist(), indpb=1 / problem.n_var)
drawn = np.random.default_rng(0).integers(0, problem.xu + 1, (EVALUATIONS, problem.n_var))
print(f"{len(evaluated)} evaluations of {problem.n_var} integers")
print(f"hypervolume {score(evaluated):.4f}, random draws {score(drawn):.4f}")

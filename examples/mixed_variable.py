"""The mixed-variable algorithm of pymoo, which reads `problem.vars` and works on dictionaries.

It knows nothing of inactive genes, so it mutates a few of the 51 variables at a time; survival by
rank and crowding makes it one for several objectives.
"""

import numpy as np
from moocore import hypervolume
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.mixed import MixedVariableGA, MixedVariableMating
from pymoo.core.variable import Integer
from pymoo.operators.crossover.ux import UX
from pymoo.operators.mutation.rm import ChoiceRandomMutation
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding
from pymoo.optimize import minimize

from apq_moo.problems import APQProblem

LIMIT_MS = 0.012
EVALUATIONS = 3000

problem = APQProblem("digits", ("acc", "latency"), {"latency": LIMIT_MS})
duplicates: DuplicateElimination = problem.operators()["eliminate_duplicates"]
mating = MixedVariableMating(
    crossover={Integer: UX()},
    mutation={Integer: ChoiceRandomMutation(prob_var=1.5 / problem.n_var)},
    eliminate_duplicates=duplicates,
)
algorithm = MixedVariableGA(
    pop_size=100, survival=RankAndCrowding(), mating=mating, eliminate_duplicates=duplicates
)
result = minimize(problem, algorithm, ("n_eval", EVALUATIONS), seed=1)

first = result.X[0]
some = ", ".join(f"{name}={value}" for name, value in list(first.items())[:5])
print(f"a network is a dictionary of {len(first)} option indices: {some}, ...")
print(f"{len(result.F)} networks on the front")


def score(F):
    """Share of the box from 0 to 100 % and from 0 ms to the limit that the networks dominate."""
    return hypervolume(F / [100, LIMIT_MS], ref=[0, 1])


drawn = problem.region.sample(EVALUATIONS, np.random.default_rng(0))
random = score(problem.evaluate(drawn)[0])
print(f"hypervolume {score(result.F):.4f}, random draws {random:.4f}")

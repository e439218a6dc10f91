"""Drive an algorithm by hand: ask it for networks, evaluate them yourself, tell it the values.

This is how evaluations are sent elsewhere (to a cluster, or to a board on the desk). The last batch
is cut to what is left of the budget; algorithms of the registry can live with that.
"""

import numpy as np
from pymoo.core.termination import NoTermination
from pymoo.problems.static import StaticProblem

from apq_moo.algorithms import ALGORITHMS
from apq_moo.problems import APQProblem

BUDGET = 1250
LIMITS = {"latency": 0.008}

problem = APQProblem("digits", ("acc", "size"), LIMITS)
algorithm = ALGORITHMS.get("nsga2").factory(problem, pop_size=100)
algorithm.setup(problem, termination=NoTermination(), seed=0)

evaluated = 0
while evaluated < BUDGET:
    batch = algorithm.ask()[: BUDGET - evaluated]
    X = problem.genotypes(batch.get("X"))

    # Elsewhere: X are integers, or JSON by problem.space.decode(X)[i].to_dict().
    values = problem.evaluate_raw(X)

    F, G = problem.judge(values, problem.space.block_index(X))
    algorithm.evaluator.eval(StaticProblem(problem, F=F, G=G), batch)
    algorithm.tell(infills=batch)
    evaluated += len(batch)

front = algorithm.opt.get("F")
front = front[np.argsort(front[:, 1])]
print(f"{evaluated} evaluations, {len(front)} networks on the front")
for loss, kib in front[:: max(1, len(front) // 8)]:
    print(f"  {-loss:6.2f} % in {kib:5.2f} KiB")

drawn = problem.evaluate_raw(problem.region.sample(BUDGET, np.random.default_rng(0)))
print(f"best accuracy {-front[:, 0].min():.2f} %, random draws {drawn['acc'].max():.2f} %")

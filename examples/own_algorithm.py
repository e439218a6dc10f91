"""An algorithm of one's own: mutants of the best networks so far.

It is a pymoo `Algorithm` that takes all randomness from `self.random_state`. In a package of your
own declare an entry point instead of registering it by hand (see docs/extending.md):

    [project.entry-points."apq_moo.algorithms"]
    front-walk = "my_plugins:ENTRY"
"""

import numpy as np
from pymoo.core.algorithm import Algorithm
from pymoo.core.population import Population

from apq_moo.algorithms import ALGORITHMS, AlgorithmEntry
from apq_moo.problems import APQProblem


class FrontWalk(Algorithm):
    """Each batch changes about two genes of random members of the front so far."""

    def __init__(self, pop_size=100, **kwargs):
        super().__init__(**kwargs)
        self.pop_size = pop_size

    def _initialize_infill(self):
        return Population.new(X=self.problem.draw(self.pop_size, self.random_state))

    def _infill(self):
        rng, space = self.random_state, self.problem.space
        parents = self.opt.get("X")[rng.integers(0, len(self.opt), self.pop_size)]
        changed = rng.random(parents.shape) < 2 / space.n_var
        other = rng.integers(0, space.n_options, parents.shape)
        mutants = space.canonical(np.where(changed, other, parents))
        return Population.new(X=self.problem.region.repair(mutants, rng))

    def _advance(self, infills, **_kwargs):
        self.pop = Population.merge(self.opt, infills)  # pymoo then makes the best of it self.opt


ENTRY = AlgorithmEntry(
    name="front-walk",
    factory=lambda _problem, pop_size=100, **options: FrontWalk(pop_size, **options),
    kind="multi-objective",
    citation="this example",
    summary="mutants of the front so far",
)
ALGORITHMS.register("front-walk", ENTRY)

if __name__ == "__main__":
    from moocore import hypervolume
    from pymoo.optimize import minimize

    problem = APQProblem("digits", ("acc", "latency"), {"latency": 0.012})
    for name in ("front-walk", "nsga2", "random"):
        algorithm = ALGORITHMS.get(name).factory(problem, pop_size=50)
        F = minimize(problem, algorithm, ("n_eval", 3000), seed=0).F
        print(f"{name}: hypervolume {hypervolume(F / [100, 0.012], ref=[0, 1]):.4f}")

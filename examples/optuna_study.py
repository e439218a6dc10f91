"""Studies of optuna with several objectives, on a plain function of option indices.

optuna takes limits as constraints of a trial, whose values are positive where a limit is broken.
"""

import numpy as np
import optuna
from moocore import hypervolume

from apq_moo.problems import APQProblem

LIMIT_MS = 0.012

problem = APQProblem("digits", ("acc", "latency"))
optuna.logging.set_verbosity(optuna.logging.WARNING)


def objective(trial):
    """Accuracy in percent and latency in ms of the network that a trial suggests."""
    genes = problem.space.genes
    X = [trial.suggest_int(gene.name, 0, len(gene.options) - 1) for gene in genes]
    values = problem.evaluate_raw(X)
    trial.set_constraint("latency", values["latency"][0] / LIMIT_MS - 1)
    trial.set_constraint("runs on the device", 0 if problem.feasible_rows(X)[0] else 1)
    return values["acc"][0], values["latency"][0]


def score(F):
    """Share of the box from 0 to 100 % and from 0 ms to the limit that the networks dominate."""
    return hypervolume(F * [-1 / 100, 1 / LIMIT_MS], ref=[0, 1])


for sampler, n_trials in (
    (optuna.samplers.RandomSampler(seed=0), 600),
    (optuna.samplers.NSGAIISampler(seed=0), 600),
    (optuna.samplers.RandomSampler(seed=0), 150),
    (optuna.samplers.TPESampler(seed=0), 150),
):
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objective, n_trials=n_trials)
    front = np.array([trial.values for trial in study.best_trials])
    print(
        f"{n_trials} trials of {type(sampler).__name__}: hypervolume {score(front):.4f}, "
        f"best {front[:, 0].max():.2f} %, {len(front)} networks"
    )

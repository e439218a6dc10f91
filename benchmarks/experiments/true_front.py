"""Do predicted fronts hold on the supernet? True hypervolumes of algorithms at equal evaluations.

Every member of each front is measured on the supernet; the hypervolume is that of measured accuracy
and exact cost. Objectives are normalised by the space: cost between its exact extremes, accuracy
between chance and 100 %; the reference point is 1.1 in each. Run it with
``python -m apq_moo.benchmarks.experiments.true_front``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from apq_moo.arrays import FloatArray
from apq_moo.data.assets import find_assets
from apq_moo.errors import reported
from apq_moo.hardware import cost_table, feasible_options, maximum, minimum
from apq_moo.problems.measured import SupernetAccuracy
from apq_moo.space import Space, load_space
from apq_moo.study.config import RunConfig
from apq_moo.study.search import Search


@dataclass(frozen=True)
class Score:
    """Hypervolumes of one search.

    Attributes:
        algo: the algorithm.
        seed: of the search.
        predicted: by predicted accuracy.
        validation: by accuracy measured on the validation split.
        test: by accuracy measured on the test split.
        size: members of the predicted front.
    """

    algo: str
    seed: int
    predicted: float
    validation: float
    test: float
    size: int


def hypervolume(space: Space, cost: str, acc: FloatArray, costs: FloatArray) -> float:
    """Hypervolume of accuracies (percent) and costs, normalised as the module says.

    Args:
        space: the space.
        cost: the name of the cost.
        acc: shape ``(n,)``.
        costs: shape ``(n,)``.
    """
    import moocore

    table = cost_table(space, cost)
    feasible = feasible_options(space, [table])
    low, high = minimum(table, feasible)[0], maximum(table, feasible)[0]
    chance = 100.0 / space.spec.classes
    points = np.column_stack([(100 - acc) / (100 - chance), (costs - low) / (high - low)])
    return float(moocore.hypervolume(points, ref=[1.1, 1.1]))


def score(config: RunConfig, supernet: SupernetAccuracy) -> Score:
    """Search, measure the whole front, and score it.

    Args:
        config: with objectives ``acc`` and one cost.
        supernet: of the same space.
    """
    search = Search(config)
    front = search.run().front()
    space, cost = search.problem.space, config.objectives[1]
    measured = supernet.measure(front.genotypes)
    accuracies = (-front.F[:, 0], measured[:, 0], measured[:, 1])
    predicted, validation, test = (
        hypervolume(space, cost, acc, front.F[:, 1]) for acc in accuracies
    )
    return Score(config.algo, config.seed, predicted, validation, test, len(front))


def main() -> None:
    """Print a line for each search, then medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--space", default="digits")
    parser.add_argument("--assets")
    parser.add_argument("--algos", default="apq-ga,nsga2,random")
    parser.add_argument("--cost", default="latency")
    parser.add_argument("--predictor", default="mlp")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=20_000)
    given = parser.parse_args()
    supernet = SupernetAccuracy(find_assets(load_space(given.space), given.assets))
    scores = []
    for algo in given.algos.split(","):
        for seed in range(given.seeds):
            config = RunConfig(
                algo=algo,
                objectives=("acc", given.cost),
                space=given.space,
                assets=given.assets,
                predictor=given.predictor,
                budget=given.budget,
                seed=seed,
            )
            scores.append(score(config, supernet))
            print(scores[-1], flush=True)  # noqa: T201  the script's output
    for algo in given.algos.split(","):
        of = [item for item in scores if item.algo == algo]
        medians = {
            name: float(np.median([getattr(item, name) for item in of]))
            for name in ("predicted", "validation", "test", "size")
        }
        print(algo, {name: round(value, 4) for name, value in medians.items()})  # noqa: T201


if __name__ == "__main__":
    with reported():
        main()

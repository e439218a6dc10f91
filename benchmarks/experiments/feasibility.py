"""Drawing networks under the published limits: how fast, how many distinct, which depths.

Run as ``python -m apq_moo.benchmarks.experiments.feasibility``. Seconds are CPU seconds on one
core; of many batches of 100 networks the worst is shown, and the median time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apq_moo.errors import reported
from apq_moo.problems import APQProblem

PUBLISHED_LIMITS = (
    ("latency", 12.80),
    ("latency", 8.40),
    ("latency", 6.11),
    ("latency", 3.02),
    ("energy", 9.14),
    ("energy", 5.21),
)
"""Budgets of the published results, then 1.02 times the least that is reachable; ms and mJ."""

_BATCHES = 50


@dataclass(frozen=True)
class Coverage:
    """What batches of 100 networks, drawn under a limit, hold.

    Attributes:
        cost: the limited cost.
        limit: in its unit.
        seconds: median CPU time of a batch.
        distinct: smallest number of distinct feasible networks in a batch.
        present: smallest number of a batch's depths, counted over stages.
        allowed: number of depths, counted over stages, that some feasible network has.
    """

    cost: str
    limit: float
    seconds: float
    distinct: int
    present: int
    allowed: int


def allowed_depths(problem: APQProblem, cost: str, limit: float) -> list[set[int]]:
    """Depths of each stage that fit a limit if every block costs its least, the others shallow."""
    space, prices = problem.space, problem.tables[cost]
    least = [
        costs[mask].min(initial=np.inf)
        for costs, mask in zip(prices.blocks, problem.feasible, strict=True)
    ]
    stages: list[dict[int, float]] = []
    first = 0
    for stage in space.spec.stages:
        stages.append({depth: float(sum(least[first : first + depth])) for depth in stage.depths})
        first += max(stage.depths)
    shallow = prices.fixed + sum(min(costs.values()) for costs in stages)
    return [
        {depth for depth, cost in costs.items() if shallow - min(costs.values()) + cost <= limit}
        for costs in stages
    ]


def coverage(cost: str, limit: float, batches: int = _BATCHES) -> Coverage:
    """Draw batches of 100 networks of imagenet under a limit."""
    problem = APQProblem("imagenet", (cost,), {cost: limit})
    allowed = sum(map(len, allowed_depths(problem, cost, limit)))
    rng = np.random.default_rng(0)
    seconds, distinct, present = [], [], []
    for _ in range(batches):
        begun = time.process_time()
        X = problem.region.sample(100, rng)
        seconds.append(time.process_time() - begun)
        distinct.append(len(np.unique(X[problem.feasible_rows(X)], axis=0)))
        present.append(sum(len(np.unique(column)) for column in problem.space.depths(X).T))
    return Coverage(cost, limit, float(np.median(seconds)), min(distinct), min(present), allowed)


def coverage_table(rows: Sequence[Coverage]) -> list[str]:
    """Lines of a table."""
    units = {"latency": "ms", "energy": "mJ"}
    lines = [f"{'limit':24} {'ms per 100':>10} {'distinct':>9} {'depths present/allowed':>23}"]
    for row in rows:
        limit = f"{row.cost} <= {row.limit:.2f} {units[row.cost]}"
        lines.append(
            f"{limit:24} {1000 * row.seconds:10.1f} {row.distinct / 100:9.0%} "
            f"{f'{row.present}/{row.allowed}':>23}"
        )
    return lines


def main() -> None:
    """Draw and print."""
    print("\n".join(coverage_table([coverage(*limit) for limit in PUBLISHED_LIMITS])))  # noqa: T201


if __name__ == "__main__":
    with reported():
        main()

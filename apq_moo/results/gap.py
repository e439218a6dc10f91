"""How far a front is from the true one, where the accuracy adds up and the optimum is known."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from moocore import hypervolume

from apq_moo.algorithms.exact.front import exact_front
from apq_moo.hardware import ACC

if TYPE_CHECKING:
    from apq_moo.problems.evaluated import Evaluated
    from apq_moo.study.search import Search


@dataclass(frozen=True)
class Gap:
    """A certified distance to the optimum of an additive accuracy.

    Attributes:
        optimum: points of the true front.
        worst: largest deficit in accuracy of a found network against the best one that costs no
            more, in percentage points.
        mean: mean of these deficits.
        hypervolume_ratio: of the found front to the true one, within the true front's extremes;
            None for a single objective.
    """

    optimum: int
    worst: float
    mean: float
    hypervolume_ratio: float | None

    def __str__(self) -> str:
        text = f"accuracy behind the true optimum: {self.worst:.3f} points at most"
        if self.hypervolume_ratio is not None:
            text += f", {self.mean:.3f} on average; {100 * self.hypervolume_ratio:.2f} % of its "
            text += f"hypervolume ({self.optimum:,} points)"
        return text


def certified_gap(search: Search, front: Evaluated) -> dict[str, float | int | None] | None:
    """The gap of a search's front to the true front of its additive predictor.

    Returns:
        :class:`Gap` as a dictionary, or None where the optimum is not known: the predictor is not
        additive, or there are several costs or none that adds up.
    """
    problem = search.problem
    gains_of = search.source.block_gains() if search.source is not None else None
    costs = [name for name in problem.names if name != ACC]
    sums = [name for name in costs if problem.tables[name].combine == "sum"]
    known = (
        ACC in problem.objectives
        and ACC not in problem.constraints
        and len(sums) == 1
        and set(problem.objectives) <= {ACC, *sums}
    )
    if gains_of is None or search.source is None or not known:
        return None
    intercept, gains = gains_of
    table = problem.tables[sums[0]]
    best = exact_front(
        problem.space,
        intercept,
        gains,
        table.fixed,
        table.blocks,
        problem.region.options.feasible,
        problem.constraints.get(sums[0], np.inf),
    )
    cost = table(front.genotypes)
    acc = search.source.predict(front.genotypes)
    place = np.searchsorted(best.cost, cost * (1 + 1e-12), side="right") - 1
    deficit = np.maximum(best.acc[np.maximum(place, 0)] - acc, 0.0)
    if len(problem.objectives) == 1:
        deficit = np.array([max(float(best.acc[-1] - acc.max()), 0.0)])
        return asdict(Gap(len(best.X), float(deficit[0]), float(deficit[0]), None))
    reference = [float(best.cost[-1]), -float(best.acc[0])]
    volumes = [
        hypervolume(np.column_stack([x, -y]), ref=reference)
        for x, y in ((cost, acc), (best.cost, best.acc))
    ]
    ratio = float(volumes[0] / volumes[1]) if volumes[1] > 0 else None
    return asdict(Gap(len(best.X), float(deficit.max()), float(deficit.mean()), ratio))

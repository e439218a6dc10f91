"""The scale on which fronts of a problem are scored: its ideal, its nadir and a reference point."""

from __future__ import annotations

from apq_moo.benchmarks.compare.scores import Bounds
from apq_moo.errors import UserError
from apq_moo.problems import APQProblem


def bounds_of(problem: APQProblem) -> Bounds:
    """The normalisation bounds of a problem, in the order of its objectives, minimised.

    Raises:
        UserError: all networks have the same value of an objective.
    """
    ideal, nadir = problem.ideal_point().tolist(), problem.nadir_point().tolist()
    for i, name in enumerate(problem.objectives):
        if not ideal[i] < nadir[i]:
            raise UserError(f"all networks of space {problem.space.name!r} have the same {name}")
    return Bounds(problem.objectives, tuple(ideal), tuple(nadir))

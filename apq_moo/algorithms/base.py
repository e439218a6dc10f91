"""What the algorithms of this room share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pymoo.core.population import Population

from apq_moo.arrays import IntArray
from apq_moo.errors import UserError, shown

if TYPE_CHECKING:
    from apq_moo.problems import APQProblem


def require_apq_problem(problem: Any, algorithm: str) -> APQProblem:
    """The problem, if it knows its feasible region.

    Raises:
        UserError: it is some other problem of pymoo's.
    """
    if not hasattr(problem, "region"):
        raise UserError(
            f"{algorithm} needs an APQProblem, whose feasible region it samples, not a "
            f"{type(problem).__name__}"
        )
    known: APQProblem = problem
    if known.n_var < known.space.n_var:
        raise UserError(f"{algorithm} needs all genes: make the problem with fixed_genes=True")
    return known


def require_one_objective(problem: Any, algorithm: str) -> APQProblem:
    """The problem, if it knows its feasible region and has one objective.

    Raises:
        UserError: it is some other problem of pymoo's, or has several objectives.
    """
    known = require_apq_problem(problem, algorithm)
    if len(known.objectives) > 1:
        raise UserError(
            f"{algorithm} optimises one objective, not {', '.join(known.objectives)}; keep one and "
            "limit the others by constraints"
        )
    return known


def check_least(least: int, **arguments: int) -> None:
    """Check arguments by name.

    Raises:
        UserError: one is smaller.
    """
    for name, value in arguments.items():
        if value < least:
            raise UserError(f"{name} must be at least {least}, not {shown(value)}")


def drawn(problem: APQProblem, n: int, rng: np.random.Generator) -> IntArray:
    """Exactly ``n`` networks under the limits, repeated where there are fewer; ``(n, n_var)``."""
    X = problem.draw(n, rng)
    return X[np.arange(n) % len(X)]


def sampled(problem: APQProblem, n: int, rng: np.random.Generator) -> Population:
    """The same as individuals."""
    return Population.new(X=drawn(problem, n, rng))

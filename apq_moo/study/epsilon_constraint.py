"""Limits over which a single-objective algorithm is swept to find a front."""

from __future__ import annotations

import numpy as np

from apq_moo.problems import APQProblem

_N_SAMPLES = 1000


def main_objective(objectives: tuple[str, ...]) -> str:
    """What a single-objective algorithm optimises: ``acc``, or the first where it is not asked."""
    return "acc" if "acc" in objectives else objectives[0]


def epsilon_limits(
    problem: APQProblem, others: tuple[str, ...], points: int, seed: int
) -> list[dict[str, float]]:
    """Choose the limits of a sweep.

    For one cost, the limits are quantiles of its values over random feasible networks, equally
    spaced from half a step up to the largest. For several, the quantile levels are a scrambled
    Halton sequence; a combination that no sample meets is raised to the costs of the sample that
    exceeds it least.

    Args:
        problem: the problem with all objectives and the user's constraints.
        others: the costs to be limited.
        points: how many.
        seed: of the samples and the sequence.

    Returns:
        For each point its limits by name; one point without limits if there are no costs.
    """
    if not others:
        return [{}]
    rng = np.random.default_rng([seed, 5])
    X = problem.region.sample(_N_SAMPLES, rng)
    costs = APQProblem(problem.space, objectives=others, device=problem.device).evaluate_raw(X)
    values = np.column_stack([costs[name] for name in others])
    levels = _levels(points, len(others), seed)
    limits = []
    for level in levels:
        limit = np.array(
            [np.quantile(values[:, i], u, method="higher") for i, u in enumerate(level)]
        )
        excess = ((values - limit) / values.max(axis=0)).max(axis=1)
        if excess.min() > 0:
            limit = np.maximum(limit, values[excess.argmin()])
        limits.append(dict(zip(others, limit.tolist(), strict=True)))
    return limits


def _levels(points: int, dimensions: int, seed: int) -> np.ndarray:
    """Quantile levels in (0, 1], shape ``(points, dimensions)``."""
    if dimensions == 1:
        return np.linspace(min(1.0, 0.5 / points), 1.0, points)[:, None]
    from scipy.stats.qmc import Halton

    levels: np.ndarray = 1.0 - Halton(dimensions, scramble=True, rng=seed).random(points)
    return levels

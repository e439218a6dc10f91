"""Binary tournaments on whole populations; ties are drawn from the algorithm's generator."""

from __future__ import annotations

from typing import Any

import numpy as np
from pymoo.core.population import Population


def by_violation(pop: Population, P: Any, random_state: Any = None, **_kwargs: Any) -> Any:
    """Binary tournaments that the smaller constraint violation wins; ties are drawn.

    pymoo 0.6.2 draws ties between equal violations from a generator of its own, so that its
    NSGA-III is not reproducible; this one draws all from the algorithm's.
    """
    violation = pop.get("CV")[:, 0]
    first, second = violation[P[:, 0]], violation[P[:, 1]]
    coin = random_state.random(len(P)) < 0.5
    wins = np.where(first == second, coin, first < second)
    return np.where(wins, P[:, 0], P[:, 1])[:, None].astype(int)


def by_niche(pop: Population, P: Any, random_state: Any = None, **_kwargs: Any) -> Any:
    """U-NSGA-III's tournaments (Seada and Deb, 2016): violation; in one niche rank, then distance.

    Ties are drawn from the algorithm's generator, see :func:`by_violation`.
    """
    drawn = by_violation(pop, P, random_state)[:, 0]
    violation = pop.get("CV")[:, 0]
    niche, rank, distance = (_numbers(pop, key) for key in ("niche", "rank", "dist_to_niche"))
    a, b = P[:, 0], P[:, 1]
    met = (violation[a] <= 0) & (violation[b] <= 0) & (niche[a] == niche[b])
    by_rank = np.where(rank[a] < rank[b], a, np.where(rank[a] > rank[b], b, -1))
    by_distance = np.where(
        distance[a] < distance[b], a, np.where(distance[a] > distance[b], b, drawn)
    )
    chosen = np.where(by_rank >= 0, by_rank, by_distance)
    return np.where(met, chosen, drawn)[:, None].astype(int)


def by_fitness(pop: Population, P: Any, random_state: Any = None, **_kwargs: Any) -> Any:
    """SPEA2's tournaments: the smaller violation, then the smaller fitness wins.

    Ties are drawn from the algorithm's generator, see :func:`by_violation`.
    """
    drawn = by_violation(pop, P, random_state)[:, 0]
    violation, fitness = pop.get("CV")[:, 0], _numbers(pop, "SPEA_F")
    a, b = P[:, 0], P[:, 1]
    met = (violation[a] <= 0) & (violation[b] <= 0)
    fitter = np.where(fitness[a] < fitness[b], a, np.where(fitness[a] > fitness[b], b, drawn))
    return np.where(met, fitter, drawn)[:, None].astype(int)


def by_dominance(pop: Population, P: Any, random_state: Any = None, **_kwargs: Any) -> Any:
    """NSGA-II's tournaments: the smaller violation, then dominance, then crowding.

    They decide as pymoo's do, which compares pair by pair in Python.
    """
    drawn = by_violation(pop, P, random_state)[:, 0]
    F, CV = pop.get("F", "CV")
    crowding = _numbers(pop, "crowding")
    violation = CV[:, 0]
    a, b = P[:, 0], P[:, 1]
    met = (violation[a] <= 0) & (violation[b] <= 0)
    less, more = (F[a] < F[b]).any(axis=1), (F[a] > F[b]).any(axis=1)
    roomier = np.where(crowding[a] > crowding[b], a, np.where(crowding[a] < crowding[b], b, drawn))
    chosen = np.where(less & ~more, a, np.where(more & ~less, b, roomier))
    return np.where(met, chosen, drawn)[:, None].astype(int)


def _numbers(pop: Population, key: str) -> Any:
    """What survival noted of each network; NaN where it noted nothing, as of infeasible ones."""
    return np.asarray(pop.get(key)).astype(float)

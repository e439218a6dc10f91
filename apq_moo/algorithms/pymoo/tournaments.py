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
    niche, rank, distance = (_numbers(pop, key) for key in ("niche", "rank", "dist_to_niche"))
    chosen = _smaller(rank, P, _smaller(distance, P, drawn))
    together = niche[P[:, 0]] == niche[P[:, 1]]
    return _where_both_feasible(pop, P, np.where(together, chosen, drawn), drawn)


def by_fitness(pop: Population, P: Any, random_state: Any = None, **_kwargs: Any) -> Any:
    """SPEA2's tournaments: the smaller violation, then the smaller fitness wins.

    Ties are drawn from the algorithm's generator, see :func:`by_violation`.
    """
    drawn = by_violation(pop, P, random_state)[:, 0]
    fitter = _smaller(_numbers(pop, "SPEA_F"), P, drawn)
    return _where_both_feasible(pop, P, fitter, drawn)


def by_dominance(pop: Population, P: Any, random_state: Any = None, **_kwargs: Any) -> Any:
    """NSGA-II's tournaments: the smaller violation, then dominance, then crowding.

    They decide as pymoo's do, which compares pair by pair in Python.
    """
    drawn = by_violation(pop, P, random_state)[:, 0]
    F = pop.get("F")
    a, b = P[:, 0], P[:, 1]
    less, more = (F[a] < F[b]).any(axis=1), (F[a] > F[b]).any(axis=1)
    roomier = _smaller(-_numbers(pop, "crowding"), P, drawn)
    chosen = np.where(less & ~more, a, np.where(more & ~less, b, roomier))
    return _where_both_feasible(pop, P, chosen, drawn)


def _smaller(values: Any, P: Any, otherwise: Any) -> Any:
    """Of each pair the one with the smaller value; the other choice where neither has it."""
    a, b = P[:, 0], P[:, 1]
    return np.where(values[a] < values[b], a, np.where(values[a] > values[b], b, otherwise))


def _where_both_feasible(pop: Population, P: Any, chosen: Any, otherwise: Any) -> Any:
    met = (pop.get("CV")[:, 0] <= 0)[P].all(axis=1)
    return np.where(met, chosen, otherwise)[:, None].astype(int)


def _numbers(pop: Population, key: str) -> Any:
    """What survival noted of each network; NaN where it noted nothing, as of infeasible ones."""
    return np.asarray(pop.get(key)).astype(float)

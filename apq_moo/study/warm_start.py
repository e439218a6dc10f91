"""Networks to begin a search with, instead of random ones."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from moocore import is_nondominated

from apq_moo.algorithms.exact_search import AdditiveAccuracy, ExactSearch
from apq_moo.arrays import IntArray
from apq_moo.errors import UserError
from apq_moo.files import read_json
from apq_moo.problems import APQProblem
from apq_moo.space import Space

EXACT = "exact"
"""Stands for the exact front of the additive surrogate."""

SHARE = 0.5
"""At most this share of an initial population; the rest stays random, for the sake of variety."""


def source_file(source: str) -> Path | None:
    """The file that a source is read from, or None for :data:`EXACT`."""
    if source == EXACT:
        return None
    path = Path(source)
    return path / "front.csv" if path.is_dir() else path


def read_networks(source: str, space: Space) -> IntArray:
    """The networks of a run's folder, of a ``front.csv``, or of a policy's JSON.

    Returns:
        Canonical genotypes, shape ``(n, n_var)``.

    Raises:
        UserError: it cannot be read, or holds no networks of the space.
    """
    path = source_file(source)
    assert path is not None
    if path.suffix == ".json":
        data = read_json(path)
        return space.encode(data if isinstance(data, list) else [data])
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            subnets = [json.loads(row["subnet"]) for row in csv.DictReader(handle)]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, csv.Error, RecursionError) as error:
        raise UserError(f"{path} is no table with a column 'subnet': {error}") from error
    if not subnets:
        raise UserError(f"{path} holds no networks to start from")
    return space.encode(subnets)


def exact_networks(problem: APQProblem, surrogate: AdditiveAccuracy) -> IntArray:
    """The exact front of a surrogate under a problem's limits.

    Raises:
        UserError: the problem has no accuracy to maximise, or costs that do not add up.
    """
    search = ExactSearch(surrogate)
    search.setup(problem, seed=0)
    return search.X


def begin_with(X: IntArray, networks: IntArray, problem: APQProblem) -> None:
    """Replace the first networks of an initial population by given networks, in place.

    Those that meet the problem's limits, evenly spread over the front of the rest of what is known
    of them: for one objective the best, for several those non-dominated, by ascending cost.

    Args:
        X: the population, not evaluated yet, shape ``(n, n_var)``.
        networks: canonical genotypes.
        problem: what is searched.
    """
    inside = networks[problem.region.contains(networks)]
    room = int(SHARE * len(X))
    if not len(inside) or not room:
        return
    F = problem.evaluate(inside, return_values_of=["F"])
    if F.shape[1] == 1:
        rows = np.argsort(F[:, 0], kind="stable")[:room]
    else:
        front = np.flatnonzero(is_nondominated(F, keep_weakly=False))
        front = front[np.argsort(F[front, -1], kind="stable")]
        rows = front[np.unique(np.linspace(0, len(front) - 1, room).astype(int))]
    X[: len(rows)] = inside[rows]

"""Carrying out one cell of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from apq_moo.algorithms import ALGORITHMS, AlgorithmEntry
from apq_moo.benchmarks.compare.anytime import curve_of, marks
from apq_moo.benchmarks.compare.bounds import bounds_of
from apq_moo.benchmarks.compare.plan import Cell
from apq_moo.benchmarks.compare.store import Outcome
from apq_moo.deadlines import Deadline, OutOfTimeError
from apq_moo.problems.evaluated import Evaluated
from apq_moo.study.kept import kept_by, what_counts
from apq_moo.study.own_algorithms import included
from apq_moo.study.search import Search


def carry_out(
    cell: Cell,
    own: Mapping[str, AlgorithmEntry] = MappingProxyType({}),
    deadline: Deadline | None = None,
) -> Outcome:
    """Search, and keep what scores need.

    Whatever goes wrong, other than an interruption, becomes a failed outcome with its reason.

    Args:
        cell: what to search.
        own: algorithms that no registry and no file has, by name.
        deadline: when it is left where it stands, after the network that is being evaluated.
    """
    file = cell.config.algo_file
    try:
        with ALGORITHMS.including({**own, **(included(file) if file else {})}):
            return _search(cell, deadline)
    except OutOfTimeError:
        return Outcome(cell, "left")
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        return Outcome(cell, "failed", error=text)


def _search(cell: Cell, deadline: Deadline | None = None) -> Outcome:
    if deadline is None:
        search = Search(cell.config)
        archive = search.run()
    else:
        deadline.check()
        search = Search(cell.config)
        archive = search.run(callback=lambda _done, _total: deadline.check())
    problem, trace = search.problem, search.trace
    bounds = bounds_of(problem)
    at = marks(cell.config.budget)
    kept = kept_by(search, archive)
    front = what_counts(archive, kept).front()
    seconds = np.interp(at, [0, *trace.evaluations], [0.0, *trace.seconds])
    return Outcome(
        cell,
        "ok",
        evaluations=len(archive),
        measured=search.measured,
        gradient_steps=search.gradient_steps or 0,
        gradient_evaluations=search.gradient_evaluations or 0,
        seconds={"load": search.seconds, "search": float(trace.seconds[-1])},
        genotypes=front.X,
        front=front.F,
        population=_population(search).F,
        marks=at,
        curve=curve_of(archive, kept, at, bounds),
        curve_seconds=seconds,
    )


def _population(search: Search) -> Evaluated:
    """The front of what the algorithm held in the end."""
    X = search.population
    if X is None:
        X = np.empty((0, search.problem.n_var), dtype=np.int64)
    F, G = search.problem.evaluate_blocks(search.problem.space.block_index(X), X)
    feasible: NDArray[np.bool_] = np.all(G <= 0, axis=1)
    return Evaluated(X.astype(search.problem.space.gene_type), F, feasible).front()

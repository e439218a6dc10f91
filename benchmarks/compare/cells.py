"""Carrying out one cell of a benchmark."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from apq_moo.benchmarks.compare.bounds import bounds_of
from apq_moo.benchmarks.compare.plan import Cell
from apq_moo.benchmarks.compare.scores import anytime, marks
from apq_moo.benchmarks.compare.store import Outcome
from apq_moo.problems.measured import NAME as SUPERNET
from apq_moo.study.archive import Archive
from apq_moo.study.search import Search


def carry_out(cell: Cell) -> Outcome:
    """Search, and keep what scores need.

    Whatever goes wrong, other than an interruption, becomes a failed outcome with its reason.
    """
    try:
        return _search(cell)
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        return Outcome(cell, "failed", error=text)


def _search(cell: Cell) -> Outcome:
    search = Search(cell.config)
    archive = search.run()
    problem, trace = search.problem, search.trace
    bounds = bounds_of(problem)
    at = marks(cell.config.budget)
    front = archive.front()
    measured = cell.config.predictor == SUPERNET
    seconds = np.interp(at, [0, *trace.evaluations], [0.0, *trace.seconds])
    return Outcome(
        cell,
        "ok",
        evaluations=len(archive),
        measured=len(np.unique(archive.X, axis=0)) if measured else 0,
        seconds={"load": search.seconds, "search": float(trace.seconds[-1])},
        genotypes=front.X,
        front=front.F,
        population=_population(search).F,
        marks=at,
        curve=anytime(archive.F, archive.feasible, at, bounds),
        curve_seconds=seconds,
    )


def _population(search: Search) -> Archive:
    """The front of what the algorithm held in the end."""
    X = search.population
    assert X is not None
    F, G = search.problem.evaluate_blocks(search.problem.space.block_index(X), X)
    feasible: NDArray[np.bool_] = np.all(G <= 0, axis=1)
    return Archive(X.astype(search.problem.space.gene_type), F, feasible).front()

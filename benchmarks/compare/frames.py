"""What a benchmark found as tidy tables, for whoever compares algorithms elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apq_moo.benchmarks.compare.analysis import Analysis, ProblemResults
from apq_moo.benchmarks.compare.store import Outcome
from apq_moo.benchmarks.compare.tables import indicators_of
from apq_moo.errors import UserError, shown
from apq_moo.results.frames import with_genotypes
from apq_moo.space import load_space

if TYPE_CHECKING:
    import pandas as pd


def load(folder: str | Path, part: str = "scores", *, genotypes: bool = False) -> pd.DataFrame:
    """Read a benchmark.

    Every row begins with what was searched: ``space``, ``objectives``, ``limits``, ``predictor``,
    ``device``, ``budget``, ``algorithm`` and ``seed``.

    Args:
        folder: of the benchmark.
        part: ``scores``, a row for each finished search: its indicators (see
            :mod:`apq_moo.benchmarks.compare.scores`), evaluations, measured networks and seconds;
            ``fronts``, a row for each network of its front, with the objectives in natural units;
            or ``curves``, a row for each moment, with evaluations, seconds and hypervolume.
        genotypes: whether to add a column for each gene to ``fronts``, with the index of its
            option; missing where another problem of the benchmark has that gene.

    Returns:
        The table.

    Raises:
        UserError: there is no benchmark, nothing is finished, or there is no such part.

    >>> load("runs/none")
    Traceback (most recent call last):
    apq_moo.errors.UserError: runs/none holds no benchmark (no results.sqlite)
    """
    import pandas as pd

    make = PARTS.get(part)
    if make is None:
        known = ", ".join(PARTS)
        raise UserError(f"part must be one of {known} for a benchmark; not {shown(part)}")
    if genotypes and part != "fronts":
        raise UserError(f"part={part!r} has no networks: leave out genotypes=True")
    analysis = Analysis.of_bench(folder)
    frames = [frame for problem in analysis.problems for frame in make(problem)]
    if genotypes:
        outcomes = (outcome for problem in analysis.problems for outcome in _finished(problem))
        frames = [
            with_genotypes(frame, load_space(outcome.cell.config.space), outcome.genotypes)
            for frame, outcome in zip(frames, outcomes, strict=True)
        ]
    if not frames:
        raise UserError(f"no search of the benchmark in {folder} has come to its end")
    return pd.concat(frames, ignore_index=True)


def _finished(problem: ProblemResults) -> list[Outcome]:
    return [outcome for label in problem.labels for outcome in problem.of(label)]


def _what(outcome: Outcome) -> dict[str, Any]:
    config = outcome.cell.config
    return {
        "space": config.space,
        "objectives": "+".join(config.objectives),
        "limits": " ".join(f"{name}={limit:g}" for name, limit in config.limits.items()),
        "predictor": config.predictor,
        "device": config.device,
        "budget": config.budget,
        "algorithm": outcome.cell.label,
        "seed": config.seed,
    }


def _scores(problem: ProblemResults) -> Iterator[pd.DataFrame]:
    import pandas as pd

    names = indicators_of(problem)
    for label in problem.labels:
        outcomes = problem.of(label)
        columns = {name: problem.values(label, name) for name in names}
        rows = [
            {
                **_what(outcome),
                **{name: values[i] for name, values in columns.items() if len(values)},
                "evaluations": outcome.evaluations,
                "measured": outcome.measured,
                "front": len(outcome.front),
                "seconds": sum(outcome.seconds.values()),
            }
            for i, outcome in enumerate(outcomes)
        ]
        if rows:
            yield pd.DataFrame(rows)


def _fronts(problem: ProblemResults) -> Iterator[pd.DataFrame]:
    import pandas as pd

    for outcome in _finished(problem):
        natural = problem.natural(outcome.front)
        values = dict(zip(problem.objectives, natural.T, strict=True))
        yield pd.DataFrame({**_what(outcome), **values}, index=range(len(natural)))


def _curves(problem: ProblemResults) -> Iterator[pd.DataFrame]:
    import pandas as pd

    for outcome in _finished(problem):
        yield pd.DataFrame(
            {
                **_what(outcome),
                "evaluations": outcome.marks,
                "seconds": outcome.curve_seconds,
                "hypervolume": outcome.curve,
            }
        )


PARTS: dict[str, Callable[[ProblemResults], Iterator[pd.DataFrame]]] = {
    "scores": _scores,
    "fronts": _fronts,
    "curves": _curves,
}
"""What of a benchmark can be had as a table."""

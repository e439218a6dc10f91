"""What first networks of all sizes are worth: every algorithm begun with them, and uniformly.

Run as ``python -m apq_moo.benchmarks.experiments.starts``. Each algorithm searches with both
starts (:data:`apq_moo.problems.STARTS`), with the same seeds. The table has medians of the
hypervolume of what was found so far, on the problem's own scale, as benchmarks have. Swept
algorithms are at their first limits when few networks have been evaluated.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from apq_moo.algorithms import ALGORITHMS
from apq_moo.arrays import FloatArray, IntArray
from apq_moo.benchmarks.compare.anytime import curve_of
from apq_moo.benchmarks.compare.bounds import bounds_of
from apq_moo.errors import reported
from apq_moo.problems import STARTS
from apq_moo.study.config import RunConfig, parse_objectives
from apq_moo.study.kept import kept_by
from apq_moo.study.search import Search
from apq_moo.texts import by_commas

MARKS = (100, 500, 1000, 10_000)


def curve(config: RunConfig, marks: IntArray) -> FloatArray:
    """Hypervolume of one search at numbers of evaluations, shape ``(len(marks),)``."""
    search = Search(config)
    found = search.run()
    return curve_of(found, kept_by(search, found), marks, bounds_of(search.problem))


def compare(
    algo: str, seeds: int, marks: Sequence[int], **settings: object
) -> dict[str, FloatArray]:
    """Medians over seeds at every mark, by start.

    Args:
        algo: the algorithm; ``apq-ga/16`` is one swept over 16 limits.
        seeds: how many.
        marks: numbers of evaluations, ascending; the last one is the budget.
        **settings: of :class:`RunConfig`.
    """
    name, _, sweep = algo.partition("/")
    at = np.array(marks)
    base = {**settings, "algo": name, "budget": marks[-1]}
    if sweep:
        base["sweep"] = int(sweep)
    found = {}
    for start in STARTS:
        made = [RunConfig.from_dict({**_DEFAULT, **base, "start": start, "seed": seed})
                for seed in range(seeds)]  # fmt: skip
        found[start] = np.median([curve(config, at) for config in made], axis=0)
    return found


_DEFAULT = RunConfig().to_dict()


def table(rows: dict[str, dict[str, FloatArray]], marks: Sequence[int]) -> list[str]:
    """Lines of a Markdown table: with each start at every mark, uniform first."""
    starts = [*reversed(STARTS)]
    head = [f"{start}, {mark:,}" for mark in marks for start in starts]
    lines = [f"| algorithm | {' | '.join(head)} |", f"|---|{'---|' * len(head)}"]
    for algo, medians in rows.items():
        cells = [f"{medians[start][i]:.3f}" for i in range(len(marks)) for start in starts]
        lines.append(f"| {algo} | {' | '.join(cells)} |")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    drawing = [name for name, _ in ALGORITHMS.usable() if name != "exact"]
    parser.add_argument("--algos", default=",".join(drawing), help="names, by commas")
    parser.add_argument("--space", default=RunConfig.space)
    parser.add_argument("--objectives", default="acc,latency")
    parser.add_argument("--predictor", default=RunConfig.predictor)
    parser.add_argument("--seeds", type=int, default=7)
    parser.add_argument("--marks", default=",".join(map(str, MARKS)), help="evaluations, by commas")
    parser.add_argument("--pop-size", type=int, default=RunConfig.pop_size)
    args = parser.parse_args(argv)
    marks = [int(mark) for mark in by_commas(args.marks)]
    rows = {
        algo: compare(
            algo,
            args.seeds,
            marks,
            space=args.space,
            objectives=list(parse_objectives(args.objectives)),
            predictor=args.predictor,
            pop_size=args.pop_size,
        )
        for algo in by_commas(args.algos)
    }
    print("\n".join(table(rows, marks)), flush=True)


if __name__ == "__main__":
    with reported():
        main()

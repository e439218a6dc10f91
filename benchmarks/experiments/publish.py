"""Writing what the package ships about its problems: normalisation bounds and published fronts.

``python -m apq_moo.benchmarks.experiments.publish bounds`` writes ``problems/bounds.json`` again,
and ``python -m apq_moo.benchmarks.experiments.publish fronts BENCH`` keeps the unions of a
benchmark's fronts, with their networks, among those that are shipped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.benchmarks.compare.analysis import Analysis, ProblemResults
from apq_moo.data.assets import find_assets, predictor_file
from apq_moo.errors import reported
from apq_moo.files import write_json
from apq_moo.hardware import cost_names
from apq_moo.npz import write_arrays
from apq_moo.problems import APQProblem, bounds
from apq_moo.problems.fronts import FOLDER, KnownFront, front_name, nondominated_rows


def computed() -> dict[str, dict[str, list[float]]]:
    """What ``bounds.json`` holds, from the spaces and the device."""
    found = {}
    for name, (ideal, nadir) in bounds.ACCURACIES.items():
        costs = cost_names()
        best, worst = APQProblem(name, costs, device=bounds.DEVICE).reachable()
        pairs = zip(costs, best.tolist(), worst.tolist(), strict=True)
        found[name] = {"acc": [-ideal, -nadir], **{cost: [low, high] for cost, low, high in pairs}}
    return found


def union(problem: ProblemResults) -> KnownFront:
    """The non-dominated networks of all fronts of a benchmark's problem."""
    ran = [outcome for outcome in problem.outcomes if len(outcome.front)]
    F = np.vstack([outcome.front for outcome in ran])
    rows = nondominated_rows(F)
    return KnownFront(F[rows], np.vstack([outcome.genotypes for outcome in ran])[rows])


def keep(folder: str | Path, to: Path = FOLDER) -> None:
    """Write the unions of a benchmark's fronts, a file for each space.

    Args:
        folder: of a benchmark whose predictors are shipped.
        to: where the files go.
    """
    arrays: dict[str, dict[str, NDArray[Any]]] = {}
    for problem in Analysis.read(folder).problems:
        config, front = problem.config, union(problem)
        listed = find_assets(problem.space).manifest["files"]
        name = front_name(config.objectives, config.device, config.predictor)
        checksum = listed[predictor_file(config.predictor)]["sha256"]
        assert front.X is not None
        arrays.setdefault(problem.space.name, {}).update(
            {
                name: front.F,
                f"{name}|X": front.X.astype(problem.space.gene_type),
                f"{name}|sha256": np.array(checksum),
            }
        )
    for space, of in arrays.items():
        write_arrays(to / f"{space}.npz", of)


def main(argv: Sequence[str] | None = None) -> None:
    """Write either."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("what", choices=("bounds", "fronts"))
    parser.add_argument("bench", nargs="?", type=Path, help="the benchmark's folder, for fronts")
    given = parser.parse_args(argv)
    if given.what == "bounds":
        write_json(bounds.FILE, computed())
    elif given.bench is None:
        parser.error("name the benchmark's folder")
    else:
        keep(given.bench)


if __name__ == "__main__":
    with reported():
        main()

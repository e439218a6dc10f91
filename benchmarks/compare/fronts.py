"""Known fronts: true ones of spaces that were measured whole, shipped ones, unions of runs.

``python -m apq_moo.benchmarks.compare.fronts BENCH`` keeps the unions of a benchmark's fronts among
those that are shipped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import FloatArray
from apq_moo.data.assets import find_assets, predictor_file
from apq_moo.errors import UserError, reported
from apq_moo.files import read_arrays, write_arrays
from apq_moo.problems import APQProblem
from apq_moo.problems.tabulated import NAME as TABULATED
from apq_moo.space import all_networks, load_space
from apq_moo.study.config import RunConfig


def nondominated(F: FloatArray) -> FloatArray:
    """The distinct non-dominated rows, ascending by the first objective."""
    from moocore import filter_dominated

    if not len(F):
        return F
    kept: FloatArray = filter_dominated(np.unique(F, axis=0))
    return kept[np.lexsort(kept.T[::-1])]


def true_front(config: RunConfig) -> FloatArray | None:
    """The front of a space whose every network is in a table; None where accuracies are predicted.

    Args:
        config: of a search.
    """
    if config.predictor != TABULATED:
        return None
    return _true_front(
        config.space, config.objectives, tuple(sorted(config.limits.items())), config.device,
        config.assets,
    )  # fmt: skip


@lru_cache(maxsize=16)
def _true_front(
    space: str,
    objectives: tuple[str, ...],
    limits: tuple[tuple[str, float], ...],
    device: str,
    assets: str | None,
) -> FloatArray:
    from apq_moo.problems.tabulated import TabulatedAccuracy

    loaded = load_space(space)
    accuracy = TabulatedAccuracy(find_assets(loaded, assets))
    problem = APQProblem(loaded, objectives, dict(limits), predictor=accuracy, device=device)
    X = all_networks(loaded)
    F, G = problem.evaluate_blocks(loaded.block_index(X), X)
    return nondominated(F[(G <= 0).all(axis=1)])


def shipped_front(config: RunConfig) -> FloatArray | None:
    """The union of all fronts of the published benchmark, if that had this problem; or None."""
    space = load_space(config.space)
    path = _folder() / f"{space.name}.npz"
    if config.limits or config.assets is not None or not path.is_file():
        return None
    arrays = read_arrays(path)
    try:
        predictor = find_assets(space).manifest["files"][predictor_file(config.predictor)]
    except (KeyError, UserError):
        return None
    name = _name(config)
    if str(arrays.get(f"{name}|sha256", "")) != str(predictor["sha256"]):
        return None
    found: FloatArray = arrays[name]
    return found


def _name(config: RunConfig) -> str:
    return f"{'+'.join(config.objectives)}|{config.device}|{config.predictor}"


def known_front(config: RunConfig, fronts: Sequence[FloatArray]) -> tuple[FloatArray, str]:
    """The front that runs of a problem are compared with.

    Args:
        config: of one of the searches.
        fronts: of all runs, minimised.

    Returns:
        The true front (``true``), else the union of the runs' (``union``), joined with the
        published one if there is one (``shipped``); and that word.
    """
    true = true_front(config)
    if true is not None:
        return true, "true"
    n_obj = len(config.objectives)
    parts = [np.empty((0, n_obj)), *fronts]
    published = shipped_front(config)
    if published is not None:
        parts.append(published)
    return nondominated(np.vstack(parts)), "union" if published is None else "shipped"


def keep(folder: str | Path) -> None:
    """Write the unions of a benchmark's fronts to the shipped files, one for each space.

    Args:
        folder: of a benchmark whose predictors are shipped.
    """
    from apq_moo.benchmarks.compare.analysis import Analysis

    arrays: dict[str, dict[str, NDArray[Any]]] = {}
    for problem in Analysis.read(folder).problems:
        config = problem.config
        listed = find_assets(problem.space).manifest["files"]
        name = _name(config)
        checksum = listed[predictor_file(config.predictor)]["sha256"]
        found = arrays.setdefault(problem.space.name, {})
        found |= {name: problem.known, f"{name}|sha256": np.array(checksum)}
    for space, of in arrays.items():
        write_arrays(_folder() / f"{space}.npz", of)


def _folder() -> Path:
    return Path(str(files("apq_moo.benchmarks.compare") / "published"))


if __name__ == "__main__":
    with reported():
        keep(sys.argv[1])

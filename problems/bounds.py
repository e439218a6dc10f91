"""Ideal and nadir points that belong to a problem, on which fronts are scored.

They are never taken from a run. Those of the shipped spaces lie in ``bounds.json``: costs between
the smallest and the largest of any network that the device runs, accuracy within what the space's
networks reach. Any other problem gets the exact bounds of its costs, and accuracies from guessing
to 100 %. A limit takes the place of a nadir that lies beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from apq_moo.arrays import BoolArray, FloatArray
from apq_moo.files import read_json
from apq_moo.hardware import ACC, CostTable, maximum, minimised, minimum
from apq_moo.space import Space, load_space

FILE = Path(str(files("apq_moo.problems") / "bounds.json"))

ACCURACIES = {"fashion": (100.0, 80.0), "tiny": (100.0, 80.0), "digits": (100.0, 30.0)}
"""Percent at the ideal, which no prediction may pass, and at the nadir, which few networks miss."""

DEVICE = "bitfusion"
"""Whose costs the file holds."""

REFERENCE = 1.1
"""Reference point of hypervolumes in every objective, where 0 is the ideal and 1 the nadir."""


@cache
def _shipped() -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = read_json(FILE)
    return found


def reachable(
    objectives: Sequence[str],
    limits: Mapping[str, float],
    tables: Mapping[str, CostTable],
    feasible: Sequence[BoolArray],
    space: Space,
) -> tuple[FloatArray, FloatArray]:
    """The best and the worst value of every objective, minimised, shape ``(n_obj,)`` each.

    For accuracy 100 % and that of guessing; for a cost the smallest and the largest of any network
    that the device runs. A limit takes the place of a worst value beyond it.

    Args:
        objectives: their names.
        limits: by name, in natural units.
        tables: of the costs.
        feasible: usable configurations of each block.
        space: the space.
    """
    best, worst = [], []
    for name in objectives:
        if name == ACC:
            best.append(100.0)
            worst.append(max(100.0 / space.spec.classes, limits.get(name, 0.0)))
        else:
            best.append(minimum(tables[name], feasible)[0])
            worst.append(min(maximum(tables[name], feasible)[0], limits.get(name, np.inf)))
    return minimised(objectives, best), minimised(objectives, worst)


def shipped(objectives: Sequence[str], space: Space, device: str) -> dict[str, tuple[float, float]]:
    """Ideal and nadir of the objectives that the file knows, by name, minimised.

    Args:
        objectives: their names.
        space: the space; one that only shares a shipped one's name is not known.
        device: the device's name.
    """
    known = _shipped().get(space.name)
    if known is None or load_space(space.name).digest != space.digest:
        return {}
    return {
        name: (known[name][0], known[name][1])
        for name in objectives
        if name in known and (name == ACC or device == DEVICE)
    }

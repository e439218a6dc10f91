"""The scale on which fronts of a problem are scored: a fixed ideal, nadir and reference point.

They belong to the problem and are never taken from a run. Those of the shipped spaces lie in
``bounds.json``: costs between the smallest and the largest of any network that the device runs,
accuracy within what the space's networks reach. Any other problem gets the exact bounds of its
costs, and accuracies from guessing to 100 %.

``python -m apq_moo.benchmarks.compare.bounds`` writes the file again.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from apq_moo.benchmarks.compare.scores import Bounds
from apq_moo.errors import UserError, reported
from apq_moo.files import read_json, write_json
from apq_moo.problems import APQProblem
from apq_moo.results.history import reachable_bounds
from apq_moo.space import load_space

_FILE = Path(str(files("apq_moo.benchmarks.compare") / "bounds.json"))

ACCURACIES = {"fashion": (100.0, 80.0), "tiny": (100.0, 80.0), "digits": (100.0, 30.0)}
"""Percent at the ideal, which no prediction may pass, and at the nadir, which few networks miss."""

_COSTS = ("latency", "energy", "macs", "bitops", "params", "size", "memory")
_DEVICE = "bitfusion"


@cache
def _shipped() -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = read_json(_FILE)
    return found


def bounds_of(problem: APQProblem) -> Bounds:
    """The bounds of a problem, in the order of its objectives, minimised."""
    best, worst = reachable_bounds(problem)
    ideal, nadir = best.tolist(), worst.tolist()
    space = problem.space
    known = _shipped().get(space.name, {})
    same = space.name in ACCURACIES and load_space(space.name).digest == space.digest
    for i, name in enumerate(problem.objectives):
        if not same or name not in known or name in problem.constraints:
            continue
        if name == "acc" or problem.device.name == _DEVICE:
            ideal[i], nadir[i] = known[name]
    for i, name in enumerate(problem.objectives):
        if not ideal[i] < nadir[i]:
            raise UserError(f"all networks of space {space.name!r} have the same {name}")
    return Bounds(problem.objectives, tuple(ideal), tuple(nadir))


def computed() -> dict[str, dict[str, list[float]]]:
    """What ``bounds.json`` holds, from the spaces and the device."""
    bounds = {}
    for name, (ideal, nadir) in ACCURACIES.items():
        best, worst = reachable_bounds(APQProblem(name, _COSTS, device=_DEVICE))
        pairs = zip(_COSTS, best.tolist(), worst.tolist(), strict=True)
        costs = {cost: [low, high] for cost, low, high in pairs}
        bounds[name] = {"acc": [-ideal, -nadir], **costs}
    return bounds


if __name__ == "__main__":
    with reported():
        write_json(_FILE, computed())

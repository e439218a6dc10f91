"""Picking one network from everything that a run evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from apq_moo.algorithms import ALGORITHMS
from apq_moo.errors import UserError
from apq_moo.hardware import QUANTITIES, cost_names, cost_table, find_device, minimised
from apq_moo.problems.evaluated import Evaluated
from apq_moo.space import Subnet, load_space
from apq_moo.study.epsilon_constraint import main_objective
from apq_moo.study.folder import RunFolder
from apq_moo.study.kept import Kept, kept_by, what_counts
from apq_moo.study.record import evaluated, row_type
from apq_moo.study.search import Search


@dataclass(frozen=True)
class Pick:
    """A network and what it is worth.

    Attributes:
        subnet: the network.
        values: the run's objectives and the limited costs, in natural units.
        among: how many of the evaluated networks meet the limits.
    """

    subnet: Subnet
    values: dict[str, float]
    among: int


def read_archive(folder: RunFolder) -> Evaluated:
    """What counts of everything that a run has evaluated; see :func:`read_everything`."""
    return what_counts(*read_everything(folder))


def read_everything(folder: RunFolder) -> tuple[Evaluated, Kept | None]:
    """Everything that a run has evaluated, an unfinished one up to its last checkpoint.

    Returns:
        This, and what its algorithm kept of it, where only that counts.

    Raises:
        UserError: it has evaluated nothing yet, or a file is damaged.
    """
    folder.check_inputs()
    space = load_space(folder.at_hand.space)
    archive = evaluated(folder.path, row_type(space, len(folder.config.objectives)))
    if archive is None:
        raise UserError(f"{folder.path} has no evaluated networks yet")
    config = folder.at_hand
    if config.algo_file is not None or not ALGORITHMS.get(config.algo).reports_kept:
        return archive, None
    return archive, kept_by(Search(config), archive)


def pick(folder: RunFolder, limits: Mapping[str, float], *, knee: bool = False) -> Pick:
    """Pick the best network under limits that the search need not have known.

    Args:
        folder: the run.
        limits: upper ones for costs, a lower one for ``acc``. Costs that were no objectives of the
            run are looked up.
        knee: instead of the best by the run's main objective, the front's network farthest from the
            straight line (or plane) between the front's extremes, where gains begin to cost more
            than they bring (Das, On Characterizing the "Knee" of the Pareto Curve, 1999).

    Raises:
        UserError: an unknown limit, or no evaluated network meets all.
    """
    config = folder.at_hand
    archive = read_archive(folder)
    space = load_space(config.space)
    space.check(archive.X.max(axis=0, initial=0))
    device = find_device(config.device, missing=config.missing)
    values = dict(zip(config.objectives, minimised(config.objectives, archive.F).T, strict=True))
    for name in limits:
        if name in values:
            continue
        if name not in QUANTITIES or QUANTITIES.get(name).expensive:
            known = ", ".join(dict.fromkeys([*values, *cost_names()]))
            raise UserError(f"limits={name}: this run knows {known}")
        values[name] = cost_table(space, name, device)(archive.genotypes)
    inside = archive.feasible.copy()
    for name, limit in limits.items():
        inside &= QUANTITIES.get(name).meets(values[name], limit)
    if not inside.any():
        raise UserError(_nothing(limits, values, archive.feasible))
    rows = np.flatnonzero(inside)
    some = Evaluated(archive.X[rows], archive.F[rows], archive.feasible[rows]).front()
    chosen = _knee(some.F) if knee else _best(some.F, config.objectives)
    (subnet,) = space.decode(some.genotypes[chosen])
    found = int(np.flatnonzero((archive.X[rows] == some.X[chosen]).all(axis=1))[0])
    worth = {name: float(column[rows[found]]) for name, column in values.items()}
    return Pick(subnet, worth, len(np.unique(archive.X[rows], axis=0)))


def _best(F: np.ndarray, objectives: tuple[str, ...]) -> int:
    """The best by the main objective; of equal ones the best by the others, in their order."""
    main = objectives.index(main_objective(objectives))
    others = [i for i in range(F.shape[1]) if i != main]
    return int(np.lexsort([F[:, i] for i in [*reversed(others), main]])[0])


def _knee(F: np.ndarray) -> int:
    """The point of a front farthest below the plane through its extremes, both scaled to [0, 1]."""
    low, spread = F.min(axis=0), np.ptp(F, axis=0)
    scaled = (F - low) / np.where(spread > 0, spread, 1.0)
    return int(scaled.sum(axis=1).argmin())


def _nothing(
    limits: Mapping[str, float], values: Mapping[str, np.ndarray], feasible: np.ndarray
) -> str:
    """Says which limits nobody meets, and the best value of each."""
    if not limits or not feasible.any():
        return "no evaluated network meets the limits of the run"
    asked, ends = [], []
    for name, limit in limits.items():
        quantity = QUANTITIES.get(name)
        best = (max if quantity.maximise else min)(values[name][feasible])
        asked.append(f"{name} {quantity.relation} {limit:g}")
        ends.append(f"{name} {best:.4g}")
    return (
        f"no evaluated network has {' and '.join(asked)}; the best of each by itself: "
        f"{', '.join(ends)}"
    )

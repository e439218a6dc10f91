"""A whole run: search, front, optional verification, and the folder they go to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from apq_moo.data.assets import TABLE, find_assets
from apq_moo.errors import UserError
from apq_moo.predictors.metrics import kendall_tau
from apq_moo.problems.measured import SupernetAccuracy
from apq_moo.problems.tabulated import TabulatedAccuracy
from apq_moo.results.gap import certified_gap
from apq_moo.results.history import history
from apq_moo.results.report import draw_front, front_columns, not_offered
from apq_moo.results.verification import spread
from apq_moo.space import load_space
from apq_moo.study.archive import Archive
from apq_moo.study.folder import HISTORY, MEASURED, RunFolder, alone
from apq_moo.study.search import Search
from apq_moo.versions import processor, versions

DEFAULT_VERIFY = 10


@dataclass(frozen=True)
class Listener:
    """What a run tells while it goes; every function may be replaced.

    Attributes:
        searching: ``(evaluations done, in all)``.
        say: a line of text.
        verifying: ``(networks measured, in all)``.
    """

    searching: Callable[[int, int], None] = lambda _done, _total: None
    say: Callable[[str], None] = lambda _text: None
    verifying: Callable[[int, int], None] = lambda _done, _total: None


def execute(
    folder: RunFolder, listener: Listener | None = None, search: Search | None = None
) -> dict[str, list[Any]]:
    """Carry out the run of a folder, or what is left of it.

    Args:
        folder: the run.
        listener: told what happens.
        search: of the folder's configuration, where the caller has made it already.

    Returns:
        The columns of ``front.csv``.

    Raises:
        UserError: see :class:`Search` and :func:`verify_front`; a file cannot be written; or
            another process carries out the run.
    """
    listener = listener or Listener()
    with alone(folder.path):
        return _execute(folder, listener, search or Search(folder.config))


def _execute(folder: RunFolder, listener: Listener, search: Search) -> dict[str, list[Any]]:
    config = folder.config
    if folder.record.get("data", search.data) != search.data:
        raise UserError(
            f"the run in {folder.path} was begun with other data: what its predictor or its "
            "device's costs come from has changed since; begin a new run"
        )
    folder.store(versions=versions(), processor=processor(), data=search.data)
    lost = not_offered(search.problem)
    if lost:
        device = search.problem.device.name
        listener.say(f"not offered, since {device} does not run them: {lost}")
    if isinstance(search.predictor, SupernetAccuracy) and not folder.searched:
        each = search.predictor.estimate_s(search.problem.space.largest()[None], ("validation",))
        listener.say(
            f"measuring a network takes up to {each:.2g} s: "
            f"{config.budget * each:,.0f} s at most in all; what is measured is kept"
        )
    begun = time.perf_counter()
    archive = search.run(folder=folder.path, callback=listener.searching)
    spent = search.trace.seconds[-1] if search.trace.seconds else 0.0
    seconds = {"load": search.seconds, "search": max(time.perf_counter() - begun, spent)}
    front = archive.front()
    if len(front) == 0:
        raise UserError(_nothing_found(config.limits, config.objectives, archive))
    columns = front_columns(search.problem.space, config.objectives, front, search.surrogate)
    folder.write_front(columns)
    folder.write_table(HISTORY, history(search.problem, archive, search.trace))
    folder.store(
        evaluations=len(archive),
        front=len(front),
        seconds=seconds,
        gap=certified_gap(search, front),
    )
    verify = folder.record.get("verify")
    if verify:
        columns, spent = verify_front(folder, columns, front, verify, listener)
        seconds["verify"] = spent
    draw_front(folder.path / "front.png", columns, config.objectives, title_of(folder))
    folder.store(status="finished", seconds=seconds)
    return columns


def _nothing_found(limits: dict[str, float], objectives: tuple[str, ...], archive: Archive) -> str:
    text = "no network that meets all limits was found"
    if "acc" in limits and "acc" in objectives:
        best = -archive.F[:, objectives.index("acc")].min()
        text += f" (acc of at least {limits['acc']:g}; the largest found is {best:.2f})"
    return f"{text}; change a limit or raise --budget"


def title_of(folder: RunFolder) -> str:
    """One line that says what the run searched."""
    config = folder.config
    return f"{config.algo} on {config.space}: {folder.record['evaluations']:,} evaluations"


def verify_front(
    folder: RunFolder,
    columns: dict[str, list[Any]],
    front: Archive,
    k: int,
    listener: Listener,
) -> tuple[dict[str, list[Any]], float]:
    """Measure ``k`` members of a front, spread by cost, and add what was found to ``front.csv``.

    Returns:
        The columns with ``acc_val_true`` and ``acc_test``, and the seconds spent.

    Raises:
        UserError: the space has no supernet, or its images cannot be had.
    """
    begun = time.perf_counter()
    config = folder.config
    assets = find_assets(load_space(config.space), config.assets)
    costs = [i for i, name in enumerate(config.objectives) if name != "acc"]
    rows = spread(front.F[:, costs[0] if costs else 0], k)
    X = front.genotypes[rows]
    if assets.has(TABLE):  # every network has been measured
        found = TabulatedAccuracy(assets).measure(X)
    else:
        supernet = SupernetAccuracy(assets)
        listener.say(
            f"measuring {len(rows)} networks on the supernet takes about "
            f"{max(1, round(supernet.estimate_s(X)))} s"
        )
        found = supernet.measure(X, callback=lambda done: listener.verifying(done, len(rows)))
    subnet = columns.pop("subnet")
    for column, name in enumerate(MEASURED):
        values: list[float | None] = [None] * len(front)
        for row, value in zip(rows, found[:, column], strict=True):
            values[row] = float(value)
        columns[name] = values
    columns["subnet"] = subnet
    folder.write_front(columns)
    result: dict[str, float | None] = {}
    if "acc" in columns and len(rows) > 2:
        predicted = np.array(columns["acc"])[rows]
        result = {
            "kendall_tau_validation": _finite(kendall_tau(found[:, 0], predicted)),
            "kendall_tau_test": _finite(kendall_tau(found[:, 1], predicted)),
        }
    folder.store(verified={"networks": len(rows), **result})
    return columns, time.perf_counter() - begun


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

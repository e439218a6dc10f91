"""Measuring members of a front on the supernet, and selecting again by what was measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from moocore import is_nondominated

from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.data.noise import few_images
from apq_moo.hardware import ACC, minimised
from apq_moo.predictors.metrics import kendall_tau
from apq_moo.problems import exact_source
from apq_moo.problems.evaluated import Evaluated
from apq_moo.space import load_space
from apq_moo.study.folder import MEASURED, ON_FRONT, RunFolder

PER_SHOWN = 3
"""Networks that are measured for each that is to be shown."""


def diverse(F: FloatArray, k: int) -> IntArray:
    """``k`` rows (or all, if fewer) that lie far apart, ascending.

    First those that are best in an objective, then always the one that is farthest from those that
    were chosen (Gonzalez, Clustering to Minimize the Maximum Intercluster Distance, Theoretical
    Computer Science 38, 1985), with every objective scaled to its range.

    Args:
        F: minimised objectives, shape ``(n, n_obj)``.
        k: how many.
    """
    spread = np.ptp(F, axis=0)
    scaled = (F - F.min(axis=0)) / np.where(spread > 0, spread, 1.0)
    chosen = list(dict.fromkeys(F.argmin(axis=0).tolist()))[:k]
    distance = np.linalg.norm(scaled[:, None] - scaled[chosen], axis=2).min(axis=1)
    distance[chosen] = -1.0
    while len(chosen) < min(k, len(F)):
        chosen.append(int(distance.argmax()))
        farther = np.linalg.norm(scaled - scaled[chosen[-1]], axis=1)
        distance = np.where(distance < 0, distance, np.minimum(distance, farther))
        distance[chosen[-1]] = -1.0
    rows: IntArray = np.sort(np.array(chosen, dtype=np.int64))
    return rows


def measured_front(
    F: FloatArray, objectives: Sequence[str], accuracies: FloatArray, least: float = 0.0
) -> BoolArray:
    """Which networks are non-dominated with measured accuracies in place of predicted ones.

    Args:
        F: minimised objectives, shape ``(n, n_obj)``.
        objectives: their names.
        accuracies: measured ones in percent, shape ``(n,)``.
        least: accuracy below which a network does not count.

    Returns:
        Shape ``(n,)``.
    """
    points = F.copy()
    if ACC in objectives:
        points[:, list(objectives).index(ACC)] = -accuracies
    rows = np.flatnonzero(accuracies >= least)
    on_front = np.zeros(len(F), dtype=bool)
    if len(rows):
        on_front[rows[is_nondominated(points[rows], keep_weakly=False)]] = True
    return on_front


def verify_front(
    folder: RunFolder,
    columns: dict[str, list[Any]],
    front: Evaluated,
    k: int,
    *,
    say: Callable[[str], None],
    callback: Callable[[int, int], None],
) -> tuple[dict[str, list[Any]], float]:
    """Measure members of a front, select again among them, and add what was found to ``front.csv``.

    Of a predicted front :data:`PER_SHOWN` times as many are measured as are to be shown, since
    measured accuracies let some of them fall behind others. They are chosen by :func:`diverse`.

    Args:
        folder: the run's.
        columns: of ``front.csv``.
        front: the same networks.
        k: how many are to be shown.
        say: told a line of text.
        callback: told ``(networks measured, in all)``.

    Returns:
        The columns with ``acc_val_true``, ``acc_test`` and ``measured_front``, and the seconds
        spent.

    Raises:
        UserError: the space has no supernet, or its images cannot be had.
    """
    begun = time.perf_counter()
    config = folder.at_hand
    source = exact_source(load_space(config.space), config.assets, config.on)
    predicted = ACC in config.objectives
    rows = diverse(front.F, PER_SHOWN * k if predicted else k)
    X = front.genotypes[rows]
    seconds = source.estimate_s(X, splits=2)
    if seconds:
        say(
            f"measuring {len(rows)} networks, to show up to {k}, on the supernet {source.where} "
            f"takes about {_duration(seconds)}"
        )
    found = source.measure(X, callback=lambda done: callback(done, len(rows)))
    on_front = measured_front(
        front.F[rows], config.objectives, found[:, 0], config.limits.get(ACC, 0.0)
    )
    subnet = columns.pop("subnet")
    for name, values in zip((*MEASURED, ON_FRONT), (*found.T, on_front), strict=True):
        column: list[float | int | None] = [None] * len(front)
        for row, value in zip(rows, values.tolist(), strict=True):
            column[row] = int(value) if name == ON_FRONT else value
        columns[name] = column
    columns["subnet"] = subnet
    folder.write_front(columns)
    result: dict[str, float | None] = {}
    if predicted and len(rows) > 2:
        accuracies = np.array(columns[ACC])[rows]
        result = {
            "kendall_tau_validation": _finite(kendall_tau(found[:, 0], accuracies)),
            "kendall_tau_test": _finite(kendall_tau(found[:, 1], accuracies)),
        }
    if source.n_images is not None:
        result |= dict(zip(("images_validation", "images_test"), source.n_images, strict=True))
    folder.store(verified={"networks": len(rows), "front": int(on_front.sum()), **result})
    return columns, time.perf_counter() - begun


_MINUTE = 60.0


def _duration(seconds: float) -> str:
    if seconds < 2 * _MINUTE:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / _MINUTE)} min"


def shown_members(folder: RunFolder, columns: Mapping[str, Sequence[Any]]) -> list[int]:
    """Rows of the measured front to show, ascending: as many as were asked for, far apart.

    Args:
        folder: the run's.
        columns: of ``front.csv``.
    """
    rows = [row for row, on_front in enumerate(columns.get(ON_FRONT, ())) if on_front]
    k = folder.record.get("verify")
    if not k or len(rows) <= k:
        return rows
    objectives = folder.config.objectives
    shown = [columns[MEASURED[0] if name == ACC else name] for name in objectives]
    F = minimised(objectives, np.array(shown, dtype=object).T[rows].astype(np.float64))
    return [rows[i] for i in diverse(F, k)]


def noise_of(folder: RunFolder, columns: dict[str, list[Any]]) -> str | None:
    """How noisy the measured accuracies of a run are, if they are; see :func:`few_images`.

    Args:
        folder: the run's.
        columns: of ``front.csv``.
    """
    verified = folder.record.get("verified") or {}
    measured = {}
    for split, name in zip(("validation", "test"), MEASURED, strict=True):
        n = verified.get(f"images_{split}")
        found = [value for value in columns.get(name, []) if value is not None]
        if n and found:
            measured[split] = int(n), sum(found) / len(found)
    return few_images(measured)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

"""Measuring members of a front on the supernet."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.data.noise import few_images
from apq_moo.predictors.metrics import kendall_tau
from apq_moo.problems import exact_source
from apq_moo.problems.evaluated import Evaluated
from apq_moo.space import load_space
from apq_moo.study.folder import MEASURED, RunFolder


def spread(values: FloatArray, k: int) -> IntArray:
    """``k`` positions (or all, if fewer) spread evenly over the sorted values, ascending."""
    order = np.argsort(values, kind="stable")
    picked = np.linspace(0, len(order) - 1, min(k, len(order))).round().astype(int)
    chosen: IntArray = np.sort(order[picked])
    return chosen


def verify_front(
    folder: RunFolder,
    columns: dict[str, list[Any]],
    front: Evaluated,
    k: int,
    *,
    say: Callable[[str], None],
    callback: Callable[[int, int], None],
) -> tuple[dict[str, list[Any]], float]:
    """Measure ``k`` members of a front, spread by cost, and add what was found to ``front.csv``.

    Args:
        folder: the run's.
        columns: of ``front.csv``.
        front: the same networks.
        k: how many to measure.
        say: told a line of text.
        callback: told ``(networks measured, in all)``.

    Returns:
        The columns with ``acc_val_true`` and ``acc_test``, and the seconds spent.

    Raises:
        UserError: the space has no supernet, or its images cannot be had.
    """
    begun = time.perf_counter()
    config = folder.at_hand
    source = exact_source(load_space(config.space), config.assets, config.on)
    costs = [i for i, name in enumerate(config.objectives) if name != "acc"]
    rows = spread(front.F[:, costs[0] if costs else 0], k)
    X = front.genotypes[rows]
    seconds = source.estimate_s(X, splits=2)
    if seconds:
        say(
            f"measuring {len(rows)} networks on the supernet {source.where} takes about "
            f"{max(1, round(seconds))} s"
        )
    found = source.measure(X, callback=lambda done: callback(done, len(rows)))
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
    if source.n_images is not None:
        result |= dict(zip(("images_validation", "images_test"), source.n_images, strict=True))
    folder.store(verified={"networks": len(rows), **result})
    return columns, time.perf_counter() - begun


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

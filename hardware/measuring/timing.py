"""Timing something until its median is known well enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor, sqrt

import numpy as np

from apq_moo.arrays import FloatArray

Runner = Callable[[int], float]
"""Runs something so many times, one after the other, and returns the milliseconds of one run."""


EXACT_SUMS = ("session.x64quantprecision", "1")
"""A setting of ONNX Runtime. Without it x64 processors that lack VNNI add pairs of products in 16
bits, which overflow; those that have VNNI never do, and take a sixth longer with it. Networks are
deployed with it, so they are timed with it."""


@dataclass(frozen=True)
class Rule:
    """When to stop.

    Attributes:
        precision: half the width of the median's 95 % confidence interval, relative to the median.
        observations: made at least.
        max_s: time after which a visit ends anyway.
        warm_up_s: time spent on runs that do not count.
        block_ms: an observation is the mean of as many runs as take this long.
    """

    precision: float = 0.02
    observations: int = 12
    max_s: float = 0.4
    warm_up_s: float = 0.005
    block_ms: float = 0.25


def half_width(observations: FloatArray) -> float:
    """Half the width of the 95 % confidence interval of the median, relative to the median.

    By order statistics (the binomial distribution in its normal approximation), so that nothing is
    assumed of the observations' distribution; infinite below six observations.

    >>> half_width(np.full(10, 3.0))
    0.0
    """
    n = len(observations)
    if n < 6:
        return float("inf")
    ordered = np.sort(observations)
    reach = 0.98 * sqrt(n)
    low, high = max(floor(n / 2 - reach), 1), min(ceil(n / 2 + 1 + reach), n)
    return float((ordered[high - 1] - ordered[low - 1]) / 2 / np.median(ordered))


def observe(run: Runner, rule: Rule) -> FloatArray:
    """Time something after a warm-up.

    Args:
        run: what to time.
        rule: when to stop.

    Returns:
        Observations in ms.
    """
    ms = run(1)
    deadline = time.perf_counter() + rule.warm_up_s
    while time.perf_counter() < deadline:
        ms = run(1)
    times = max(1, ceil(rule.block_ms / max(ms, 1e-6)))
    observations: list[float] = []
    deadline = time.perf_counter() + rule.max_s
    while True:
        observations.append(run(times))
        enough = len(observations) >= rule.observations
        if enough and (
            time.perf_counter() >= deadline or half_width(np.array(observations)) <= rule.precision
        ):
            return np.array(observations)


def timed(call: Callable[[], object]) -> Runner:
    """A runner of a function that returns when its work is done."""

    def run(times: int) -> float:
        begun = time.perf_counter_ns()
        for _ in range(times):
            call()
        return (time.perf_counter_ns() - begun) / times / 1e6

    return run

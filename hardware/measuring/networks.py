"""How well sums of measured layers predict whole networks, and the affine correction that helps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.stats import kendalltau

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.errors import UserError
from apq_moo.hardware.costs import cost_table
from apq_moo.hardware.layer_table import Correction, LayerTable, TableDevice
from apq_moo.hardware.measuring.backends import BACKENDS, Backend
from apq_moo.hardware.measuring.campaign import Callback, Campaign
from apq_moo.hardware.measuring.timing import Rule
from apq_moo.hardware.tables import feasible_options, minimum, random_networks
from apq_moo.space import Space

ROUNDS = 16
"""Visits to each network, and at most twice as many: a network has no others to even out errors."""

SMALLEST = 5
"""Networks to fit a correction to, at least."""


@dataclass(frozen=True)
class EndToEnd:
    """Whole networks, measured and predicted.

    Attributes:
        X: canonical genotypes, shape ``(n, n_var)``.
        summed_ms: latencies as sums of layers, uncorrected, shape ``(n,)``.
        measured_ms: measured latencies.
        spread_ms: interquartile ranges of the measured ones.
        correction: the fit.
    """

    X: IntArray
    summed_ms: FloatArray
    measured_ms: FloatArray
    spread_ms: FloatArray
    correction: Correction

    @property
    def corrected_ms(self) -> FloatArray:
        """Latencies as corrected sums."""
        return self.correction.scale * self.summed_ms + self.correction.offset


def backend_of(table: LayerTable, source: str) -> Backend:
    """The backend that a table was measured on.

    Raises:
        UserError: it was not measured, or on another processor or version.
    """
    recorded = table.provenance.get("measured")
    if not isinstance(recorded, Mapping):
        raise UserError(f"{source} was not measured by lut measure, so there is no backend to use")
    threads, on, name = (recorded.get(key) for key in ("threads", "on", "backend"))
    if type(threads) is not int or not isinstance(on, str) or not isinstance(name, str):
        raise UserError(f"{source}: its record of the backend is malformed")
    backend = BACKENDS.get(name)(threads, on)
    here = backend.describe()
    for key, value in here.items():
        if recorded.get(key) != value:
            raise UserError(
                f"{source} was measured with {key} {recorded.get(key)}, and here it is {value}; "
                "measure it anew, or validate it where it was made"
            )
    return backend


def measure_networks(
    space: Space,
    table: LayerTable,
    source: str,
    n: int,
    *,
    backend: Backend | None = None,
    rule: Rule | None = None,
    seed: int = 0,
    callback: Callback | None = None,
) -> EndToEnd:
    """Measure random networks on a table's own backend and fit a correction.

    Args:
        space: the space.
        table: the table; a correction that it has is not looked at.
        source: how messages name it.
        n: how many networks, all distinct.
        backend: instead of the one that the table names.
        rule: how long to time each.
        seed: of the networks and the order.
        callback: see :meth:`Campaign.run`.

    Raises:
        UserError: too few networks, the table lacks a layer, or see :func:`backend_of`.
    """
    if n < SMALLEST:
        raise UserError(f"n={n}: at least {SMALLEST} networks are needed")
    backend = backend or backend_of(table, source)
    plain = TableDevice(replace(table, corrections={}), source)
    latency = cost_table(space, "latency", plain)
    feasible = feasible_options(space, [latency])
    minimum(latency, feasible)  # refuses a space of which nothing can run
    X = random_networks(space, feasible, n, np.random.default_rng(seed))
    if len(X) < n:
        raise UserError(f"only {len(X)} networks of space {space.name!r} can run on {source}")
    networks = [partial(backend.network, space, subnet) for subnet in space.decode(X)]
    campaign = Campaign(networks, rule or Rule(), seed, ROUNDS)
    campaign.run(None, callback)
    summed, measured = latency(X), campaign.medians()
    return EndToEnd(X, summed, measured, campaign.quartile_ranges(), fit(summed, measured))


def fit(summed: FloatArray, measured: FloatArray) -> Correction:
    """Fit ``measured = scale * summed + offset`` by least squares of relative errors.

    Where the best scale is not positive, or the offset would make a network's latency negative, the
    offset is left at 0.

    Args:
        summed: sums of layers, shape ``(n,)``, n at least 3.
        measured: measured values, positive.
    """
    scale, offset = _solve(summed, measured)
    others = [np.delete(np.arange(len(summed)), i) for i in range(len(summed))]
    left_out = [_solve(summed[rows], measured[rows]) for rows in others]
    predicted = np.array([a * x + b for (a, b), x in zip(left_out, summed, strict=True)])
    return Correction(
        scale=scale,
        offset=offset,
        networks=len(summed),
        kendall_tau=float(kendalltau(summed, measured).statistic),
        mape_before=_mape(summed, measured),
        mape_after=_mape(predicted, measured),
    )


def _solve(summed: FloatArray, measured: FloatArray) -> tuple[float, float]:
    design = np.column_stack([summed, np.ones_like(summed)]) / measured[:, None]
    scale, offset = np.linalg.lstsq(design, np.ones(len(summed)), rcond=None)[0]
    if scale <= 0 or scale * summed.min() + offset <= 0:
        x = summed / measured
        return float(x.sum() / (x @ x)), 0.0
    return float(scale), float(offset)


def _mape(predicted: FloatArray, measured: FloatArray) -> float:
    return float(100 * np.mean(np.abs(predicted - measured) / measured))

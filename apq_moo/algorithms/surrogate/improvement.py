"""Which networks to measure next: those that are expected to enlarge the hypervolume most.

Costs are known exactly and only the accuracy is uncertain, normally distributed. At every point
``q`` of the space of costs there is a level that an accuracy must pass to be new: that of the best
known network whose costs are at most ``q``. The expected gain in hypervolume is the integral of the
expected excess over this level, over all ``q`` that the network's costs are below (Emmerich,
Giannakoglou and Naujoks, Single- and Multiobjective Evolutionary Optimization Assisted by Gaussian
Random Field Metamodels, IEEE Transactions on Evolutionary Computation 10(4), 2006, for one
uncertain objective). With one cost the level is a staircase and the integral a sum.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from apq_moo.arrays import BoolArray, FloatArray, IntArray

_POINTS = 2**11
"""In the space of several costs, over which the gain is averaged."""


def expected_excess(level: FloatArray, mean: FloatArray, std: FloatArray) -> FloatArray:
    """``E[max(level - A, 0)]`` of normal ``A``: by how much it is expected to fall below a level.

    Args:
        level: shape ``(k,)``.
        mean: shape ``(n,)``.
        std: above 0, shape ``(n,)``.

    Returns:
        Shape ``(n, k)``.
    """
    from scipy.special import ndtr

    z = (level - mean[:, None]) / std[:, None]
    found: FloatArray = std[:, None] * (z * ndtr(z) + np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))
    return np.maximum(found, 0)


class _Levels(ABC):
    """What an accuracy must pass, over the space of costs; all minimised and normalised."""

    level: FloatArray

    @abstractmethod
    def add(self, accuracy: float, costs: FloatArray) -> None:
        """A network is known; costs have shape ``(n_costs,)``."""

    @abstractmethod
    def volumes(self, costs: FloatArray) -> FloatArray:
        """How much of each level networks of these costs reach.

        Args:
            costs: shape ``(n, n_costs)``.

        Returns:
            Shape ``(n, len(level))``.
        """


class _Staircase(_Levels):
    """Of one cost, exact."""

    def __init__(self, reference: FloatArray) -> None:
        self._edges = np.array([-np.inf, reference[1]])
        self.level = reference[:1].copy()

    def add(self, accuracy: float, costs: FloatArray) -> None:
        (cost,) = costs
        if cost >= self._edges[-1]:
            return
        place = int(np.searchsorted(self._edges, cost, side="right"))
        self._edges = np.insert(self._edges, place, cost)
        self.level = np.insert(self.level, place, self.level[place - 1])
        self.level[place:] = np.minimum(self.level[place:], accuracy)

    def volumes(self, costs: FloatArray) -> FloatArray:
        begin = np.maximum(self._edges[:-1], costs)
        lengths: FloatArray = np.maximum(self._edges[1:] - begin, 0)
        return lengths


class _Points(_Levels):
    """Of several costs, at evenly spread points of them (a scrambled Sobol sequence)."""

    def __init__(self, reference: FloatArray) -> None:
        from scipy.stats.qmc import Sobol

        n_costs = len(reference) - 1
        self._points = reference[1:] * Sobol(n_costs, scramble=True, rng=0).random(_POINTS)
        self._share = float(np.prod(reference[1:])) / _POINTS
        self.level = np.full(_POINTS, reference[0])

    def _reached(self, costs: FloatArray) -> BoolArray:
        reached: BoolArray = (self._points >= costs[:, None]).all(axis=2)
        return reached

    def add(self, accuracy: float, costs: FloatArray) -> None:
        (reached,) = self._reached(costs[None])
        self.level[reached] = np.minimum(self.level[reached], accuracy)

    def volumes(self, costs: FloatArray) -> FloatArray:
        volumes: FloatArray = np.where(self._reached(costs), self._share, 0.0)
        return volumes


class ExpectedGain:
    """What networks are expected to add to the hypervolume of those that are known.

    Exact for accuracy and at most one cost; else the mean over points of the space of costs.

    Args:
        known: objectives of the known networks, minimised and normalised, accuracy first; shape
            ``(k, 1 + n_costs)``.
        reference: of the hypervolume, shape ``(1 + n_costs,)``; costs count from 0.
    """

    def __init__(self, known: FloatArray, reference: FloatArray) -> None:
        if len(reference) == 1:  # as if all networks cost the same
            reference = np.append(reference, 1.0)
        self._levels = _Staircase(reference) if len(reference) == 2 else _Points(reference)
        for row in known:
            self.add(float(row[0]), row[1:])

    def add(self, accuracy: float, costs: FloatArray) -> None:
        """Take a network for known; ``costs`` has shape ``(n_costs,)``."""
        self._levels.add(accuracy, costs if len(costs) else np.zeros(1))

    def of(self, mean: FloatArray, std: FloatArray, costs: FloatArray) -> FloatArray:
        """Expected gains, shape ``(n,)``.

        Args:
            mean: of the accuracies, minimised and normalised, shape ``(n,)``.
            std: their standard deviations, above 0, shape ``(n,)``.
            costs: normalised, shape ``(n, n_costs)``.
        """
        costs = costs if costs.shape[1] else np.zeros((len(mean), 1))
        excess = expected_excess(self._levels.level, mean, std)
        gains: FloatArray = (self._levels.volumes(costs) * excess).sum(axis=1)
        return gains


def batch_by_gain(
    mean: FloatArray,
    std: FloatArray,
    costs: FloatArray,
    known: FloatArray,
    reference: FloatArray,
    k: int,
) -> IntArray:
    """Positions of ``k`` networks (or all, if fewer), chosen one by one.

    Each has the largest expected gain when those before it are taken for known, just as accurate as
    predicted (the "Kriging believer" of Ginsbourger, Le Riche and Carraro, 2010), so that a batch
    spreads over the front. Where nothing is expected of any, the first ones are taken.

    Args:
        mean: see :class:`ExpectedGain`.
        std: see :class:`ExpectedGain`.
        costs: see :class:`ExpectedGain`.
        known: see :class:`ExpectedGain`.
        reference: see :class:`ExpectedGain`.
        k: how many.
    """
    gain = ExpectedGain(known, reference)
    left = np.ones(len(mean), dtype=bool)
    chosen = []
    for _ in range(min(k, len(mean))):
        best = int(np.where(left, gain.of(mean, std, costs), -1.0).argmax())
        chosen.append(best)
        left[best] = False
        gain.add(float(mean[best]), costs[best])
    return np.array(chosen, dtype=np.int64)

"""How logits of architectures descend: losses that know costs, Adam, the weight of the costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from apq_moo.arrays import FloatArray

UNITS = 80.0
"""In the units of ``mul`` the limit is this many: ProxylessNAS' 80 ms."""

_LEAST = 1.001
"""The least cost in those units, so that its logarithm is positive."""


@dataclass(frozen=True)
class Loss:
    """A cross entropy and an expected cost in one number.

    ``add`` is ``CE + weight * (cost - 1)`` and ``mul`` is ``CE * (ln(80 cost) / ln 80) ** weight``,
    where a cost of 1 is the limit (ProxylessNAS, appendix; FBNet and DNAS multiply too).

    Attributes:
        kind: ``add`` or ``mul``.
        scaled: whether ``mul`` is ``CE * weight * ln(80 cost) / ln 80``, so that no weight matters.
    """

    kind: str
    scaled: bool = False

    def gradients(self, entropy: float, cost: float, weight: float) -> tuple[float, float]:
        """Derivatives by the cross entropy and by the cost."""
        if self.kind == "add":
            return 1.0, weight
        units = max(UNITS * cost, _LEAST)
        log = math.log(units) / math.log(UNITS)
        slope = UNITS / (units * math.log(UNITS))
        if self.scaled:
            return weight * log, entropy * weight * slope
        return log**weight, entropy * weight * log ** (weight - 1) * slope

    def value(self, entropy: float, cost: float, weight: float) -> float:
        """The loss itself."""
        if self.kind == "add":
            return entropy + weight * (cost - 1)
        log = math.log(max(UNITS * cost, _LEAST)) / math.log(UNITS)
        return entropy * (weight * log if self.scaled else log**weight)


class Adam:
    """D. Kingma and J. Ba, Adam, ICLR 2015, without memory of directions, as ProxylessNAS uses it.

    Args:
        n: numbers that it changes.
        rate: the learning rate.
        decay: of the mean of squares.
    """

    def __init__(self, n: int, rate: float, decay: float = 0.999) -> None:
        self._rate, self._decay = rate, decay
        self._squares, self._steps = np.zeros(n), 0

    def step(self, gradient: FloatArray) -> FloatArray:
        """What to add to the numbers, same shape; 0 where the gradient is 0."""
        self._steps += 1
        self._squares = self._decay * self._squares + (1 - self._decay) * gradient**2
        squares = self._squares / (1 - self._decay**self._steps)
        change: FloatArray = -self._rate * gradient / (np.sqrt(squares) + 1e-8)
        return change


class WeightSearch:
    """Looks for the least weight of the cost under which results meet a limit.

    It goes up or down by 4 until results lie on both sides, then halves the interval of logarithms.

    Args:
        first: where it begins.

    Attributes:
        weight: what to try next.
    """

    def __init__(self, first: float) -> None:
        self.weight = first
        self._low, self._high = 0.0, math.inf

    def tell(self, *, over: bool) -> None:
        """What came of :attr:`weight`: whether the result was over the limit."""
        if over:
            self._low = self.weight
        else:
            self._high = self.weight
        if self._low == 0:
            self.weight /= 4
        elif math.isinf(self._high):
            self.weight *= 4
        else:
            self.weight = math.sqrt(self._low * self._high)

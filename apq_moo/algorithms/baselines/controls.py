"""Controls that trust in sensitivities: what is best if the losses of all changes add up.

The second is exact under that assumption, as Z. Yao et al., HAWQ-V3: Dyadic Neural Network
Quantization, ICML 2021, choose bits.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from apq_moo.algorithms.baselines.choice import Choice, broken, brought_under, saved
from apq_moo.algorithms.baselines.reference import reference_network
from apq_moo.algorithms.baselines.sensitivities import Sensitivities
from apq_moo.algorithms.baselines.system import Asking, System, Target
from apq_moo.arrays import FloatArray, IntArray
from apq_moo.errors import UserError, shown
from apq_moo.problems.feasibility import best_network
from apq_moo.space.spec import ROLES

BATCH = 50
"""Networks of a sweep that are asked for together."""

CHOICES = {"kernel": ("kernel",), "channels": ("channels",), "bits": ROLES}


class SensitivityControl(System):
    """Measures sensitivities once for all targets, then one network for each.

    Args:
        chooses: what, of :data:`CHOICES`, joined by ``+``; the rest stays the reference network's.

    Raises:
        UserError: ``chooses`` names something else.
    """

    title: ClassVar[str]
    fields: tuple[str, ...]  # type: ignore[misc]  # as it was told to

    def __init__(self, chooses: str = "kernel+channels+bits") -> None:
        self.chooses = chooses
        names = chooses.split("+")
        for name in names:
            if name not in CHOICES:
                raise UserError(
                    f"{self.title}: chooses names some of {', '.join(CHOICES)}, joined by +, not "
                    f"{shown(name)}"
                )
        self.fields = tuple(field for name in CHOICES if name in names for field in CHOICES[name])

    @abstractmethod
    def choose(self, choice: Choice, gains: Sequence[FloatArray]) -> IntArray:
        """The network that it takes to be the most accurate that meets the limits.

        Args:
            choice: from these.
            gains: see :meth:`Sensitivities.gains`.

        Returns:
            Shape ``(n_blocks,)``.
        """

    def reach(self, target: Target, base: IntArray | None = None) -> Asking[Any]:
        """See :class:`System`."""
        yield from self._carry_out([target], base)

    def search(self, targets: Sequence[Target]) -> Asking[Any]:
        """See :class:`System`; one sweep serves all targets."""
        yield from self._carry_out(targets, None)

    def _carry_out(self, targets: Sequence[Target], base: IntArray | None) -> Asking[None]:
        problem = targets[0].problem
        start = reference_network(problem) if base is None else base
        sweep = Sensitivities(Choice(problem.with_limits({}), start, self.fields, self.title))
        budget = sum(target.budget for target in targets) - len(targets)
        networks = sweep.networks(max(budget, 0))
        scores = np.empty(0)
        for first in range(0, len(networks), BATCH):
            scores = np.r_[scores, (yield networks[first : first + BATCH])]
        gains = sweep.gains(scores)
        for target in targets:
            choice = Choice(target.problem, start, self.fields, self.title)
            yield self.choose(choice, gains)[None]


class Greedy(SensitivityControl):
    """Gives up, from the reference network on, what saves most for the accuracy that it costs.

    One gene of one block at a time, until the limits are met. Where no change of one gene saves
    anything, blocks take their cheapest configurations, the last first.
    """

    title = "greedy"

    def choose(self, choice: Choice, gains: Sequence[FloatArray]) -> IntArray:
        """See :class:`SensitivityControl`."""
        region, space = choice.problem.region, choice.problem.space
        index = choice.base.copy()
        blocks = np.flatnonzero(space.layout.active(index[None])[0]).tolist()
        genes = space.layout.split(space.layout.genes)
        for _ in range(int(space.n_options.sum())):
            over = broken(region, index)
            if not over:
                break
            best, move = np.inf, None
            for b in blocks:
                near = (genes[b][:-1] != genes[b][index[b]]).sum(axis=1) == 1
                less = saved(over, index, b)
                rows = np.flatnonzero(near & choice.open[b] & (less > 0))
                if len(rows):
                    price = (gains[b][index[b]] - gains[b][rows]) / less[rows]
                    if price.min() < best:
                        best, move = price.min(), (b, rows[price.argmin()])
            if move is None:
                break
            index[move[0]] = move[1]
        return brought_under(choice, index)


class Milp(SensitivityControl):
    """The best network if all changes are independent: an integer program, solved exactly."""

    title = "milp"

    def choose(self, choice: Choice, gains: Sequence[FloatArray]) -> IntArray:
        """See :class:`SensitivityControl`."""
        space = choice.problem.space
        active = space.layout.active(choice.base[None])[0]
        found = best_network(space, choice.open, choice.problem.region.limits, gains, active)
        return choice.cheapest() if found is None else np.where(active, found, space.block_sizes)

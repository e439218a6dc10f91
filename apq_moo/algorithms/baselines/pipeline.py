"""Systems one after the other: each chooses its fields, and what it chose stays.

A stage but the last searches under a multiple of the final limits, since the following make its
network cheaper. Which multiple is best nobody knows beforehand: a small grid is tried, and paid for
from the same budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Self

import numpy as np

from apq_moo.algorithms.baselines.choice import (
    DEPTH,
    Choice,
    cheapest_of,
    reachable,
    with_fields,
)
from apq_moo.algorithms.baselines.reference import reference_network
from apq_moo.algorithms.baselines.system import Asking, System, Target, within
from apq_moo.arrays import IntArray
from apq_moo.errors import UserError, shown
from apq_moo.hardware import ACC
from apq_moo.problems import APQProblem

LARGEST = 100.0
"""Most that a stage's limits may be of the final ones."""


class Pipeline(System):
    """Stages that each choose fields of the network that the one before hands on.

    A stage hands on the most accurate network that it evaluated under its own limits and that the
    following can bring under the final ones; where there is none, its part of the cheapest that
    they can make together. It has an equal share of what is left of the budget, of which the rest
    goes to the following.

    Args:
        systems: the stages.
        stages: multiples of the final limits that each stage but the last is tried at, joined by
            ``/``.

    Raises:
        UserError: a system is no stage or stands at the wrong place, or a multiple is out of range.
    """

    title: str  # type: ignore[misc]  # of each pipeline its own
    fields: ClassVar[tuple[str, ...] | None] = None

    def __init__(self, systems: Sequence[System], stages: str = "1/1.25/1.5") -> None:
        self.systems, self.stages = tuple(systems), stages
        for place, system in enumerate(systems):
            if system.fields is None:
                raise UserError(f"{system.title} chooses everything: it is no stage of a pipeline")
            if place and not system.fields:
                raise UserError(f"{system.title} can only be the first stage of a pipeline")
            if system.title in (other.title for other in systems[:place]):
                raise UserError(
                    f"{system.title} is a stage twice: what it chose stays, so name it once"
                )
        self.title = "+".join(system.title for system in systems)
        self._ratios = [_ratio(part) for part in dict.fromkeys(stages.split("/"))]

    def configured(self, parameters: Mapping[str, Any]) -> Self:
        """See :class:`System`; the stages' parameters are written ``STAGE__PARAMETER``."""
        stages = self.stages
        inner: dict[str, dict[str, Any]] = {system.title: {} for system in self.systems}
        for name, value in parameters.items():
            stage, mark, parameter = name.partition("__")
            if mark and stage in inner:
                inner[stage][parameter] = value
            elif name == "stages":
                stages = str(value)
            else:
                known = ", ".join(f"{title}__PARAMETER" for title in inner)
                raise UserError(f"{self.title} has no parameter {name!r}; it has stages, {known}")
        systems = [system.configured(inner[system.title]) for system in self.systems]
        return type(self)(systems, stages)

    # -- what can be reached -----------------------------------------------------------------------

    def admit(self, problem: APQProblem, base: IntArray | None = None) -> None:
        """See :class:`System`."""
        start = reference_network(problem) if base is None else base
        for system in self.systems:
            system.check(problem, start)
        cheapest_of(self._choices(self.systems, problem, start))

    def _choices(
        self, systems: Sequence[System], problem: APQProblem, base: IntArray
    ) -> list[Choice]:
        """The networks that stages can make of one."""
        found = [Choice(problem, base, (), self.title)]
        for system in systems:
            found = [
                Choice(problem, made.base, (*choice.fields, *made.fields), self.title)
                for choice in found
                for made in system.choices(problem, choice.base)
            ]
        return found

    # -- searching ---------------------------------------------------------------------------------

    def reach(self, target: Target, base: IntArray | None = None) -> Asking[Any]:
        """See :class:`System`."""
        start = reference_network(target.problem) if base is None else base
        yield from self._from(0, target, start)

    def _from(self, place: int, target: Target, base: IntArray) -> Asking[int]:
        """Search from one stage on.

        Args:
            place: of the stage.
            target: the final limits, and the budget of this stage and the following.
            base: what it is handed.

        Returns:
            How many evaluations it took, with what it paid for other work.
        """
        system, problem = self.systems[place], target.problem
        if place + 1 == len(self.systems):
            asked, _ = yield from within(system.reach(target, base), target.budget)
            return len(asked) + target.account.paid
        spent = 0
        handed: set[bytes] = set()
        ratios = self._ratios if system.fields else self._ratios[:1]
        for number, ratio in enumerate(ratios):
            share = (target.budget - spent) // (len(ratios) - number)
            own = Target(problem, share // (len(self.systems) - place), target.rng)
            n, network = yield from self._choose(place, own, base, ratio)
            spent, share = spent + n, share - n
            if network.tobytes() not in handed:
                handed.add(network.tobytes())
                rest = Target(problem, share, target.rng)
                spent += yield from self._from(place + 1, rest, network)
        return spent

    def _choose(
        self, place: int, target: Target, base: IntArray, ratio: float
    ) -> Asking[tuple[int, IntArray]]:
        """Search by one stage that is not the last, under a multiple of the limits.

        Returns:
            How many evaluations it took, with what it paid for other work, and the network that it
            hands on.
        """
        system, problem = self.systems[place], target.problem
        n, wider = 0, None
        if system.fields:
            with suppress(UserError):  # out of reach of this stage alone
                admitted = self._wider(place, problem, ratio)
                system.admit(admitted, base)
                wider = admitted
        if wider is not None:
            own = Target(wider, target.budget, target.rng)
            asked, scores = yield from within(system.reach(own, base), own.budget)
            n = len(asked) + own.account.paid
            for row in np.argsort(-scores, kind="stable"):
                network = asked[row]
                if wider.region.contains_blocks(network[None])[0] and self._can_end(
                    place, problem, network
                ):
                    return n, network
        cheapest = cheapest_of(self._choices(self.systems[place:], problem, base))
        return n, with_fields(problem.space, base, cheapest, system.fields or ())

    def _wider(self, place: int, problem: APQProblem, ratio: float) -> APQProblem:
        """Multiples of the limits for one stage, from which the following can reach them.

        Raises:
            UserError: no network meets them.
        """
        limits = {
            name: limit if name == ACC else ratio * limit
            for name, limit in problem.constraints.items()
        }
        wider = problem.with_limits(limits)
        following = {field for system in self.systems[place + 1 :] for field in system.fields or ()}
        return (
            wider
            if DEPTH in following
            else wider.within([*wider.region.limits, *reachable(problem, following)])
        )

    def _can_end(self, place: int, problem: APQProblem, network: IntArray) -> bool:
        """Whether the stages behind one can bring a network under the limits."""
        try:
            cheapest_of(self._choices(self.systems[place + 1 :], problem, network))
        except UserError:
            return False
        return True


def _ratio(text: str) -> float:
    """A multiple of the limits.

    Raises:
        UserError: it is none.
    """
    try:
        ratio = float(text)
    except ValueError:
        ratio = 0.0
    if not 0 < ratio <= LARGEST:
        raise UserError(
            f"stages are multiples of the limits above 0 and up to {LARGEST:g}, joined by /, such "
            f"as 1/1.25/1.5, not {shown(text)}"
        )
    return ratio

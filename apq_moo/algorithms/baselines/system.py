"""What the systems that APQ is compared with share.

A system is the search rule of a published method (or of a simple control) on the networks of a
space, whose weights all come from one supernet: what is compared is how they search, not how they
train. It maximises accuracy under limits on costs and asks for the accuracies of networks in
batches, as a generator that yields block configurations and is sent their accuracies. Whoever
drives it cuts the last batch to what is left of the budget, and judges every network by the tables
of the problem.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeAlias, TypeVar

import numpy as np

from apq_moo.algorithms.baselines.choice import Choice, cheapest_of
from apq_moo.algorithms.baselines.reference import reference_network
from apq_moo.algorithms.strategy import Context, Strategy
from apq_moo.arrays import FloatArray, IntArray
from apq_moo.errors import UserError, shown
from apq_moo.hardware import ACC
from apq_moo.predictors.parameters import Parametrised
from apq_moo.problems import APQProblem, FeasibleRegion
from apq_moo.problems.evaluated import Evaluated
from apq_moo.space.spec import ROLES

T = TypeVar("T")

Asking: TypeAlias = Generator[IntArray, FloatArray, T]
"""Yields block configurations, shape ``(n, n_blocks)``; is sent accuracies in percent, ``(n,)``."""

ALL = "all"
"""Stands for every slip of a system."""


@dataclass
class Account:
    """What of a budget went to something else than evaluations.

    Attributes:
        paid: in evaluations.
    """

    paid: int = 0


@dataclass(frozen=True)
class Target:
    """Limits under which one network is sought.

    Attributes:
        problem: with these limits.
        budget: evaluations.
        rng: source of randomness.
        account: to which a search adds what it pays for other work, such as gradient steps.
    """

    problem: APQProblem
    budget: int
    rng: np.random.Generator
    account: Account = field(default_factory=Account)

    @property
    def region(self) -> FeasibleRegion:
        """The networks that meet the limits on costs."""
        return self.problem.region


class System(Strategy, Parametrised):
    """A search for the most accurate network under each of several limits.

    Its parameters are the arguments of its constructor. One of them may be ``faithful``: slips of
    the authors' code to repeat, by names joined by ``+``, or ``all``; none by default.

    Attributes:
        title: its name.
        fields: what it chooses, see :class:`Choice`, while all else stays that of the network that
            it is handed as a stage of a pipeline, by default of the reference network; None where
            it chooses everything, and is no stage.
        slips: of the authors' code, by name, with what each does.
        reports_kept: whether only the networks that it holds count, not all that it evaluated.
    """

    takes_parts: ClassVar[bool] = True
    title: ClassVar[str]
    fields: ClassVar[tuple[str, ...] | None] = None
    slips: ClassVar[Mapping[str, str]] = {}
    reports_kept: bool = False
    faithful: str = ""

    # -- parameters --------------------------------------------------------------------------------

    def configured(self, parameters: Mapping[str, Any]) -> Self:
        """The same system with other parameters.

        Raises:
            UserError: there is no such parameter, or it refuses its value.
        """
        known = self.get_params(deep=False)
        for name, value in parameters.items():
            if name not in known:
                takes = f"it has {', '.join(known)}" if known else "it has none"
                raise UserError(f"{self.title} has no parameter {name!r}; {takes}")
            kind = type(known[name])
            number = kind is float and type(value) is int
            if type(value) is not kind and not number:
                be = {int: "an integer", float: "a number", str: "a text"}[kind]
                raise UserError(f"{self.title}: {name} must be {be}, not {shown(value)}")
            known[name] = float(value) if number else value
        return type(self)(**known)

    def repeats(self, slip: str) -> bool:
        """Whether a slip of the authors' code is repeated."""
        return slip in self._chosen_slips

    def _choose_slips(self, faithful: str) -> None:
        """Keep the parameter ``faithful``.

        Raises:
            UserError: there is no such slip.
        """
        self.faithful = faithful
        chosen = set(self.slips) if faithful == ALL else set(filter(None, faithful.split("+")))
        for name in sorted(chosen - set(self.slips)):
            raise UserError(
                f"{self.title}: no slip {shown(name)} is known of it; faithful names some of "
                f"{', '.join(self.slips)}, joined by +, or {ALL}"
            )
        self._chosen_slips = frozenset(chosen)

    # -- searching ---------------------------------------------------------------------------------

    def smallest(self, problem: APQProblem, points: int) -> int:
        """See :class:`Strategy`."""
        if ACC not in problem.objectives:
            raise UserError(f"{self.title} maximises acc: add it to the objectives")
        self.admit(problem)
        return points

    def admit(self, problem: APQProblem, base: IntArray | None = None) -> None:
        """Check that a problem has something to choose, and networks that meet its limits.

        Args:
            problem: with the limits.
            base: what a stage of a pipeline is handed, shape ``(n_blocks,)``.

        Raises:
            UserError: it has not; the smallest cost within reach is named.
        """
        if self.fields is not None:
            start = reference_network(problem) if base is None else base
            self.check(problem, start)
            cheapest_of(self.choices(problem, start))

    def check(self, problem: APQProblem, base: IntArray) -> None:
        """Check that a network leaves a stage something to choose.

        Raises:
            UserError: it does not.
        """
        choices = self.choices(problem, base)
        if self.fields and len(choices) == 1 and not choices[0].offers():
            what = "bits" if set(self.fields) <= set(ROLES) else ", ".join(self.fields)
            raise UserError(
                f"{self.title} chooses {what}, of which space {problem.space.name!r} offers one "
                "option for each block: name another space, or an algorithm that chooses something "
                "else"
            )

    def choices(self, problem: APQProblem, base: IntArray) -> list[Choice]:
        """The networks that a stage can make of one, in several sets where they depend.

        Raises:
            UserError: there are none.
        """
        return [Choice(problem, base, self.fields or (), self.title)]

    @abstractmethod
    def reach(self, target: Target, base: IntArray | None = None) -> Asking[Any]:
        """Search under one target.

        Args:
            target: the limits.
            base: what a stage of a pipeline is handed, shape ``(n_blocks,)``; None for the
                reference network.
        """

    def search(self, targets: Sequence[Target]) -> Asking[Any]:
        """Search under all targets; by default under one after the other."""
        for target in targets:
            yield from within(self.reach(target), target.budget)

    def rounds(self, context: Context) -> Iterator[Evaluated]:
        """See :class:`Strategy`."""
        self._begin()
        asking = within(self.search(self._targets(context)), context.budget)
        index = next(asking, None)
        while index is not None:
            values = context.measure(index)
            # What the system knows after the round is known when it is recorded.
            try:
                following = asking.send(values[ACC])
            except StopIteration:
                following = None
            yield context.evaluated(index, values)
            index = following

    def _begin(self) -> None:
        """Forget an earlier search."""

    def _targets(self, context: Context) -> list[Target]:
        """The parts of a context whose limits are within reach; they share the budget."""
        self.smallest(context.whole, 1)
        parts, refusal = [], None
        for part in context.parts or (context,):
            try:
                self.admit(part.problem)
            except UserError as error:
                refusal = refusal or error
            else:
                parts.append(part)
        if not parts and refusal is not None:
            raise refusal
        shares = np.diff(np.linspace(0, context.budget, len(parts) + 1).astype(int))
        return [
            Target(part.problem, int(share), part.generator)
            for part, share in zip(parts, shares, strict=True)
        ]


def within(asking: Asking[Any], budget: int) -> Asking[tuple[IntArray, FloatArray]]:
    """Carry a search out until it ends or a number of evaluations is spent.

    Args:
        asking: the search.
        budget: evaluations; the last batch is cut to what is left.

    Returns:
        All that it asked for, shape ``(n, n_blocks)``, and their accuracies, ``(n,)``.
    """
    asked: list[IntArray] = []
    told: list[FloatArray] = [np.empty(0)]
    left = budget
    try:
        index = next(asking)
        while left and len(index):
            batch = index[:left]
            scores = yield batch
            left -= len(batch)
            asked.append(batch)
            told.append(scores)
            if len(batch) < len(index):
                break
            index = asking.send(scores)
    except StopIteration:
        pass
    asking.close()
    return (np.vstack(asked) if asked else np.empty((0, 0), np.int64)), np.concatenate(told)

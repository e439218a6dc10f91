"""What is known of an algorithm, and the algorithms by name, with parameters and in pipelines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pymoo.core.algorithm import Algorithm

from apq_moo.algorithms.baselines.pipeline import Pipeline
from apq_moo.algorithms.baselines.stepped import SteppedSearch
from apq_moo.algorithms.baselines.system import System
from apq_moo.algorithms.pymoo.strategy import PymooStrategy
from apq_moo.algorithms.strategy import Context, Strategy
from apq_moo.errors import UserError
from apq_moo.predictors.parameters import read_specification
from apq_moo.registry import Registry

AlgorithmFactory: TypeAlias = Callable[..., Algorithm]
"""``factory(problem, pop_size=100, **options)`` makes an algorithm for ``setup(problem, ...)``; the
options are further arguments of its class, and what :attr:`AlgorithmEntry.needs` names."""


@dataclass(frozen=True)
class AlgorithmEntry:
    """An algorithm and what is known of it.

    Attributes:
        name: as users write it.
        factory: makes one for a problem.
        kind: whether one run yields a front, or one network for one set of limits, so that a front
            takes a sweep over limits.
        citation: of the method.
        summary: one line.
        least_objectives: fewer are refused.
        needs: further arguments of the factory: ``budget``, the evaluations; ``surrogate``, an
            additive accuracy; or ``refit``, what a search that measures predicts by.
        state: attributes (dotted) that the algorithm's further course depends on beside its
            population, its optimum and its generator: numbers, arrays, populations. None where that
            is not known: a stopped run is then begun again, with what it had evaluated answered
            from its record, which takes as long as the algorithm's own work did.
        reports_kept: whether only the networks that it holds count, not all that were evaluated.
        search: makes the strategy that runs use, where that is not to drive the factory's product.
        system: makes the system that this is, if it is one: it takes parameters, and may be a stage
            of a pipeline.
    """

    name: str
    factory: AlgorithmFactory
    kind: Literal["single-objective-sweep", "multi-objective"]
    citation: str
    summary: str
    least_objectives: int = 1
    needs: tuple[str, ...] = ()
    state: tuple[str, ...] | None = None
    reports_kept: bool = False
    search: Callable[[], Strategy] | None = None
    system: Callable[[], System] | None = None

    @property
    def swept(self) -> bool:
        """Whether a front takes a sweep over limits."""
        return self.kind == "single-objective-sweep"

    @property
    def refits(self) -> bool:
        """Whether its evaluations are measurements, led by a predictor that is fitted to them."""
        return "refit" in self.needs

    def make(self, context: Context) -> Algorithm:
        """The algorithm for a context, not set up yet."""
        available = {
            "budget": context.budget,
            "surrogate": context.surrogate,
            "refit": context.refit,
        }
        needed = {name: available[name] for name in self.needs}
        return self.factory(context.problem, pop_size=context.pop_size, **needed)

    def strategy(self) -> Strategy:
        """A new search by this algorithm."""
        return PymooStrategy(self.make, self.state) if self.search is None else self.search()

    def check(self, n_objectives: int) -> None:
        """Check a number of objectives.

        Raises:
            UserError: they are too few; the message names algorithms that take them.
        """
        if n_objectives < self.least_objectives:
            entries = ALGORITHMS.usable()
            fit = [name for name, entry in entries if entry.least_objectives <= n_objectives]
            raise UserError(
                f"{self.name} needs at least {self.least_objectives} objectives; with "
                f"{n_objectives} use {', '.join(fit)}"
            )


def system_entry(
    name: str, make: Callable[[], System], citation: str, summary: str
) -> AlgorithmEntry:
    """The entry of a system.

    Args:
        name: as users write it.
        make: makes the system, new each time.
        citation: of the method.
        summary: one line.
    """

    def factory(_problem: object, pop_size: int = 100, budget: int = 1000) -> Algorithm:
        del pop_size  # populations, where there are any, are parameters
        return SteppedSearch(make(), budget)

    return AlgorithmEntry(
        name,
        factory,
        "single-objective-sweep",
        citation,
        summary,
        needs=("budget",),
        reports_kept=make().reports_kept,
        search=make,
        system=make,
    )


EXAMPLE = "haq:episodes=600"


class Algorithms(Registry[AlgorithmEntry]):
    """The algorithms by name.

    A system's name may be followed by parameters, ``spos:top=5:prob=0.2``, and systems that hand a
    network on may be joined to a pipeline, ``amc+haq``, whose stages' parameters are written
    ``amc+haq:haq__episodes=600``.
    """

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        stages = name.partition(":")[0].split("+")
        return all(super(Algorithms, self).__contains__(stage) for stage in stages)

    def get(self, name: str) -> AlgorithmEntry:
        """Look an algorithm up, by its name and perhaps parameters.

        Raises:
            UserError: see :class:`Registry`; or there is no such parameter, or no such pipeline.
        """
        names, parameters = read_specification(name, EXAMPLE)
        entries = [super(Algorithms, self).get(stage) for stage in names.split("+")]
        if len(entries) == 1 and not parameters:
            return entries[0]
        makers = []
        for entry in entries:
            if entry.system is None:
                what = "takes no parameters" if len(entries) == 1 else "is no stage of a pipeline"
                systems = [n for n, known in self._items.items() if known.system is not None]
                raise UserError(f"{name!r}: {entry.name} {what}; systems do: {', '.join(systems)}")
            makers.append(entry.system)

        def make() -> System:
            made = [maker() for maker in makers]
            system = made[0] if len(made) == 1 else Pipeline(made)
            return system.configured(parameters)

        sources = "; ".join(dict.fromkeys(entry.citation for entry in entries))
        return system_entry(name, make, sources, ", then ".join(e.summary for e in entries))


ALGORITHMS: Registry[AlgorithmEntry] = Algorithms("algorithm")
"""Every algorithm by name; plug-ins join through the group ``apq_moo.algorithms``."""

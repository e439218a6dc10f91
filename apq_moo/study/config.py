"""What one search is: everything its result depends on."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from apq_moo.defaults import DEFAULT_PREDICTOR, DEFAULT_SPACE, DEFAULT_START, MAX_SEED
from apq_moo.errors import UserError, shown
from apq_moo.reading import Must, integer, read
from apq_moo.texts import by_commas

_BOUNDS = {
    "budget": (1, 100_000_000),
    "sweep": (1, 1000),
    "pop_size": (4, 100_000),
    "seed": (0, MAX_SEED),
}


MIN_ROUNDS = 5
"""Rounds of evolution that each limit of a sweep gets at least."""

MOST_LIMITS = 8
"""Limits of a sweep whose number nobody gives."""


@dataclass(frozen=True)
class RefitConfig:
    """How a search that measures comes from one batch to the next.

    Attributes:
        predictor: what is fitted to what was measured, by name and perhaps parameters (see
            :func:`apq_moo.predictors.create_predictor`); it has standard deviations.
        inner: the algorithm that searches its predictions, with the population and the sweep of
            the run.
        inner_budget: predictions of each such search; at least what the algorithm needs.
        first: random networks that are measured first, where there are no samples.
        batch: networks of the other batches, at least.
        samples: measured networks to begin with: ``shipped``, a table's file, or the folder of a
            run, or several of these by commas; None to begin from nothing.
    """

    predictor: str = "gp-scratch"
    inner: str = "nsga2"
    inner_budget: Annotated[int, integer(1, 10_000_000)] = 3000
    first: Annotated[int, integer(2, 100_000)] = 30
    batch: Annotated[int, integer(2, 100_000)] = 10
    samples: str | None = None

    @property
    def smallest(self) -> int:
        """The smallest budget."""
        return self.first if self.samples is None else 1


@dataclass(frozen=True)
class AlgorithmFile:
    """Where an algorithm comes from that lies in a file of the user's.

    Attributes:
        path: the file, as it was named.
        entry: the name in it.
        sha256: of the file.
        name: of the algorithm.
        swept: whether a front takes a sweep over limits.
    """

    path: str
    entry: str
    sha256: str
    name: str
    swept: Annotated[bool, Must("true or false", lambda value: type(value) is bool)] = False


_EARLIER = {"start": "uniform"}
"""What was meant before it could be said."""


def said(config: Any) -> Any:
    """The entries of a configuration, with what earlier versions had no entry for."""
    return {**_EARLIER, **config} if isinstance(config, dict) else config


@dataclass(frozen=True)
class RunConfig:
    """The configuration of one search.

    Attributes:
        algo: the algorithm's name.
        objectives: what to optimise, in the order of the columns.
        space: a preset's name or a TOML file.
        device: the cost model of latency and energy: a name or a file.
        missing: what comes of layers that a device's table lacks, ``error`` or ``infeasible``.
        predictor: a predictor's name or file.
        assets: a folder of assets, or None for the shipped ones.
        start: how the networks that the search begins with are drawn, ``sizes`` or ``uniform``.
        warm_start: what initial populations begin with: ``exact``, a run's folder, a ``front.csv``
            or a policy's JSON; or None.
        limits: constraints by name, in the objective's unit.
        budget: evaluations.
        sweep: limits over which a single-objective algorithm is swept; None for as many as the
            budget suffices for, at most 8.
        pop_size: individuals a generation.
        seed: of the search.
        on: where torch runs, where accuracies are measured; None for a GPU if there is one.
        refit: of an algorithm that measures, whose predictor then says what measures, and whose
            budget counts measured networks; None for its defaults, and for other algorithms.
        algo_file: where the algorithm (or that of ``refit``) lies, if that is a file of the user's.
    """

    algo: str = "apq-ga"
    objectives: tuple[str, ...] = ("acc", "latency")
    space: str = DEFAULT_SPACE
    device: str = "bitfusion"
    missing: str = "error"
    predictor: str = DEFAULT_PREDICTOR
    assets: str | None = None
    start: str = DEFAULT_START
    warm_start: str | None = None
    limits: dict[str, float] = field(default_factory=dict)
    budget: int = 20_000
    sweep: int | None = None
    pop_size: int = 100
    seed: int = 0
    on: str | None = None
    refit: RefitConfig | None = None
    algo_file: AlgorithmFile | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if value is None:
                continue
            if value < low:
                raise UserError(f"{name}={shown(value)}: at least {low} is needed")
            if value > high:
                raise UserError(f"{name}={shown(value)}: at most {high:,} is allowed")

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        plain = {**vars(self), "objectives": list(self.objectives), "limits": dict(self.limits)}
        for name in ("refit", "algo_file"):  # which most searches do not have
            value = plain.pop(name)
            if value is not None:
                plain[name] = asdict(value)
        return plain

    def points(self, swept: bool, least: int | None = None) -> int:
        """Limits over which an algorithm is swept; 1 where there is nothing to limit.

        Args:
            swept: whether the algorithm is one that is.
            least: evaluations that one limit takes at least; default: those of populations.
        """
        if not swept or len(self.objectives) < 2:
            return 1
        if self.sweep is not None:
            return self.sweep
        enough = self.budget // (least or self.pop_size * (MIN_ROUNDS + 1))
        return max(1, min(MOST_LIMITS, enough))

    def smallest(self, swept: bool) -> int:
        """The smallest budget of an algorithm that evaluates populations."""
        rounds = MIN_ROUNDS + 1 if swept else 1
        return self.points(swept) * self.pop_size * rounds

    @property
    def files(self) -> dict[str, AlgorithmFile]:
        """Files in which algorithms lie, by the names of these."""
        return {} if self.algo_file is None else {self.algo_file.name: self.algo_file}

    def identity(self) -> dict[str, Any]:
        """What results depend on, as JSON; that of earlier versions where nothing else is said."""
        entries = self.to_dict()
        for name in ("on", *(name for name, value in _EARLIER.items() if entries[name] == value)):
            del entries[name]
        if self.algo_file is not None:
            entries["algo_file"] = {"entry": self.algo_file.entry, "sha256": self.algo_file.sha256}
        return entries

    @classmethod
    def from_dict(cls, data: Any) -> RunConfig:
        """From JSON; what earlier versions did not write is what they did.

        Raises:
            UserError: a key is missing or unknown, or a value is of the wrong type.
        """
        return read(cls, said(data), "the run", "its configuration", complete=True)


_FILE = re.compile(r".+\.py(:.*)?", re.DOTALL)


def names_file(algo: str) -> bool:
    """Whether a text stands for an algorithm in a file, ``FILE.py:ENTRY``, not for a known name."""
    return _FILE.fullmatch(algo) is not None


def parse_objectives(text: str) -> tuple[str, ...]:
    """Read a comma-separated list of objectives; names are checked by the problem."""
    return by_commas(text)

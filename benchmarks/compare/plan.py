"""What a benchmark compares: spaces x objectives x algorithms x budgets x seeds."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from apq_moo.algorithms import ALGORITHMS
from apq_moo.data.assets import TABLE, find_assets
from apq_moo.defaults import MAX_SEED
from apq_moo.errors import UserError, escaped, shown
from apq_moo.files import digest_of, read_toml
from apq_moo.hardware import QUANTITIES
from apq_moo.problems.tabulated import NAME as TABULATED
from apq_moo.reading import integer, read
from apq_moo.space import load_space
from apq_moo.study.config import AlgorithmFile, RunConfig, names_file, parse_objectives
from apq_moo.study.own_algorithms import load

_SWEPT = "single-objective-sweep"
MAX_CELLS = 100_000
"""Searches of one benchmark."""

_SWEPT_FILE = re.compile(r"(.+\.py:[^/]*)(/.*)", re.DOTALL)
_SEEDS = ("seeds", "first_seed")
_LISTS = ("spaces", "algos", "objectives", "predictors", "budgets", "sweeps")


@dataclass(frozen=True)
class Cell:
    """One search of a benchmark.

    Attributes:
        config: the search.
        label: the algorithm as tables name it: its name, and with several sweeps ``apq-ga/8``.
    """

    config: RunConfig
    label: str

    @property
    def problem(self) -> str:
        """Names what is solved: space, device, predictor, limits and objectives."""
        config = self.config
        limits = "".join(
            f" {name}{QUANTITIES.get(name).relation}{value:g}"
            for name, value in config.limits.items()
        )
        of = f"{config.space} {'+'.join(config.objectives)}{limits}"
        return escaped(f"{of} ({config.predictor}, {config.device})")

    @property
    def key(self) -> str:
        """Changes with everything that the result depends on, but for files that are named."""
        return keys([self])[0]


def keys(cells: Sequence[Cell]) -> list[str]:
    """Every cell's :attr:`Cell.key`; the file of a space is read once for all."""
    digests = {space: load_space(space).digest for space in {cell.config.space for cell in cells}}
    found = []
    for cell in cells:
        config, digest = cell.config.identity(), digests[cell.config.space]
        found.append(digest_of({"config": config, "label": cell.label, "space": digest}))
    return found


def data_key(space: str, predictor: str) -> str:
    """Under which name a record keeps the digests of what results come from."""
    return f"{space} {predictor}"


def _refuse_other(known: AlgorithmFile, file: AlgorithmFile) -> None:
    if (known.entry, known.sha256) != (file.entry, file.sha256):
        raise UserError(
            f"{file.path}:{file.entry} is {file.name!r}, and so is {known.path}:{known.entry}, "
            "which is another, or was before it changed; give it another name"
        )


@dataclass(frozen=True)
class BenchPlan:
    """All cells of a benchmark, as flags or a TOML file give them.

    Attributes:
        spaces: presets or TOML files.
        algos: algorithms; ``apq-ga/16`` is one swept over 16 limits, whatever ``sweeps`` says. See
            also :meth:`loaded`.
        objectives: lists of objectives, each by commas.
        seeds: how many; they are the same for every algorithm.
        first_seed: the first of them; the others follow it.
        budgets: evaluations of a search.
        sweeps: numbers of limits over which single-objective algorithms are swept; None for as
            many as each budget suffices for, at most 8.
        pop_size: networks a round.
        predictors: of the accuracy, see :class:`apq_moo.study.config.RunConfig`; None for the table
            of a space that has one, and the default on others.
        device: the cost model.
        assets: a folder of assets, or None for the shipped ones.
        start: how the networks that searches begin with are drawn.
        limits: constraints by name.
        files: where algorithms lie that are in files of the user's, by name.
    """

    spaces: tuple[str, ...] = (RunConfig().space,)
    algos: tuple[str, ...] = ("apq-ga", "nsga2", "random")
    objectives: tuple[str, ...] = ("acc,latency",)
    seeds: int = 5
    first_seed: Annotated[int, integer(0, MAX_SEED)] = 0
    budgets: tuple[int, ...] = (10_000,)
    sweeps: tuple[int, ...] | None = None
    pop_size: int = 100
    predictors: tuple[str, ...] | None = None
    device: str = "bitfusion"
    assets: str | None = None
    start: str = RunConfig.start
    limits: dict[str, float] = field(default_factory=dict)
    files: dict[str, AlgorithmFile] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _LISTS:
            values = getattr(self, name)
            if values is None:
                continue
            if not values:
                raise UserError(f"{name} is empty: name at least one")
            if len(set(values)) < len(values):
                twice = Counter(values).most_common(1)[0][0]
                raise UserError(f"{name} names {shown(twice)} twice")
        if self.seeds < 1:
            raise UserError(f"seeds must be at least 1, not {shown(self.seeds)}")
        if self.first_seed + self.seeds - 1 > MAX_SEED:
            raise UserError(f"first_seed={shown(self.first_seed)}: seeds end at {MAX_SEED:,}")
        n_cells = self.seeds * math.prod(
            1 if (values := getattr(self, name)) is None else len(values) for name in _LISTS
        )
        if n_cells > MAX_CELLS:
            raise UserError(
                f"the plan has {shown(n_cells)} searches, more than {MAX_CELLS:,}; lower seeds or "
                "name fewer of something"
            )

    @classmethod
    def from_dict(cls, data: Any, *, source: str = "the plan") -> BenchPlan:
        """Read what :meth:`to_dict` or a TOML file gives; what is left out is the default.

        Raises:
            UserError: a key is unknown, or a value of the wrong type.
        """
        return read(cls, data, source)

    @classmethod
    def read(cls, path: str | Path) -> BenchPlan:
        """Read a TOML file.

        Raises:
            UserError: it is missing or malformed; see :meth:`from_dict`.
        """
        return cls.from_dict(read_toml(path), source=str(path))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        entries = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        if not self.files:
            del entries["files"]
        return entries

    def with_given(self, **given: Any) -> BenchPlan:
        """A copy with some entries replaced."""
        return replace(self, **given)

    def loaded(self) -> BenchPlan:
        """A copy in which algorithms that were named as ``FILE.py:ENTRY`` go by their own names.

        Each file is run. What is swept may be followed by a number of limits, as any other.

        Raises:
            UserError: see :func:`apq_moo.study.own_algorithms.load`, or two have one name.
        """
        algos, files = list(self.algos), dict(self.files)
        for i, algo in enumerate(algos):
            match = _SWEPT_FILE.fullmatch(algo)
            reference, own = (match[1], match[2]) if match else (algo, "")
            if not names_file(reference):
                continue
            file = load(reference)
            _refuse_other(files.setdefault(file.name, file), file)
            algos[i] = file.name + own
        return self if algos == list(self.algos) else replace(self, algos=tuple(algos), files=files)

    def grown(self, **given: Any) -> BenchPlan:
        """A copy with more of something.

        Args:
            **given: entries of lists to add to those that are there; ``seeds`` and ``first_seed``,
                which must overlap or continue what is there, whereupon both are searched.

        Raises:
            UserError: seeds that leave a gap, or anything else that differs from what is there,
                since searches under other conditions cannot be compared.
        """
        entries = dict(given)
        files: dict[str, AlgorithmFile] = entries.pop("files", {})
        for name in files.keys() & self.files.keys():
            _refuse_other(self.files[name], files[name])
        for name in (*_LISTS, *_SEEDS):
            entries.pop(name, None)
        for name, value in entries.items():
            if value != getattr(self, name):
                raise UserError(
                    f"{name}={shown(value)}: the benchmark was begun with "
                    f"{shown(getattr(self, name))}; leave it out, or begin a new one"
                )
        for name in _LISTS:
            if name in given:
                there = getattr(self, name)
                if there is None:
                    raise UserError(
                        f"{name}={','.join(map(str, given[name]))}: the benchmark leaves {name} "
                        "open, so that none can be added; begin a new one"
                    )
                entries[name] = tuple(dict.fromkeys([*there, *given[name]]))
        if given.keys() & set(_SEEDS):
            entries |= self._grown_seeds(given.get("first_seed"), given.get("seeds", 1))
        return replace(self, files=self.files | files, **entries)

    def _grown_seeds(self, first: int | None, seeds: int) -> dict[str, int]:
        begin, end = self.first_seed, self.first_seed + self.seeds
        first = begin if first is None else first
        if first > end or first + seeds < begin:
            raise UserError(
                f"seeds={first}-{first + seeds - 1}: they do not continue the benchmark's, which "
                f"are {begin} to {end - 1}"
            )
        low, high = min(begin, first), max(end, first + seeds)
        return {"first_seed": low, "seeds": high - low}

    def cells(self) -> list[Cell]:
        """Every search, those of one seed together, so that an early look is a fair one.

        An unknown algorithm, such as that of a plug-in which is gone, counts as one that is swept
        where it is written so.

        Raises:
            UserError: an algorithm that is not swept is given a number of limits.
        """
        searches = [search for algo in self.algos for search in self._searches(algo)]
        problems = [
            (space, parse_objectives(objectives), predictor, budget)
            for space in self.spaces
            for objectives, predictor, budget in product(
                self.objectives, self.predictors_on(space), self.budgets
            )
        ]
        return [
            Cell(
                RunConfig(
                    algo=name,
                    objectives=objectives,
                    space=space,
                    device=self.device,
                    predictor=predictor,
                    assets=self.assets,
                    start=self.start,
                    limits=dict(self.limits),
                    budget=budget,
                    sweep=sweep,
                    pop_size=self.pop_size,
                    seed=seed,
                    algo_file=self.files.get(name),
                ),
                label,
            )
            for seed in range(self.first_seed, self.first_seed + self.seeds)
            for space, objectives, predictor, budget in problems
            for name, sweep, label in searches
        ]

    def predictors_on(self, space: str) -> tuple[str, ...]:
        """The predictors of the problems of a space."""
        if self.predictors is not None:
            return self.predictors
        try:
            tabulated = find_assets(load_space(space), self.assets).has(TABLE)
        except UserError:  # whoever needs its assets says so
            tabulated = False
        return (TABULATED if tabulated else RunConfig.predictor,)

    def _searches(self, algo: str) -> list[tuple[str, int | None, str]]:
        """Of an entry of ``algos``: name, limits and label of its searches."""
        name, slash, own = algo.partition("/")
        if name in self.files:
            swept = self.files[name].swept
        else:
            swept = ALGORITHMS.get(name).kind == _SWEPT if name in ALGORITHMS else bool(slash)
        sweeps: tuple[int | None, ...] = (None,) if self.sweeps is None else self.sweeps
        if not swept:
            sweeps = sweeps[:1]
        if slash:
            if not swept or not own.isdecimal() or len(own) > 9:
                raise UserError(
                    f"algos: {algo!r} is no algorithm; only swept ones take a number of limits, "
                    "such as apq-ga/8"
                )
            sweeps = (int(own),)
        many = bool(slash) or len(sweeps) > 1
        return [(name, sweep, f"{name}/{sweep}" if many else name) for sweep in sweeps]

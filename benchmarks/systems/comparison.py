"""Systems under common targets, each with the same budget; one benchmark for each case.

A folder holds ``comparison.json``, which says what is compared, and for each target at each budget
the folder of an ordinary benchmark (:mod:`apq_moo.benchmarks.compare`), whose cells are never
carried out twice. A copy of the folder is all that its analysis needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from apq_moo.algorithms import ALGORITHMS
from apq_moo.benchmarks.compare import bench
from apq_moo.benchmarks.compare.store import Outcome, Store
from apq_moo.benchmarks.systems.ledger import Pricing
from apq_moo.benchmarks.systems.settings import Case, Limit, Settings
from apq_moo.deadlines import Deadline
from apq_moo.errors import UserError
from apq_moo.files import is_file, read_json, write_json
from apq_moo.problems.measured import NAME as SUPERNET
from apq_moo.reading import read
from apq_moo.study.folder import is_empty
from apq_moo.study.search import check

FILE = "comparison.json"
FORMAT = "apq-moo comparison 2"

Refusals = dict[str, dict[str, str]]


class Comparison:
    """A comparison in a folder.

    Args:
        folder: where it is; see :meth:`create` and :meth:`open`.
        settings: what is compared.
        refused: by case, systems that cannot search in it, with the reason.
        pricing: of what is spent.

    Attributes:
        folder: as given.
        settings: as given.
        refused: as given.
        pricing: as given.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        refused: Refusals,
        pricing: Pricing | None = None,
    ) -> None:
        self.folder, self.settings, self.refused = folder, settings, refused
        self.pricing = pricing or Pricing()

    @classmethod
    def create(cls, folder: str | Path, settings: Settings) -> Comparison:
        """Begin one in a new folder, after every kind of search was checked.

        Raises:
            UserError: an unknown name, or the folder is in use.
        """
        folder = Path(folder)
        if is_file(folder / FILE):
            raise UserError(
                f"{folder} holds a comparison; go on with it by Store.open({str(folder)!r})"
            )
        if is_file(folder) or not is_empty(folder):
            raise UserError(f"{folder} is no empty folder; name another")
        refused = _all_refusals(settings)
        bench.data_of(settings.plan(settings.cases[0], settings.systems))
        comparison = cls(folder, settings, refused)
        comparison._write()
        return comparison

    @classmethod
    def open(cls, folder: str | Path) -> Comparison:
        """One that was begun.

        Raises:
            UserError: there is none, or it is damaged.
        """
        path = Path(folder) / FILE
        if not is_file(path):
            raise UserError(f"{folder} holds no comparison (no {FILE})")
        found = read_json(path)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise UserError(f"{path} is not a comparison of this version")
        known = read(_Kept, {k: v for k, v in found.items() if k != "format"}, str(path), "it")
        if set(known.refused) != {case.title for case in known.settings.cases}:
            raise UserError(f"{path} is damaged: its cases are not those that were checked")
        return cls(Path(folder), known.settings, known.refused, known.pricing)

    def _write(self) -> None:
        kept = _Kept(self.settings, self.refused, self.pricing)
        write_json(self.folder / FILE, {"format": FORMAT, **asdict(kept)})

    def price(self, pricing: Pricing) -> None:
        """Count with other prices from now on."""
        if pricing != self.pricing:
            self.pricing = pricing
            self._write()

    def grow(
        self,
        *,
        targets: Sequence[Limit] = (),
        systems: Sequence[str] = (),
        budgets: Sequence[int] = (),
        seeds: int = 0,
        finish: int | None = None,
    ) -> None:
        """Compare more; :meth:`run` carries out what is new.

        Args:
            targets: to add to those that are there.
            systems: to add.
            budgets: to add.
            seeds: of each system, where they are more than before.
            finish: epochs of fine-tuning instead of those of before.

        Raises:
            UserError: an unknown name.
        """
        known = self.settings
        settings = replace(
            known,
            targets=tuple(dict.fromkeys([*known.targets, *targets])),
            systems=tuple(dict.fromkeys([*known.systems, *systems])),
            budgets=tuple(dict.fromkeys([*known.budgets, *budgets])),
            seeds=max(known.seeds, seeds),
            finish=known.finish if finish is None else finish,
        )
        if settings != known:
            self.settings, self.refused = settings, _all_refusals(settings)
            self._write()

    def store(self, case: Case) -> Store | None:
        """The benchmark of a case, if it was begun."""
        store = Store(self.folder / case.title)
        return Store.open(store.folder) if store.begun else None

    def run(
        self,
        *,
        jobs: int = 1,
        on: Sequence[str] = (),
        deadline: Deadline | None = None,
        callback: Callable[[int, int, Outcome | None], None] = lambda _d, _t, _o: None,
    ) -> tuple[int, int]:
        """Carry out the searches that have not ended yet.

        Args:
            jobs: searches at a time, of whatever case.
            on: where torch measures accuracies; searches take turns on these.
            deadline: after which searches that have not ended are left for later.
            callback: told ``(searches done, in all, the latest)``.

        Returns:
            How many are done, and how many have failed.

        Raises:
            UserError: see :func:`apq_moo.benchmarks.compare.bench.run_all`, or there is no such
                device.
        """
        if on and self.settings.predictor == SUPERNET:
            from apq_moo.supernet.devices import chosen_device

            for name in on:
                chosen_device(name)
        stores = []
        for case in self.settings.cases:
            refused = self.refused[case.title]
            systems = tuple(name for name in self.settings.systems if name not in refused)
            if not systems:
                continue
            store, plan = self.store(case), self.settings.plan(case, systems)
            if store is None:
                store = bench.begin(self.folder / case.title, plan)
            elif store.plan != plan:
                store = bench.grow(store.folder, algos=systems, seeds=plan.seeds)
            stores.append(store)
        return bench.run_all(stores, jobs=jobs, on=on, deadline=deadline, callback=callback)

    def ended(self) -> int:
        """How many searches have come to their end."""
        stores = [self.store(case) for case in self.settings.cases]
        return sum(len(store.finished()) for store in stores if store is not None)

    def outcomes(self, case: Case) -> dict[str, list[Outcome]]:
        """What came of each system's searches in a case so far, by seed."""
        store = self.store(case)
        found: dict[str, list[Outcome]] = {}
        for outcome in store.outcomes() if store is not None else ():
            found.setdefault(outcome.cell.label, []).append(outcome)
        return found


@dataclass(frozen=True)
class _Kept:
    settings: Settings
    refused: Refusals = field(default_factory=dict)
    pricing: Pricing = field(default_factory=Pricing)


def _all_refusals(settings: Settings) -> Refusals:
    """By case, which systems cannot search in it, and why.

    Raises:
        UserError: an unknown name, or all are refused everywhere.
    """
    for name in settings.systems:
        ALGORITHMS.get(name)
    refused = {case.title: _refusals(settings, case) for case in settings.cases}
    if all(len(reasons) == len(settings.systems) for reasons in refused.values()):
        raise UserError(next(reason for of in refused.values() for reason in of.values()))
    return refused


def _refusals(settings: Settings, case: Case) -> dict[str, str]:
    """Which systems cannot search in a case, and why."""
    found: dict[str, str] = {}
    for cell in settings.plan(case, settings.systems).with_given(seeds=1).cells():
        try:
            check(cell.config)
        except UserError as error:
            found[cell.config.algo] = str(error)
    return found

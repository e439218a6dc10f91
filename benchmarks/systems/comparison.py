"""Systems under common targets, each with the same budget; one benchmark for each target.

A folder holds ``comparison.json``, which says what is compared, and for each target the folder of
an ordinary benchmark (:mod:`apq_moo.benchmarks.compare`), whose cells are never carried out twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from apq_moo.algorithms import ALGORITHMS
from apq_moo.algorithms.baselines.pipeline import Pipeline
from apq_moo.algorithms.baselines.reference import reference_network
from apq_moo.algorithms.baselines.systems import SYSTEMS
from apq_moo.algorithms.baselines.trained_choices import TrainedChoices
from apq_moo.benchmarks.compare import bench
from apq_moo.benchmarks.compare.plan import BenchPlan
from apq_moo.benchmarks.compare.store import Outcome, Store
from apq_moo.defaults import DEFAULT_SPACE
from apq_moo.errors import UserError, shown
from apq_moo.files import is_file, read_json, write_json
from apq_moo.hardware import ACC, QUANTITIES, find_device
from apq_moo.problems import APQProblem
from apq_moo.problems.measured import exact_name
from apq_moo.problems.tabulated import NAME as TABLE
from apq_moo.reading import integer, read
from apq_moo.space import load_space
from apq_moo.study.config import RunConfig
from apq_moo.study.folder import is_empty
from apq_moo.study.search import check

FILE = "comparison.json"
FORMAT = "apq-moo comparison 1"

BESIDE = ("random", "proxylessnas:estimator=reinforce", "proxylessnas+dnas", "apq-ga")
"""What is compared by default with all systems."""

_TIGHTEST = 0.7
"""Of what the reference network costs: the last of the targets chosen by default."""

MOST_TARGETS = 100

Refusals = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Limit:
    """A target.

    Attributes:
        quantity: a cost.
        value: the most that networks may cost, in the quantity's unit.

    Raises:
        UserError: it is no cost, or no number above 0.
    """

    quantity: str
    value: float

    def __post_init__(self) -> None:
        costs = [name for name in QUANTITIES if name != ACC]
        if self.quantity not in costs:
            raise UserError(
                f"a target is a limit on a cost, not on {shown(self.quantity)}; known: "
                f"{', '.join(costs)}"
            )
        if not 0 < self.value < math.inf:
            raise UserError(
                f"the limit of {self.quantity} must be a number above 0, not {shown(self.value)}"
            )


@dataclass(frozen=True)
class Settings:
    """What is compared.

    Attributes:
        targets: under each of which one network is sought.
        systems: algorithms.
        space: a preset or a TOML file.
        budget: evaluations of a system for each target, those charged for gradient steps included.
        seeds: searches of each.
        predictor: where accuracies come from.
        device: the cost model.
        assets: a folder of assets, or None for the shipped ones.
    """

    targets: tuple[Limit, ...]
    systems: tuple[str, ...]
    space: str
    budget: Annotated[int, integer(1, 100_000_000)] = 250
    seeds: Annotated[int, integer(1, 10_000)] = 3
    predictor: str = RunConfig.predictor
    device: str = "bitfusion"
    assets: str | None = None

    def plan(self, target: Limit, systems: tuple[str, ...]) -> BenchPlan:
        """The benchmark of one target."""
        return BenchPlan(
            spaces=(self.space,),
            algos=systems,
            objectives=("acc",),
            seeds=self.seeds,
            budgets=(self.budget,),
            sweeps=(1,),
            pop_size=min(100, max(4, self.budget // 8)),
            predictors=(self.predictor,),
            device=self.device,
            assets=self.assets,
            limits={target.quantity: target.value},
        )


def chosen_predictor(space: str, assets: str | None = None) -> str:
    """Where accuracies come from by default: a table where there is one of the whole space.

    Raises:
        UserError: the space has no assets.
    """
    found = exact_name(load_space(space), assets)
    return TABLE if found == TABLE else RunConfig.predictor


def chosen_systems(predictor: str) -> tuple[str, ...]:
    """What is compared by default: beside a table only what needs no gradients of the supernet."""
    names = [*(system.title for system, _, _ in SYSTEMS), *BESIDE]
    return tuple(name for name in names if predictor != TABLE or not descends(name))


def descends(name: str) -> bool:
    """Whether an algorithm, or a stage of it, needs gradients of the supernet."""
    make = ALGORITHMS.get(name).system
    system = None if make is None else make()
    stages = system.systems if isinstance(system, Pipeline) else (system,)
    return any(isinstance(stage, TrainedChoices) and stage.descends for stage in stages)


def chosen_targets(
    space: str, n: int, device: str = "bitfusion", name: str = "latency"
) -> tuple[Limit, ...]:
    """Limits from all to seven tenths of what the reference network costs, evenly spaced.

    Args:
        space: a preset or a TOML file.
        n: how many.
        device: the cost model.
        name: of the cost.

    Raises:
        UserError: see :class:`APQProblem`, or a number that is out of range.
    """
    if not 1 <= n <= MOST_TARGETS:
        raise UserError(f"targets={n}: from 1 to {MOST_TARGETS} are possible")
    problem = APQProblem(space, (name,), device=find_device(device))
    cost = float(problem.costs(reference_network(problem)[None])[name][0])
    # Rounded up, so that the reference network meets the first.
    shares = np.linspace(1.0, _TIGHTEST, n) if n > 1 else np.ones(1)
    return tuple(Limit(name, _above(cost * float(share))) for share in shares)


def _above(value: float) -> float:
    """The next larger number of four digits."""
    step = 10.0 ** (np.floor(np.log10(value)) - 3)
    return float(f"{np.ceil(value / step - 1e-9) * step:.4g}")


def settings_of(
    *,
    space: str = DEFAULT_SPACE,
    targets: int | None = None,
    limits: tuple[Limit, ...] = (),
    systems: tuple[str, ...] = (),
    predictor: str | None = None,
    device: str = "bitfusion",
    assets: str | None = None,
    **others: Any,
) -> Settings:
    """Settings, with defaults that depend on the space.

    Args:
        space: a preset or a TOML file.
        targets: how many limits on latency, see :func:`chosen_targets`; 3 without ``limits``.
        limits: the targets instead.
        systems: see :func:`chosen_systems`.
        predictor: see :func:`chosen_predictor`.
        device: the cost model.
        assets: a folder of assets, or None for the shipped ones.
        **others: further entries of :class:`Settings`.

    Raises:
        UserError: both targets and limits are given, or an entry is out of range.
    """
    if targets is not None and limits:
        raise UserError("targets chooses limits and limits gives them: leave one out")
    predictor = predictor or chosen_predictor(space, assets)
    plain = {
        "targets": limits or chosen_targets(space, 3 if targets is None else targets, device),
        "systems": systems or chosen_systems(predictor),
        "space": space,
        "predictor": predictor,
        "device": device,
        "assets": assets,
        **others,
    }
    return read(Settings, _listed(plain), "the comparison")


def _listed(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, Limit):
        return asdict(value)
    if isinstance(value, dict):
        return {name: _listed(item) for name, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


class Comparison:
    """A comparison in a folder.

    Args:
        folder: where it is; see :meth:`create` and :meth:`open`.
        settings: what is compared.
        refused: by target, systems that cannot search under it, with the reason.

    Attributes:
        folder: as given.
        settings: as given.
        refused: as given.
    """

    def __init__(self, folder: Path, settings: Settings, refused: Refusals) -> None:
        self.folder, self.settings, self.refused = folder, settings, refused

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
        for name in settings.systems:
            ALGORITHMS.get(name)
        refused = {}
        for target in settings.targets:
            refused[title_of(target)] = _refusals(settings, target)
        if all(len(reasons) == len(settings.systems) for reasons in refused.values()):
            raise UserError(next(reason for of in refused.values() for reason in of.values()))
        bench.data_of(settings.plan(settings.targets[0], settings.systems))
        plain = {"format": FORMAT, "settings": asdict(settings), "refused": refused}
        write_json(folder / FILE, plain)
        return cls(folder, settings, refused)

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
        if set(known.refused) != {title_of(target) for target in known.settings.targets}:
            raise UserError(f"{path} is damaged: its targets are not those that were checked")
        return cls(Path(folder), known.settings, known.refused)

    def store(self, target: Limit) -> Store | None:
        """The benchmark of a target, begun where it was not; None where all systems are refused.

        Raises:
            UserError: see :func:`apq_moo.benchmarks.compare.bench.begin`.
        """
        refused = self.refused[title_of(target)]
        systems = tuple(name for name in self.settings.systems if name not in refused)
        if not systems:
            return None
        folder = self.folder / title_of(target)
        if Store(folder).begun:
            return Store.open(folder)
        return bench.begin(folder, self.settings.plan(target, systems))

    def run(
        self,
        *,
        jobs: int = 1,
        callback: Callable[[int, int, Outcome | None], None] = lambda _d, _t, _o: None,
    ) -> tuple[int, int]:
        """Carry out the searches that have not ended yet.

        Args:
            jobs: searches at a time.
            callback: told ``(searches done, in all, the latest)``, target by target.

        Returns:
            How many are done, and how many have failed.

        Raises:
            UserError: see :func:`apq_moo.benchmarks.compare.bench.run`.
        """
        done = failed = 0
        for target in self.settings.targets:
            store = self.store(target)
            if store is not None:
                counts = bench.run(store, jobs=jobs, callback=callback)
                done, failed = done + counts[0], failed + counts[1]
        return done, failed

    def outcomes(self, target: Limit) -> dict[str, list[Outcome]]:
        """What came of each system's searches under a target, by seed."""
        store = self.store(target)
        found: dict[str, list[Outcome]] = {}
        for outcome in store.outcomes() if store is not None else ():
            found.setdefault(outcome.cell.label, []).append(outcome)
        return found


@dataclass(frozen=True)
class _Kept:
    settings: Settings
    refused: Refusals = field(default_factory=dict)


def title_of(target: Limit) -> str:
    """Names a target, and its folder."""
    return f"{target.quantity}-{target.value:g}"


def _refusals(settings: Settings, target: Limit) -> dict[str, str]:
    """Which systems cannot search under a target, and why."""
    found: dict[str, str] = {}
    for cell in settings.plan(target, settings.systems).with_given(seeds=1).cells():
        try:
            check(cell.config)
        except UserError as error:
            found[cell.config.algo] = str(error)
    return found


def costs_again(
    settings: Settings, X: np.ndarray[Any, Any], names: tuple[str, ...]
) -> Mapping[str, np.ndarray[Any, Any]]:
    """Costs of networks, from tables that are compiled anew.

    Args:
        settings: whose space and device.
        X: canonical genotypes, shape ``(n, n_var)``.
        names: of costs.
    """
    space = load_space(settings.space)
    problem = APQProblem(space, names, device=find_device(settings.device))
    return problem.costs(space.block_index(X))

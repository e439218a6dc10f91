"""What a comparison of systems consists of: targets, budgets, systems, seeds, and defaults."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np

from apq_moo.algorithms import ALGORITHMS
from apq_moo.algorithms.baselines.pipeline import Pipeline
from apq_moo.algorithms.baselines.reference import reference_network
from apq_moo.algorithms.baselines.systems import SYSTEMS
from apq_moo.algorithms.baselines.trained_choices import TrainedChoices
from apq_moo.benchmarks.compare.plan import BenchPlan
from apq_moo.defaults import DEFAULT_SPACE, MOST_EPOCHS
from apq_moo.errors import UserError, shown
from apq_moo.hardware import ACC, QUANTITIES, find_device
from apq_moo.problems import APQProblem
from apq_moo.problems.measured import exact_name
from apq_moo.problems.tabulated import NAME as TABLE
from apq_moo.reading import integer, read
from apq_moo.space import load_space
from apq_moo.study.config import RunConfig

BESIDE = ("random", "proxylessnas:estimator=reinforce", "proxylessnas+dnas", "apq-ga")
"""What is compared by default with all systems."""

_TIGHTEST = 0.7
"""Of what the reference network costs: the last of the targets chosen by default."""

MOST_TARGETS = 100


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


def title_of(target: Limit) -> str:
    """Names a target."""
    return f"{target.quantity}-{target.value:g}"


@dataclass(frozen=True)
class Case:
    """What systems are compared in: a target at a budget.

    Attributes:
        target: the limit.
        budget: evaluations.
    """

    target: Limit
    budget: int

    @property
    def title(self) -> str:
        """Names it, and its folder."""
        return f"{title_of(self.target)}-{self.budget}"


@dataclass(frozen=True)
class Settings:
    """What is compared.

    Attributes:
        targets: under each of which one network is sought.
        systems: algorithms.
        space: a preset or a TOML file.
        budgets: evaluations of a system for each target, those charged for gradient steps included.
        seeds: searches of each.
        predictor: where accuracies come from.
        device: the cost model.
        assets: a folder of assets, or None for the shipped ones.
        finish: epochs of fine-tuning of each search's best network; 0 for none.
    """

    targets: tuple[Limit, ...]
    systems: tuple[str, ...]
    space: str
    budgets: tuple[Annotated[int, integer(1, 100_000_000)], ...] = (250,)
    seeds: Annotated[int, integer(1, 10_000)] = 3
    predictor: str = RunConfig.predictor
    device: str = "bitfusion"
    assets: str | None = None
    finish: Annotated[int, integer(0, MOST_EPOCHS)] = 0

    def __post_init__(self) -> None:
        named = {
            "targets": [title_of(target) for target in self.targets],
            "systems": self.systems,
            "budgets": self.budgets,
        }
        for name, values in named.items():
            if not values:
                raise UserError(f"{name} is empty: name at least one")
            twice = [value for value, times in Counter(values).items() if times > 1]
            if twice:
                raise UserError(f"{name} names {shown(twice[0])} twice")

    @property
    def cases(self) -> tuple[Case, ...]:
        """Every target at every budget."""
        return tuple(Case(target, budget) for target in self.targets for budget in self.budgets)

    def plan(self, case: Case, systems: tuple[str, ...]) -> BenchPlan:
        """The benchmark of a case."""
        return BenchPlan(
            spaces=(self.space,),
            algos=systems,
            objectives=("acc",),
            seeds=self.seeds,
            budgets=(case.budget,),
            sweeps=(1,),
            pop_size=min(100, max(4, case.budget // 8)),
            predictors=(self.predictor,),
            device=self.device,
            assets=self.assets,
            limits={case.target.quantity: case.target.value},
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
    n_targets: int | None = None,
    targets: tuple[Limit, ...] = (),
    systems: tuple[str, ...] = (),
    predictor: str | None = None,
    device: str = "bitfusion",
    assets: str | None = None,
    **others: Any,
) -> Settings:
    """Settings, with defaults that depend on the space.

    Args:
        space: a preset or a TOML file.
        n_targets: how many limits on latency, see :func:`chosen_targets`; by default 3.
        targets: the limits instead.
        systems: see :func:`chosen_systems`.
        predictor: see :func:`chosen_predictor`.
        device: the cost model.
        assets: a folder of assets, or None for the shipped ones.
        **others: further entries of :class:`Settings`.

    Raises:
        UserError: both n_targets and targets are given, or an entry is out of range.
    """
    if n_targets is not None and targets:
        raise UserError("n_targets chooses limits and targets gives them: leave one out")
    predictor = predictor or chosen_predictor(space, assets)
    plain = {
        "targets": targets or chosen_targets(space, 3 if n_targets is None else n_targets, device),
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

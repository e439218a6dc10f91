"""What systems spend, once and for each target, in hours, energy, CO2e and money.

The paper's table gives hours of a GPU as ``C + s * N`` for N deployments: what is spent once, and
for each target (T. Wang et al., APQ, CVPR 2020, table 3). Emissions and prices follow from hours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from apq_moo.benchmarks.compare.store import Outcome
from apq_moo.data.assets import SUPERNET, Assets
from apq_moo.errors import UserError
from apq_moo.files import read_toml
from apq_moo.problems import is_measured
from apq_moo.problems.trained import supernet_assets
from apq_moo.reading import integer, number, read

HOUR_S = 3600.0

_Rate = Annotated[float, number(0, 1e6)]

LB_PER_KG = 2.2046226


@dataclass(frozen=True)
class Rates:
    """What an hour of computing takes; by default by the paper's figures.

    These are 56.72 pounds of CO2e and 148 to 496 dollars for 200 hours of a GPU. (That they are
    pounds is an assumption: 0.954 of them a kWh, the mean of the USA that E. Strubell et al. use,
    Energy and Policy Considerations for Deep Learning in NLP, ACL 2019, make 0.297 kW.)

    Attributes:
        kw: power, in kW.
        kg_per_kwh: emissions of a kWh, in kg of CO2e.
        usd_low: lowest price of an hour, in dollars.
        usd_high: highest price.
    """

    kw: _Rate = 56.72 / 200 / 0.954
    kg_per_kwh: _Rate = 0.954 / LB_PER_KG
    usd_low: _Rate = 148 / 200
    usd_high: _Rate = 496 / 200

    @classmethod
    def read(cls, path: str | Path) -> Rates:
        """Read a TOML file; what it leaves out is the paper's.

        Raises:
            UserError: it is missing or malformed, or prices are the wrong way round.
        """
        rates = read(cls, read_toml(path), str(path))
        if rates.usd_low > rates.usd_high:
            raise UserError(
                f"{path}: usd_low = {rates.usd_low:g} is above usd_high = {rates.usd_high:g}"
            )
        return rates

    def kwh(self, hours: float) -> float:
        """Energy of so many hours."""
        return hours * self.kw

    def co2e_kg(self, hours: float) -> float:
        """Emissions of so many hours."""
        return self.kwh(hours) * self.kg_per_kwh

    def usd(self, hours: float) -> tuple[float, float]:
        """Lowest and highest price of so many hours."""
        return hours * self.usd_low, hours * self.usd_high


@dataclass(frozen=True)
class Spending:
    """What a search under one target took.

    Attributes:
        evaluations: networks that were scored.
        gradient_steps: on the supernet.
        gradient_evaluations: that these were charged as.
        seconds: of searching.
    """

    evaluations: int
    gradient_steps: int
    gradient_evaluations: int
    seconds: float

    @classmethod
    def of(cls, outcome: Outcome) -> Spending:
        """What a cell of a benchmark took."""
        return cls(
            outcome.evaluations,
            outcome.gradient_steps,
            outcome.gradient_evaluations,
            outcome.seconds["search"],
        )

    @property
    def charged(self) -> int:
        """Evaluations in all, gradient steps included: what the budget limits."""
        return self.evaluations + self.gradient_evaluations

    def hours(self, seconds_per_evaluation: float | None = None) -> float:
        """Hours for one target.

        Args:
            seconds_per_evaluation: what scoring a network takes where it is not looked up; None for
                the seconds that were measured.
        """
        if seconds_per_evaluation is None:
            return self.seconds / HOUR_S
        return self.charged * seconds_per_evaluation / HOUR_S


@dataclass(frozen=True)
class DesignCost:
    """Hours for N deployments: ``once + each * N``.

    Attributes:
        once: shared by all targets; None where nobody knows.
        each: of each target.
    """

    once: float | None
    each: float

    def total(self, deployments: int) -> float | None:
        """Hours in all."""
        return None if self.once is None else self.once + self.each * deployments

    def __str__(self) -> str:
        """As the paper writes it, ``2400 + 0.5N``."""
        each = f"{self.each:.3g}N"
        return each if not self.once else f"{self.once:.3g} + {each}"


def spent_once(assets: Assets, predictor: str) -> float | None:
    """Hours that went to a space's supernet and, where accuracies are predicted, to predictors.

    As the manifests of assets say, on whatever device these were made; an hour of several GPUs is
    as many hours.

    Args:
        assets: of the space.
        predictor: where accuracies come from.

    Returns:
        None where the manifest does not say, or where there is no supernet.
    """
    found = supernet_assets(assets)
    if not found.has(SUPERNET):
        return None
    seconds = found.manifest.get("seconds") or {}
    wanted = ["train"] if is_measured(predictor) else ["train", "samples", "found", "predictors"]
    if "train" not in seconds:
        return None
    several = re.match(r"\d+(?= )", str(found.manifest.get("accelerator") or ""))
    gpus = int(several[0]) if several else 1
    return gpus * sum(float(seconds.get(name, 0)) for name in wanted) / HOUR_S


@dataclass(frozen=True)
class Pricing:
    """How what was spent becomes money.

    Attributes:
        rates: of an hour.
        seconds_per_evaluation: see :meth:`Spending.hours`.
        deployments: N of the total.
    """

    rates: Rates = field(default_factory=Rates)
    seconds_per_evaluation: Annotated[float, number(0, 1e9)] | None = None
    deployments: Annotated[int, integer(1, 1_000_000)] = 40

"""What computing costs: seconds, energy and CO2e.

On a CPU codecarbon's offline tracker estimates the energy; where it is not installed, nothing is
said of it. Emissions depend on where the electricity comes from, so that the country is part of
every figure.
"""

from __future__ import annotations

import logging
import os
from typing import Any, Self

from apq_moo.errors import UserError

COUNTRY = "USA"
"""ISO code of the grid whose mean emissions codecarbon counts; ``APQ_MOO_COUNTRY`` replaces it."""


def country() -> str:
    """ISO code of the grid that is counted with.

    Raises:
        UserError: codecarbon is installed and knows no such country; it would count with the mean
            of the world instead.
    """
    code = os.environ.get("APQ_MOO_COUNTRY", COUNTRY)
    try:
        from codecarbon.input import DataSource
    except ImportError:
        return code
    if code not in DataSource().get_global_energy_mix_data():
        raise UserError(
            f"APQ_MOO_COUNTRY={code!r} is no country whose grid is known; write an ISO code of "
            "three capital letters, such as FRA"
        )
    return code


def co2e_kg(energy_kwh: float) -> float | None:
    """Emissions of that much electricity on the country's grid; None without codecarbon.

    Raises:
        UserError: see :func:`country`.
    """
    try:
        from codecarbon.core.emissions import Emissions
        from codecarbon.core.units import Energy
        from codecarbon.external.geography import GeoMetadata
        from codecarbon.input import DataSource
    except ImportError:
        return None
    place = GeoMetadata(country_iso_code=country(), country_name="")
    energy = Energy.from_energy(kWh=energy_kwh)
    return float(Emissions(DataSource()).get_country_emissions(energy, place))


class Meter:
    """Meters what happens within a ``with`` block, on this machine."""

    def __init__(self) -> None:
        self._tracker: Any = None
        self._figures: dict[str, Any] = {}

    def __enter__(self) -> Self:
        try:
            from codecarbon import OfflineEmissionsTracker
        except ImportError:
            return self
        logging.getLogger("codecarbon").disabled = True
        self._country = country()
        self._tracker = OfflineEmissionsTracker(
            country_iso_code=self._country,
            save_to_file=False,
            log_level="critical",
            allow_multiple_runs=True,
        )
        self._tracker.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._tracker is None:
            return
        self._tracker.stop()
        data = self._tracker.final_emissions_data
        self._figures = {
            "energy_kwh": float(data.energy_consumed),
            "co2e_kg": float(data.emissions),
            "country": self._country,
            "cpu": str(data.cpu_model),
        }

    def figures(self) -> dict[str, Any]:
        """``energy_kwh``, ``co2e_kg``, ``country`` and ``cpu``; empty without codecarbon."""
        return self._figures

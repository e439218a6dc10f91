"""What computing costs: seconds, energy and CO2e.

On a CPU codecarbon's offline tracker estimates the energy; where it is not installed, nothing is
said of it. Emissions depend on where the electricity comes from, so that the country is part of
every figure.
"""

from __future__ import annotations

import logging
import os
from typing import Any, Self

COUNTRY = "USA"
"""ISO code of the grid whose mean emissions codecarbon counts; ``APQ_MOO_COUNTRY`` replaces it."""


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
        self._country = os.environ.get("APQ_MOO_COUNTRY", COUNTRY)
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

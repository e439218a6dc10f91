"""What can be optimised or limited: names, units and directions."""

from __future__ import annotations

from dataclasses import dataclass

from apq_moo.registry import Registry


@dataclass(frozen=True)
class Objective:
    """A quantity of a network.

    Attributes:
        name: as users write it.
        unit: of its values, everywhere.
        maximise: whether more is better.
        description: one line.
    """

    name: str
    unit: str
    maximise: bool
    description: str


OBJECTIVES: Registry[Objective] = Registry("objective")
"""All but ``acc`` are costs, read from :func:`apq_moo.hardware.cost_table` under the same name."""

for _objective in (
    Objective("acc", "%", True, "top-1 accuracy, as the predictor estimates it"),
    Objective("latency", "ms", False, "latency of one image on the device"),
    Objective("energy", "mJ", False, "energy of one image on the device"),
    Objective("macs", "M", False, "multiply-accumulates of one image"),
    Objective("bitops", "G", False, "multiply-accumulates times weight bits times activation bits"),
    Objective("params", "M", False, "parameters, batch norm included"),
    Objective("size", "KiB", False, "weights at their bits"),
    Objective("memory", "KiB", False, "activations in memory at the peak"),
):
    OBJECTIVES.register(_objective.name, _objective)

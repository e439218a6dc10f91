"""Cost models and their block tables."""

from apq_moo.hardware.accelerator import BITFUSION, Accelerator
from apq_moo.hardware.costs import COSTS, Cost, cost_table
from apq_moo.hardware.devices import DEVICES, ArrayDevice, Device
from apq_moo.hardware.tables import CostTable, feasible_options, maximum, minimum

__all__ = [
    "BITFUSION",
    "COSTS",
    "DEVICES",
    "Accelerator",
    "ArrayDevice",
    "Cost",
    "CostTable",
    "Device",
    "cost_table",
    "feasible_options",
    "maximum",
    "minimum",
]

"""Cost models and their block tables."""

from apq_moo.hardware.accelerator import Accelerator, load_accelerator
from apq_moo.hardware.costs import COSTS, Cost, cost_table
from apq_moo.hardware.devices import ArrayDevice, Device
from apq_moo.hardware.finding import DEVICES, find_device
from apq_moo.hardware.layer_table import LayerTable, TableDevice
from apq_moo.hardware.table_files import read_table, write_table
from apq_moo.hardware.tables import CostBatch, CostTable, feasible_options, maximum, minimum

__all__ = [
    "COSTS",
    "DEVICES",
    "Accelerator",
    "ArrayDevice",
    "Cost",
    "CostBatch",
    "CostTable",
    "Device",
    "LayerTable",
    "TableDevice",
    "cost_table",
    "feasible_options",
    "find_device",
    "load_accelerator",
    "maximum",
    "minimum",
    "read_table",
    "write_table",
]

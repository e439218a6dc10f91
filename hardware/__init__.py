"""Cost models and their block tables."""

from apq_moo.hardware.accelerator import Accelerator, load_accelerator
from apq_moo.hardware.costs import cost_table
from apq_moo.hardware.devices import ArrayDevice, Device
from apq_moo.hardware.finding import DEVICES, find_device
from apq_moo.hardware.layer_table import LayerTable, TableDevice
from apq_moo.hardware.quantities import (
    ACC,
    QUANTITIES,
    Quantity,
    cost_names,
    find_cost,
    minimised,
)
from apq_moo.hardware.table_files import read_table, write_table
from apq_moo.hardware.tables import CostBatch, CostTable, feasible_options, maximum, minimum

__all__ = [
    "ACC",
    "DEVICES",
    "QUANTITIES",
    "Accelerator",
    "ArrayDevice",
    "CostBatch",
    "CostTable",
    "Device",
    "LayerTable",
    "Quantity",
    "TableDevice",
    "cost_names",
    "cost_table",
    "feasible_options",
    "find_cost",
    "find_device",
    "load_accelerator",
    "maximum",
    "minimised",
    "minimum",
    "read_table",
    "write_table",
]

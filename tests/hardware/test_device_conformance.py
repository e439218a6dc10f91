"""Every device, and a table of each, keeps what devices promise."""

import numpy as np
import pytest

from apq_moo.hardware import DEVICES, ArrayDevice, LayerTable, TableDevice, find_device
from apq_moo.hardware.accelerator import machines
from apq_moo.hardware.layer_table import Correction, build
from apq_moo.space import load_space
from apq_moo.testing import CostModelConformance


class TestDevices(CostModelConformance):
    @pytest.fixture(params=list(DEVICES))
    def make(self, request):
        return DEVICES.get(request.param)

    @pytest.fixture(params=["digits", "imagenet"])
    def space(self, request):
        return load_space(request.param)


@pytest.fixture(scope="module")
def table():
    return build(load_space("digits"), find_device("bitfusion"), {})


class TestTables(CostModelConformance):
    """Layers at bits that are not in the table cannot run."""

    @pytest.fixture(params=["sums", "corrected"])
    def make(self, request, table):
        corrected = request.param == "corrected"
        corrections = {"latency": Correction(1.1, 0.002, 30, 0.9, 10.0, 1.0)} if corrected else {}
        kept = LayerTable(
            table.names, table.components, table.units, table.values, corrections=corrections
        )
        return lambda: TableDevice(kept, "table")


def test_the_suite_covers_every_shipped_machine():
    assert set(machines()) <= set(DEVICES)
    assert all(isinstance(DEVICES.get(name)(), ArrayDevice) for name in machines())
    assert np.isfinite(find_device("bitfusion").fixed_parts(load_space("digits"))["stem"]["energy"])

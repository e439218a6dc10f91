"""A space small enough to enumerate, and cost tables made by hand."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from apq_moo.hardware import cost_table
from apq_moo.space import load_space


@pytest.fixture(scope="session")
def tiny():
    return load_space(Path(__file__).parent / "tiny.toml")


@pytest.fixture(scope="session")
def tiny_networks(tiny):
    """Every canonical genotype of the tiny space, forbidden ones included."""
    rows = np.array(list(product(*(range(n) for n in tiny.n_options))))
    return np.unique(tiny.canonical(rows), axis=0)


@pytest.fixture
def table_of():
    """Makes a cost table with chosen costs of each block."""

    def make(space, blocks, fixed=0.0, name="latency", unit="ms"):
        blocks = tuple(np.asarray(costs, dtype=float) for costs in blocks)
        table = cost_table(space, "bitops")
        return replace(table, name=name, unit=unit, fixed=fixed, blocks=blocks)

    return make

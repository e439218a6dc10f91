"""The tables of docs/fashion.md are what the files of results beside it give."""

import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from apq_moo.benchmarks import fidelity
from apq_moo.predictors.curves import mean_and_band
from apq_moo.space import load_space

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "fashion.md").read_text()


def _row(begins: str) -> list[str]:
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {begins} |")]
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def test_learning_curves():
    values = defaultdict(list)
    with (DOCS / "data" / "fashion-learning-curves.csv").open() as file:
        for row in csv.DictReader(file):
            found = float(row["pairwise_accuracy"])
            values[row["predictor"]].append((int(row["n_mp"]), found))
    assert len(values) == 7
    for predictor, points in values.items():
        sizes = sorted({n for n, _ in points})
        cells = []
        for size in sizes:
            chosen = [value for n, value in points if n == size]
            assert len(chosen) == 10
            cells.append("{:.3f} ± {:.3f}".format(*mean_and_band(chosen)))
        assert _row(predictor) == cells


@pytest.mark.parametrize(("kind", "steps"), [("size", 3200), ("accuracy", 9600)])
def test_fidelity(kind, steps):
    state = json.loads((DOCS / "data" / f"fashion-fidelity-{kind}.json").read_text())
    assert state["settings"]["spread"] == kind
    assert state["settings"]["train"]["steps"] == steps
    networks = state["networks"]
    space = load_space("fashion")
    assert state["settings"]["digest"] == space.digest
    rows = np.array([network["x"] for network in networks])
    assert len({tuple(row) for row in rows}) == len(networks) == 17
    assert space.valid(rows).all()
    (line,) = [line for line in PAGE.splitlines() if f"--spread {kind}`:" in line]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:] == [f"{steps:,}", *(f"{tau:.3f}" for tau in fidelity.taus(networks).values())]

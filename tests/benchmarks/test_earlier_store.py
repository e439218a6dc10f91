"""A benchmark's folder as the layout before ``start`` had it: two searches of ``digits``.

Neither its plan nor its cells say how searches begin, nor do cells count gradient steps.
"""

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from apq_moo.benchmarks import bench, load
from apq_moo.benchmarks.compare.bench import data_of
from apq_moo.benchmarks.compare.bench import run as carry_on
from apq_moo.benchmarks.compare.cells import carry_out
from apq_moo.benchmarks.compare.store import NAME, Store
from apq_moo.errors import UserError
from apq_moo.versions import versions

EARLIER = Path(__file__).parent.parent / "data" / "bench-before-start.sqlite"


@pytest.fixture
def store(tmp_path):
    (tmp_path / "b").mkdir()
    shutil.copy(EARLIER, tmp_path / "b" / NAME)
    return Store.open(tmp_path / "b")


def test_the_file_is_of_that_layout():
    connection = sqlite3.connect(EARLIER)
    (plan,) = connection.execute("SELECT value FROM about WHERE name = 'plan'").fetchone()
    cells = connection.execute("SELECT config, facts FROM cells").fetchall()
    connection.close()
    assert len(cells) == 2
    assert not {"start", "first_seed", "files"} & json.loads(plan).keys()
    for config, facts in cells:
        assert "start" not in json.loads(config)
        assert "gradient_steps" not in json.loads(facts)


def test_it_is_read_as_what_it_meant(store):
    assert (store.plan.start, store.plan.first_seed, store.plan.sweeps) == ("uniform", 0, (8,))
    assert len(store.finished()) == 2
    assert carry_on(store) == (2, 0)
    found = load(store.folder)
    assert list(found.algorithm) == ["nsga2", "random"]
    assert found.front.tolist() == [21, 12]
    assert found.hv[0] == pytest.approx(1.01496015, abs=1e-7)
    for outcome in store.outcomes():  # a search of then is the same search now
        again = carry_out(outcome.cell)
        assert np.array_equal(again.genotypes, outcome.genotypes)
        np.testing.assert_allclose(again.front, outcome.front, rtol=1e-9)


def test_it_goes_on_where_versions_and_data_are_those_of_then(store):
    store.note(versions=versions(), data=data_of(store.plan))
    before = {outcome.cell.key for outcome in store.outcomes()}
    bench(store.folder, seeds=2)
    outcomes = store.outcomes()
    assert [outcome.cell.config.seed for outcome in outcomes] == [0, 0, 1, 1]
    assert {outcome.cell.config.start for outcome in outcomes} == {"uniform"}
    assert {outcome.cell.key for outcome in outcomes[:2]} == before


def test_it_does_not_go_on_under_another_version(store):
    store.note(versions={**versions(), "apq-moo": "0.0.1"})
    with pytest.raises(UserError, match=r"with other versions \(apq-moo was '0\.0\.1'"):
        bench(store.folder, seeds=2)
    assert len(store.outcomes()) == 2

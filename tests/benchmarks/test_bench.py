"""Benchmarks: plans, the store, interruptions, back ends, failures."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import apq_moo.benchmarks
from apq_moo.benchmarks.compare import bench, cells
from apq_moo.benchmarks.compare import plan as plan_module
from apq_moo.benchmarks.compare import store as store_module
from apq_moo.benchmarks.compare.analysis import Analysis
from apq_moo.benchmarks.compare.bounds import bounds_of
from apq_moo.benchmarks.compare.plan import BenchPlan, Cell, keys
from apq_moo.benchmarks.compare.store import NAME, Outcome, Store
from apq_moo.benchmarks.experiments.publish import computed
from apq_moo.data.assets import find_assets
from apq_moo.errors import UserError
from apq_moo.files import read_json
from apq_moo.hardware import find_device, write_table
from apq_moo.hardware.layer_table import build
from apq_moo.predictors import create_predictor
from apq_moo.problems import APQProblem
from apq_moo.problems.bounds import FILE
from apq_moo.problems.evaluated import Evaluated
from apq_moo.space import load_space
from apq_moo.study.config import RunConfig
from apq_moo.study.folder import alone
from apq_moo.study.search import Search, problem_of

PLAN = BenchPlan(
    spaces=("digits",),
    algos=("apq-ga", "nsga2", "random"),
    seeds=2,
    budgets=(400,),
    sweeps=(2,),
    pop_size=20,
    predictors=("additive",),
)


def same(a, b):
    """Whether two outcomes found the same."""
    return (
        a.cell == b.cell
        and np.array_equal(a.front, b.front)
        and np.array_equal(a.genotypes, b.genotypes)
        and np.array_equal(a.population, b.population)
        and np.array_equal(a.curve, b.curve)
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    store = bench.begin(str(tmp_path_factory.mktemp("bench") / "b"), PLAN)
    assert bench.run(store) == (6, 0)
    return store


def test_cells_are_the_product_seed_by_seed():
    plan = replace(PLAN, objectives=("acc,latency", "acc,energy"), sweeps=(2, 3), budgets=(900,))
    found = plan.cells()
    assert len(found) == 2 * 2 * (2 + 1 + 1)
    assert [cell.config.seed for cell in found] == [0] * 8 + [1] * 8
    assert [cell.label for cell in found[:4]] == ["apq-ga/2", "apq-ga/3", "nsga2", "random"]
    assert len({cell.key for cell in found}) == len(found)
    assert {cell.config.objectives for cell in found} == {("acc", "latency"), ("acc", "energy")}
    own = replace(PLAN, algos=("apq-ga/3", "nsga2")).cells()
    assert (own[0].config.algo, own[0].config.sweep, own[0].label) == ("apq-ga", 3, "apq-ga/3")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"algos": ()}, "algos is empty"),
        ({"algos": ("nsga2", "nsga2")}, "algos names 'nsga2' twice"),
        ({"seeds": 0}, "seeds must be at least 1, not 0"),
    ],
)
def test_plans_that_cannot_be(change, words):
    with pytest.raises(UserError, match=words):
        replace(PLAN, **change)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sedes = 3", "unknown key 'sedes' in the file; known: spaces, algos, objectives"),
        ("seeds = 'x'", "seeds must be an integer, not 'x'"),
        ("algos = 'nsga2'", "algos must be a list, not 'nsga2'"),
        ("budgets = [1.5]", r"budgets\[0\] must be an integer, not 1.5"),
        ("limits = 3", "limits must be a table, not 3"),
        ("limits = {latency = nan}", "limits.latency must be a number, not nan"),
        ("device = 3", "device must be a text, not 3"),
        ("seeds = ", "not valid TOML"),
    ],
)
def test_plans_that_cannot_be_read(tmp_path, text, words):
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(UserError, match=words):
        BenchPlan.read(tmp_path / "plan.toml")


def test_plans_of_many_cells_look_each_thing_up_once(tmp_path, monkeypatch):
    def counted(owner, name):
        real, calls = getattr(owner, name), []
        monkeypatch.setattr(owner, name, lambda *given: calls.append(given) or real(*given))
        return calls

    looked = counted(plan_module.ALGORITHMS, "_plugins")
    loaded = counted(plan_module, "load_space")
    many = replace(PLAN, algos=("gone", "nsga2"), seeds=500).cells()
    found = keys(many)
    assert len(set(found)) == 1000
    assert len(looked) == len(loaded) == 1
    assert found[-1] == many[-1].key


def test_a_plan_survives_its_dictionary():
    plan = replace(PLAN, limits={"latency": 0.02})
    assert BenchPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert BenchPlan.from_dict(json.loads(json.dumps(BenchPlan().to_dict()))) == BenchPlan()


def test_grown_plans_hold_the_cells_of_before():
    small = replace(PLAN, seeds=3, first_seed=5)
    grown = small.grown(algos=("random", "spea2"), seeds=2, first_seed=8, pop_size=small.pop_size)
    assert grown.algos == ("apq-ga", "nsga2", "random", "spea2")
    assert (grown.first_seed, grown.seeds) == (5, 5)
    assert {cell.key for cell in small.cells()} < {cell.key for cell in grown.cells()}
    assert small.grown(seeds=2, first_seed=3).first_seed == 3
    assert small.grown(seeds=1) == small == small.grown()
    for first in (9, 2):
        with pytest.raises(UserError, match="do not continue"):
            small.grown(first_seed=first, seeds=1 if first == 9 else 2)
    with pytest.raises(UserError, match="was begun with"):
        small.grown(limits={"latency": 0.1})


def test_a_benchmark_that_grows_is_read_when_no_other_process_can_change_it(tmp_path, monkeypatch):
    """Another one grew it before this one had the lock; both systems are kept."""
    plan, other = replace(PLAN, algos=("random",), seeds=1), ["nsga2"]
    store = bench.begin(tmp_path / "b", plan)
    lock = bench.alone

    @contextmanager
    def late(folder):
        while other:
            bench.grow(folder, algos=(other.pop(),))
        with lock(folder):
            yield

    monkeypatch.setattr(bench, "alone", late)
    bench.grow(tmp_path / "b", algos=("spea2",))
    assert store.plan.algos == ("random", "nsga2", "spea2")


def test_benchmarks_in_python(tmp_path):
    plan = replace(PLAN, algos=("random",), seeds=1)
    results = apq_moo.benchmarks.bench(tmp_path / "b", plan)
    assert results.problems[0].labels == ["random"]
    results = apq_moo.benchmarks.bench(tmp_path / "b", algos=("nsga2",), seeds=2)
    (problem,) = results.problems
    assert {label: len(problem.of(label)) for label in problem.labels} == {"random": 2, "nsga2": 2}
    with pytest.raises(UserError, match="of another plan"):
        apq_moo.benchmarks.bench(tmp_path / "b", plan)


def test_what_a_plan_leaves_open_follows_from_space_and_budget():
    plan = BenchPlan(
        spaces=("tiny", "digits"), algos=("apq-ga", "nsga2"), seeds=1, budgets=(1300, 9000)
    )
    found = {
        (cell.config.space, cell.config.algo, cell.config.budget): cell for cell in plan.cells()
    }
    assert len(found) == 8
    assert {(key[0], cell.config.predictor) for key, cell in found.items()} == {
        ("tiny", "table"),
        ("digits", "ensemble"),
    }
    swept = {key[2]: cell for key, cell in found.items() if key[1] == "apq-ga"}
    assert {budget: cell.config.points(swept=True) for budget, cell in swept.items()} == {
        1300: 2,
        9000: 8,
    }
    assert {cell.label for cell in found.values()} == {"apq-ga", "nsga2"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"algos": ("nsga9",)}, "unknown algorithm 'nsga9'; known: apq-ga"),
        ({"algos": ("nsga2/3",)}, "only swept ones take a number of limits"),
        ({"objectives": ("acc,speed",)}, "unknown objective 'speed'; known"),
        ({"budgets": (100,)}, "too small for 5 rounds of 20 at each of 2 limits"),
        ({"predictors": ("magic",)}, "unknown predictor 'magic'"),
        ({"limits": {"latency": 1e-9}}, "latency"),
    ],
)
def test_what_cannot_work_is_refused_before_there_is_a_folder(tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        bench.begin(str(tmp_path / "b"), replace(PLAN, **change))
    assert not (tmp_path / "b").exists()


def test_outcomes_are_those_of_the_searches(finished):
    outcomes = finished.outcomes()
    assert [o.cell for o in outcomes] == PLAN.cells()
    for outcome in outcomes[:3]:
        search = Search(outcome.cell.config)
        archive = search.run()
        np.testing.assert_array_equal(outcome.front, archive.front().F)
        np.testing.assert_array_equal(outcome.genotypes, archive.front().X)
        assert outcome.evaluations == len(archive) == 400
        assert outcome.measured == 0
        X = search.population
        F, _ = search.problem.evaluate_blocks(search.problem.space.block_index(X))
        held = Evaluated(X, F, np.ones(len(X), dtype=bool)).front()
        np.testing.assert_array_equal(outcome.population, held.F)
        assert outcome.marks[-1] == 400
        assert (np.diff(outcome.curve) >= 0).all()
        assert outcome.curve[-1] > 0
    about = finished.about()
    assert about["bounds"][PLAN.cells()[0].problem]["objectives"] == ["acc", "latency"]
    assert about["cost"][0]["co2e_kg"] > 0
    assert about["cost"][0]["country"] == "USA"


def test_a_finished_benchmark_does_nothing(finished):
    told = []
    assert bench.run(finished, callback=lambda *a: told.append(a)) == (6, 0)
    assert told == [(6, 6, None)]


def test_a_killed_benchmark_goes_on_without_repeating_a_cell(tmp_path, finished):
    arguments = ["--space", "digits", "--algos", "apq-ga,nsga2,random", "--seeds", "2"]
    arguments += ["--budget", "400", "--sweep", "2", "--pop-size", "20", "--predictor", "additive"]
    command = [sys.executable, "-m", "apq_moo", "bench"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(  # noqa: S603
        [*command, *arguments, "--out", "b"], cwd=tmp_path, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    ) as process:  # fmt: skip
        path = tmp_path / "b" / NAME
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            time.sleep(0.02)
            if path.is_file() and stored(path) >= 2:
                break
        os.killpg(process.pid, signal.SIGKILL)
    before = rows(path)
    assert len(before) >= 2
    done = subprocess.run(  # noqa: S603
        [*command, "--resume", "b"], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert "6 cells done" in done.stdout
    after = rows(path)
    assert {key: after[key] for key in before} == before  # the same bytes: not made again
    for a, b in zip(Store.open(tmp_path / "b").outcomes(), finished.outcomes(), strict=True):
        assert same(a, b)


@pytest.mark.parametrize("empty", [False, True])
def test_a_disk_that_fills_while_a_benchmark_begins(tmp_path, monkeypatch, empty):
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "_TABLES", ("PRAGMA max_page_count = 2", *store_module._TABLES))
        with pytest.raises(UserError, match="database or disk is full"):
            Store.create(tmp_path / "b", PLAN, {"data": "x" * 9000})
    assert list((tmp_path / "b").iterdir()) == []
    if empty:
        (tmp_path / "b" / NAME).touch()
    with pytest.raises(UserError, match="b holds no benchmark"):
        Store.open(tmp_path / "b")
    Store.create(tmp_path / "b", PLAN, {})
    assert Store.open(tmp_path / "b").plan == PLAN
    assert [path.name for path in (tmp_path / "b").iterdir()] == [NAME]


def stored(path):
    try:
        return len(rows(path))
    except sqlite3.OperationalError:  # its tables are not made yet
        return 0


def rows(path):
    connection = sqlite3.connect(path)
    found = dict(connection.execute("SELECT key, facts FROM cells"))
    connection.close()
    return found


@pytest.mark.parametrize("backend", ["loky", "dask", "ray"])
def test_two_workers_find_the_same(tmp_path, finished, backend):
    if backend == "ray":
        pytest.importorskip("ray")
    store = bench.begin(str(tmp_path / "b"), PLAN)
    assert bench.run(store, jobs=2, backend=backend) == (6, 0)
    for a, b in zip(store.outcomes(), finished.outcomes(), strict=True):
        assert same(a, b)
    assert store.about()["cost"][0]["backend"] == backend


def test_back_ends_that_are_not_there(tmp_path, monkeypatch):
    store = bench.begin(str(tmp_path / "b"), PLAN)
    with pytest.raises(UserError, match="unknown back end 'mpi'; known: loky, dask, ray"):
        bench.run(store, backend="mpi")
    for name in ("ray", "distributed"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match="pip install ray"):
        bench.run(store, backend="ray")
    with pytest.raises(UserError, match=r"apq-moo\[dask\]"):
        bench.run(store, backend="dask")


def test_failed_cells_are_kept_as_failed_and_tried_again(tmp_path, monkeypatch):
    store = bench.begin(str(tmp_path / "b"), replace(PLAN, seeds=1))
    carry_out = cells._search

    def fail(cell, _deadline):
        if cell.config.algo == "nsga2":
            raise RuntimeError("no luck\ntoday")
        return carry_out(cell)

    monkeypatch.setattr(cells, "_search", fail)
    told = []
    assert bench.run(store, callback=lambda *a: told.append(a)) == (2, 1)
    (failed,) = [o for o in store.outcomes() if not o.ok]
    assert (failed.status, failed.error) == ("failed", "no luck today")
    assert [a[:2] for a in told] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    monkeypatch.undo()
    assert bench.run(store) == (3, 0)
    assert all(o.ok for o in store.outcomes())


@pytest.fixture
def of_files(tmp_path):
    """A plan whose device, predictor and assets are files, and a change to each of them."""
    digits = load_space("digits")
    assets = tmp_path / "assets"
    shutil.copytree(find_assets(digits).folder, assets)
    manifest = assets / "manifest.json"

    def table(device):
        write_table(tmp_path / "t.npz", build(digits, find_device(device), {}))

    def predictor(seed):
        X = digits.sample(300, np.random.default_rng(seed))
        y = X.sum(axis=1) / 10
        create_predictor("additive", digits).fit(X, y).save(tmp_path / "p.safetensors")

    def images(text):
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"images_sha256": text}))

    table("bitfusion")
    predictor(0)
    plan = replace(
        PLAN, algos=("random", "nsga2"), seeds=1, device=str(tmp_path / "t.npz"),
        predictors=("additive", str(tmp_path / "p.safetensors")), assets=str(assets),
    )  # fmt: skip
    earlier = json.loads(manifest.read_text())["images_sha256"]
    return plan, {
        "device": (partial(table, "bitfusion-large"), partial(table, "bitfusion")),
        str(tmp_path / "p.safetensors"): (partial(predictor, 1), partial(predictor, 0)),
        "images": (partial(images, "0" * 64), partial(images, earlier)),
    }


def test_a_benchmark_is_not_continued_with_other_data(tmp_path, of_files, monkeypatch):
    plan, changes = of_files
    store = bench.begin(tmp_path / "b", plan)
    carry_out = cells._search

    def fail(cell, _deadline):
        if cell.config.algo == "nsga2":
            raise RuntimeError
        return carry_out(cell)

    monkeypatch.setattr(cells, "_search", fail)
    assert bench.run(store) == (2, 2)
    monkeypatch.undo()
    for name, (change, restore) in changes.items():
        change()
        with pytest.raises(UserError) as caught:
            bench.run(store)
        assert f"was begun with other data: {name} changed since" in str(caught.value)
        restore()
    changes["device"][0]()
    with pytest.raises(UserError, match="device changed since"):
        Analysis.read(store.folder)
    changes["device"][1]()
    assert len(Analysis.read(store.folder).problems) == 2
    assert len(store.finished()) == 2
    assert bench.run(store) == (4, 0)


def test_benchmarks_of_before_data_were_noted_go_on(tmp_path, of_files):
    plan, changes = of_files
    store = bench.begin(tmp_path / "b", plan)
    outcome = cells.carry_out(plan.cells()[0])
    store.put(outcome)
    with sqlite3.connect(store.path) as connection:
        connection.execute("DELETE FROM about WHERE name = 'data'")
    changes["images"][0]()
    assert bench.run(store) == (4, 0)


def test_limits_are_named_by_their_direction():
    limits = {"acc": 85.0, "latency": 0.02}
    config = RunConfig(
        space="tiny", limits=limits, start="uniform", predictor="xgboost-stacked", sweep=8
    )
    cell = Cell(config, "apq-ga")
    assert cell.problem == ("tiny acc+latency acc>=85 latency<=0.02 (xgboost-stacked, bitfusion)")
    # Results that are stored are found by it while their space stays.
    stored = Cell(replace(config, space="digits"), "apq-ga")
    assert stored.key == "831b0a471ac8794ec709768346bb593b8edd9f896555ce6475a4fe9f00753f09"


def test_two_processes_do_not_carry_out_one_benchmark(tmp_path):
    store = bench.begin(tmp_path / "b", PLAN)
    with alone(store.folder), pytest.raises(UserError, match="carried out by another process"):
        bench.run(store)


def test_folders_in_use_and_stores_of_another_version(tmp_path, finished):
    with pytest.raises(UserError, match=r"holds a benchmark; go on with it by Store\.open"):
        Store.create(finished.folder, PLAN, {})
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="is no empty folder"):
        Store.create(tmp_path, PLAN, {})
    with pytest.raises(UserError, match="holds no benchmark"):
        Store.open(tmp_path)
    store = bench.begin(str(tmp_path / "b"), PLAN)
    store.note(versions={"apq-moo": "0.0"})
    with pytest.raises(UserError, match="was begun with other versions"):
        bench.run(store)
    store.note(format="apq-moo bench 0")
    with pytest.raises(UserError, match="written by another version"):
        Store.open(tmp_path / "b")
    (tmp_path / "b" / NAME).write_bytes(b"no database at all" * 100)
    with pytest.raises(UserError, match="cannot use"):
        Store.open(tmp_path / "b")


def test_damaged_outcomes_are_refused(tmp_path):
    store = Store.create(tmp_path / "b", PLAN, {})
    store.put(Outcome(PLAN.cells()[0], "ok"))
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE cells SET arrays = ?", (b"no",))
    with pytest.raises(UserError, match="is damaged"):
        store.outcomes()


def test_shipped_bounds_are_those_of_the_spaces():
    assert read_json(FILE) == computed()


def test_a_limit_on_accuracy_gives_one_scale_everywhere():
    """Whether accuracies are at hand, as in a run, or not, as in a report."""
    for limit, nadir in ((85.0, -85.0), (20.0, -30.0)):
        config = RunConfig(space="digits", predictor="additive", limits={"acc": limit})
        read, unread = Search(config).problem, problem_of(config)
        assert bounds_of(read) == bounds_of(unread)
        assert bounds_of(read).nadir[0] == nadir


def test_bounds_belong_to_the_problem():
    problem = APQProblem("digits", ("latency", "acc"), predictor=lambda X: np.zeros(len(X)))
    bounds = bounds_of(problem)
    assert bounds.objectives == ("latency", "acc")
    assert (bounds.ideal[1], bounds.nadir[1]) == (-100.0, -30.0)
    limited = APQProblem("digits", ("acc", "latency"), {"latency": 0.02}, lambda X: 0 * X[:, 0])
    assert bounds_of(limited).nadir[1] == 0.02
    edge = APQProblem("digits", ("acc", "latency"), predictor=lambda X: 0 * X[:, 0],
                      device="bitfusion-edge")  # fmt: skip
    assert bounds_of(edge).nadir[1] != bounds_of(problem).nadir[0]


def test_a_cell_whose_predictor_is_missing_fails_with_its_reason():
    outcome = cells.carry_out(Cell(RunConfig(space="digits", predictor="gone.npz"), "apq-ga"))
    assert outcome.status == "failed"
    assert "unknown predictor 'gone.npz'" in outcome.error

"""What a benchmark's results say, and whether predicted fronts hold."""

import json
from dataclasses import replace

import numpy as np
import pytest

from apq_moo.benchmarks.compare import audit as auditing
from apq_moo.benchmarks.compare import bench
from apq_moo.benchmarks.compare.analysis import Analysis
from apq_moo.benchmarks.compare.audit import FILE, audit, choose, rule, worst_tenth
from apq_moo.benchmarks.compare.fronts import known_front, nondominated
from apq_moo.benchmarks.compare.plan import BenchPlan
from apq_moo.benchmarks.compare.scores import hypervolume
from apq_moo.benchmarks.compare.store import Outcome, Store
from apq_moo.data.assets import find_assets
from apq_moo.data.tables import load_table
from apq_moo.errors import UserError
from apq_moo.hardware import cost_table
from apq_moo.predictors.metrics import kendall_tau
from apq_moo.problems.measured import SupernetAccuracy
from apq_moo.results.run import execute
from apq_moo.space import load_space
from apq_moo.study.config import RunConfig
from apq_moo.study.folder import RunFolder
from apq_moo.study.search import problem_of

PLAN = BenchPlan(
    spaces=("digits",),
    algos=("nsga2", "random", "exact"),
    objectives=("acc,latency", "acc,energy"),
    seeds=3,
    budgets=(300,),
    pop_size=20,
    predictors=("additive",),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = bench.begin(str(tmp_path_factory.mktemp("analysis") / "b"), PLAN)
    bench.run(store)
    return store


@pytest.fixture(scope="module")
def analysis(store):
    return Analysis.read(store.folder)


def test_problems_and_their_scores(analysis):
    assert [p.objectives for p in analysis.problems] == [("acc", "latency"), ("acc", "energy")]
    problem = analysis.problems[0]
    assert problem.labels == ["nsga2", "random", "exact"]
    assert problem.units == ("%", "ms")
    assert analysis.missing == 0
    fronts = [o.front for label in problem.labels for o in problem.of(label)]
    np.testing.assert_array_equal(problem.known, nondominated(np.vstack(fronts)))
    assert problem.known_kind == "union"
    for score in problem.scores("hv"):
        wanted = [hypervolume(o.front, problem.bounds) for o in problem.of(score.label)]
        np.testing.assert_allclose(score.values, wanted)
        assert score.summary.median == pytest.approx(np.median(wanted))
        assert score.failed == 0
    natural = problem.natural(problem.known)
    assert (natural[:, 0] > 0).all()
    assert (natural[:, 1] == problem.known[:, 1]).all()


def test_the_additive_front_is_the_exact_one(analysis):
    """With the additive predictor no algorithm finds what `exact` does not."""
    for problem in analysis.problems:
        (values,) = {tuple(problem.values("exact", "regret"))}
        assert max(values) < min(problem.values("nsga2", "regret"))
        assert np.median(problem.values("exact", "coverage")) > 0.5


def test_curves_surfaces_and_typical_runs(analysis):
    problem = analysis.problems[0]
    marks, curves = problem.curves("nsga2")
    assert curves.shape == (3, len(marks))
    np.testing.assert_allclose(curves[:, -1], problem.values("nsga2", "hv"))
    surfaces = problem.surfaces("nsga2")
    assert set(surfaces) == {25, 50, 75}
    typical = problem.typical("nsga2")
    assert hypervolume(typical.front, problem.bounds) == np.median(problem.values("nsga2", "hv"))
    assert len(problem.subnets(typical)) == len(typical.front)
    ranks = analysis.ranks("hv")
    assert ranks.mean_ranks[ranks.names.index("exact")] == 1.0


def test_failed_and_missing_cells_count(store, tmp_path):
    cells = PLAN.cells()
    other = Store.create(tmp_path / "b", PLAN, {})
    with pytest.raises(UserError, match="has no finished cells yet"):
        Analysis.read(other.folder)
    for outcome in store.outcomes()[:6]:
        other.put(outcome)
    other.put(Outcome(cells[0], "failed", error="disk full"))
    analysis = Analysis.read(other.folder)
    assert analysis.missing == len(cells) - 6
    problem = analysis.problems[0]
    assert [o.error for o in problem.failures()] == ["disk full"]
    nsga2 = problem.scores("hv")[0]
    assert (nsga2.label, nsga2.summary, nsga2.failed) == ("nsga2", None, 3)
    assert not nsga2.best
    assert problem.typical("nsga2") is None
    assert analysis.ranks("hv") is None
    with pytest.raises(UserError, match="unknown indicator 'spread'; known: hv, igd"):
        problem.scores("spread")


def test_runs_that_found_nothing(store, tmp_path):
    other = Store.create(tmp_path / "b", replace(PLAN, seeds=1), {})
    empty = np.empty((0, 2))
    for outcome in store.outcomes()[:3]:
        other.put(replace(outcome, front=empty, genotypes=outcome.genotypes[:0]))
    problem = Analysis.read(other.folder).problems[0]
    assert len(problem.known) == 0
    assert problem.values("random", "hv").tolist() == [0.0]
    assert len(problem.values("random", "igd+")) == 0
    assert len(problem.surfaces("random")[50]) == 0


def test_a_run_is_a_benchmark_of_one(tmp_path):
    config = RunConfig(algo="nsga2", space="digits", predictor="additive", budget=200, pop_size=20)
    folder = RunFolder.create(tmp_path / "r", config, verify=None, overwrite=False)
    columns = execute(folder)
    (problem,) = Analysis.read(tmp_path / "r").problems
    found = problem.natural(problem.of("nsga2")[0].front)
    np.testing.assert_allclose(found, np.column_stack([columns["acc"], columns["latency"]]))
    with pytest.raises(UserError, match="holds neither a run"):
        Analysis.read(tmp_path)


def test_the_true_front_of_a_space_that_is_known_whole():
    config = RunConfig(space="tiny", predictor="table", objectives=("acc", "latency"))
    F = problem_of(config).pareto_front()
    space = load_space("tiny")
    table = load_table(find_assets(space).path("table.npz"), space)
    points = np.column_stack([-table.accuracies()[:, 0], cost_table(space, "latency")(table.X)])
    # A slow twin: walk by ascending latency, keep what is more accurate than all before.
    order = np.lexsort((points[:, 0], points[:, 1]))
    wanted, best = [], np.inf
    for acc, latency in points[order]:
        if acc < best:
            wanted.append((acc, latency))
            best = acc
    np.testing.assert_allclose(np.sort(F, axis=0), np.sort(wanted, axis=0))
    assert known_front(problem_of(config), [])[1] == "true"
    assert problem_of(RunConfig(space="digits")).pareto_front() is None
    limited = problem_of(replace(config, limits={"latency": 0.15})).pareto_front()
    assert limited[:, 1].max() <= 0.15
    assert len(limited) < len(F)


def test_networks_of_an_audit_are_spread_over_each_front(analysis):
    samples, k = choose(analysis, most=60, seeds=2)
    assert len(samples) == 2 * 3 * 2
    chosen = np.vstack([sample.genotypes for sample in samples])
    assert len(np.unique(chosen, axis=0)) <= 60
    wider = [auditing._spread(s.outcome, 0, k + 1) for s in samples]
    more = np.vstack([s.outcome.genotypes[rows] for s, rows in zip(samples, wider, strict=True)])
    assert len(np.unique(more, axis=0)) > 60
    for sample in samples:
        acc = sample.outcome.front[:, 0]
        assert len(sample.rows) == min(k, len(acc))
        assert {int(acc.argmin()), int(acc.argmax())} <= set(sample.rows.tolist())
    with pytest.raises(UserError, match="too small for two members of each"):
        choose(analysis, most=3)
    assert "at most 7 members" in rule(7, 5)


def test_an_audit_compares_predicted_and_true_fronts(store, tmp_path):
    plan = replace(PLAN, seeds=1, objectives=("acc,latency",), algos=("nsga2", "random"))
    other = Store.create(tmp_path / "b", plan, {})
    for outcome in store.outcomes()[:2]:
        other.put(outcome)
    assert audit(other.folder, most=8, choose_only=True) == []
    space = load_space("digits")
    assert not load_table(other.folder / "audit-digits.npz", space).complete
    told = []
    rows = audit(other.folder, most=8, callback=lambda *a: told.append(a))
    assert told
    written = json.loads((other.folder / FILE).read_text())
    assert written["networks"] <= 8
    assert [row["label"] for row in written["rows"]] == ["nsga2", "random"]
    analysis = Analysis.read(other.folder)
    problem = analysis.problems[0]
    supernet = SupernetAccuracy(find_assets(space), tmp_path / "archive.sqlite")
    for sample, row in zip(choose(analysis, most=8)[0], rows, strict=True):
        measured = supernet.measure(sample.genotypes)
        F = sample.outcome.front[sample.rows]
        assert row.predicted_hv == pytest.approx(hypervolume(F, problem.bounds))
        true = np.column_stack([-measured[:, 1], F[:, 1]])
        assert row.true_hv_test == pytest.approx(hypervolume(true, problem.bounds))
        assert row.kendall_tau == pytest.approx(kendall_tau(measured[:, 0], -F[:, 0]))
        assert row.overestimate_points == pytest.approx(np.mean(-F[:, 0] - measured[:, 0]))
        assert abs(row.worst_tenth_points) >= abs(row.overestimate_points)
    assert audit(other.folder, most=8) == rows  # nothing is measured again


def test_the_worst_tenth_of_a_front():
    measured = np.arange(40.0)
    over = np.repeat([0.1, -0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], 4)
    mixed = np.random.default_rng(0).permutation(40)
    assert worst_tenth((measured + over)[mixed], measured[mixed]) == pytest.approx(-0.2)
    assert worst_tenth(np.array([2.0, 1.0]), np.array([1.5, 1.1])) == pytest.approx(0.5)


def test_nothing_to_audit(tmp_path):
    plan = replace(
        PLAN, spaces=("tiny",), predictors=("table",), algos=("random",), seeds=1,
        objectives=("acc,latency",),
    )  # fmt: skip
    store = bench.begin(str(tmp_path / "b"), plan)
    bench.run(store)
    with pytest.raises(UserError, match="nothing to audit"):
        audit(store.folder)
    (problem,) = Analysis.read(store.folder).problems
    assert problem.known_kind == "true"
    assert 0 < problem.values("random", "regret")[0] < 1

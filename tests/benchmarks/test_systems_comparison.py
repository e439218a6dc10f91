"""Systems compared under common targets, and the ledger of what they spend."""

import csv
import json
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest

from apq_moo.benchmarks.compare.store import Outcome, Store
from apq_moo.benchmarks.systems.comparison import Comparison
from apq_moo.benchmarks.systems.ledger import (
    LB_PER_KG,
    DesignCost,
    Pricing,
    Rates,
    Spending,
    spent_once,
)
from apq_moo.benchmarks.systems.results import most_accurate
from apq_moo.benchmarks.systems.settings import (
    Limit,
    chosen_systems,
    chosen_targets,
    settings_of,
    title_of,
)
from apq_moo.benchmarks.systems.tables import write_tables
from apq_moo.data.assets import find_assets
from apq_moo.errors import UserError
from apq_moo.hardware import find_device
from apq_moo.problems import APQProblem, exact_source
from apq_moo.space import load_space

FEW = ("uniform-width", "milp", "random", "proxylessnas:estimator=reinforce")

# -- the ledger ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hours", "pounds", "low", "high"),
    [
        (200, 56.72, 148, 496),
        (204, 57.85, 151, 506),
        (96, 27.23, 71, 238),
        (300, 85.08, 222, 744),
        (40, 11.34, 30, 99),
        (24, 6.81, 18, 60),
        (0.5, 0.14, 0.4, 1.2),
    ],
)
def test_rates_are_those_of_the_papers_table(hours, pounds, low, high):
    rates = Rates()
    assert rates.co2e_kg(hours) * LB_PER_KG == pytest.approx(pounds, abs=0.006)
    digits = 0 if hours > 1 else 1
    assert [round(value, digits) for value in rates.usd(hours)] == [low, high]
    assert rates.kwh(hours) == pytest.approx(pounds / 0.954, rel=0.02)


def test_a_design_cost_is_spent_once_and_for_each_deployment():
    apq = DesignCost(2400, 0.5)
    assert str(apq) == "2.4e+03 + 0.5N"
    assert str(DesignCost(0, 200)) == str(DesignCost(None, 200)) == "200N"
    assert apq.total(40) == 2420
    assert DesignCost(None, 1).total(3) is None


def test_hours_are_measured_or_counted():
    spent = Spending(evaluations=120, gradient_steps=300, gradient_evaluations=60, seconds=90)
    assert spent.charged == 180
    assert spent.hours() == 0.025
    assert spent.hours(20) == 1.0


def test_rates_of_ones_own(tmp_path):
    file = tmp_path / "rates.toml"
    file.write_text("kw = 0.7\nusd_low = 2\nusd_high = 4\n")
    rates = Rates.read(file)
    assert rates.kwh(10) == 7.0
    assert rates.usd(3) == (6, 12)
    assert rates.kg_per_kwh == Rates().kg_per_kwh
    for text, said in {
        "usd_low = 9": "usd_low = 9 is above usd_high = 2.48",
        "kw = -1": "kw must be a number from 0 to",
        "watts = 1": "watts",
    }.items():
        file.write_text(text)
        with pytest.raises(UserError, match=said):
            Rates.read(file)


def test_what_was_spent_once_is_what_the_assets_say(digits):
    assets = find_assets(digits)
    seconds = assets.manifest["seconds"]
    assert spent_once(assets, "supernet") == seconds["train"] / 3600
    predicted = seconds["train"] + seconds["samples"] + seconds["predictors"]
    assert spent_once(assets, "ensemble") == pytest.approx(predicted / 3600)
    fashion = find_assets(load_space("fashion")).manifest["seconds"]
    gpus = 2  # as the manifest says, that of tiny's superspace
    assert spent_once(find_assets(load_space("tiny")), "table") == gpus * fashion["train"] / 3600


# -- the comparison --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings():
    return settings_of(space="tiny", n_targets=2, systems=FEW, budgets=(60,), seeds=2)


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison") / "c"
    comparison = Comparison.create(folder, settings)
    assert comparison.run() == (14, 0)  # one system cannot meet the second target
    comparison.price(Pricing(seconds_per_evaluation=36.0, deployments=10))
    rows = write_tables(comparison)
    return comparison, rows


def test_targets_are_shares_of_the_reference_network():
    device, space = find_device("bitfusion"), load_space("tiny")
    (whole, half) = chosen_targets("tiny", 2)
    assert whole.quantity == half.quantity == "latency"
    assert half.value == pytest.approx(0.7 * whole.value, rel=2e-3)
    from apq_moo.algorithms.baselines.reference import reference_network

    problem = APQProblem(space, ("latency",))
    base = space.from_block_index(reference_network(problem)[None])
    (subnet,) = space.decode(base)
    cost = device.layer_costs(space.layers(subnet))["latency"].sum()
    assert cost <= whole.value < 1.002 * cost


def test_defaults_depend_on_what_there_is():
    tiny = settings_of(space="tiny")
    assert tiny.predictor == "table"
    assert len(tiny.targets) == 3
    assert "proxylessnas:estimator=reinforce" in tiny.systems
    assert not {"proxylessnas", "dnas", "proxylessnas+dnas"} & set(tiny.systems)
    assert settings_of(space="digits").predictor == "ensemble"
    assert {"proxylessnas", "dnas", "spos"} < set(chosen_systems("ensemble"))


def test_rows_hold_medians_of_the_best_networks(finished, settings):
    """Against the stores themselves, the table of the space, and layer-by-layer costs."""
    comparison, rows = finished
    space, device = load_space("tiny"), find_device("bitfusion")
    exact, table = exact_source(space), {(r.target, r.system): r for r in rows}
    assert len(rows) == 8
    for case in settings.cases:
        target = case.target
        for outcome_name, outcomes in comparison.outcomes(case).items():
            row = table[title_of(target), outcome_name]
            best = [most_accurate(outcome) for outcome in outcomes]
            assert row.seeds == row.found == 2
            X = np.array(best)
            measured = exact.measure(X)
            quartiles = np.quantile(measured, [0.5, 0.25, 0.75], axis=0)
            assert astuple(row.acc) == pytest.approx(quartiles[:, 0])
            assert astuple(row.acc_val_true) == pytest.approx(quartiles[:, 0])
            assert astuple(row.acc_test) == pytest.approx(quartiles[:, 1])
            costs = [
                {k: v.sum() for k, v in device.layer_costs(space.layers(s)).items()}
                for s in space.decode(X)
            ]
            for name in ("latency", "energy"):
                assert getattr(row, name) == pytest.approx(np.median([c[name] for c in costs]))
            assert max(c["latency"] for c in costs) <= target.value
            assert row.violations == 0
            assert row.evaluations == np.median([o.evaluations for o in outcomes])
            assert row.charged == row.evaluations <= 60
            assert row.hours == pytest.approx(row.evaluations * 0.01)
            assert row.hours_in_all == pytest.approx(row.hours_once + 10 * row.hours)
    refused = table[title_of(settings.targets[1]), "uniform-width"]
    assert "that uniform-width can choose has latency" in refused.note
    assert refused.acc is None


def test_files_say_the_same(finished):
    comparison, rows = finished
    with (comparison.folder / "comparison.csv").open() as handle:
        found = list(csv.DictReader(handle))
    assert [row["system"] for row in found] == [row.system for row in rows]
    assert [float(found[2][n]) for n in ("acc", "acc_q1", "acc_q3")] == list(astuple(rows[2].acc))
    with (comparison.folder / "networks.csv").open() as handle:
        networks = list(csv.DictReader(handle))
    assert len(networks) == 14
    text = (comparison.folder / "comparison.md").read_text()
    assert text.count("| random |") == 2
    assert f"{rows[2].acc_test.median:.2f}" in text


def test_a_stopped_comparison_goes_on(finished, settings, tmp_path):
    whole, _ = finished
    comparison = Comparison.create(tmp_path / "c", settings)

    class StopError(Exception):
        pass

    def stop(done, _total, outcome):
        if outcome is not None and done == 3:
            raise StopError

    with pytest.raises(StopError):
        comparison.run(callback=stop)
    again = Comparison.open(tmp_path / "c")
    assert again.settings == settings
    seen = []
    assert again.run(callback=lambda done, _t, o: seen.append(o)) == (14, 0)
    assert len([o for o in seen if o is not None]) == 11
    for case in settings.cases:
        for name, outcomes in whole.outcomes(case).items():
            for one, other in zip(outcomes, again.outcomes(case)[name], strict=True):
                np.testing.assert_array_equal(one.genotypes, other.genotypes)


def test_networks_above_the_limit_are_counted(settings, tmp_path):
    """Whatever a search says of them: costs come from the tables again."""
    one = replace(settings, systems=("random",), targets=settings.targets[:1], seeds=1)
    comparison = Comparison.create(tmp_path / "c", one)
    comparison.run()
    folder = tmp_path / "c" / one.cases[0].title
    (outcome,) = Store.open(folder).outcomes()
    space = load_space("tiny")
    largest = space.canonical(space.largest()[None]).astype(outcome.genotypes.dtype)
    liar = replace(
        outcome,
        genotypes=np.vstack([outcome.genotypes[:1], largest]),
        front=np.vstack([outcome.front[:1], outcome.front[:1] + 1]),
    )
    Store.open(folder).put(liar)
    (row,) = write_tables(comparison, measuring=False)
    assert (row.violations, row.found) == (1, 1)
    assert row.acc_test is None


def test_gradient_steps_are_on_the_ledger(tmp_path, digits):
    name = "proxylessnas:levels=2:batch_size=16:trials=2:steps_per_evaluation=0.5"
    settings = settings_of(
        space="digits", n_targets=1, systems=(name,), budgets=(20,), seeds=1, predictor="additive"
    )
    comparison = Comparison.create(tmp_path / "c", settings)
    assert comparison.run() == (1, 0)
    (row,) = write_tables(comparison, measuring=False)
    assert row.gradient_steps == 4
    assert row.evaluations == 12
    assert row.charged == 20


def test_what_cannot_be_compared_is_refused(settings, tmp_path, finished):
    with pytest.raises(UserError, match="unknown algorithm 'x'"):
        Comparison.create(tmp_path / "a", replace(settings, systems=("x",)))
    tight = replace(settings, systems=("uniform-bits",), targets=(Limit("latency", 0.1),))
    with pytest.raises(UserError, match=r"that uniform-bits can choose has latency <= 0\.1 ms"):
        Comparison.create(tmp_path / "a", tight)
    assert not (tmp_path / "a").exists()
    with pytest.raises(UserError, match=r"holds a comparison; go on with it by Store\.open"):
        Comparison.create(finished[0].folder, settings)
    with pytest.raises(UserError, match="holds no comparison"):
        Comparison.open(tmp_path)
    with pytest.raises(UserError, match="leave one out"):
        settings_of(space="tiny", n_targets=2, targets=(Limit("latency", 1.0),))
    for target, said in (
        (("acc", 90), "a limit on a cost, not on 'acc'; known: latency, energy"),
        (("../x", 1), r"not on '\.\./x'"),
        (("latency", 0.0), "the limit of latency must be a number above 0, not 0"),
    ):
        with pytest.raises(UserError, match=said):
            Limit(*target)
    with pytest.raises(UserError, match="targets=0: from 1 to 100"):
        settings_of(space="tiny", n_targets=0)
    file = tmp_path / "comparison.json"
    plain = json.loads((finished[0].folder / "comparison.json").read_text())
    for damaged, said in (
        ({"format": "x"}, "is not a comparison of this version"),
        ({**plain, "refused": {}}, "is damaged: its cases are not those that were checked"),
        ({**plain, "settings": {**plain["settings"], "budgets": "many"}}, "budgets must be"),
        ({**plain, "more": 1}, "more"),
    ):
        file.write_text(json.dumps(damaged))
        with pytest.raises(UserError, match=said):
            Comparison.open(tmp_path)


def test_a_failed_search_is_said(settings, tmp_path):
    one = replace(settings, systems=("random", "milp"), targets=settings.targets[:1], seeds=1)
    comparison = Comparison.create(tmp_path / "c", one)
    comparison.run()
    store = Store.open(tmp_path / "c" / one.cases[0].title)
    first = store.outcomes()[0]
    store.put(Outcome(first.cell, "failed", error="it broke"))
    rows = write_tables(comparison, measuring=False)
    assert (rows[0].seeds, rows[0].note) == (0, "it broke")
    assert "`random`: it broke" in Path(tmp_path / "c" / "comparison.md").read_text()

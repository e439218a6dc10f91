"""Claims answered from a comparison's searches, and the page of a comparison."""

import json
import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from apq_moo.benchmarks.compare.plan import Cell
from apq_moo.benchmarks.compare.store import Outcome
from apq_moo.benchmarks.report import write_report
from apq_moo.benchmarks.systems import claims
from apq_moo.benchmarks.systems.comparison import Comparison
from apq_moo.benchmarks.systems.ledger import Pricing
from apq_moo.benchmarks.systems.results import Results, Search, most_accurate
from apq_moo.benchmarks.systems.settings import Case, Limit, Settings, settings_of
from apq_moo.benchmarks.systems.tables import write_tables
from apq_moo.cli import main
from apq_moo.data import load_images
from apq_moo.data.assets import find_assets
from apq_moo.deploy.tuning import TuningConfig, finetune
from apq_moo.errors import UserError
from apq_moo.hardware import find_device
from apq_moo.problems import exact_source
from apq_moo.space import load_space
from apq_moo.study.config import RunConfig

AGENTS = "amc+haq:amc__agent=random:haq__agent=random"
SYSTEMS = (
    "spos", "apq-ga", "uniform-width", "uniform-width+haq",
    "uniform-width+haq:haq__agent=random", "amc", "amc:agent=random", "amc:lbound=0.5", "amc+haq",
    AGENTS, "haq", "milp",
)  # fmt: skip
TARGET = Limit("latency", 0.15)
CASE = Case(TARGET, 50)


def results_where(accuracies, seeds=8):
    """Searches whose networks have made-up accuracies: of each system a mean, and by seed."""
    settings = Settings((TARGET,), tuple(accuracies), "tiny", budgets=(50,), seeds=seeds)
    searches = {}
    for system, mean in accuracies.items():
        found = []
        for seed in range(seeds):
            config = RunConfig(algo="random", seed=seed, budget=50)
            outcome = Outcome(
                Cell(config, system), "ok", evaluations=50, seconds={"search": 36.0},
                genotypes=np.array([[seed]]), curve=np.array([float(seed)]),
            )  # fmt: skip
            # Seeds move all systems alike, and each a little by itself.
            acc = mean + 0.5 * seed + 0.01 * ((seed * 7 + len(system)) % 5)
            found.append(Search(CASE, system, outcome, np.zeros(1), acc, acc, acc - 1, {}, 0, None))
        searches[CASE, system] = found
    return Results(settings, {CASE.title: {}}, searches, {}, {TARGET: None})


def pairs(claim):
    return {(test.a, test.b) for test in claim.tests}


@pytest.fixture(scope="module")
def results():
    return results_where(dict.fromkeys(SYSTEMS, 90.0))


def test_every_pipeline_has_its_joint_twins(results):
    found = claims.joint_and_sequential(results, Pricing())
    pipelines = [name for name in SYSTEMS if "+" in name]
    assert len(pipelines) == 4
    assert pairs(found) == set(product(("spos", "apq-ga"), pipelines))
    assert found.accuracy == "test"
    assert len(found.tests) == 2 * 8  # on validation images too


def test_mixed_precision_is_compared_with_the_same_search_at_8_bits(results):
    found = claims.mixed_and_8_bits(results, Pricing())
    assert pairs(found) == {
        ("uniform-width+haq", "uniform-width"),
        ("uniform-width+haq:haq__agent=random", "uniform-width"),
        ("amc+haq", "amc"),
        (AGENTS, "amc:agent=random"),
    }


def test_agents_are_compared_with_the_same_that_act_at_random(results):
    found = claims.agents_and_random(results, Pricing())
    assert pairs(found) == {
        ("uniform-width+haq", "uniform-width+haq:haq__agent=random"),
        ("amc", "amc:agent=random"),
        ("amc+haq", AGENTS),
    }


@pytest.mark.parametrize(
    ("means", "seeds", "verdict"),
    [
        ({"amc": 91, "amc:agent=random": 90, "haq": 91, "haq:agent=random": 90}, 8, "holds"),
        (
            {"amc": 91, "amc:agent=random": 90, "haq": 90, "haq:agent=random": 91}, 8,
            "mixed: holds in 1 of 2, the reverse in 1",
        ),
        ({"amc": 90, "amc:agent=random": 91}, 8, "the reverse holds in 1 of 1"),
        ({"amc": 90, "amc:agent=random": 91}, 5, "undecided: 1 tests need 6 seeds"),
        ({"amc": 90}, 8, "no data"),
    ],
)  # fmt: skip
def test_verdicts(means, seeds, verdict):
    assert claims.agents_and_random(results_where(means, seeds), Pricing()).verdict == verdict


def test_differences_that_are_not_significant_show_nothing():
    results = results_where({"amc": 90, "amc:agent=random": 90})
    searches = dict(results.searches)
    searches[CASE, "amc"] = [
        replace(search, acc_test=search.acc_test + (0.3 if search.seed % 2 else -0.3))
        for search in searches[CASE, "amc"]
    ]
    found = claims.agents_and_random(replace(results, searches=searches), Pricing())
    assert found.verdict == "not shown: no significant difference in 1"


def test_the_best_network_at_8_bits_is_the_best_of_those(results):
    """Against subnets one by one."""
    target = Limit("latency", 0.14)
    settings = replace(results.settings, targets=(TARGET, target))
    rows = claims._best_with_and_without(replace(results, settings=settings))
    space, device = load_space("tiny"), find_device("bitfusion")
    X, accuracies = exact_source(space).samples()
    best = {}
    for row in np.argsort(-accuracies, kind="stable"):
        (subnet,) = space.decode(X[row][None])
        wide = all((block.w_pw, block.a_pw) == (8, 8) for block in subnet.blocks)
        if not wide and {(0.15, "all"), (0.14, "all")} <= set(best):
            continue
        latency = device.layer_costs(space.layers(subnet))["latency"].sum()
        for limit in (0.15, 0.14):
            for kind in ("all", "wide") if wide else ("all",):
                if latency <= limit:
                    best.setdefault((limit, kind), accuracies[row])
        if len(best) == 4:
            break
    assert [list(row.values()) for row in rows] == [
        ["latency-0.15", best[0.15, "all"], best[0.15, "wide"]],
        ["latency-0.14", best[0.14, "all"], best[0.14, "wide"]],
    ]


def test_marginal_costs_are_hours_of_a_target():
    found = claims.marginal_cost(results_where({"spos": 90, "milp": 90}), Pricing())
    assert [row["hours"] for row in found.figures] == [0.01, 0.01]
    counted = Pricing(seconds_per_evaluation=7.2)
    (row,) = claims.marginal_cost(results_where({"spos": 90}), counted).figures
    assert (row["charged evaluations"], row["hours"], row["hours q3"]) == (50, 0.1, 0.1)
    assert claims.transfer(results_where({"spos": 90}), counted).verdict == "no data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A comparison to which systems, a target and a budget are added when it has ended."""
    settings = settings_of(
        space="tiny", targets=(TARGET,), systems=("spos",), budgets=(9,), seeds=1
    )
    comparison = Comparison.create(tmp_path_factory.mktemp("claims") / "c", settings)
    assert comparison.run() == (1, 0)
    return comparison.folder


def test_a_comparison_grows(folder):
    before = Comparison.open(folder).outcomes(Case(TARGET, 9))["spos"][0]
    arguments = ["--systems", "uniform-width+uniform-bits", "--budget", "12", "--deployments", "7"]
    more = ["--max", "latency=0.16", "--seeds", "2"]
    with pytest.raises(SystemExit) as stop:
        main(["compare-systems", "--resume", str(folder), *arguments, *more])
    assert not stop.value.code
    grown = Comparison.open(folder)
    assert [case.title for case in grown.settings.cases] == [
        "latency-0.15-9", "latency-0.15-12", "latency-0.16-9", "latency-0.16-12",
    ]  # fmt: skip
    assert grown.pricing.deployments == 7
    assert grown.ended() == 16
    after = grown.outcomes(Case(TARGET, 9))["spos"]
    assert [outcome.cell.config.seed for outcome in after] == [0, 1]
    assert after[0].seconds == before.seconds  # it was not carried out again
    with pytest.raises(UserError, match="unknown algorithm 'x'"):
        grown.grow(systems=("x",))
    assert Comparison.open(folder).settings == grown.settings
    text = (folder / "claims.md").read_text()
    assert "| joint beats sequential | undecided: 4 tests need" in text
    found = json.loads((folder / "claims.json").read_text())
    assert found[0]["name"] == "joint beats sequential"
    assert {test["budget"] for test in found[0]["tests"]} == {9, 12}


def test_a_page_shows_it_all(folder):
    write_tables(Comparison.open(folder), measuring=False)
    out = folder.parent / "page.html"
    write_report(folder, out)
    page = out.read_text()
    table = (folder / "comparison.md").read_text()
    row = next(line for line in table.splitlines() if line.startswith("| spos |"))
    for cell in row.strip("| ").split(" | ")[:3]:
        assert f"<td>{cell}</td>" in page
    assert page.count('class="plot"') == 4
    curve = json.loads(page.partition('id="case0-curve-data">')[2].partition("</script>")[0])
    names = [trace["name"] for trace in curve["traces"] if trace.get("name")]
    assert names == ["spos", "uniform-width+uniform-bits"]
    for text in ("Joint beats sequential", "<h3>Ledger</h3>", "undecided: 4 tests need"):
        assert text in page
    assert "--max latency=0.15 --max latency=0.16" in page
    assert "--budget 9,12 --seeds 2" in page


def test_what_has_not_begun_has_no_page(tmp_path):
    settings = settings_of(space="tiny", targets=(TARGET,), systems=("spos",), seeds=1)
    Comparison.create(tmp_path / "c", settings)
    with pytest.raises(UserError, match="has no finished searches yet"):
        write_report(tmp_path / "c", tmp_path / "page.html")
    assert not Path(tmp_path / "page.html").exists()


def test_the_best_networks_are_fine_tuned_alike(tmp_path, digits):
    """By the package's own fine-tuning, each network once, whatever system found it."""
    settings = settings_of(
        space="digits", n_targets=1, systems=("uniform-width", "uniform-bits"), budgets=(6,),
        seeds=2, predictor="additive", finish=1,
    )  # fmt: skip
    comparison = Comparison.create(tmp_path / "c", settings)
    comparison.run()
    told = []
    rows = write_tables(comparison, callback=lambda *counts: told.append(counts))
    outcomes = comparison.outcomes(settings.cases[0])
    networks = {system: most_accurate(found[0]) for system, found in outcomes.items()}
    n = len({network.tobytes() for network in networks.values()})
    assert told[-1] == (n, n)
    for row in rows:
        (subnet,) = digits.decode(networks[row.system][None])
        images = load_images(find_assets(digits).images)
        config = TuningConfig(steps=math.ceil(len(images.train) / TuningConfig.batch_size))
        tuned = finetune(digits, subnet, tmp_path / f"{row.system}.safetensors", config)
        kept = tuned.tuned if tuned.gained else tuned.inherited
        assert row.acc_finished.median == row.acc_finished.q1 == kept["test"]
        assert row.finishing == 1
        assert row.finishing_hours > 0
        assert row.hours > row.finishing_hours
    text = (tmp_path / "c" / "comparison.md").read_text()
    assert "| fine-tuned, test % |" in text
    assert "| 1 epoch, " in text
    told.clear()
    assert write_tables(comparison, callback=lambda *counts: told.append(counts)) == rows
    assert not told  # nothing was measured or tuned again
    comparison.grow(finish=0)
    assert [row.acc_finished for row in write_tables(comparison)] == [None, None]
    (tmp_path / "c" / "finished.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"finished\.npz"):
        write_tables(comparison)

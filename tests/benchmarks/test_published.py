"""Published plans and scores, and what holds a benchmark against them."""

import csv
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from apq_moo.benchmarks import load
from apq_moo.benchmarks.compare.bench import bench, data_of
from apq_moo.benchmarks.compare.published import FOLDER, SCORES, hold, published_plan
from apq_moo.benchmarks.compare.store import Store
from apq_moo.cli import main
from apq_moo.data.assets import find_assets
from apq_moo.errors import UserError
from apq_moo.space import load_space

PROBLEM = "tiny acc+latency (table, bitfusion), 5,000 evaluations"


@pytest.fixture(scope="module")
def scores():
    with SCORES.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """The first two published seeds of random draws, and two others."""
    folder = tmp_path_factory.mktemp("mine")
    plan = published_plan("tiny").with_given(algos=("random",), objectives=("acc,latency",))
    bench(folder / "same", plan.with_given(seeds=2))
    bench(folder / "other", plan.with_given(seeds=3, first_seed=31))
    return folder


def test_there_is_a_score_for_every_search_of_the_plans(scores):
    names = ("space", "objectives", "predictor", "device", "budget", "algorithm", "seed")
    found = Counter(tuple(row[name] for name in names) for row in scores)
    planned = Counter(
        (
            config.space, "+".join(config.objectives), config.predictor, config.device,
            str(config.budget), cell.label, str(config.seed),
        )
        for name in ("fashion", "tiny")
        for cell in published_plan(name).cells()
        for config in [cell.config]
    )  # fmt: skip
    assert found == planned
    assert set(planned.values()) == {1}
    assert len(planned) == 2 * 17 * 3 * 31


def test_the_data_are_those_that_ship():
    known = json.loads((FOLDER / "data.json").read_text())
    (found,) = data_of(published_plan("tiny")).values()
    assert known["tiny"] == {name: found[name] for name in ("space", "device", "table.npz")}
    space, predictor = load_space("fashion"), "predictors/ensemble.safetensors"
    listed = find_assets(space).manifest["files"]
    assert known["fashion"] == {
        "space": space.digest,
        "device": known["tiny"]["device"],
        predictor: listed[predictor]["sha256"],
    }


def test_published_seeds_give_published_scores(mine, scores):
    published = {
        row["seed"]: row
        for row in scores
        if (row["space"], row["objectives"], row["algorithm"]) == ("tiny", "acc+latency", "random")
    }
    for row in load(mine / "same").to_dict("records"):
        for name in ("hv", "regret", "coverage"):
            assert row[name] == pytest.approx(float(published[str(row["seed"])][name]), abs=2e-8)
    (held,) = hold(mine / "same")
    assert (held.algorithm, held.problem, held.paired) == ("random", PROBLEM, True)
    assert (held.p, held.a12) == (1.0, 0.5)


def test_other_seeds_are_compared_unpaired(mine, scores):
    (held,) = hold(mine / "other")
    values = load(mine / "other").hv.round(6)
    others = {}
    for row in scores:
        if (row["space"], row["objectives"]) == ("tiny", "acc+latency"):
            others.setdefault(row["algorithm"], []).append(round(float(row["hv"]), 6))
    assert (held.seeds, held.others, held.paired) == (3, 17, False)
    assert held.hypervolume == np.median(values)
    assert held.place == 1 + sum(np.median(of) > np.median(values) for of in others.values())
    assert held.same == pytest.approx(np.median(others["random"]), abs=1e-6)
    p = {name: mannwhitneyu(values, of).pvalue for name, of in others.items()}
    assert held.p == pytest.approx(p["random"], rel=1e-12)
    # Holm's: the smallest of 17 counts 17 times, the next one 16 times, ...
    significant = set()
    for i, name in enumerate(sorted(p, key=p.get)):
        if p[name] * (17 - i) > 0.05:
            break
        significant.add(name)
    assert significant == {*held.better_than, *held.worse_than}
    assert "exact" in held.worse_than
    assert not held.better_than


def test_anybody_s_table_will_do(mine, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    load(mine / "other").to_csv("scores.csv", index=False)
    (held,) = hold(mine / "same", "scores.csv")
    assert (held.others, held.paired) == (1, False)
    with pytest.raises(SystemExit) as stop:
        main(["compare", str(mine / "same"), "--with", "scores.csv"])
    assert not stop.value.code
    assert PROBLEM in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["compare", str(mine / "same"), "--json"])
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["others"] == 17


def test_what_cannot_be_compared_is_refused(mine, tmp_path):
    with pytest.raises(UserError, match="holds no benchmark"):
        hold(tmp_path / "gone")
    with pytest.raises(UserError, match=r"x.csv is no file; name a table"):
        hold(mine / "same", tmp_path / "x.csv")
    for text, words in (
        ("space,seed\ntiny,1\n", "has no column 'objectives'; needed: space, objectives"),
        (SCORES.read_text().splitlines()[0] + "\n" + "a,b,,c,d,1,e,x,0.5,,,,,\n", "is malformed"),
        (SCORES.read_text().splitlines()[0] + "\n" + "a,b,,c,d,1,e,3,nan,,,,,\n", "is malformed"),
        (SCORES.read_text().splitlines()[0] + "\n" + "a,b,,c,d,1,e,3,0.5,,,,,\n", "in common"),
    ):
        (tmp_path / "x.csv").write_text(text)
        with pytest.raises(UserError, match=words):
            hold(mine / "same", tmp_path / "x.csv")
    shutil.copytree(mine / "same", tmp_path / "b")
    store = Store.open(tmp_path / "b")
    data = store.about()["data"]
    store.note(data={"tiny table": {**data["tiny table"], "table.npz": "0" * 64}})
    with pytest.raises(UserError, match="was begun with other data"):
        hold(tmp_path / "b")


def test_plans_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no published plan 'imagenet'; there are fashion, tiny"):
        published_plan("imagenet")
    options = (
        "--algos",
        "random",
        "--budget",
        "100",
        "--seeds",
        "1",
        "--objectives",
        "acc,latency",
    )
    with pytest.raises(SystemExit) as stop:
        main(["bench", "--plan", "tiny", *options, "--out", "b"])
    assert not stop.value.code, capsys.readouterr().err
    expected = replace(
        published_plan("tiny"), algos=("random",), budgets=(100,), seeds=1,
        objectives=("acc,latency",),
    )  # fmt: skip
    assert Store.open("b").plan == expected
    Path("tiny").write_text("seeds = 1")
    with pytest.raises(SystemExit):
        main(["bench", "--plan", "tiny", *options, "--space", "digits", "--out", "c"])
    assert Store.open("c").plan.predictors is None

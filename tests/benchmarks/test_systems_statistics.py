"""Statistics over the seeds of a comparison of systems."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import wilcoxon

from apq_moo.benchmarks.compare import bench
from apq_moo.benchmarks.compare.statistics import signed_rank
from apq_moo.benchmarks.systems.anytime import curves_of
from apq_moo.benchmarks.systems.comparison import Comparison
from apq_moo.benchmarks.systems.measuring import FILE, known_accuracies
from apq_moo.benchmarks.systems.results import results_of
from apq_moo.benchmarks.systems.settings import Case, Limit, settings_of
from apq_moo.benchmarks.systems.significance import all_pairs, paired_tests, seeds_needed
from apq_moo.benchmarks.systems.tables import analyse, caution, write_tables
from apq_moo.errors import UserError
from apq_moo.problems import APQProblem, exact_source
from apq_moo.space import load_space
from apq_moo.study.config import RunConfig
from apq_moo.study.search import Search

LIMITS = (Limit("latency", 0.15), Limit("latency", 0.14))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    settings = settings_of(
        space="tiny", targets=LIMITS, systems=("milp", "uniform-bits", "random"),
        budgets=(20,), seeds=6,
    )  # fmt: skip
    comparison = Comparison.create(tmp_path_factory.mktemp("statistics") / "c", settings)
    assert comparison.run()[1] == 0
    write_tables(comparison)
    return comparison


@pytest.fixture(scope="module")
def results(finished):
    outcomes = {case: finished.outcomes(case) for case in finished.settings.cases}
    measured = known_accuracies(finished.folder, finished.settings)
    return results_of(finished, outcomes, measured, {})


def read(comparison, name):
    with (comparison.folder / name).open() as handle:
        return list(csv.DictReader(handle))


def test_targets_of_one_quantity_and_budgets_are_cases(finished):
    assert [case.title for case in replace(finished.settings, budgets=(12, 20)).cases] == [
        "latency-0.15-12", "latency-0.15-20", "latency-0.14-12", "latency-0.14-20",
    ]  # fmt: skip
    rows = read(finished, "comparison.csv")
    assert [(row["target"], row["budget"]) for row in rows[::3]] == [
        ("latency-0.15", "20"), ("latency-0.14", "20"),
    ]  # fmt: skip
    assert {row["note"][:30] for row in rows if row["system"] == "uniform-bits"} == {
        "", "no network of space 'tiny' tha"
    }  # fmt: skip
    with pytest.raises(UserError, match="budgets names 12 twice"):
        replace(finished.settings, budgets=(12, 20, 12))
    with pytest.raises(UserError, match=r"targets names 'latency-0\.15' twice"):
        replace(finished.settings, targets=(LIMITS[0], *LIMITS))


def test_regret_is_against_the_best_of_all_networks(results, finished):
    X, accuracies = exact_source(load_space("tiny")).samples()
    latency = APQProblem("tiny", ("latency",)).evaluate_raw(X)["latency"]
    for target in LIMITS:
        best = max(acc for acc, ms in zip(accuracies, latency, strict=True) if ms <= target.value)
        assert results.optima[target] == best
    for row in read(finished, "networks.csv"):
        target = LIMITS[row["target"] == "latency-0.14"]
        expected = results.optima[target] - float(row["acc_val_true"])
        assert float(row["regret"]) == pytest.approx(expected)
        assert expected >= 0
    medians = {
        (row["target"], row["budget"], row["system"]): float(row["regret"] or "nan")
        for row in read(finished, "comparison.csv")
    }
    networks = read(finished, "networks.csv")
    for (target, budget, system), median in medians.items():
        own = [
            float(row["regret"])
            for row in networks
            if (row["target"], row["budget"], row["system"]) == (target, budget, system)
        ]
        assert len(own) == 6 or (np.isnan(median) and not own)
        assert not own or median == pytest.approx(np.median(own))


def test_pairs_are_tested_seed_by_seed(results, finished):
    case = Case(LIMITS[0], 20)
    tests = paired_tests(results, all_pairs(results, case), "validation")
    named = {(test.a, test.b): test for test in tests}
    assert len(tests) == 3
    controls = named["milp", "uniform-bits"]
    assert controls.seedless == ("milp", "uniform-bits")
    assert controls.p is controls.p_adjusted is None
    assert controls.winner == "milp"
    found = results.values(case, "random", "validation")
    sample = np.array([found[seed] for seed in range(6)])
    constant = results.values(case, "uniform-bits", "validation")[0]
    against = named["uniform-bits", "random"]
    assert against.seedless == ("uniform-bits",)
    # The one-sample test of the median, of 6 values on one side: 2 / 2^6.
    assert (sample > constant).all()
    assert against.p == wilcoxon(sample - constant).pvalue == 0.03125
    assert against.rank_biserial == -1
    # A family of two, since there is nothing to test in the third.
    other = named["milp", "random"]
    assert against.p_adjusted == min(1.0, 2 * 0.03125 if against.p <= other.p else against.p)
    assert against.difference == pytest.approx(np.median(constant - sample))
    rows = read(finished, "tests.csv")
    kept = next(
        row
        for row in rows
        if (row["target"], row["budget"], row["accuracy"]) == ("latency-0.15", "20", "validation")
        and (row["a"], row["b"]) == ("uniform-bits", "random")
    )
    assert float(kept["p"]) == against.p
    assert len(rows) == 2 * (3 + 1)


def test_a_search_that_found_nothing_is_below_all_others(results):
    case = Case(LIMITS[0], 20)
    searches = dict(results.searches)
    nothing = [
        replace(search, network=None, acc=None, acc_val_true=None) if search.seed < 3 else search
        for search in searches[case, "random"]
    ]
    searches[case, "random"] = nothing
    changed = replace(results, searches=searches)
    values = changed.values(case, "random", "validation")
    assert [values[seed] for seed in range(3)] == [-np.inf] * 3
    (test,) = paired_tests(changed, [(case, "uniform-bits", "random")], "validation")
    x = np.array([values[seed] for seed in range(6)])
    constant = test.median_a
    ranks = np.argsort(np.argsort(np.where(np.isinf(x), 1e9, abs(x - constant)))) + 1.0
    ranks[:3] = ranks[:3].mean()
    expected = (ranks[x < constant].sum() - ranks[x > constant].sum()) / 21
    assert test.rank_biserial == pytest.approx(expected)


def test_signed_ranks_of_a_worked_example():
    """Differences 1, -2, 3.5, 4, -0.5: ranks 2, 3, 4, 5 and 1; W = 4 of 15, p by all 32 signs."""
    x, y = [2.0, 1.0, 5.0, 9.0, 0.5], [1.0, 3.0, 1.5, 5.0, 1.0]
    found = signed_rank(x, y)
    assert found.rank_biserial == pytest.approx((11 - 4) / 15)
    ranks = np.array([2, 3, 4, 5, 1])
    signs = np.array(np.meshgrid(*[[0, 1]] * 5)).reshape(5, -1).T
    assert found.p == pytest.approx(2 * ((signs * ranks).sum(axis=1) <= 4).mean())
    back = signed_rank(y, x)
    assert (back.p, back.rank_biserial) == (found.p, -found.rank_biserial)
    with pytest.raises(UserError, match="x has 2, y 1"):
        signed_rank([1.0, 2.0], [1.0])


def test_seeds_that_a_family_needs():
    assert seeds_needed(1) == 6  # 2 / 2^6 = 0.03125
    assert seeds_needed(91) == 12
    assert seeds_needed(14) == 10


def test_curves_are_the_best_so_far(results, finished):
    """Against the searches themselves, carried out again."""
    case = Case(LIMITS[0], 20)
    (curve,) = [c for c in curves_of(results) if (c.case, c.system) == (case, "random")]
    outcome = finished.outcomes(case)["random"][3]
    archive = Search(outcome.cell.config).run()
    accuracies = np.where(archive.feasible, -archive.F[:, 0], -np.inf)
    expected = [accuracies[:n].max() for n in curve.evaluations]
    np.testing.assert_allclose(curve.best[3], expected, atol=1e-8)
    np.testing.assert_allclose(
        curve.quartiles()[-1], np.quantile(curve.best[:, -1], [0.25, 0.5, 0.75])
    )
    rows = [row for row in read(finished, "curves.csv") if row["system"] == "random"]
    last = [row for row in rows if row["target"] == "latency-0.15" and row["budget"] == "20"][-1]
    assert int(last["evaluations"]) == 20
    assert float(last["median"]) == pytest.approx(np.median(curve.best[:, -1]))
    assert (finished.folder / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_what_was_measured_is_not_measured_again(finished, monkeypatch, tmp_path):
    """So that a copy of the folder can be analysed where there is no supernet."""
    before = (finished.folder / "networks.csv").read_text()

    def refuse(*_args):
        raise AssertionError("measured again")

    monkeypatch.setattr("apq_moo.benchmarks.systems.measuring.exact_source", refuse)
    monkeypatch.setattr(bench, "versions", lambda: {"apq-moo": "0.0"})
    again = Comparison.open(finished.folder)
    assert again.run() == (again.ended(), 0)
    write_tables(again)
    assert (finished.folder / "networks.csv").read_text() == before
    (tmp_path / FILE).write_bytes((finished.folder / FILE).read_bytes()[:-30])
    with pytest.raises(UserError, match="damaged"):
        known_accuracies(tmp_path, finished.settings)


def test_searches_take_turns_on_devices(tmp_path, monkeypatch):
    """And their place is no part of what they are."""
    seen = []

    def carried_out(cells, _jobs, _backend, _deadline):
        seen.extend(cells)
        yield from ()

    monkeypatch.setattr(bench, "_carried_out", carried_out)
    settings = settings_of(space="tiny", targets=LIMITS, systems=("random",), budgets=(8, 9))
    comparison = Comparison.create(tmp_path / "c", settings)
    comparison.run(on=("cuda:0", "cuda:1"))
    assert [cell.config.on for cell in seen] == ["cuda:0", "cuda:1"] * 6
    assert [(cell.config.seed, cell.config.budget) for cell in seen[:4]] == [
        (0, 9), (0, 9), (0, 8), (0, 8),
    ]  # fmt: skip
    assert seen[0].key == replace(seen[0], config=replace(seen[0].config, on=None)).key
    assert RunConfig.from_dict(seen[1].config.to_dict()).on == "cuda:1"
    measured = replace(settings, predictor="supernet")
    with pytest.raises(UserError, match="cuda:7"):
        Comparison(tmp_path / "c", measured, comparison.refused).run(on=("cuda:7",))


def test_equal_differences_share_their_rank(results):
    """Of 0.3 and -0.1 points as floats, which differ in their last digits."""
    case = Case(LIMITS[0], 20)
    searches = dict(results.searches)
    first = [0.3, 0.4, 0.2, 0.1, 0.7, 0.5]
    second = [0.0, 0.1, 0.3, 0.2, 0.4, 0.6]
    for system, values in (("milp", first), ("random", second)):
        searches[case, system] = [
            replace(search, acc_val_true=90 + value)
            for search, value in zip(searches[case, system], values, strict=True)
        ]
    changed = replace(results, searches=searches)
    (test,) = paired_tests(changed, [(case, "milp", "random")], "validation")
    # Three of 0.3 share the ranks 4 to 6, three of -0.1 the ranks 1 to 3.
    assert test.rank_biserial == pytest.approx((3 * 5 - 3 * 2) / 21)
    assert test.difference == pytest.approx(0.1)


def test_a_caution_counts_what_is_tested(tmp_path):
    """Of three pairs two are tested, since neither of two controls depends on the seed."""
    settings = settings_of(
        space="tiny", targets=LIMITS[:1], systems=("milp", "uniform-width", "random"),
        budgets=(12,), seeds=2,
    )  # fmt: skip
    comparison = Comparison.create(tmp_path / "c", settings)
    assert comparison.run() == (6, 0)
    results = analyse(comparison).results
    (case,) = settings.cases
    tests = paired_tests(results, all_pairs(results, case), "validation")
    assert [test.p is None for test in tests].count(False) == 2
    said = "With 2 seeds nothing of 2 pairs can be significant: 7 are needed."
    assert caution(results, case) == said
    assert 2 * 2.0 ** (1 - 7) <= 0.05 < 2 * 2.0 ** (1 - 6)  # Holm's first step, all signs alike

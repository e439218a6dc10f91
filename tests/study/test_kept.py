"""What a search reports whose algorithm keeps less than it evaluates."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from apq_moo.algorithms.strategy import Context
from apq_moo.benchmarks.compare.analysis import Analysis
from apq_moo.benchmarks.compare.bounds import bounds_of
from apq_moo.benchmarks.compare.cells import carry_out
from apq_moo.benchmarks.compare.plan import Cell
from apq_moo.benchmarks.compare.scores import hypervolume
from apq_moo.hardware import minimised
from apq_moo.results.pick import pick
from apq_moo.results.run import execute
from apq_moo.study.config import RunConfig
from apq_moo.study.folder import RunFolder
from apq_moo.study.kept import kept_by
from apq_moo.study.search import Search

CONFIG = RunConfig(
    "apq-ga-released", space="tiny", predictor="table", budget=600, pop_size=20, sweep=3
)


def widest(problem, X):
    """Accuracies at the largest bits, network by network."""
    space, found = problem.space, []
    for row in X.astype(np.int64):
        other = row.copy()
        for column in space.bit_columns:
            other[column] = space.n_options[column] - 1
        found.append(problem.evaluate_raw(space.canonical(other[None]))["acc"][0])
    return np.array(found)


def plainly_kept(search, archive):
    """Of each limit the 25 best at the largest bits, among those that the search looks at."""
    genotypes, parts, begin = set(), search.context().parts, 0
    seen = widest(search.problem, archive.X)
    for part in parts:
        looked = [
            begin + number
            for first in range(0, part.budget, 20)
            for number in range(first, min(first + 10, part.budget))
        ]
        order, best = sorted(looked, key=lambda row: -seen[row]), []
        for row in order:
            key = archive.X[row].tobytes()
            if key not in best and len(best) < 25:
                best.append(key)
        genotypes |= set(best)
        begin += part.budget
    return genotypes


def test_the_front_is_of_the_best_by_the_accuracy_that_it_sees():
    search = Search(CONFIG)
    archive = search.run()
    kept = kept_by(search, archive)
    assert kept.evaluations[-1] == len(archive) == 600
    rows = kept.after(600)
    expected = plainly_kept(search, archive)
    assert {archive.X[row].tobytes() for row in rows} == expected
    assert len(rows) == len(expected) < 100
    # After the first round: of ten networks that it looks at, all.
    assert kept.after(20).tolist() == list(range(10))
    assert len(kept.after(19)) == 0
    assert kept_by(Search(replace(CONFIG, algo="apq-ga")), archive) is None


def front_of(folder):
    with (Path(folder) / "front.csv").open() as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = RunFolder.create(
        tmp_path_factory.mktemp("kept") / "a", CONFIG, verify=None, overwrite=False
    )
    execute(folder)
    return folder


def test_a_run_and_all_that_reads_it_report_what_was_kept(run):
    search = Search(CONFIG)
    archive = search.run()
    expected = plainly_kept(search, archive)
    X = search.problem.space.encode([json.loads(row["subnet"]) for row in front_of(run.path)])
    assert {row.astype(archive.X.dtype).tobytes() for row in X} <= expected
    whole = archive.front()
    best = minimised(CONFIG.objectives, whole.F)[:, 0].max()
    assert max(float(row["acc"]) for row in front_of(run.path)) <= best
    assert pick(run, {}).among == len(expected)

    (problem,) = Analysis.of_run(run.path).problems
    (of_run,) = problem.outcomes
    outcome = carry_out(Cell(CONFIG, "apq-ga-released"))
    assert outcome.ok, outcome.error
    for found in (outcome, of_run):
        assert len(found.front) == len(front_of(run.path))
        volume = hypervolume(found.front, bounds_of(search.problem))
        assert found.curve[-1] == pytest.approx(volume, rel=1e-12)
        assert volume < hypervolume(whole.F, bounds_of(search.problem))
    np.testing.assert_array_equal(outcome.population, outcome.front)
    with (run.path / "history.csv").open() as handle:
        last = list(csv.DictReader(handle))[-1]
    assert int(last["front"]) == len(front_of(run.path))


def test_a_stopped_run_reports_the_same(run, tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path / "b", CONFIG, verify=None, overwrite=False)
    real, rounds = Context.measure, []

    def stops(self, *given):
        rounds.append(0)
        if len(rounds) == 14:  # within the second limit
            raise KeyboardInterrupt
        return real(self, *given)

    monkeypatch.setattr(Context, "measure", stops)
    with pytest.raises(KeyboardInterrupt):
        execute(folder)
    execute(RunFolder.open(tmp_path / "b"))
    assert (tmp_path / "b" / "front.csv").read_bytes() == (run.path / "front.csv").read_bytes()

"""Runs that measure: what they begin with, what is never measured twice, and kills."""

import json
import os
import signal
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from apq_moo.algorithms import ALGORITHMS
from apq_moo.algorithms.strategy import Replay
from apq_moo.cli import main
from apq_moo.data.assets import SAMPLES, find_assets
from apq_moo.data.samples import FOUND, SETS, load_samples
from apq_moo.errors import UserError
from apq_moo.predictors.finding import SubspacePredictor
from apq_moo.problems.evaluated import Evaluated
from apq_moo.problems.tabulated import TabulatedAccuracy
from apq_moo.results.run import Listener, _by_minutes, execute
from apq_moo.space import load_space
from apq_moo.study.config import RefitConfig, RunConfig
from apq_moo.study.folder import RunFolder
from apq_moo.study.known import add_measured
from apq_moo.study.record import Recorder, finished
from apq_moo.study.refit import nearest_and_others
from apq_moo.study.search import Search, check
from apq_moo.supernet.scoring import Scorer

QUICK = RefitConfig(inner_budget=200, first=20)
TINY = RunConfig(algo="surrogate", space="tiny", predictor="table", budget=40, refit=QUICK)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))


def run(config, folder, **listener):
    opened = RunFolder.create(folder, config, verify=None, overwrite=False)
    execute(opened, Listener(**listener))
    return RunFolder.open(folder)


# -- configuration ---------------------------------------------------------------------------------


def test_configurations_survive_json():
    for config in (TINY, replace(TINY, refit=None), RunConfig()):
        assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert "refit" not in RunConfig().to_dict()
    with pytest.raises(UserError, match=r"refit.first.*integer from 2 to 100000, not 1"):
        RunConfig.from_dict({**TINY.to_dict(), "refit": {"first": 1}})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"predictor": "additive"}, "surrogate measures networks: predictor='additive' does not"),
        ({"budget": 19}, "budget=19 is too small for the first batch of 20"),
        ({"objectives": ("latency", "size")}, "surrogate fits accuracies: add acc"),
        ({"algo": "nsga2"}, "refit is for algorithms that measure, which nsga2 does not"),
        ({"refit": replace(QUICK, predictor="xgboost")}, "no standard deviations.*gp-scratch"),
        ({"refit": replace(QUICK, predictor="kriging")}, "unknown predictor 'kriging'"),
        ({"refit": replace(QUICK, inner="surrogate")}, "inner='surrogate' cannot search"),
        ({"refit": replace(QUICK, inner="exact")}, "inner='exact' cannot search"),
        ({"objectives": ("acc",), "refit": replace(QUICK, inner="moead")}, "at least 2 objectives"),
        ({"warm_start": "x", "refit": replace(QUICK, samples="y")}, "give one of them"),
    ],
)
def test_what_cannot_be_is_refused(changes, words):
    with pytest.raises(UserError, match=words):
        check(replace(TINY, **changes))


@pytest.mark.parametrize("inner", ["apq-ga", "spea2", "local-search"])
def test_any_algorithm_searches_inside(inner):
    """Those of one objective under limits, as in a run of their own."""
    config = replace(TINY, budget=30, sweep=2, pop_size=8, refit=replace(QUICK, inner=inner))
    found = Search(config).run()
    assert len(np.unique(found.X, axis=0)) == 30


def test_predictors_are_named_with_parameters():
    search = Search(replace(TINY, seed=3, refit=replace(QUICK, predictor="gp-scratch:steps=7")))
    assert search.refit.predictor.get_params()["steps"] == 7
    assert search.refit.predictor.seed == 3


def test_a_part_transfers_from_what_it_is_part_of(monkeypatch):
    """`gp` on tiny is that of fashion, pre-trained on fashion's full-precision samples."""
    seen = []

    def pretrained(self, X, y):
        seen.append((self.space.name, len(X)))
        self._pretrained = True
        return self

    monkeypatch.setattr("apq_moo.predictors.gp.GPPredictor.pretrain", pretrained)
    refit = Search(replace(TINY, refit=replace(QUICK, predictor="gp"))).refit
    assert isinstance(refit.predictor, SubspacePredictor)
    assert refit.predictor.space.name == "tiny"
    assert seen == [("fashion", load_fp())]


def load_fp():
    space = load_space("fashion")
    return len(load_samples(find_assets(space).path(SAMPLES), space).rows("fp")[1])


# -- what is measured ------------------------------------------------------------------------------


def test_the_front_holds_what_was_measured():
    folder = run(TINY, "a")
    rows = folder.read_front()
    space = load_space("tiny")
    X = space.encode(rows["subnet"])
    source = TabulatedAccuracy(find_assets(space))
    np.testing.assert_array_equal(rows["acc"], source.measure(X)[:, 0])
    archive, trace = finished(Path("a"))
    assert trace.evaluations == [20, 30, 40]
    assert {tuple(x) for x in X} <= {tuple(x) for x in archive.genotypes}


def test_a_run_goes_on_from_an_earlier_one():
    """Its front is taken over, and nothing that it measured is measured again."""
    first = run(TINY, "a")
    front = first.read_front()
    earlier, _ = finished(Path("a"))
    config = replace(TINY, seed=1, refit=replace(QUICK, samples="a"))
    run(replace(config, budget=20), "b")
    later, trace = finished(Path("b"))
    n = len(front["acc"])
    assert trace.evaluations[0] == n
    assert len(later) == n + 20
    np.testing.assert_array_equal(
        np.unique(later.X[:n], axis=0),
        np.unique(load_space("tiny").encode(front["subnet"]), axis=0),
    )
    known = {x.tobytes() for x in earlier.genotypes}
    assert not known & {x.tobytes() for x in later.genotypes[n:]}
    assert "a" in RunFolder.open("b").record["data"]
    both = Search(replace(TINY, refit=replace(QUICK, samples="a,b"))).refit.samples[0]
    np.testing.assert_array_equal(both, np.unique(np.vstack([earlier.X, later.X]), axis=0))
    changed = RunFolder.create("c", replace(config, budget=20), verify=None, overwrite=False)
    changed.store(data={**RunFolder.open("b").record["data"], "a": "0" * 64})
    with pytest.raises(UserError, match="was begun with other data: a changed since"):
        execute(changed)


def test_samples_have_to_be_measured_alike():
    digits = RunConfig(algo="nsga2", space="tiny", predictor="table", budget=20, pop_size=20)
    run(replace(digits, objectives=("latency", "size")), "costs")
    run(replace(digits, space="digits", predictor="additive"), "predicted")
    for samples, words in (
        ("costs", "predicted accuracies; name one that measured them"),
        ("predicted", "predicted accuracies; name one that measured them"),
        ("nowhere", "samples 'nowhere': write shipped, a file, or a run's folder"),
        ("shipped", "has no 'samples.npz'"),
    ):
        with pytest.raises(UserError, match=words):
            Search(replace(TINY, refit=replace(QUICK, samples=samples)))
    RunFolder.create("begun", TINY, verify=None, overwrite=False)
    Path("begun/run.json").write_text(
        json.dumps({**json.loads(Path("begun/run.json").read_text()), "data": {}})
    )
    with pytest.raises(UserError, match="has not ended"):
        Search(replace(TINY, refit=replace(QUICK, samples="begun")))


@pytest.fixture
def few_samples():
    """A table of 60 of the shipped samples of digits."""
    space = load_space("digits")
    table = load_samples(find_assets(space).path(SAMPLES), space)
    rows = np.flatnonzero(table.quantised)[:60]
    columns = {name: getattr(table, name)[rows] for name in ("X", "group", "acc", "acc_test")}
    few = replace(table, **columns)
    few.save("few.npz")
    return few


def on_digits(samples, budget=3):
    refit = replace(QUICK, samples=samples)
    return RunConfig(
        algo="surrogate", space="digits", predictor="supernet", budget=budget, refit=refit, on="cpu"
    )


def test_samples_on_the_supernet_are_not_measured_again(few_samples, monkeypatch):
    """Nor those that an earlier search on the same supernet measured."""
    measured = []
    real = Scorer.accuracies

    def counted(self, subnets, *args, **kwargs):
        measured.extend(subnets)
        return real(self, subnets, *args, **kwargs)

    monkeypatch.setattr(Scorer, "accuracies", counted)
    search = Search(on_digits("few.npz"))
    execute(RunFolder.create("a", search.config, verify=None, overwrite=False), search=search)
    assert len(measured) == search.measured == 3
    archive, trace = finished(Path("a"))
    adopted = trace.evaluations[0]
    assert len(archive) == adopted + 3
    values = {x.tobytes(): acc for x, acc in zip(few_samples.X, few_samples.acc, strict=True)}
    for x, f in zip(archive.genotypes[:adopted], archive.F[:adopted], strict=True):
        assert values[x.tobytes()] == -f[0]
    # The shipped accuracies are those that the supernet gives here.
    space = load_space("digits")
    (subnet,) = space.decode(archive.genotypes[:1])
    assert search.source._scorer.accuracies([subnet], ("validation",), quantised=True)[0, 0] == (
        -archive.F[0, 0]
    )
    measured.clear()
    run(on_digits("a"), "b")
    assert len(measured) == 3
    again = {x.tobytes() for x in space.encode([subnet.to_dict() for subnet in measured])}
    assert not again & {x.tobytes() for x in archive.genotypes}
    # What both measured is added to the samples that they began with, each network once.
    larger = add_measured("few.npz", ["a", "b"], space)
    assert larger.counts() == {**few_samples.counts(), FOUND: 6}
    X, acc = larger.to_fit()
    assert len(np.unique(X, axis=0)) == len(X) == len(few_samples.rows("mp")[1]) + 6
    known = {x.tobytes(): y for x, y in zip(X, acc, strict=True)}
    for x, f in zip(archive.genotypes[adopted:], archive.F[adopted:], strict=True):
        assert known[x.tobytes()] == -f[0]
    assert [of["seed"] for of in larger.provenance["found"].values()] == [0, 0]
    larger.save("larger.npz")
    assert load_samples("larger.npz", space).counts() == larger.counts()
    assert add_measured("larger.npz", ["b"], space).counts() == larger.counts()
    for key, value in (("supernet_sha256", "0" * 64), ("images_sha256", "0" * 64)):
        replace(few_samples, provenance={**few_samples.provenance, key: value}).save("o.npz")
        with pytest.raises(UserError, match="run in a measured with other files, which differ in"):
            add_measured("o.npz", ["a"], space)
    run(TINY, "of-tiny")
    with pytest.raises(UserError, match="of-tiny is of space 'tiny', not of this 'digits'"):
        add_measured("few.npz", ["of-tiny"], space)
    settings = {**few_samples.provenance["config"], "finetune_steps": 10}
    replace(few_samples, provenance={**few_samples.provenance, "config": settings}).save("o.npz")
    with pytest.raises(UserError, match=r"o\.npz: its networks were fine-tuned"):
        add_measured("o.npz", ["a"], space)


def test_what_is_judged_by_is_never_found(few_samples):
    table = replace(few_samples, group=np.full(60, SETS.index("mp_held_out"), dtype=np.int8))
    grown = table.with_found(table.X[:9], table.acc[:9])
    assert grown.counts() == table.counts()
    new = load_space("digits").sample(3, np.random.default_rng(3))
    grown = table.with_found(np.vstack([new, new[:1]]), np.array([50.0, 60.0, 70.0, 80.0]))
    np.testing.assert_array_equal(grown.rows(FOUND)[0], new)
    np.testing.assert_array_equal(grown.rows(FOUND)[1], [50.0, 60.0, 70.0])
    assert not set(grown.unmeasured()) & {60, 61, 62}
    assert grown.quantised[-3:].all()


def test_of_many_samples_those_near_the_front_are_kept():
    ranks = np.random.default_rng(0).integers(1, 50, 1000)
    ranks[::100] = 0
    rows = nearest_and_others(ranks, 200, np.random.default_rng(1))
    assert len(set(rows)) == 200
    assert (np.diff(rows) > 0).all()
    assert (ranks[rows] == 0).sum() == 10
    limit = np.sort(ranks)[99]
    assert set(np.flatnonzero(ranks < limit)) <= set(rows)
    assert (ranks[rows] > limit).sum() > 70
    np.testing.assert_array_equal(nearest_and_others(ranks, 1000, None), np.arange(1000))


def test_samples_of_another_supernet_are_refused(few_samples):
    for key in ("supernet_sha256", "images_sha256"):
        replace(few_samples, provenance={**few_samples.provenance, key: "0" * 64}).save("o.npz")
        with pytest.raises(UserError, match=r"'o\.npz' were not measured as supernet measures"):
            Search(on_digits("o.npz"))
    settings = {**few_samples.provenance["config"], "finetune_steps": 10}
    replace(few_samples, provenance={**few_samples.provenance, "config": settings}).save("o.npz")
    with pytest.raises(UserError, match="without fine-tuning"):
        Search(on_digits("o.npz"))


# -- kills -----------------------------------------------------------------------------------------


def in_a_child(arguments):
    """The command line in a process of its own, which logs what it looks up in the table."""
    child = os.fork()
    if child:
        return child
    code = 99
    with suppress(BaseException), Path(os.devnull).open("w") as nowhere:
        real = TabulatedAccuracy.predict_blocks
        log = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

        def logged(self, index):
            os.write(log, f"{len(index)}\n".encode())
            return real(self, index)

        TabulatedAccuracy.predict_blocks = logged
        Recorder.due = True
        with redirect_stdout(nowhere), redirect_stderr(nowhere):
            try:
                main(list(arguments))
            except SystemExit as stop:
                code = int(stop.code or 0)
    os._exit(code)


def looked_up():
    path = Path("log")
    return sum(map(int, path.read_text().split())) if path.exists() else 0


def test_killed_at_any_moment():
    """At most a batch is asked for again, and the front is the same to the byte."""
    given = ("run", "--space", "tiny", "--algo", "surrogate", "--measure", "60", "--out")
    assert os.waitstatus_to_exitcode(os.waitpid(in_a_child((*given, "whole")), 0)[1]) == 0
    assert looked_up() == 60
    Path("log").unlink()
    child = in_a_child((*given, "a"))
    begun = time.monotonic()
    while looked_up() < 40 and time.monotonic() - begun < 60:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert os.waitstatus_to_exitcode(os.waitpid(in_a_child(("run", "--resume", "a")), 0)[1]) == 0
    assert 60 <= looked_up() <= 70
    assert Path("a/front.csv").read_bytes() == Path("whole/front.csv").read_bytes()


def test_run_again_from_its_record_it_takes_the_same_course():
    search, make = Search(TINY), ALGORITHMS.get("surrogate").strategy
    whole = list(make().rounds(search.context()))
    again = list(make().rounds(search.context(Replay(Evaluated.join(whole[:2])))))
    np.testing.assert_array_equal(Evaluated.join(again).X, Evaluated.join(whole).X)


# -- progress --------------------------------------------------------------------------------------


def test_progress_in_networks_and_minutes(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("apq_moo.results.run.time.perf_counter", lambda: now[0])
    told, said = [], []
    tell = _by_minutes(Listener(searching=lambda *done: told.append(done), say=said.append))
    for done, seconds in ((20, 5.0), (30, 59.0), (40, 90.0), (50, 100.0), (60, 151.0)):
        now[0] = seconds
        tell(done, 100)
    assert told == [(n, 100) for n in (20, 30, 40, 50, 60)]
    assert said == [
        "40 of 100 networks measured in 1.5 min, about 4.5 min to go",
        "60 of 100 networks measured in 2.5 min, about 2.5 min to go",
    ]

"""Measuring given networks of a part of a space, and looking them up."""

import json
from dataclasses import replace

import numpy as np
import pytest

from apq_moo.data import load_images
from apq_moo.data.assets import SUPERNET, TABLE, find_assets, write_manifest
from apq_moo.data.samples import SETS
from apq_moo.data.tables import MISSING, SPLITS, AccuracyTable, load_table
from apq_moo.errors import UserError
from apq_moo.pipeline import Listener, PipelineConfig
from apq_moo.pipeline.chain import make_assets
from apq_moo.pipeline.stages import evaluate, train
from apq_moo.problems import APQProblem
from apq_moo.problems.measured import SupernetAccuracy
from apq_moo.problems.tabulated import TabulatedAccuracy
from apq_moo.space import all_networks, embed, load_space
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.sampling import SampleConfig, collect
from apq_moo.supernet.scoring import Scorer
from apq_moo.supernet.tabulate import begin_table, tabulate
from apq_moo.supernet.training import TrainConfig


@pytest.fixture(scope="module")
def space(part, tmp_path_factory):
    path = tmp_path_factory.mktemp("part") / "part.toml"
    path.write_text(part)
    return load_space(path)


def digits():
    return find_assets(load_space("digits"))


@pytest.fixture(scope="module")
def folder(space, tmp_path_factory):
    """Assets of the part: a table of all its networks."""
    folder = tmp_path_factory.mktemp("assets")
    X = all_networks(space)
    tabulate(space, digits().path(SUPERNET), "digits", X, folder / TABLE)
    checksum = load_images("digits").checksum
    write_manifest(folder, space, [TABLE], images="digits", images_sha256=checksum)
    return folder


def test_all_networks_are_measured_as_those_of_the_whole_space_are(space, folder):
    table = load_table(folder / TABLE, space)
    assert table.complete
    assert len(table.X) == space.count() == 2 * 2 * 2 * 2 * 2
    supernet, _ = load_supernet(digits().path(SUPERNET), load_space("digits"))
    rows = [0, 9, 31]
    subnets = supernet.space.decode(embed(space, table.X[rows]))
    wanted = Scorer(supernet, load_images("digits")).accuracies(subnets, SPLITS, quantised=True)
    np.testing.assert_allclose(table.accuracies()[rows], wanted, atol=1e-9)


def test_samples_and_evaluation_of_a_part_are_those_of_its_table(space, folder, tmp_path):
    """They are measured on the supernet of the whole space."""
    table, supernet = load_table(folder / TABLE, space), digits().path(SUPERNET)
    known = {bytes(x): acc for x, acc in zip(table.X, table.accuracies(), strict=True)}
    config = SampleConfig(1, 3, 0, 3)
    samples = collect(space, supernet, "digits", config, tmp_path / "s.npz")
    of = {name: samples.rows(name) for name in SETS}
    assert [len(y) for _, y in of.values()] == [1, 3, 0, 3, 0]
    for X, y in (of["mp"], of["mp_held_out"]):
        assert y == pytest.approx([known[bytes(x)][0] for x in X], abs=1e-9)
    found = evaluate(space, supernet, "digits", n_random=4)
    for name, row in (("smallest", space.smallest()), ("largest", space.largest())):
        accuracies = known[bytes(space.canonical(row[None])[0])]
        again = [found.named[name]["mp"][split] for split in SPLITS]
        assert again == pytest.approx(accuracies, abs=1e-9)
    drawn = space.sample(4, np.random.default_rng([0, 7]))
    assert found.mean["mp"] == pytest.approx(np.mean([known[bytes(x)][0] for x in drawn]))


def test_a_part_has_no_supernet_of_its_own(space, part, tmp_path):
    with pytest.raises(UserError, match="space 'part' is part of 'digits' and shares its supernet"):
        train(space, "digits", TrainConfig(steps=1), tmp_path / "n.safetensors")
    config = PipelineConfig(tmp_path / "p", str(tmp_path / "part.toml"), objectives=("macs",))
    (tmp_path / "part.toml").write_text(part)
    with pytest.raises(UserError, match="shares its supernet: train that one"):
        make_assets(config, Listener())
    assert not (tmp_path / "p").exists()


def test_an_interrupted_table_goes_on(space, folder, tmp_path, monkeypatch):
    whole = load_table(folder / TABLE, space)
    right = whole.right.copy()
    right[5:] = MISSING
    replace(whole, right=right).save(tmp_path / "t.npz")
    counted = []
    count = Scorer.count
    monkeypatch.setattr(
        Scorer,
        "count",
        lambda self, of, *a, **k: counted.append(len(of)) or count(self, of, *a, **k),
    )
    told = []
    again = tabulate(
        space, digits().path(SUPERNET), "digits", whole.X, tmp_path / "t.npz",
        callback=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    np.testing.assert_array_equal(again.right, whole.right)
    assert counted == [16, 11]
    assert told == [(21, 32), (32, 32)]
    with pytest.raises(UserError, match="holds other networks"):
        tabulate(space, digits().path(SUPERNET), "digits", whole.X[:4], tmp_path / "t.npz")


def test_a_begun_table_takes_over_what_is_known(space, folder, tmp_path):
    whole = load_table(folder / TABLE, space)
    table = begin_table(space, digits(), whole.X[:3], tmp_path / "t.npz")
    assert (table.right == MISSING).all()
    assert np.isnan(table.accuracies()).all()
    done = tabulate(space, digits().path(SUPERNET), "digits", whole.X[:3], tmp_path / "t.npz")
    np.testing.assert_array_equal(done.right, whole.right[:3])
    wider = begin_table(space, digits(), whole.X[2:5], tmp_path / "t.npz")
    np.testing.assert_array_equal(wider.X, whole.X[:5])
    np.testing.assert_array_equal(wider.right[:3], whole.right[:3])
    assert (wider.right[3:] == MISSING).all()
    assert not load_table(tmp_path / "t.npz", space).complete


def test_two_processes_make_the_same_table(space, folder, by_two):
    whole = load_table(folder / TABLE, space)
    assert sorted(path.name for path in by_two("exhaust").iterdir()) == ["part.toml", "two.npz"]
    table = load_table(by_two("exhaust") / "two.npz", space)
    np.testing.assert_array_equal(table.right, whole.right)


def test_a_problem_on_a_table(space, folder):
    accuracy = TabulatedAccuracy(find_assets(space, folder))
    table = load_table(folder / TABLE, space)
    np.testing.assert_array_equal(accuracy.measure(table.X), table.accuracies())
    problem = APQProblem(space, ("acc", "bitops"), predictor=accuracy)
    rng = np.random.default_rng(0)
    X = space.sample(20, rng)
    F = problem.evaluate(X, return_values_of=["F"])
    rows = [int(np.flatnonzero((row == table.X).all(axis=1))[0]) for row in X]
    np.testing.assert_array_equal(-F[:, 0], table.accuracies()[rows, 0])
    measured = SupernetAccuracy(find_assets(space, folder))
    np.testing.assert_allclose(measured.predict(X[:1]), -F[:1, 0])


@pytest.mark.parametrize("what", ["missing", "lacks", "unlisted"])
def test_tables_that_cannot_serve(space, folder, tmp_path, what):
    table = load_table(folder / TABLE, space)
    if what == "lacks":
        replace(table, X=table.X[:-1], right=table.right[:-1]).save(tmp_path / TABLE)
        words = "lacks networks of space 'part'"
    else:
        right = table.right.copy()
        right[3, 1] = MISSING
        replace(table, right=right).save(tmp_path / TABLE)
        words = "lacks networks"
    files = [TABLE]
    if what == "unlisted":
        (tmp_path / "other").write_text("x")
        files, words = ["other"], "has no table of all its networks"
    write_manifest(tmp_path, space, files, images="digits", images_sha256="0")
    with pytest.raises(UserError, match=words):
        TabulatedAccuracy(find_assets(space, tmp_path))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "x"}, "not a table of accuracies of this version"),
        ({"digest": "x"}, "belongs to another space"),
        ({"images": [0, 3]}, "wrong shape, type or range"),
        ({"images": "no"}, "wrong shape, type or range"),
        ({"images": [3, 3]}, "wrong shape, type or range"),
    ],
)
def test_altered_tables_are_refused(space, folder, tmp_path, change, words):
    arrays = dict(np.load(folder / TABLE))
    header = json.loads(arrays["header"].tobytes()) | change
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(UserError, match=words):
        load_table(tmp_path / "t.npz", space)


def test_damaged_tables_are_refused(space, tmp_path):
    (tmp_path / "t.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(UserError, match=r"cannot read table of accuracies .*: it is damaged"):
        load_table(tmp_path / "t.npz", space)
    with pytest.raises(UserError, match="cannot write"):
        AccuracyTable(space.smallest()[None], np.full((1, 2), MISSING, np.int32), (1, 1)).save(
            tmp_path / "t.npz" / "x.npz"
        )

"""Samples are distinct, reproducible, resumable, and what measuring gives."""

import time
from dataclasses import replace

import numpy as np
import pytest

from apq_moo.data.samples import SETS, SampleTable, load_samples
from apq_moo.errors import UserError
from apq_moo.space import sample_sizes
from apq_moo.supernet.checkpoint import load_supernet, save_supernet
from apq_moo.supernet.sampling import SampleConfig, collect, draw
from apq_moo.supernet.scoring import Scorer

TINY = SampleConfig(6, 6, 3, 3)


@pytest.fixture
def checkpoint(nets, tmp_path):
    save_supernet(tmp_path / "net.safetensors", nets["digits"])
    return tmp_path / "net.safetensors"


def test_draws_are_distinct_and_disjoint(digits):
    table = draw(digits, SampleConfig(300, 200, 100, 100, seed=4))
    assert len(np.unique(table.X, axis=0)) == len(table.X) == 700
    assert np.bincount(table.group).tolist() == [300, 200, 100, 100]
    full_precision = np.isin(table.group, [SETS.index("fp"), SETS.index("fp_held_out")])
    assert (table.X[full_precision][:, digits.bit_columns] == 0).all()
    assert np.array_equal(table.X, digits.canonical(table.X))
    again = draw(digits, SampleConfig(300, 200, 100, 100, seed=4))
    assert np.array_equal(table.X, again.X)
    other = draw(digits, SampleConfig(300, 200, 100, 100, seed=5))
    assert not np.array_equal(table.X, other.X)


def test_draws_of_all_sizes(digits):
    config = SampleConfig(300, 200, 100, 100, draw="sizes")
    table = draw(digits, config)
    assert len(np.unique(table.X, axis=0)) == len(table.X) == 700
    rng = np.random.default_rng([0, 3])
    full_precision = digits.architecture(sample_sizes(digits, 400, rng))
    found = {tuple(row) for row in table.X[:300]}  # the first set is fp
    assert {tuple(row) for row in full_precision[:50]} <= found

    def deep(rows):
        return digits.active(rows).all(axis=1).mean()

    uniform = draw(digits, replace(config, draw="uniform"))
    for group in (SETS.index("mp"), SETS.index("mp_held_out")):
        assert deep(table.X[table.group == group]) > 1.5 * deep(uniform.X[uniform.group == group])
    with pytest.raises(UserError, match="not 'big'"):
        SampleConfig(draw="big")


def test_too_many_samples_are_refused(full):
    with pytest.raises(UserError, match="more than half"):
        draw(full, SampleConfig(fp=full.count_architectures()))


def test_collecting_resumes_and_equals_measuring(digits, checkpoint, image_set, tmp_path):
    out = tmp_path / "samples.npz"
    table = collect(digits, checkpoint, "digits", TINY, out)
    assert table.complete
    supernet, _ = load_supernet(checkpoint, digits)
    quantised = np.isin(table.group, [1, 3])
    scorer = Scorer(supernet, image_set)
    expected = scorer.accuracies(
        digits.decode(table.X), ["validation", "test"], quantised=quantised
    )
    assert table.acc.tolist() == expected[:, 0].tolist()
    assert table.quantised.tolist() == quantised.tolist()
    # Those to judge by are classified on the test images too, and only those.
    judging = table.group >= 2
    assert table.acc_test[judging].tolist() == expected[judging, 1].tolist()
    assert np.isnan(table.acc_test[~judging]).all()
    assert table.test_accuracies("mp_held_out").tolist() == expected[15:, 1].tolist()

    acc, acc_test = table.acc.copy(), table.acc_test.copy()
    acc[::2] = acc_test[-1] = np.nan
    replace(table, acc=acc, acc_test=acc_test).save(out)
    assert load_samples(out, digits).unmeasured().tolist() == [12, 14, 16, 17, 0, 2, 4, 6, 8, 10]
    done = []
    again = collect(digits, checkpoint, "digits", TINY, out, callback=lambda d, n: done.append(d))
    assert np.array_equal(again.acc, table.acc)
    assert np.array_equal(again.acc_test, table.acc_test, equal_nan=True)
    assert done == [18]

    with pytest.raises(UserError, match="other settings"):
        collect(digits, checkpoint, "digits", replace(TINY, seed=1), out)
    # A table of before there were several ways to draw was drawn uniformly.
    older = {k: v for k, v in again.provenance["config"].items() if k != "draw"}
    replace(again, acc=acc, provenance={**again.provenance, "config": older}).save(out)
    with pytest.raises(UserError, match="other settings"):
        collect(digits, checkpoint, "digits", replace(TINY, draw="sizes"), out)
    assert np.array_equal(collect(digits, checkpoint, "digits", TINY, out).acc, table.acc)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_collection_stops_soon(digits, checkpoint, tmp_path, jobs):
    """Two thousand networks would take minutes. What was measured is kept."""

    def interrupt(_done, _total):
        raise KeyboardInterrupt

    config = SampleConfig(2000, 2, 2, 2)
    begun = time.perf_counter()
    path = tmp_path / "s.npz"
    with pytest.raises(KeyboardInterrupt):
        collect(digits, checkpoint, "digits", config, path, jobs=jobs, callback=interrupt)
    assert time.perf_counter() - begun < 40
    assert len(np.flatnonzero(np.isfinite(load_samples(path, digits).acc))) == 16


def test_a_supernet_of_another_space_is_refused(full, checkpoint, tmp_path):
    with pytest.raises(UserError, match="belongs to another space"):
        collect(full, checkpoint, "digits", TINY, tmp_path / "s.npz")
    assert not (tmp_path / "s.npz").exists()


def test_tables_round_trip_and_refuse_damage(digits, full, tmp_path):
    drawn = draw(digits, TINY)
    acc = np.arange(len(drawn.X), dtype=float)
    acc[0] = np.nan
    table = SampleTable(drawn.X, drawn.group, acc, {"space": "digits", "digest": digits.digest})
    path = tmp_path / "samples.npz"
    table.save(path)
    again = load_samples(path, digits)
    assert np.isnan(again.acc_test).all()
    assert again.unmeasured().tolist() == [12, 13, 14, 15, 16, 17, 0]
    with np.load(path) as held:
        older = {name: held[name] for name in held if name != "acc_test"}
    np.savez(tmp_path / "older.npz", **older)
    assert np.isnan(load_samples(tmp_path / "older.npz", digits).acc_test).all()
    np.savez(tmp_path / "odd.npz", **older, acc_test=np.zeros(3))
    with pytest.raises(UserError, match="arrays of the wrong shape or type"):
        load_samples(tmp_path / "odd.npz", digits)
    assert np.array_equal(again.X, table.X)
    assert np.array_equal(again.acc, table.acc, equal_nan=True)
    assert len(again.rows("fp")[0]) == 5
    drawn_of_each = {"fp": 5, "mp": 6, "fp_held_out": 3, "mp_held_out": 3}
    assert again.counts() == {**drawn_of_each, "mp_found": 0}
    with pytest.raises(UserError, match="another space"):
        load_samples(path, full)
    content = path.read_bytes()
    for i, bad in enumerate((content[:-200], b"junk", b"", content[:100] + bytes(50))):
        broken = tmp_path / f"{i}.npz"
        broken.write_bytes(bad)
        with pytest.raises(UserError, match=r"cannot read samples") as error:
            load_samples(broken, digits)
        assert "\n" not in str(error.value)

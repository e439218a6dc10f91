"""Which members of a front are measured, and the front that is selected from them."""

import csv
from itertools import combinations

import numpy as np
import pytest

from apq_moo.problems import accuracy
from apq_moo.results import verification
from apq_moo.results.run import Listener, execute
from apq_moo.results.verification import PER_SHOWN, diverse, measured_front, shown_members
from apq_moo.study.config import RunConfig
from apq_moo.study.folder import RunFolder


def test_members_far_apart_are_measured():
    """Both ends, then whatever is farthest from those chosen; costs are not scaled by hand."""
    F = np.column_stack([-np.array([60.0, 61, 62, 80, 81, 90]), [1e3, 2e3, 3e3, 4e3, 5e3, 21e3]])
    assert diverse(F, 2).tolist() == [0, 5]
    assert diverse(F, 3).tolist() == [0, 4, 5]
    assert diverse(F, 9).tolist() == [0, 1, 2, 3, 4, 5]
    assert diverse(np.zeros((4, 3)), 2).tolist() == [0, 1]


def test_they_are_within_twice_of_the_best_choice():
    """Gonzalez's bound on the distance from any member to the nearest chosen one."""
    rng = np.random.default_rng(0)
    F = rng.random((14, 2))
    scaled = (F - F.min(axis=0)) / np.ptp(F, axis=0)

    def radius(rows):
        return np.linalg.norm(scaled[:, None] - scaled[list(rows)], axis=2).min(axis=1).max()

    best = min(radius(rows) for rows in combinations(range(14), 5))
    assert radius(diverse(F, 5)) <= 2 * best


def test_the_measured_front_is_that_of_measured_accuracies():
    F = np.array([[-90.0, 1.0], [-92.0, 2.0], [-94.0, 3.0], [-96.0, 4.0]])
    measured = np.array([90.0, 89.0, 93.0, 93.0])
    found = measured_front(F, ("acc", "latency"), measured)
    assert found.tolist() == [True, False, True, False]
    found = measured_front(F, ("acc", "latency"), measured, least=91.0)
    assert found.tolist() == [False, False, True, False]
    assert not measured_front(F, ("acc", "latency"), measured, least=99.0).any()
    assert measured_front(F, ("energy", "latency"), measured).all()  # nothing new of these


class Swapped(accuracy.ExactSource):
    """Measures that the most accurate third is worth nothing."""

    where = "here"
    n_images = None

    def __init__(self, space):
        super().__init__("swapped", space, {})
        self.asked = None

    def predict_blocks(self, index):
        raise AssertionError(f"{len(index)} networks are asked for without their test accuracy")

    def estimate_s(self, X, splits=1):
        return 61.0 * len(X) * splits

    def measure(self, X, callback=lambda _done: None):
        self.asked = X
        callback(len(X))
        size = X.sum(axis=1)
        found = np.where(size > np.quantile(size, 2 / 3), 0.0, 50 + size / 100)
        return np.column_stack([found, found - 1])


@pytest.mark.parametrize("k", [3, 8])
def test_three_times_as_many_are_measured_as_shown(k, tmp_path, monkeypatch):
    source = {}

    def make(space, *_given):
        source["it"] = Swapped(space)
        return source["it"]

    monkeypatch.setattr(verification, "exact_source", make)
    config = RunConfig("nsga2", space="digits", predictor="additive", budget=600, pop_size=50)
    folder = RunFolder.create(tmp_path / "a", config, verify=k, overwrite=False)
    lines = []
    columns = execute(folder, Listener(say=lines.append))
    n = PER_SHOWN * k
    assert len(source["it"].asked) == n
    assert lines == [
        f"measuring {n} networks, to show up to {k}, on the supernet here takes about "
        f"{round(n * 122 / 60)} min"
    ]
    with (tmp_path / "a" / "front.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0])[2:5] == ["acc_val_true", "acc_test", "measured_front"]
    measured = [row for row in rows if row["acc_test"]]
    assert len(measured) == n
    assert {row["measured_front"] for row in rows if not row["acc_test"]} == {""}
    for row in measured:
        beaten = any(
            float(other["acc_val_true"]) >= float(row["acc_val_true"])
            and float(other["latency"]) <= float(row["latency"])
            and other is not row
            for other in measured
        )
        assert row["measured_front"] == ("0" if beaten else "1")
    on_front = [i for i, row in enumerate(rows) if row["measured_front"] == "1"]
    assert folder.record["verified"]["front"] == len(on_front)
    shown = shown_members(folder, columns)
    assert set(shown) <= set(on_front)
    assert len(shown) == min(k, len(on_front))
    assert shown_members(folder, RunFolder.open(tmp_path / "a").read_front()) == shown

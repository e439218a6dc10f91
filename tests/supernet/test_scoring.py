"""One pass over all splits gives what a pass over each gives, and what the evaluator says."""

import numpy as np
import pytest
import torch

from apq_moo.supernet import evaluation
from apq_moo.supernet.evaluation import Evaluator
from apq_moo.supernet.scoring import Scorer

SPLITS = ("validation", "test", "test_clean")


@pytest.fixture(scope="module")
def subnets(digits):
    return digits.decode(digits.sample(3, np.random.default_rng(4)))


@pytest.mark.parametrize("quantised", [False, True])
def test_counts_are_the_evaluator_s(nets, image_set, subnets, quantised):
    net = nets["digits"]
    scorer = Scorer(net, image_set)
    found = scorer.count(subnets, SPLITS, quantised=quantised)
    evaluator = Evaluator(net, torch.from_numpy(image_set.calibration.images))
    for row, subnet in zip(found, subnets, strict=True):
        for right, name in zip(row, SPLITS, strict=True):
            split = image_set.split(name)
            logits = evaluator.logits(
                subnet, torch.from_numpy(split.images), quantised=quantised
            ).numpy()
            assert right == (logits.argmax(1) == split.labels).sum()
    percent = scorer.accuracies(subnets, SPLITS, quantised=quantised)
    sizes = [len(image_set.split(name)) for name in SPLITS]
    np.testing.assert_array_equal(percent, 100.0 * (found / np.array(sizes)))
    (hits,) = scorer.hits(subnets[:1], SPLITS, quantised=quantised)
    assert [len(part) for part in hits] == sizes
    assert [part.sum() for part in hits] == found[0].tolist()


def test_each_subnet_runs_as_asked(nets, image_set, subnets):
    scorer = Scorer(nets["digits"], image_set)
    floats, bits = (
        scorer.count(subnets, SPLITS[:1], quantised=quantised) for quantised in (False, True)
    )
    mixed = scorer.count(subnets, SPLITS[:1], quantised=np.array([True, False, True]))
    assert mixed[:, 0].tolist() == [bits[0, 0], floats[1, 0], bits[2, 0]]
    assert floats.tolist() != bits.tolist()


def test_a_network_is_calibrated_once_for_all_splits(nets, image_set, subnets, monkeypatch):
    calls = []
    calibrate = evaluation.calibrate
    monkeypatch.setattr(
        evaluation, "calibrate", lambda *a, **k: calls.append(a) or calibrate(*a, **k)
    )
    Scorer(nets["digits"], image_set).count(subnets, SPLITS, quantised=True)
    assert len(calls) == len(subnets)


def test_the_estimate_grows_with_the_images(nets, image_set, subnets, monkeypatch):
    """By a clock that ticks once a call: one for what is timed, 512 images and the calibration."""
    ticks = iter(range(100))
    monkeypatch.setattr("apq_moo.supernet.scoring.time.perf_counter", lambda: float(next(ticks)))
    scorer = Scorer(nets["digits"], image_set)
    n = {name: len(image_set.split(name)) for name in (*SPLITS, "calibration")}
    timed = min(512, n["validation"]) + 3 * n["calibration"]
    for splits in (SPLITS[:1], SPLITS[:2]):
        images = sum(n[name] for name in splits) + 3 * n["calibration"]
        found = scorer.estimate_s(subnets[0], splits)
        assert found == pytest.approx(max(1.0, images / timed))

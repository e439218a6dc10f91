"""How much accuracies depend on the images that calibrate."""

from typing import ClassVar

import numpy as np
import pytest

from apq_moo.data import load_images
from apq_moo.pipeline import stages


class Scores:
    """Accuracies that are the mean brightness of the calibration images, in thousandths."""

    seen: ClassVar[list[float]] = []

    def __init__(self, _supernet, images):
        assert len(images.calibration) == len(images.train)  # the whole of a small set
        self.value = 1000 * float(images.calibration.images[:10].mean())
        self.seen.append(self.value)

    def accuracies(self, subnets, splits, *, quantised):
        assert splits == ["validation"]
        weights = np.arange(1, len(subnets) + 1, dtype=float)[:, None]
        return self.value * weights * (2.0 if quantised else 1.0)


def test_noise_of_calibration_by_hand(monkeypatch):
    monkeypatch.setattr(stages, "Scorer", Scores)
    images = load_images("digits")
    assert len(images.calibration) <= len(images.train)

    rng = np.random.default_rng(0)
    found = stages._calibration_noise(None, images, ["a", "b", "c"], rng)
    assert len(set(Scores.seen)) == 4
    deviation = np.std(Scores.seen, ddof=1)
    assert deviation > 0
    wanted = deviation * np.sqrt((1 + 4 + 9) / 3)
    assert found["fp"] == pytest.approx(wanted)
    assert found["mp"] == pytest.approx(2 * wanted)


def test_both_kinds_of_noise_add_as_squares():
    noise = stages.Evaluation({}, {}, {}, {}, {"mp": 3.0}, {"mp": 4.0}, {})
    assert noise.total_noise("mp") == 5.0

"""Images kept as bytes: the floats that networks see, against exact fractions and float images."""

from dataclasses import replace
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
import torch

from apq_moo.data import load_images
from apq_moo.data.assets import SUPERNET, find_assets
from apq_moo.data.augmentation import Augmentation
from apq_moo.data.images import Split, joined
from apq_moo.data.pixels import as_floats, floats_of, in_ten_thousandths
from apq_moo.supernet.batches import Batches
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.scoring import Scorer

ALL = np.arange(256, dtype=np.uint8)


def nearest(byte):
    """The single-precision number nearest to ``byte / 255``, among those around it."""
    about = np.float32(byte / 255)
    around = (np.nextafter(about, np.float32(-1)), about, np.nextafter(about, np.float32(2)))
    return min(around, key=lambda x: abs(Fraction(float(x)) - Fraction(byte, 255)))


def test_floats_are_the_nearest_to_the_quotient():
    wanted = np.array([nearest(byte) for byte in range(256)], dtype=np.float32)
    np.testing.assert_array_equal(floats_of(ALL), wanted)
    np.testing.assert_array_equal(as_floats(torch.from_numpy(ALL)).numpy(), wanted)
    # as a device that multiplies by the reciprocal finds them
    np.testing.assert_array_equal((ALL.astype(float) * (1 / 255)).astype(np.float32), wanted)
    digits = np.rint(wanted * 10_000).astype(np.int32)
    np.testing.assert_array_equal(in_ten_thousandths(ALL), digits)
    np.testing.assert_array_equal(in_ten_thousandths(wanted), digits)


@pytest.fixture
def twins(image_set):
    """The same images as bytes and as floats."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    split = Split(pixels, rng.integers(0, 10, 60))
    floats = Split(split.images, split.labels)
    augment = Augmentation(max_shift=2, max_erase=3)
    return [
        replace(
            image_set, train=of, calibration=of[:20], validation=of[20:50], test=of[:7],
            test_clean=of[:7], augment=augment,
        )
        for of in (split, floats)
    ]  # fmt: skip


def test_bytes_are_trained_on_and_scored_as_floats_are(twins, digits):
    kept, floats = twins
    assert kept.train.pixels.dtype == np.uint8
    assert kept.checksum == floats.checksum
    batches = [islice(Batches(of, 16, 5, torch.device("cpu")).from_step(0), 5) for of in twins]
    for (x, y), (u, v) in zip(*batches, strict=True):
        assert x.dtype == torch.float32
        assert torch.equal(x, u)
        assert torch.equal(y, v)
    supernet, _ = load_supernet(find_assets(digits).path(SUPERNET), digits)
    subnets = digits.decode(digits.smallest())
    for quantised in (False, True):
        found, wanted = (
            Scorer(supernet, of).hits(subnets[:1], ["validation", "test"], quantised=quantised)
            for of in twins
        )
        for a, b in zip(found[0], wanted[0], strict=True):
            np.testing.assert_array_equal(a, b)


def test_joined_splits_keep_their_kind(twins):
    kept, floats = (of.test for of in twins)
    assert joined([kept, kept[:2]]).pixels.dtype == np.uint8
    mixed = joined([kept, floats])
    assert len(mixed) == 14
    np.testing.assert_array_equal(mixed.images[:7], mixed.images[7:])


def test_the_digits_are_floats_since_they_are_distorted():
    assert load_images("digits").train.pixels.dtype == np.float32

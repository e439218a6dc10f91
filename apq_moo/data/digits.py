"""The 1,797 handwritten digits that ship with scikit-learn, made hard enough to rank networks.

Networks of any sensible size are nearly perfect on the images as they are, so that accuracies
differ by little more than chance. Search and reports therefore use each held-out image under eight
fixed, seeded distortions.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998 (its test set, as scikit-learn distributes it).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from apq_moo.arrays import FloatArray
from apq_moo.data.images import IMAGES, ImageSet, Split
from apq_moo.data.pixels import FloatImages

SPLIT_SEED = 20200614
"""Seed of the split and of the fixed distortions."""

N_HELD_OUT = 450
"""Images in the validation split, and again in the test split, before distortion."""

N_DISTORTIONS = 8
"""Distorted copies of each held-out image."""


def distort(images: FloatImages, rng: np.random.Generator) -> FloatImages:
    """Rotate, scale, shift and roughen images, each differently.

    Rotation within 25 degrees, scale 0.8 to 1.2, shift within 1 pixel, and Gaussian noise of
    standard deviation up to 0.2, all uniform; bilinear, black beyond the border.

    Args:
        images: shape ``(n, 1, height, width)`` in [0, 1].
        rng: where the randomness comes from.

    Returns:
        New images of the same shape, in [0, 1].
    """
    n = len(images)
    height, width = images.shape[2:]
    angle = np.deg2rad(rng.uniform(-25, 25, n))
    scale = rng.uniform(0.8, 1.2, n)
    shift = rng.uniform(-1, 1, (2, n))
    sigma = rng.uniform(0, 0.2, n)
    y, x = np.meshgrid(
        np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij"
    )
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    along = (slice(None), None, None)
    source_y = cos[along] * y - sin[along] * x + shift[0][along] + (height - 1) / 2
    source_x = sin[along] * y + cos[along] * x + shift[1][along] + (width - 1) / 2
    moved = _bilinear(images[:, 0], source_y, source_x)
    moved += sigma[along] * rng.standard_normal((n, height, width))
    return np.clip(moved, 0, 1).astype(np.float32)[:, None]


def augment(images: FloatImages, rng: np.random.Generator) -> FloatImages:
    """Distort three images of four; the others, on average, stay as they are.

    Args:
        images: shape ``(n, 1, height, width)`` in [0, 1].
        rng: where the randomness comes from.
    """
    kept = rng.random(len(images)) < 0.25
    return np.where(kept[:, None, None, None], images, distort(images, rng))


def _bilinear(images: FloatImages, y: FloatArray, x: FloatArray) -> FloatArray:
    """Sample each image at its own coordinates, zero outside; all of shape ``(n, h, w)``."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    n, height, width = padded.shape
    y = np.clip(y + 1, 0, height - 1.001)
    x = np.clip(x + 1, 0, width - 1.001)
    top, left = y.astype(np.int64), x.astype(np.int64)
    dy, dx = y - top, x - left
    row = np.arange(n)[:, None, None]
    upper = padded[row, top, left] * (1 - dx) + padded[row, top, left + 1] * dx
    lower = padded[row, top + 1, left] * (1 - dx) + padded[row, top + 1, left + 1] * dx
    mixed: FloatArray = upper * (1 - dy) + lower * dy
    return mixed


def _hard(split: Split, rng: np.random.Generator) -> Split:
    images = np.concatenate([distort(split.images, rng) for _ in range(N_DISTORTIONS)])
    return Split(images, np.tile(split.labels, N_DISTORTIONS))


@IMAGES.add("digits")
@cache
def load_digits() -> ImageSet:
    """The digits: 897 to train on, 450 x 8 for validation, 450 x 8 for the test."""
    from sklearn.datasets import load_digits as load

    bunch = load()
    images = (bunch.images / 16).astype(np.float32)[:, None]
    labels = bunch.target.astype(np.int64)
    rng = np.random.default_rng(SPLIT_SEED)
    order = rng.permutation(len(labels))
    parts = np.split(order, [len(order) - 2 * N_HELD_OUT, len(order) - N_HELD_OUT])
    train, validation, test = (Split(images[part], labels[part]) for part in parts)
    return ImageSet(
        name="digits",
        train=train,
        calibration=Split(augment(train.images, rng), train.labels),
        validation=_hard(validation, rng),
        test=_hard(test, rng),
        test_clean=test,
        augment=augment,
    )

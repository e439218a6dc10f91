"""Augmented images against a twin that treats them one by one, and what is drawn."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from apq_moo.data.augmentation import AUGMENTATIONS, Augmentation, Draws, Erasing, apply


def twin(images, draws):
    """The augmented images, pixel by pixel."""
    result = np.zeros_like(images)
    n, _, height, width = images.shape
    for i in range(n):
        image = images[i, :, :, ::-1] if draws.mirrored[i] else images[i]
        top = draws.hole_row[i] - draws.side[i] // 2
        left = draws.hole_column[i] - draws.side[i] // 2
        for y in range(height):
            for x in range(width):
                above, before = y - draws.down[i], x - draws.right[i]
                inside = 0 <= above < height and 0 <= before < width
                hole = 0 <= y - top < draws.side[i] and 0 <= x - left < draws.side[i]
                if inside and not hole:
                    result[i, :, y, x] = image[:, above, before]
    return result


def pixels(shape, seed=0):
    """Positive pixels, so that black is only what was made so."""
    return np.random.default_rng(seed).uniform(0.01, 1, shape).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(0, 5),
    channels=st.integers(1, 3),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    mirror=st.booleans(),
    max_shift=st.integers(0, 11),
    max_erase=st.integers(0, 12),
    seed=st.integers(0, 2**32),
)
def test_arrays_tensors_and_the_twin_agree_to_the_bit(
    n, channels, height, width, mirror, max_shift, max_erase, seed
):
    augmentation = Augmentation(mirror, max_shift, max_erase)
    images = pixels((n, channels, height, width), seed)
    before = images.copy()
    draws = augmentation.draw(n, height, width, np.random.default_rng(seed))
    expected = twin(images, draws)
    on_array = augmentation(images, np.random.default_rng(seed))
    assert on_array.dtype == np.float32
    np.testing.assert_array_equal(on_array, expected)
    np.testing.assert_array_equal(apply(torch.from_numpy(images), draws).numpy(), expected)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize(
    "dtype",
    ["uint8", "int8", "int16", "int64", "float16", "bfloat16", "float32", "float64", "bool"],
)
def test_any_type(dtype):
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (6, 3, 7, 5)))
    images = images.to(getattr(torch, dtype))
    draws = Augmentation(max_erase=4).draw(6, 7, 5, np.random.default_rng(1))
    found = apply(images, draws)
    assert found.dtype == images.dtype
    np.testing.assert_array_equal(
        found.double().numpy(), twin(images.double().numpy(), draws).astype(np.float64)
    )


def test_any_layout():
    rng = np.random.default_rng
    augmentation, images = Augmentation(max_erase=3), pixels((4, 3, 6, 8))
    expected = augmentation(images, rng(0))
    odd = {
        "backwards": np.ascontiguousarray(images[::-1, ..., ::-1])[::-1, ..., ::-1],
        "channels last": np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "read-only": np.frombuffer(images.tobytes(), dtype=np.float32).reshape(images.shape),
    }
    for array in odd.values():
        np.testing.assert_array_equal(augmentation(array, rng(0)), expected)
    last = torch.from_numpy(images).to(memory_format=torch.channels_last)
    draws = augmentation.draw(4, 6, 8, rng(0))
    np.testing.assert_array_equal(apply(last, draws).numpy(), expected)


def test_worked_by_hand():
    image = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=np.float32)[None, None]
    zero, one = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64)
    still = Draws(zero == 1, zero, zero, zero, zero, zero)
    cases = [
        (still, [[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
        (Draws(zero == 0, zero, zero, zero, zero, zero), [[3, 2, 1], [6, 5, 4], [9, 8, 7]]),
        (Draws(zero == 1, one, zero, zero, zero, zero), [[0, 0, 0], [1, 2, 3], [4, 5, 6]]),
        (Draws(zero == 1, zero, -one, zero, zero, zero), [[2, 3, 0], [5, 6, 0], [8, 9, 0]]),
        (Draws(zero == 0, zero, one, zero, zero, zero), [[0, 3, 2], [0, 6, 5], [0, 9, 8]]),
        (Draws(zero == 1, zero, zero, one, one, one), [[1, 2, 3], [4, 0, 6], [7, 8, 9]]),
        (Draws(zero == 1, zero, zero, 2 * one, 2 * one, one), [[1, 2, 3], [0, 0, 6], [0, 0, 9]]),
        (Draws(zero == 1, zero, zero, 3 * one, zero, zero), [[0, 0, 3], [0, 0, 6], [7, 8, 9]]),
    ]
    for draws, expected in cases:
        np.testing.assert_array_equal(apply(torch.from_numpy(image), draws)[0, 0], expected)


def test_draws_are_uniform():
    n = 60_000
    draws = Augmentation(max_shift=2, max_erase=5).draw(n, 9, 7, np.random.default_rng(0))
    uniform = {
        "down": (draws.down, range(-2, 3)),
        "right": (draws.right, range(-2, 3)),
        "side": (draws.side, range(6)),
        "hole_row": (draws.hole_row, range(9)),
        "hole_column": (draws.hole_column, range(7)),
        "mirrored": (draws.mirrored.astype(int), range(2)),
    }
    for name, (values, among) in uniform.items():
        assert values.shape == (n,)
        assert set(values.tolist()) == set(among), name
        assert chisquare([(values == value).sum() for value in among]).pvalue > 1e-3, name


def test_nothing_to_do():
    images = pixels((50, 1, 6, 6))
    same = Augmentation(mirror=False, max_shift=0)(images, np.random.default_rng(0))
    np.testing.assert_array_equal(same, images)


def test_the_same_generator_gives_the_same_images():
    augmentation, images = Augmentation(max_erase=2), pixels((40, 1, 8, 8))
    a, b, c = (augmentation(images, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_importing_the_data_room_imports_no_torch():
    code = (
        "import sys, apq_moo.data, apq_moo.data.augmentation, apq_moo.data.sources;"
        "print({'torch', 'torchvision', 'PIL', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "set()"


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(0, 5),
    channels=st.integers(1, 3),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
def test_erasing_agrees_with_a_twin(n, channels, height, width, seed):
    images = pixels((n, channels, height, width), seed)
    erasing = AUGMENTATIONS["erasing"]
    rectangles, values = erasing.draw(images.shape, np.random.default_rng(seed))
    expected = images.copy()
    for i, (row, column, tall, wide) in enumerate(rectangles.T):
        assert 0 <= row <= height - max(tall, 1)
        assert 0 <= column <= width - max(wide, 1)
        expected[i, :, row : row + tall, column : column + wide] = values[i, :, None, None]
    found = erasing(torch.from_numpy(images), np.random.default_rng(seed))
    np.testing.assert_array_equal(found.numpy(), expected)


def test_erased_rectangles_are_the_paper_s():
    n = 20_000
    rectangles, values = Erasing().draw((n, 2, 60, 50), np.random.default_rng(0))
    _, _, tall, wide = rectangles
    erased = tall > 0
    assert np.array_equal(erased, wide > 0)
    assert erased.mean() == pytest.approx(0.5, abs=0.02)
    area = (tall * wide)[erased] / 3000
    assert area.max() == pytest.approx(0.4, abs=0.02)
    assert area.min() == pytest.approx(0.02, abs=0.005)
    assert area.mean() == pytest.approx(0.2, abs=0.02)
    ratio = np.log(tall[erased] / wide[erased])
    assert np.abs(ratio).max() == pytest.approx(np.log(10 / 3), abs=0.2)
    assert ratio.mean() == pytest.approx(0, abs=0.03)
    assert values.shape == (n, 2)
    assert values.mean() == pytest.approx(0.5, abs=0.02)

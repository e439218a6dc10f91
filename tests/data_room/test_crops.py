"""Squares of images against torchvision's, and random parts against a loop."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize
from torchvision.transforms.v2 import functional

from apq_moo.data import crops
from apq_moo.data.crops import RandomParts, scaled_parts, shorter_side, window


def noise(width, height, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@given(width=st.integers(3, 300), height=st.integers(3, 300), size=st.integers(4, 200))
@settings(max_examples=60, deadline=None)
def test_an_evaluation_sees_what_torchvision_cuts(width, height, size):
    """But for the last bits of the filter's places, which stand on both sides of a rounding."""
    image, shorter = noise(width, height), shorter_side(size)
    wanted = np.asarray(Compose([Resize(shorter), CenterCrop(size)])(image)).astype(int)
    found = np.asarray(window(image, shorter, size)).astype(int)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 2
    if min(width, height) == shorter:
        assert (found == wanted).all()


def test_sizes_are_those_of_imagenet():
    assert [shorter_side(size) for size in (224, 8, 1)] == [256, 9, 1]


@pytest.mark.parametrize(("width", "height"), [(30, 20), (20, 30)])
def test_places_lie_along_the_longer_side(width, height):
    image = noise(width, height)
    pixels = np.asarray(image)
    for place, first in ((0.0, 0), (0.5, 5), (1.0, 10)):
        found = np.asarray(window(image, 20, 20, place))
        rows = slice(first, first + 20)
        wanted = pixels[:, rows] if width > height else pixels[rows]
        np.testing.assert_array_equal(found, wanted)


def test_long_images_take_no_more_memory_than_their_square():
    image = Image.new("L", (200_000, 2), 7)  # at 256 pixels it would have 6.5 billion
    assert window(image, 256, 224).tobytes() == bytes([7]) * 224**2


def test_parts_are_the_first_of_ten_that_fit():
    parts = RandomParts()
    found = parts.draw(300, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    area, power = rng.uniform(0.08, 1, (300, 10)), rng.uniform(-0.5, 0.5, (300, 10))
    corners, mirrored = rng.random((300, 2)), rng.random(300) < 0.5
    for row, (left, top, width, height, mirror) in enumerate(found):
        side = (1.0, 1.0)
        for share, p in zip(area[row], power[row], strict=True):
            wide, tall = np.sqrt(share) * (4 / 3) ** p, np.sqrt(share) / (4 / 3) ** p
            if wide <= 1 and tall <= 1:
                side = (wide, tall)
                break
        assert (width, height) == pytest.approx(side)
        assert (left, top) == pytest.approx(corners[row] * (1 - np.array(side)))
        assert mirror == mirrored[row]


def test_parts_lie_within_and_are_as_large_as_is_said():
    found = RandomParts().draw(20_000, np.random.default_rng(0))
    left, top, width, height, mirrored = found.T
    assert min(left.min(), top.min()) >= 0
    assert max((left + width).max(), (top + height).max()) <= 1
    area, ratio = width * height, width / height
    assert 0.08 <= area.min() < 0.081
    assert area.max() <= 1
    # An area of a fits with probability min(1, -ln a / ln(4/3)); integrated over 0.08 ... 1.
    assert area.mean() == pytest.approx(0.37703 / 0.78902, abs=0.005)
    assert 0.75 <= ratio.min() < 0.76
    assert 1.32 < ratio.max() <= 4 / 3 + 1e-12
    assert abs(mirrored.mean() - 0.5) < 0.01


def test_the_whole_is_itself_and_mirrored_its_mirror():
    pixels = torch.from_numpy(np.asarray(noise(12, 12)).copy())[None].expand(2, -1, -1, -1)
    parts = np.array([[0, 0, 1, 1, 0], [0, 0, 1, 1, 1]], dtype=float)
    found = scaled_parts(pixels, parts, 12)
    wanted = pixels[0].permute(2, 0, 1).float() / 255
    torch.testing.assert_close(found[0], wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], wanted.flip(2), atol=1e-5, rtol=0)


def test_parts_are_those_of_torchvision():
    """Away from the rim, beyond which torchvision knows nothing of the image."""
    pixels = torch.from_numpy(np.asarray(noise(40, 40)).copy())[None]
    image = pixels.permute(0, 3, 1, 2).float() / 255
    for top, left, height, width in ((3, 5, 20, 30), (0, 0, 40, 17), (11, 2, 25, 24)):
        parts = np.array([[left, top, width, height, 0]]) / np.array([40, 40, 40, 40, 1])
        found = scaled_parts(pixels, parts, 50)
        wanted = functional.resized_crop(image, top, left, height, width, [50, 50], antialias=False)
        inner = slice(3, -3)
        torch.testing.assert_close(
            found[..., inner, inner], wanted[..., inner, inner], atol=1e-4, rtol=0
        )


def test_a_few_images_at_a_time_are_scaled(monkeypatch):
    """So that those of a step take little memory beside what comes of them."""
    rng = np.random.default_rng(1)
    pixels = torch.from_numpy(rng.integers(0, 256, (300, 9, 9, 3), dtype=np.uint8))
    parts, sizes = RandomParts().draw(300, rng), []
    way = crops._scaled
    monkeypatch.setattr(crops, "_scaled", lambda *of: sizes.append(len(of[0])) or way(*of))
    found = scaled_parts(pixels, parts, 7)
    assert sizes == [128, 128, 44]
    for some in (slice(9), slice(120, 135), slice(290, 300)):
        assert torch.equal(found[some], scaled_parts(pixels[some], parts[some], 7))

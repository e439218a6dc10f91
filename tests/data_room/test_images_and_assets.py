"""The digits and their distortions; folders of assets and their checksums."""

import json

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from apq_moo.data import load_images
from apq_moo.data.assets import find_assets, write_manifest
from apq_moo.data.digits import _bilinear, augment, distort
from apq_moo.errors import UserError
from apq_moo.space import load_space


def test_splits():
    images = load_images("digits")
    sizes = [len(images.split(name)) for name in ("train", "validation", "test", "test_clean")]
    assert sizes == [897, 3600, 3600, 450]
    assert len(images.calibration) == 897
    for name in ("train", "calibration", "validation", "test", "test_clean"):
        split = images.split(name)
        assert split.images.dtype == np.float32
        assert 0 <= split.images.min() <= split.images.max() <= 1
    assert np.array_equal(images.test.labels, np.tile(images.test_clean.labels, 8))


def test_splits_are_disjoint_parts_of_the_source():
    from sklearn.datasets import load_digits

    images = load_images("digits")
    source = load_digits().images.astype(np.float32).reshape(-1, 64) / 16
    known = {row.tobytes() for row in source}
    train = {row.tobytes() for row in images.train.images.reshape(-1, 64)}
    test = {row.tobytes() for row in images.test_clean.images.reshape(-1, 64)}
    assert train <= known
    assert test <= known
    assert not train & test


def test_the_set_is_the_same_every_time():
    from apq_moo.data.digits import load_digits

    assert load_digits.__wrapped__().checksum == load_images("digits").checksum


def test_bilinear_sampling_against_scipy():
    rng = np.random.default_rng(0)
    images = rng.random((5, 8, 8)).astype(np.float32)
    y, x = rng.uniform(-0.9, 7.9, (2, 5, 8, 8))
    expected = np.stack(
        [
            map_coordinates(np.pad(image, 1), [b + 1, a + 1], order=1)
            for image, b, a in zip(images, y, x, strict=True)
        ]
    )
    np.testing.assert_allclose(_bilinear(images, y, x), expected, atol=1e-5)


def test_beyond_the_border_it_is_black():
    ones = np.ones((1, 8, 8), dtype=np.float32)
    far = np.full((1, 8, 8), 20.0)
    np.testing.assert_allclose(_bilinear(ones, far, far), 0, atol=2e-3)


def test_distortions_depend_on_the_generator_alone():
    images = load_images("digits").train.images[:50]
    a, b, c = (distort(images, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    correlation = np.corrcoef(a.ravel(), images.ravel())[0, 1]
    assert 0.5 < correlation < 0.98


def test_a_quarter_of_the_training_images_stays_as_it_is():
    images = np.repeat(load_images("digits").train.images, 4, axis=0)
    same = (augment(images, np.random.default_rng(0)) == images).all(axis=(1, 2, 3)).mean()
    assert abs(same - 0.25) < 0.03


def test_unknown_images_are_named():
    with pytest.raises(UserError, match=r"unknown image set 'cats'; known: .*digits.*folder:"):
        load_images("cats")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "supernet.safetensors").write_bytes(b"weights")
    (tmp_path / "samples.npz").write_bytes(b"samples")
    write_manifest(
        tmp_path,
        load_space("digits"),
        ["supernet.safetensors", "samples.npz"],
        images="digits",
        images_sha256="0",
    )
    return tmp_path


def test_assets_are_found_and_checked(folder):
    assets = find_assets(load_space("digits"), folder)
    assert assets.path("samples.npz").read_bytes() == b"samples"
    assert assets.has("samples.npz")
    assert not assets.has("predictors/mlp.safetensors")
    assert assets.images == "digits"
    with pytest.raises(UserError, match=r"has no 'other'; it has: samples\.npz"):
        assets.path("other")


@pytest.mark.parametrize("content", [b"altered", b"", None])
def test_damaged_assets_are_refused(folder, content):
    path = folder / "samples.npz"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"samples\.npz") as error:
        find_assets(load_space("digits"), folder).path("samples.npz")
    assert "\n" not in str(error.value)


def test_assets_of_another_space_are_refused(folder):
    with pytest.raises(UserError, match="another space"):
        find_assets(load_space("imagenet"), folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "other"}', json.dumps({"files": 3})])
def test_malformed_manifests_are_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="manifest") as error:
        find_assets(load_space("digits"), folder)
    assert "\n" not in str(error.value)


def test_a_space_without_assets_says_how_to_make_them():
    with pytest.raises(UserError, match="apq-moo pipeline"):
        find_assets(load_space("imagenet"))

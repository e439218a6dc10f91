"""Users' images in folders: which become what, how they are cut, and what is refused."""

import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from apq_moo.data import folders, images_of, load_images
from apq_moo.data.assets import find_assets, write_manifest
from apq_moo.data.augmentation import Augmentation
from apq_moo.data.folders import load_image_folder
from apq_moo.data.images import check_images
from apq_moo.data.inspecting import inspect
from apq_moo.errors import UserError
from apq_moo.files import read_toml
from apq_moo.space import Space, SpaceSpec, load_space

COLOURS = {"cat": (200, 10, 30), "dog": (20, 220, 40), "owl": (5, 60, 240)}


def fill(folder, splits, shape=(12, 9)):
    """For every class ``n`` images of its colour; their red differs by one each. Lossless."""
    for split, n in splits.items():
        for name, (red, green, blue) in COLOURS.items():
            place = folder / split / name
            place.mkdir(parents=True)
            for i in range(n):
                Image.new("RGB", shape, (red + i, green, blue)).save(place / f"{i:03}.png")


@pytest.fixture(autouse=True)
def forgotten(tmp_path, monkeypatch):
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))
    folders.load_named_folder.cache_clear()
    yield
    folders.load_named_folder.cache_clear()


def reds(split):
    """Class and number of every image, from its pixels."""
    bytes_ = np.rint(255 * split.images).astype(int)
    assert (bytes_ == bytes_[:, :, :1, :1]).all()
    found = []
    for red, green, blue in bytes_[:, :, 0, 0]:
        name = next(i for i, colour in enumerate(COLOURS.values()) if colour[1:] == (green, blue))
        found.append((name, red - list(COLOURS.values())[name][0]))
    return found


def everything(n):
    return [(name, i) for name in range(3) for i in range(n)]


def test_three_folders_are_the_three_splits(tmp_path):
    fill(tmp_path, {"train": 8, "val": 3, "test": 2})
    images = load_image_folder(tmp_path, size=4)
    for split, n in ((images.train, 8), (images.validation, 3), (images.test, 2)):
        assert split.images.shape == (3 * n, 3, 4, 4)
        assert split.images.dtype == np.float32
        assert split.images.flags.c_contiguous
        assert split.labels.dtype == np.int64
        assert sorted(reds(split)) == everything(n)
        assert [name for name, _ in reds(split)] == split.labels.tolist()
    assert images.test_clean is images.test
    assert images.name == f"folder:{tmp_path}@4"
    # Calibration takes the first images, which must not be all of one class.
    assert set(images.train.labels[:8]) == {0, 1, 2}


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_one_held_out_folder_is_the_test(tmp_path, held_out):
    fill(tmp_path, {"train": 10, held_out: 4})
    images = load_image_folder(tmp_path, size=4, validation_fraction=0.2)
    assert sorted(reds(images.test)) == everything(4)
    assert len(images.validation) == 6
    assert sorted(reds(images.train) + reds(images.validation)) == everything(10)
    again = load_image_folder(tmp_path, size=4, validation_fraction=0.2)
    assert again.checksum == images.checksum
    assert len(load_image_folder(tmp_path, size=4).validation) == 3
    assert len(load_image_folder(tmp_path, size=4, validation_fraction=1e-9).validation) == 1


@pytest.mark.parametrize(("width", "height"), [(40, 20), (20, 40), (20, 20)])
def test_the_shorter_side_is_scaled_and_the_middle_kept(tmp_path, width, height):
    """A ramp along the longer side: after halving, the middle 10 of its 20 pixels remain."""
    for split in ("train", "test"):
        for name in ("a", "b"):
            place = tmp_path / split / name
            place.mkdir(parents=True)
            ramp = np.arange(max(width, height), dtype=np.uint8) * 5
            wide = np.tile(ramp, (min(width, height), 1))
            pixels = wide if width >= height else wide.T
            for i in range(2):
                Image.fromarray(np.stack([pixels] * 3, axis=2)).save(place / f"{i}.png")
    found = load_image_folder(tmp_path, size=10).test.images[0]
    assert found.shape == (3, 10, 10)
    halved = 5 * (np.arange(max(width, height) // 2) * 2 + 0.5)
    middle = halved[(len(halved) - 10) // 2 :][:10]
    found = 255 * (found if width >= height else found.transpose(0, 2, 1))
    # Away from the rim, where the scaling's triangle is cut off, a ramp stays a ramp.
    rows = slice(None) if len(halved) > 10 else slice(1, -1)
    np.testing.assert_allclose(found[0, :, rows], np.tile(middle[rows], (10, 1)), atol=1)


def test_grey(tmp_path):
    fill(tmp_path, {"train": 4, "test": 2})
    images = load_images(f"folder:{tmp_path}@5-grey")
    assert images.train.images.shape[1:] == (1, 5, 5)
    red, green, blue = COLOURS["cat"]
    luma = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R 601-2
    cats = images.test.images[images.test.labels == 0]
    assert abs(255 * cats[0].mean() - luma) < 1
    assert images.name == f"folder:{tmp_path}@5-grey"


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_any_kind_of_image_is_made_rgb(tmp_path, mode):
    fill(tmp_path, {"train": 3, "test": 2})
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new("RGB", (9, 7), "white").convert(mode).save(tmp_path / f"test/cat/x.{suffix}")
    images = load_image_folder(tmp_path, size=4)
    np.testing.assert_array_equal(images.test.images[2], 1)


def test_jpegs_and_other_files(tmp_path):
    fill(tmp_path, {"train": 3, "test": 2})
    Image.new("RGB", (30, 20), (120, 120, 120)).save(tmp_path / "test/owl/zz.JPG", format="JPEG")
    (tmp_path / "test/owl/readme.txt").write_text("no image")
    (tmp_path / "classes.txt").write_text("cat dog owl")
    images = load_image_folder(tmp_path, size=8)
    assert len(images.test) == 7
    np.testing.assert_allclose(255 * images.test.images[-1], 120, atol=2)
    assert images.test.labels[-1] == 2


def test_training_images_are_mirrored_and_shifted_by_an_eighth(tmp_path):
    fill(tmp_path, {"train": 3, "test": 1})
    assert load_image_folder(tmp_path, size=33).augment == Augmentation(mirror=True, max_shift=4)


def test_names(tmp_path, monkeypatch):
    place = tmp_path / "with @ and spaces"
    fill(place, {"train": 4, "val": 2})
    by_name = load_images(f"folder:{place}@6")
    assert by_name.checksum == load_image_folder(place, size=6).checksum
    assert load_images(f"folder:{place}@6") is by_name
    monkeypatch.chdir(tmp_path)
    assert load_images(f"folder:{place.name}@6").checksum == by_name.checksum
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_images(f"folder:~/{place.name}@6").checksum == by_name.checksum


@pytest.mark.parametrize(
    "end", ["", "@", "@0x", "@-3", "@4.5", "@x", "@ 4", "@4@", "@9999999", "@4-gray", "@٤"]
)
def test_malformed_names(tmp_path, end):
    fill(tmp_path, {"train": 4, "val": 2})
    with pytest.raises(UserError, match="write folder:PATH@SIZE with a positive integer SIZE") as e:
        load_images(f"folder:{tmp_path}{end}")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be a positive integer, not 0"),
        ({"size": -3}, "size must be a positive integer, not -3"),
        ({"size": 4.0}, r"size must be a positive integer, not 4\.0"),
        ({"size": True}, "size must be a positive integer, not True"),
        ({"size": "4"}, "size must be a positive integer, not '4'"),
        ({"size": 4, "channels": 2}, "channels must be 1 .* or 3 .* not 2"),
        ({"size": 4, "validation_fraction": 0}, "between 0 and 1, not 0"),
        ({"size": 4, "validation_fraction": 1.0}, r"between 0 and 1, not 1\.0"),
        ({"size": 4, "validation_fraction": float("nan")}, "between 0 and 1, not nan"),
        ({"size": 4, "validation_fraction": 0.99}, "too few images to set 12 aside"),
        ({"size": 20_000}, "size=20000 is more than an image may have; lower it"),
    ],
)
def test_arguments_out_of_range(tmp_path, options, message):
    fill(tmp_path, {"train": 4, "val": 2})
    with pytest.raises(UserError, match=message) as error:
        load_image_folder(tmp_path, **options)
    assert "\n" not in str(error.value)


def test_sizes_of_names_are_checked_too(tmp_path):
    fill(tmp_path, {"train": 4, "val": 2})
    with pytest.raises(UserError, match="size must be a positive integer, not 0"):
        load_images(f"folder:{tmp_path}@0")


def refused(folder, match):
    with pytest.raises(UserError, match=match) as error:
        load_image_folder(folder, size=4)
    assert "\n" not in str(error.value)


def test_folders_that_are_missing(tmp_path):
    refused(tmp_path / "none", "is no folder; write folder:PATH@SIZE")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "is no folder")
    refused(tmp_path, "must hold train, and val or test or both")
    fill(tmp_path / "a", {"train": 2})
    refused(tmp_path / "a", "must hold train, and val or test or both")
    fill(tmp_path / "b", {"val": 2, "test": 2})
    refused(tmp_path / "b", "must hold train, and val or test or both")


def test_the_home_of_nobody():
    refused("~no-such-user/x", "^image folder '~no-such-user/x': .* Write folder:PATH@SIZE$")


def test_classes_that_are_missing(tmp_path):
    (tmp_path / "train").mkdir()
    fill(tmp_path, {"val": 2})
    refused(tmp_path, "train must hold a folder of images for every class; it has none")
    (tmp_path / "train" / "cat").mkdir()
    refused(tmp_path, "train must hold a folder of images for every class; .* classes 'cat'$")


def test_classes_that_differ(tmp_path):
    fill(tmp_path, {"train": 2, "val": 2, "test": 2})
    (tmp_path / "test" / "owl").rename(tmp_path / "test" / "emu")
    refused(tmp_path, "train and test must have the same .* only one of them has 'emu', 'owl'$")


def test_images_that_cannot_be_read(tmp_path):
    fill(tmp_path, {"train": 3, "val": 2})
    path = tmp_path / "train/dog/001.png"
    good = path.read_bytes()
    for content in (b"", b"no image", good[: len(good) // 2], good[:20], b"GIF89a" + good[6:]):
        path.write_bytes(content)
        refused(tmp_path, r"cannot read image .*train/dog/001\.png: ")
    path.write_bytes(good)
    Image.new("RGB", (40, 40)).save(tmp_path / "val/cat/x.jpg")
    data = (tmp_path / "val/cat/x.jpg").read_bytes()
    (tmp_path / "val/cat/x.jpg").write_bytes(data[: len(data) // 2])
    refused(tmp_path, r"cannot read image .*val/cat/x\.jpg: ")


def test_all_images_that_cannot_be_read_are_told_at_once(tmp_path):
    fill(tmp_path, {"train": 4, "val": 2})
    bad = [f"train/cat/{i:03}.png" for i in range(3)] + ["val/owl/001.png"]
    for name in bad[2:]:
        (tmp_path / name).write_bytes(b"no image")
    refused(tmp_path, r"^cannot read 2 of 18 images in .*: train/cat/002\.png, val/owl/001\.png; ")
    for name in bad:
        (tmp_path / name).write_bytes(b"no image")
    refused(
        tmp_path, r"^cannot read 4 of 18 images in .*: train/cat/000.*002\.png, \.\.\.; `apq-moo"
    )
    (tmp_path / "train/owl/x.heic").write_bytes(b"")
    found = inspect(tmp_path)
    assert [str(Path(path).relative_to(tmp_path)) for path in found.unreadable] == bad
    assert found.counts == {
        split: dict.fromkeys(COLOURS, n) for split, n in (("train", 4), ("val", 2))
    }
    assert found.sizes == {(12, 9): 14}
    assert found.left_out == [str(tmp_path / "train/owl/x.heic")]


def marked(path, image, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, **({} if path.suffix == ".png" else {"quality": 95}))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(tmp_path, orientation, suffix):
    """As Pillow's own ``exif_transpose`` does it."""
    fill(tmp_path, {"train": 2, "val": 1})
    ramp = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3) // 8 * 8
    ramp[:8, :8], ramp[8:, :8] = 250, 5
    path = tmp_path / f"val/owl/x.{suffix}"
    marked(path, Image.fromarray(ramp), orientation)
    with Image.open(path) as image:
        wanted = np.asarray(ImageOps.exif_transpose(image)).transpose(2, 0, 1)
    found = load_image_folder(tmp_path, size=16).test.images[-1]
    np.testing.assert_array_equal(np.rint(255 * found), wanted)


@pytest.mark.parametrize(
    "content",
    [b"", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*" + 40 * b"\xff", b"\xff" * 60],
)
def test_malformed_orientations_are_none(tmp_path, content, recwarn):
    fill(tmp_path, {"train": 2, "val": 1})
    white = Image.new("RGB", (9, 7), "white")
    white.save(tmp_path / "val/owl/x.jpg", exif=content)
    marked(tmp_path / "val/owl/y.jpg", white, 77)
    found = load_image_folder(tmp_path, size=4).test.images[-2:]
    np.testing.assert_array_equal(found, np.ones((2, 3, 4, 4)))
    assert not recwarn.list


def test_classes_of_a_space_are_those_of_its_images(tmp_path):
    fill(tmp_path, {"train": 4, "val": 2})
    images = load_image_folder(tmp_path, size=8)
    data = read_toml(files("apq_moo.space") / "presets" / "digits.toml") | {"input_channels": 3}
    check_images(Space(SpaceSpec.from_dict(data | {"classes": 3})), images)
    for classes in (2, 4):
        with pytest.raises(UserError) as error:
            check_images(Space(SpaceSpec.from_dict(data | {"classes": classes})), images)
        assert re.search(
            rf"classes = {classes}, but .* has 3 \('cat', 'dog', 'owl'\); set classes = 3$",
            str(error.value),
        )


PRESET = files("apq_moo.space") / "presets" / "digits.toml"


def pictured(path, images):
    path.parent.mkdir(exist_ok=True)
    path.write_text(PRESET.read_text().replace('images = "digits"', f'images = "{images}"'))
    return load_space(path)


@pytest.mark.parametrize(
    ("images", "whole"),
    [
        ("folder:flowers@8", "folder:{}/spaces/flowers@8"),
        ("folder:../with @ in it@8-grey", "folder:{}/with @ in it@8-grey"),
        ("folder:/data/flowers@8", "folder:/data/flowers@8"),
        ("folder:~/flowers@8", "folder:~/flowers@8"),
        ("folder:flowers", "folder:flowers"),
        ("digits", "digits"),
    ],
)
def test_relative_folders_begin_where_the_file_of_the_space_lies(
    tmp_path, monkeypatch, images, whole
):
    pictured(tmp_path / "spaces" / "my.toml", images)
    monkeypatch.chdir(tmp_path)
    space = load_space("spaces/my.toml")
    monkeypatch.chdir("/")
    assert images_of(space) == whole.format(tmp_path)
    plain = SpaceSpec.from_dict(read_toml(PRESET) | {"images": images})
    assert plain == space.spec
    assert plain.digest == space.digest
    assert images_of(Space(plain)) == images
    with pytest.raises(UserError, match="relative_to must be the whole path of a folder, not 'a'"):
        SpaceSpec.from_dict(read_toml(PRESET) | {"relative_to": "a"})


def test_assets_find_pictures_that_moved_with_their_space(tmp_path):
    space = pictured(tmp_path / "mine" / "my.toml", "folder:pictures@8")
    fill(tmp_path / "mine" / "pictures", {"train": 2, "test": 1})
    before = images_of(space)
    write_manifest(tmp_path / "mine", space, [], images=before)
    assert find_assets(space, tmp_path / "mine").images == before
    (tmp_path / "mine").rename(tmp_path / "moved")
    moved = load_space(tmp_path / "moved" / "my.toml")
    assert find_assets(moved, tmp_path / "moved").images == f"folder:{tmp_path}/moved/pictures@8"


def test_hints_name_the_file_of_a_space(tmp_path):
    space = pictured(tmp_path / "my spaces" / "my.toml", "digits")
    with pytest.raises(UserError) as error:
        find_assets(space, tmp_path)
    assert f"`apq-moo pipeline --space '{tmp_path}/my spaces/my.toml' --out DIR`" in str(
        error.value
    )
    assert load_space("digits").option == "--space digits"


def test_images_of_more_than_8_bits_are_not_cut_off(tmp_path):
    fill(tmp_path, {"train": 3, "val": 2})
    deep = Image.fromarray(np.full((9, 9), 40_000, dtype=np.uint16))
    deep.save(tmp_path / "train/owl/x.png")
    refused(tmp_path, r"cannot read image .*owl/x\.png: it has more than 8 bits a channel")


@pytest.mark.filterwarnings("ignore::Warning:PIL")
def test_random_damage(tmp_path):
    """Whatever becomes of a file's bytes, it is read or refused by one line."""
    rng = np.random.default_rng(0)
    fill(tmp_path, {"train": 1, "val": 1})
    noise = Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8))
    refusals = []
    for suffix in ("png", "jpg", "webp", "ppm"):
        path = tmp_path / f"train/owl/x.{suffix}"
        noise.save(path)
        good = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        for _ in range(60):
            bad = good.copy()
            places = rng.integers(0, min(len(bad), 120), 3)
            bad[places] = rng.integers(0, 256, 3)
            path.write_bytes(bad.tobytes())
            try:
                assert len(load_image_folder(tmp_path, size=4, validation_fraction=0.4).test) == 3
            except UserError as error:
                refusals.append(str(error))
        path.unlink()
    assert len(refusals) > 60
    assert not any("\n" in line for line in refusals)


def test_folders_that_may_not_be_entered(tmp_path, monkeypatch):
    def refuse(path, **_options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    refused(tmp_path, "^cannot read image folder .*: Permission denied$")

"""Images in files: read as they would be in memory, by any number of workers, or refused."""

import os
import signal
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize

from apq_moo.data import folders, images_of, inspecting, load_images, loading, streamed
from apq_moo.data.folders import load_image_folder, with_wishes
from apq_moo.data.inspecting import inspect
from apq_moo.data.streamed import StreamedSet
from apq_moo.errors import UserError
from apq_moo.space import load_space
from apq_moo.workers import WorkerLostError


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Without workers, unless a test asks for some, and with a cache of its own."""
    monkeypatch.setenv("APQ_MOO_WORKERS", "0")
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))
    folders.load_named_folder.cache_clear()


def fill(folder, n=12, splits=("train", "test"), suffix="png"):
    """Noise of all sizes, two classes, ``n`` images of each."""
    rng = np.random.default_rng(0)
    for split in splits:
        for name in "ab":
            place = folder / split / name
            place.mkdir(parents=True)
            for i in range(n):
                shape = (*rng.integers(9, 40, 2), 3)
                pixels = rng.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{i:02}.{suffix}")
    return folder


def test_images_are_read_as_an_evaluation_sees_them(tmp_path):
    images = load_image_folder(fill(tmp_path / "set"), size=14, stream=True)
    assert isinstance(images, StreamedSet)
    assert images.shape == (3, 14, 14)
    cut = Compose([Resize(16), CenterCrop(14)])
    for part in (images.train, images.validation, images.test):
        found = part[:]
        assert len(found) == len(part) == len(part.labels)
        for row in range(len(part)):
            with Image.open(part.listing.path(row)) as image:
                wanted = np.asarray(cut(image)).transpose(2, 0, 1).astype(int)
            assert np.abs(found.pixels[row] - wanted).max() <= 2
            assert part.labels[row] == "ab".index(Path(part.listing.path(row)).parent.name)
    some = images.test[np.array([3, 0, 3])]
    np.testing.assert_array_equal(some.pixels, images.test[:].pixels[[3, 0, 3]])
    np.testing.assert_array_equal(images.calibration.pixels, images.train[:1000].pixels)
    assert set(images.train.labels[:6]) == {0, 1}  # shuffled, so that all classes calibrate


@pytest.mark.parametrize("splits", [("train", "test"), ("train", "val", "test")])
def test_splits_are_those_of_images_in_memory(tmp_path, splits):
    fill(tmp_path / "set", splits=splits)
    # At 1 pixel all squares are alike: the whole image is scaled to its mean.
    streams, held = (
        load_image_folder(tmp_path / "set", size=9, stream=stream) for stream in (True, False)
    )
    for name in ("train", "validation", "test", "test_clean"):
        assert streams.split(name).labels.tolist() == held.split(name).labels.tolist()
        means = [of.split(name)[:].images.mean((1, 2, 3)) for of in (streams, held)]
        assert np.corrcoef(*means)[0, 1] > 0.7
    assert streams.classes == held.classes == ("a", "b")


def test_grey_images_have_one_channel(tmp_path):
    fill(tmp_path / "set")
    images = load_images(f"folder:{tmp_path / 'set'}@8-grey-stream")
    assert images.test[:].pixels.shape == (24, 1, 8, 8)
    with Image.open(images.test.listing.path(5)) as image:
        wanted = np.asarray(Compose([Resize(9), CenterCrop(8)])(image.convert("L"))).astype(int)
    assert np.abs(images.test[5:6].pixels[0, 0] - wanted).max() <= 2


@pytest.mark.parametrize("stream", [False, True])
def test_images_as_large_as_those_of_imagenet_are_read(tmp_path, stream):
    """The extents that NVIDIA's DALI reserves for them."""
    place = fill(tmp_path / "set", 2)
    Image.new("1", (5980, 6430), 1).save(place / "test/a/00.png")
    images = load_image_folder(place, size=8, channels=1, stream=stream)
    assert (images.test[:1].pixels == 255).all()
    assert not (images.test[1:2].pixels == 255).all()
    if stream:
        assert max(inspect(place).sizes) == (5980, 6430)


def test_any_number_of_workers_reads_the_same(tmp_path, monkeypatch):
    fill(tmp_path / "set", 40)
    images = load_image_folder(tmp_path / "set", size=14, stream=True)
    wanted = images.train[:].pixels
    for n in (1, 3):
        monkeypatch.setenv("APQ_MOO_WORKERS", str(n))
        np.testing.assert_array_equal(images.train[:].pixels, wanted)
    assert not [child for child in active_children() if "Loader" in child.name]


def test_many_images_are_streamed_and_few_are_not(tmp_path, monkeypatch):
    fill(tmp_path / "set")
    name = f"folder:{tmp_path / 'set'}@8"
    assert not isinstance(load_images(name), StreamedSet)
    asked = load_images(f"{name}-stream")
    folders.load_named_folder.cache_clear()
    monkeypatch.setattr(folders, "MAX_BYTES", 3 * 8 * 8 * 48 - 1)
    found = load_images(name)
    assert isinstance(found, StreamedSet)
    assert found.checksum == asked.checksum
    monkeypatch.setattr(folders, "MAX_BYTES", 3 * 8 * 8 * 48)
    folders.load_named_folder.cache_clear()
    assert not isinstance(load_images(name), StreamedSet)


def test_the_checksum_reads_no_contents(tmp_path):
    place = fill(tmp_path / "set")
    wanted = load_image_folder(place, size=8, stream=True).checksum
    path = place / "test/a/03.png"
    content = path.read_bytes()
    path.write_bytes(bytes(len(content)))
    assert load_image_folder(place, size=8, stream=True).checksum == wanted
    path.write_bytes(content + b" ")
    others = {load_image_folder(place, size=8, stream=True).checksum}
    path.write_bytes(content)
    others |= {
        load_image_folder(place, size=9, stream=True).checksum,
        load_image_folder(place, size=8, channels=1, stream=True).checksum,
        load_image_folder(place, size=8, stream=True, validation_fraction=0.3).checksum,
    }
    path.rename(place / "test/a/3.png")
    others.add(load_image_folder(place, size=8, stream=True).checksum)
    assert len(others | {wanted}) == 6


def test_blocks_are_all_images_whatever_fits(tmp_path, monkeypatch):
    images = load_image_folder(fill(tmp_path / "set"), size=8, stream=True)
    names = ("validation", "test")
    (whole,) = images.blocks(names)
    wanted = np.concatenate([images.split(name)[:].pixels for name in names])
    np.testing.assert_array_equal(whole.pixels, wanted)
    each = 3 * 8 * 8
    monkeypatch.setattr(streamed, "WHOLE_BYTES", each * len(whole) - 1)
    monkeypatch.setattr(streamed, "BLOCK_BYTES", each * 7 + 5)
    blocks = list(images.blocks(names))
    assert [len(block) for block in blocks] == [7, 7, 7, 5]
    np.testing.assert_array_equal(np.concatenate([b.pixels for b in blocks]), wanted)
    np.testing.assert_array_equal(np.concatenate([b.labels for b in blocks]), whole.labels)


@pytest.mark.parametrize("n", [0, 2])
def test_files_that_change_are_told(tmp_path, monkeypatch, n):
    monkeypatch.setenv("APQ_MOO_WORKERS", str(n))
    place = fill(tmp_path / "set")
    images = load_image_folder(place, size=8, stream=True)
    path = place / "test/b/07.png"
    content = path.read_bytes()
    for damage, message in (
        (content[:-1], "has changed since the images were listed; leave them"),
        (content + b" ", "has changed since the images were listed; leave them"),
        (bytes(len(content)), "cannot read image .*: cannot identify image file$"),
        (None, "is gone since the images were listed; leave them"),
    ):
        path.write_bytes(damage) if damage is not None else path.unlink()
        with pytest.raises(UserError, match=message) as error:
            images.test[:]
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_worker_that_is_killed_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("APQ_MOO_WORKERS", "2")
    monkeypatch.setattr(loading, "_MOST_IN_PIECE", 1)
    images = load_image_folder(fill(tmp_path / "set", 30), size=8, stream=True)
    reader = images.test.whole_squares()
    before = set(active_children())
    pieces = loading.squares(reader, loading.in_order(len(images.test)))
    next(pieces)
    worker = next(iter(set(active_children()) - before))
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(10)
    with pytest.raises(WorkerLostError, match=r"killed.*set APQ_MOO_WORKERS to less than 2$"):
        list(pieces)
    assert set(active_children()) <= before


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError(104, "reset"), EOFError(), RuntimeError("DataLoader worker (pid 1) ...")],
)
def test_a_worker_that_is_lost_while_it_hands_over(tmp_path, monkeypatch, error):
    """Its end is noticed by what breaks off, whether or not the system has told of it."""

    def breaking(_loader):
        raise error
        yield

    monkeypatch.setattr(loading, "_quietly_begun", breaking)
    images = load_image_folder(fill(tmp_path / "set", 2), size=8, stream=True)
    with pytest.raises(WorkerLostError, match="was killed"):
        images.test[:]
    error = OSError(5, "another")
    with pytest.raises(OSError, match="another"):
        images.test[:]


def test_unreadable_images_are_skipped_and_counted(tmp_path, monkeypatch):
    place = fill(tmp_path / "set")
    bad = [place / "train/a/03.png", place / "train/b/11.png", place / "test/a/00.png"]
    for path in bad:
        path.write_bytes(bytes(100))
    for stream in (True, False):
        images = load_image_folder(place, size=8, stream=stream, skip_unreadable=True)
        assert images.skipped == 3
        assert [len(images.split(name)) for name in ("train", "validation", "test")] == [20, 2, 23]
        assert len(images.train[:]) == 20
    assert images.name == f"folder:{place}@8-skip"
    listing = load_image_folder(place, size=8, stream=True, skip_unreadable=True).train.listing
    assert not {listing.path(row) for row in range(len(listing))} & set(map(str, bad))
    # Which they are is known from then on, until the files change or are checked again.
    scans = []
    monkeypatch.setattr(
        inspecting, "read_all", lambda *of: scans.append(of) or loading.read_all(*of)
    )
    assert load_image_folder(place, size=8, skip_unreadable=True, stream=True).skipped == 3
    assert not scans
    assert sorted(inspect(place).unreadable) == sorted(map(str, bad))
    assert len(scans) == 2
    Image.new("RGB", (9, 9)).save(bad[0])
    assert load_image_folder(place, size=8, skip_unreadable=True, stream=True).skipped == 2
    assert len(scans) == 4


def test_without_a_cache_that_can_be_locked_they_are_found_each_time(tmp_path, monkeypatch):
    place = fill(tmp_path / "set", 2)
    (place / "train/a/00.png").write_bytes(b"none")

    def refused(_lock):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("filelock.FileLock.acquire", refused)
    for _ in range(2):
        images = load_image_folder(place, size=8, stream=True, skip_unreadable=True)
        assert images.skipped == 1


def test_sets_of_which_too_little_can_be_read(tmp_path):
    place = fill(tmp_path / "set", 2, splits=("train", "val", "test"))
    for path in (place / "val").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no image of val can be read; replace some"):
        load_image_folder(place, size=8, skip_unreadable=True)
    for path in (place / "train/b").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no image of 'b' to train on can be read; replace"):
        load_image_folder(place, size=8, skip_unreadable=True)


def test_names_of_wishes():
    name = "folder:/a@b@9-grey"
    assert with_wishes(name) == name
    assert with_wishes(name, stream=True) == f"{name}-stream"
    assert with_wishes(f"{name}-stream", skip_unreadable=True) == f"{name}-stream-skip"
    assert with_wishes(f"{name}-stream-skip", stream=True) == f"{name}-stream-skip"
    with pytest.raises(UserError, match=r"stream=True is for images of your own.* 'digits' is in"):
        images_of(load_space("digits"), stream=True)
    with pytest.raises(UserError, match="skip_unreadable=True is for images of your own"):
        images_of(load_space("digits"), skip_unreadable=True)


def test_how_many_workers_there_are(monkeypatch):
    monkeypatch.delenv("APQ_MOO_WORKERS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(24)))
    assert loading.workers() == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert loading.workers() == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "99")
    assert loading.workers() == 1
    monkeypatch.setattr(loading, "parent_process", lambda: "one")
    assert loading.workers() == 0
    monkeypatch.setenv("APQ_MOO_WORKERS", "7")
    assert loading.workers() == 7
    for bad in ("-1", "x", "257", "1.5", "٣", "9" * 99):
        monkeypatch.setenv("APQ_MOO_WORKERS", bad)
        with pytest.raises(UserError, match="set it to a number from 0 to 256"):
            loading.workers()


@pytest.mark.parametrize(("n", "size"), [(1, 256), (16, 256), (16, 1170), (256, 6000)])
def test_what_is_read_ahead_is_bounded(monkeypatch, n, size):
    monkeypatch.setenv("APQ_MOO_WORKERS", str(n))
    each = 3 * size**2
    images = loading.piece_size(each)
    assert 1 <= images <= 128
    assert images == 1 or n * loading.AHEAD * images * each <= loading.BUFFER_BYTES

"""Fashion-MNIST from files in its format, small ones made here."""

import gzip
import struct
import tarfile
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision

from apq_moo.data import fashion, load_images
from apq_moo.data.augmentation import Augmentation
from apq_moo.errors import UserError

NAMES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def idx(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    sizes = (120, 20)
    parts = []
    for n in sizes:
        parts += [rng.integers(0, 256, (n, 28, 28)), rng.integers(0, 10, n)]
    return [part.astype(np.uint8) for part in parts]


@pytest.fixture
def folder(arrays, tmp_path, monkeypatch):
    monkeypatch.setenv("APQ_MOO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fashion, "DEBIAN", tmp_path / "debian")
    fashion.load_fashion_mnist.cache_clear()
    yield tmp_path
    fashion.load_fashion_mnist.cache_clear()


def write(folder, arrays, packed=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(NAMES, arrays, strict=True):
        data = idx(array)
        suffix = ".gz" if packed else ""
        (folder / f"{name}-ubyte{suffix}").write_bytes(gzip.compress(data) if packed else data)


@pytest.mark.parametrize(
    ("place", "packed"),
    [
        ("debian", True),
        ("data", True),
        ("data/fashion-mnist", True),
        ("data/FashionMNIST/raw", False),
        ("cache/data/FashionMNIST/raw", True),
    ],
)
def test_found_wherever_it_may_lie(folder, arrays, place, packed):
    write(folder / place, arrays, packed)
    images = load_images("fashion-mnist")
    parts = (images.train, images.validation, images.test)
    assert [len(part) for part in parts] == [100, 20, 20]
    np.testing.assert_array_equal(np.rint(255 * images.test.images[:, 0]), arrays[2])
    np.testing.assert_array_equal(images.test.labels, arrays[3])
    # The two parts of the training images are disjoint, and all of them.
    rows = np.vstack([np.rint(255 * part.images).reshape(-1, 784) for part in parts[:2]])
    labels = np.concatenate([part.labels for part in parts[:2]])
    order, expected = np.lexsort(rows.T), np.lexsort(arrays[0].reshape(-1, 784).T)
    np.testing.assert_array_equal(rows[order], arrays[0].reshape(-1, 784)[expected])
    np.testing.assert_array_equal(labels[order], arrays[1][expected])
    assert images.train.images.dtype == np.float32
    assert 0 <= images.train.images.min() < images.train.images.max() <= 1


def test_as_torchvision_reads_it(folder, arrays):
    from torchvision.datasets import FashionMNIST

    write(folder / "data" / "FashionMNIST" / "raw", arrays, packed=False)
    theirs = FashionMNIST(folder / "data", train=False)
    ours = load_images("fashion-mnist").test
    np.testing.assert_array_equal(np.rint(255 * ours.images[:, 0]), theirs.data.numpy())
    np.testing.assert_array_equal(ours.labels, theirs.targets.numpy())


def test_how_to_get_it_is_said(folder):
    with pytest.raises(
        UserError, match=r"not here: install Debian's dataset-fashion-mnist, or set"
    ):
        load_images("fashion-mnist")


def test_damaged_files(folder, arrays):
    place = folder / "data"
    write(place, arrays)
    path = place / "train-images-idx3-ubyte.gz"
    good = path.read_bytes()
    bad = {
        "damaged": [good[: len(good) // 2], good[:5], b"", b"\x1f\x8b" + b"x" * 50],
        "no IDX file": [gzip.compress(gzip.decompress(good)[:-1]), gzip.compress(b"\x00\x01" * 99)],
        "belong together": [gzip.compress(idx(arrays[0][:60]))],
        "too few images": [],
    }
    for words, contents in bad.items():
        for content in contents:
            path.write_bytes(content)
            with pytest.raises(
                UserError, match="damaged|cannot read" if words == "damaged" else words
            ):
                load_images("fashion-mnist")
    write(place, [arrays[0][:20], arrays[1][:20], *arrays[2:]])
    with pytest.raises(UserError, match="too few images to set 20 aside"):
        load_images("fashion-mnist")


def test_training_images_are_mirrored_shifted_by_two_and_cut(folder, arrays):
    write(folder / "data", arrays)
    wanted = Augmentation(mirror=True, max_shift=2, max_erase=8)
    assert load_images("fashion-mnist").augment == wanted


class Download:
    """Stands for torchvision's class: writes the files that it would, or fails."""

    def __init__(self, arrays, failure=None):
        self.arrays, self.failure, self.calls = arrays, failure, []

    def __call__(self, root, train=True, download=False):
        self.calls.append(download)
        place = Path(root, "FashionMNIST", "raw")
        write(place, self.arrays, packed=False)
        if self.failure is not None:
            (place / "train-images-idx3-ubyte").write_bytes(b"half")
            raise self.failure


@pytest.mark.parametrize("place", ["cache/data", "elsewhere/new"])
def test_downloaded_files_are_found(folder, arrays, place, monkeypatch):
    download = Download(arrays)
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", download)
    if place == "cache/data":
        fashion.download_fashion_mnist()
    else:
        fashion.download_fashion_mnist(folder / place)
        monkeypatch.setenv("APQ_MOO_DATA", str(folder / place))
    found = load_images("fashion-mnist")
    assert download.calls == [True]
    np.testing.assert_array_equal(np.rint(255 * found.test.images[:, 0]), arrays[2])
    assert [path.name for path in (folder / place).iterdir()] == ["FashionMNIST"]


def test_a_download_replaces_damaged_files(folder, arrays, monkeypatch):
    place = folder / "cache" / "data" / "FashionMNIST" / "raw"
    write(place, arrays, packed=False)
    (place / "train-images-idx3-ubyte").write_bytes(b"half")
    with pytest.raises(UserError, match="damaged"):
        load_images("fashion-mnist")
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", Download(arrays))
    fashion.download_fashion_mnist()
    assert len(load_images("fashion-mnist").test) == 20


@pytest.mark.parametrize(
    "failure",
    [
        URLError("no network"),
        RuntimeError("Error downloading:\nTried A, got:\nno network\n"),
        HTTPException("no network"),
        tarfile.ReadError("no network"),
        EOFError("no network"),
    ],
)
def test_a_failing_download_is_one_line_and_leaves_nothing(folder, arrays, failure, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", Download(arrays, failure))
    with pytest.raises(UserError, match=r"cannot download fashion-mnist to .*no network") as error:
        fashion.download_fashion_mnist(folder / "new")
    assert "\n" not in str(error.value)
    assert list((folder / "new").iterdir()) == []


def test_a_download_to_a_place_that_is_no_folder(folder, arrays, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", Download(arrays))
    (folder / "file").write_text("x")
    with pytest.raises(UserError, match="cannot download fashion-mnist to"):
        fashion.download_fashion_mnist(folder / "file")


def test_loading_never_downloads(folder, arrays, monkeypatch):
    download = Download(arrays)
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", download)
    with pytest.raises(UserError, match="apq-moo data download fashion-mnist"):
        load_images("fashion-mnist")
    assert download.calls == []


def test_folders_that_may_not_be_entered(folder, monkeypatch):
    def refuse(path, **_options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(UserError, match=r"^cannot read .*-ubyte: Permission denied$"):
        load_images("fashion-mnist")

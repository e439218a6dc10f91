"""CIFAR-10 from small files in its format, read by torchvision."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torchvision
from torchvision.datasets import CIFAR10

from apq_moo.data import cifar, load_images
from apq_moo.data.augmentation import Augmentation
from apq_moo.errors import UserError

PER_BATCH = 24
N_TEST = 20
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def arrays():
    """Bytes and labels of the five training batches, and of the test."""
    rng = np.random.default_rng(0)
    sizes = [PER_BATCH] * 5 + [N_TEST]
    return [
        (rng.integers(0, 256, (n, 3072), dtype=np.uint8), rng.integers(0, 10, n).tolist())
        for n in sizes
    ]


def contents(arrays):
    """The files by name, as the published ones: Python 2 pickles of dictionaries."""
    files = {}
    for i, (data, labels) in enumerate(arrays):
        name = "test_batch" if i == 5 else f"data_batch_{i + 1}"
        label = "testing batch 1 of 1" if i == 5 else f"training batch {i + 1} of 5"
        filenames = [f"image_{j}.png" for j in range(len(labels))]
        entry = {"batch_label": label, "labels": labels, "data": data, "filenames": filenames}
        files[name] = pickle.dumps(entry, protocol=2)
    meta = {"num_cases_per_batch": PER_BATCH, "label_names": NAMES, "num_vis": 3072}
    files["batches.meta"] = pickle.dumps(meta, protocol=2)
    return files


def write(folder, arrays):
    place = folder / "cifar-10-batches-py"
    place.mkdir(parents=True)
    for name, data in contents(arrays).items():
        (place / name).write_bytes(data)
    return place


@pytest.fixture
def folder(arrays, tmp_path, monkeypatch):
    """An empty place; torchvision expects the checksums of the small files."""
    monkeypatch.setenv("APQ_MOO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))
    md5 = {
        name: hashlib.md5(data, usedforsecurity=False).hexdigest()
        for name, data in contents(arrays).items()
    }
    for attribute in ("train_list", "test_list"):
        listed = [[name, md5[name]] for name, _ in getattr(CIFAR10, attribute)]
        monkeypatch.setattr(CIFAR10, attribute, listed)
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5["batches.meta"]})
    cifar.load_cifar10.cache_clear()
    yield tmp_path
    cifar.load_cifar10.cache_clear()


@pytest.mark.parametrize("place", ["data", "data/cifar10", "cache/data", "itself"])
def test_found_wherever_it_may_lie(folder, arrays, place, monkeypatch):
    where = write(folder / place, arrays)
    if place == "itself":
        monkeypatch.setenv("APQ_MOO_DATA", str(where))
    images = load_images("cifar10")
    parts = (images.train, images.validation, images.test)
    assert [len(part) for part in parts] == [100, 20, 20]
    for part in parts:
        assert part.images.shape[1:] == (3, 32, 32)
        assert part.images.dtype == np.float32
        assert part.images.flags.c_contiguous
        assert part.images.flags.writeable
        assert part.labels.dtype == np.int64
        assert 0 <= part.images.min() < part.images.max() <= 1
    # The files hold a plane of red, one of green, one of blue, each row by row.
    np.testing.assert_array_equal(np.rint(255 * images.test.images).reshape(-1, 3072), arrays[5][0])
    np.testing.assert_array_equal(images.test.labels, arrays[5][1])
    # The two parts of the training images are disjoint, and all of them.
    given = np.vstack([data for data, _ in arrays[:5]])
    rows = np.vstack([np.rint(255 * part.images).reshape(-1, 3072) for part in parts[:2]])
    labels = np.concatenate([part.labels for part in parts[:2]])
    order, expected = np.lexsort(rows.T), np.lexsort(given.T)
    np.testing.assert_array_equal(rows[order], given[expected])
    given_labels = np.concatenate([labels for _, labels in arrays[:5]])
    np.testing.assert_array_equal(labels[order], given_labels[expected])
    assert images.augment == Augmentation(mirror=True, max_shift=4)


def test_the_split_is_drawn_once(folder, arrays):
    write(folder / "data", arrays)
    first = load_images("cifar10")
    again = cifar.load_cifar10.__wrapped__()
    assert first.checksum == again.checksum
    order = np.random.default_rng(cifar.SPLIT_SEED).permutation(120)
    labels = np.concatenate([labels for _, labels in arrays[:5]])
    np.testing.assert_array_equal(first.train.labels, labels[order[:100]])
    np.testing.assert_array_equal(first.validation.labels, labels[order[100:]])


def test_calibration_is_the_beginning_of_train(folder, arrays, monkeypatch):
    monkeypatch.setattr(cifar, "N_CALIBRATION", 30)
    write(folder / "data", arrays)
    images = load_images("cifar10")
    np.testing.assert_array_equal(images.calibration.images, images.train.images[:30])
    np.testing.assert_array_equal(images.calibration.labels, images.train.labels[:30])


def test_files_are_named_as_torchvisions():
    listed = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]
    assert (*listed, CIFAR10.meta["filename"]) == cifar._FILES
    assert CIFAR10.base_folder == cifar.FOLDER


def test_how_to_get_it_is_said(folder, arrays, monkeypatch):
    message = "not here: run `apq-moo data download cifar10`, or set APQ_MOO_DATA"
    with pytest.raises(UserError, match=message):
        load_images("cifar10")
    (write(folder / "data", arrays) / "data_batch_3").unlink()
    with pytest.raises(UserError, match=message):
        load_images("cifar10")


@pytest.mark.parametrize("name", ["data_batch_2", "test_batch", "batches.meta"])
def test_damaged_files_are_refused_unread(folder, arrays, name):
    path = write(folder / "data", arrays) / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="is damaged: its checksums are not") as error:
        load_images("cifar10")
    assert "\n" not in str(error.value)
    path.write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(UserError, match="is damaged"):
        load_images("cifar10")
    assert not Path(_Evil.trace).exists()


class _Evil:
    trace = "unpickled"

    def __reduce__(self):
        return Path(self.trace).touch, ()


def test_files_that_cannot_be_opened(folder, arrays, monkeypatch):
    write(folder / "data", arrays)

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied", "data_batch_1")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", refuse)
    with pytest.raises(UserError, match="cannot read data_batch_1: Permission denied"):
        load_images("cifar10")


def test_too_few_training_images(folder, arrays, monkeypatch):
    arrays = [(data[:4], labels[:4]) for data, labels in arrays[:5]] + arrays[5:]
    write(folder / "data", arrays)
    for attribute in ("train_list", "test_list"):
        listed = [[name, None] for name, _ in getattr(CIFAR10, attribute)]
        monkeypatch.setattr(CIFAR10, attribute, listed)
    with pytest.raises(UserError, match="too few images to set 20 aside"):
        load_images("cifar10")


def test_downloading(folder, arrays, monkeypatch):
    """All but the network is torchvision's own."""
    fetched = []

    def download(url, root, filename, md5):
        fetched.append(url)
        write(Path(root), arrays)

    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", download)
    cifar.download_cifar10()
    assert fetched == [CIFAR10.url]
    assert len(load_images("cifar10").test) == N_TEST
    assert [path.name for path in (folder / "cache/data").iterdir()] == ["cifar-10-batches-py"]


def test_a_download_of_other_files_leaves_nothing(folder, arrays, monkeypatch):
    def download(url, root, filename, md5):
        write(Path(root), arrays[:3] + arrays[4:5] + arrays[3:4] + arrays[5:])

    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", download)
    with pytest.raises(UserError, match=r"cannot download cifar10 to .*corrupted"):
        cifar.download_cifar10(folder / "new")
    assert list((folder / "new").iterdir()) == []


def test_folders_that_may_not_be_entered(folder, monkeypatch):
    def refuse(path, **_options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(UserError, match=r"^cannot read .*data_batch_1: Permission denied$"):
        load_images("cifar10")

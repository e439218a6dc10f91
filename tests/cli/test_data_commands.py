"""The commands ``data list`` and ``data download``."""

import gzip
import json
import re
import struct
from importlib.resources import files
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision
from PIL import Image

from apq_moo.cli import main
from apq_moo.data import IMAGES, fashion

NAMES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


@pytest.fixture(autouse=True)
def nothing_here(tmp_path, monkeypatch):
    monkeypatch.delenv("APQ_MOO_DATA", raising=False)
    monkeypatch.setattr(fashion, "DEBIAN", tmp_path / "debian")
    monkeypatch.setenv("COLUMNS", "40")  # what is printed must not break


def fake_fashion_mnist(root, train=True, download=False):
    assert download
    folder = Path(root, "FashionMNIST", "raw")
    folder.mkdir(parents=True)
    for name, shape in zip(NAMES, ((4, 28, 28), (4,), (2, 28, 28), (2,)), strict=True):
        header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
        (folder / f"{name}-ubyte").write_bytes(header + bytes(np.prod(shape)))


def listed(call):
    outcome = call("data", "list")
    assert outcome.code == 0, outcome
    return dict(line.split(": ", 1) for line in outcome.out.splitlines())


def test_every_set_is_listed(call, tmp_path, monkeypatch):
    found = listed(call)
    assert list(found) == [*IMAGES, "folder:PATH@SIZE"]
    assert found["digits"] == "no files to download"
    assert found["cifar10"] == "not found; apq-moo data download cifar10"
    assert found["fashion-mnist"] == "not found; apq-moo data download fashion-mnist"
    place = tmp_path / "mine" / "cifar-10-batches-py"
    place.mkdir(parents=True)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (place / name).touch()
    debian = tmp_path / "debian"
    debian.mkdir()
    for name in NAMES:
        (debian / f"{name}-ubyte.gz").write_bytes(gzip.compress(b""))
    monkeypatch.setenv("APQ_MOO_DATA", str(tmp_path / "mine"))
    found = listed(call)
    assert found["cifar10"] == str(place)
    assert found["fashion-mnist"] == str(debian)


def test_downloads_are_found(call, tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", fake_fashion_mnist)
    outcome = call("data", "download", "fashion-mnist")
    assert outcome.code == 0, outcome
    folder = tmp_path / "cache" / "data"
    assert outcome.out.splitlines() == [f"fashion-mnist: {folder}"]
    assert listed(call)["fashion-mnist"] == str(folder / "FashionMNIST" / "raw")


def test_downloads_elsewhere_say_how_they_are_found(call, tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", fake_fashion_mnist)
    outcome = call("data", "download", "fashion-mnist", "--folder", "here")
    assert outcome.code == 0, outcome
    lines = outcome.out.splitlines()
    assert lines == ["fashion-mnist: here", f"set APQ_MOO_DATA={tmp_path / 'here'} to use it"]
    assert listed(call)["fashion-mnist"].startswith("not found")
    monkeypatch.setenv("APQ_MOO_DATA", re.fullmatch(r"set \w+=(.*) to use it", lines[1])[1])
    found = tmp_path / "here" / "FashionMNIST" / "raw"
    assert listed(call)["fashion-mnist"] == str(found)
    again = call("data", "download", "fashion-mnist", "--folder", "here")
    assert again.out.splitlines() == ["fashion-mnist: here"]


@pytest.mark.parametrize(
    ("name", "kind"), [("fashion-mnist", "FashionMNIST"), ("cifar10", "CIFAR10")]
)
def test_failing_downloads_are_one_line(refused, name, kind, tmp_path, monkeypatch):
    def fail(*_args, **_options):
        raise URLError("no network")

    monkeypatch.setattr(torchvision.datasets, kind, fail)
    line = refused("data", "download", name)
    assert f"cannot download {name} to {tmp_path / 'cache' / 'data'}: " in line
    assert "no network" in line


def test_downloads_to_the_home_of_nobody(refused):
    line = refused("data", "download", "cifar10", "--folder", "~no-such-user/x")
    assert line.startswith("error: --folder ~no-such-user/x: ")


@pytest.mark.parametrize("name", ["cats", "digits", ""])
def test_names_that_cannot_be_downloaded(refused, name):
    line = refused("data", "download", name)
    assert f"unknown data source {name!r}; known: cifar10, fashion-mnist" in line


def test_a_space_may_name_a_folder(call, refused, tmp_path):
    text = (Path(str(files("apq_moo.space"))) / "presets" / "digits.toml").read_text()
    space = tmp_path / "mine.toml"
    space.write_text(
        text.replace('name = "digits"', 'name = "mine"').replace(
            'images = "digits"', 'images = "folder:pictures@8-grey"'
        )
    )
    train = ("supernet", "train", "--space", "mine.toml", "--steps", "2", "-o", "s.safetensors")
    assert f"image folder '{tmp_path / 'pictures'}' is no folder" in refused(*train)
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in "ab":
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for i in range(100):
                pixels = rng.integers(0, 256, (10, 9, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    assert "has classes = 10, but image set " in refused(*train)
    space.write_text(space.read_text().replace("classes = 10", "classes = 2"))
    outcome = call(*train)
    assert outcome.code == 0, outcome
    assert Path("s.safetensors").is_file()


def test_a_folder_is_checked(call, refused, tmp_path):
    for split, n in (("train", 2), ("test", 1)):
        for name in "ab":
            folder = tmp_path / "my pictures" / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                Image.new("L", (10 + i, 9)).save(folder / f"{i}.png")
    outcome = call("data", "check", "my pictures")
    assert outcome.code == 0, outcome
    assert outcome.out.splitlines() == [
        "train: 4 images of 2 classes: a 2, b 2",
        "test: 2 images of 2 classes: a 1, b 1",
        "sizes: from 10x9 to 11x9 pixels, most often 10x9 (4 images); shorter side: median 9",
        "unreadable: 0",
    ]
    assert call("data", "check", "folder:my pictures@8-grey") == outcome
    (folder / "0.png").write_bytes(b"no image")
    (folder / "1.heic").touch()
    outcome = call("data", "check", "my pictures")
    assert outcome.code == 2, outcome
    assert outcome.out.splitlines()[3:6] == [
        "left out, since they are no images by their suffix: 1 files",
        f"  {folder / '1.heic'}",
        "unreadable: 1",
    ]
    assert outcome.out.splitlines()[6].startswith(f"  {folder / '0.png'}: cannot identify")
    told = call("data", "check", "my pictures", "--json")
    assert told.code == 2, told
    found = json.loads(told.out)
    assert found["unreadable"].pop(str(folder / "0.png")).startswith("cannot identify")
    assert found == {
        "counts": {"train": {"a": 2, "b": 2}, "test": {"a": 1, "b": 1}},
        "sizes": [[10, 9, 3], [11, 9, 2]],
        "unreadable": {},
        "left_out": [str(folder / "1.heic")],
    }
    assert "'none' is no folder" in refused("data", "check", "none").replace(f"{tmp_path}/", "")


def test_without_a_command_help_is_shown(capsys):
    with pytest.raises(SystemExit):
        main(["data"])
    assert "download" in capsys.readouterr().out


def test_a_list_is_checked(call, refused, tmp_path):
    for i in range(3):
        Image.new("L", (10, 9 + i)).save(tmp_path / f"{i}.png")
    line = refused("data", "check", "set.csv")
    assert line == (
        f"error: image list '{tmp_path / 'set.csv'}' is no file; name a CSV file that is there"
    )
    Path("set.csv").write_text("class,file\ny,0.png\nx,1.png\ny,2.png\n")
    outcome = call("data", "check", "set.csv")
    assert outcome.code == 0, outcome
    assert outcome.out.splitlines() == [
        "train: 3 images of 2 classes: x 1, y 2",
        "sizes: from 10x9 to 10x11 pixels, most often 10x9 (1 images); shorter side: median 10",
        "unreadable: 0",
    ]

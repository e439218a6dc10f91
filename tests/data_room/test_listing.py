"""Images by class, in folders or by a CSV file: what is listed, packed and refused."""

import csv
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import ImageFolder

from apq_moo.data import load_images
from apq_moo.data.listing import Listing, digest_of_listings, list_pictures
from apq_moo.errors import UserError

NAMES = st.lists(st.text(st.characters(blacklist_characters="\0"), min_size=1), max_size=12)


@given(names=NAMES, data=st.data())
@settings(max_examples=50, deadline=None)
def test_names_are_packed_as_they_are(names, data):
    names = [os.fsdecode(name.encode("utf-8", "surrogatepass")) for name in names]
    n = len(names)
    listing = Listing.pack(Path("/base"), names, list(range(n)), [9 * i for i in range(n)])
    assert [listing.name(i) for i in range(n)] == names
    rows = data.draw(st.lists(st.integers(0, max(0, n - 1)), max_size=20 if n else 0))
    some = listing[np.array(rows, dtype=np.int64)]
    assert [some.name(i) for i in range(len(some))] == [names[row] for row in rows]
    assert some.labels.tolist() == rows
    assert some.sizes.tolist() == [9 * row for row in rows]
    if names and not names[0].startswith("/"):
        assert listing.path(0) == f"/base/{names[0]}"


def test_a_million_names_take_little_memory():
    listing = Listing.pack(
        Path("/base"), (f"train/n01440764/n01440764_{i}.JPEG" for i in range(20_000)),
        [0] * 20_000, [1] * 20_000,
    )  # fmt: skip
    held = sum(
        array.nbytes
        for array in (listing.packed, listing.begins, listing.ends, listing.labels, listing.sizes)
    )
    assert held / 20_000 < 70  # 90 MB for ImageNet's


def picture(path, red=0, size=(9, 7)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (red, 0, 0)).save(path)


def test_folders_are_listed_as_torchvision_does(tmp_path):
    for split in ("train", "val"):
        for name in ("b/deep/2.png", "b/1.JPG", "a/x.png", "a/deep-er/y.webp", "a/deep/z.bmp"):
            picture(tmp_path / split / name)
    (tmp_path / "train/a/notes.txt").touch()
    (tmp_path / "train/a/gone.png").symlink_to("nowhere.png")
    found = list_pictures(tmp_path)
    assert list(found.splits) == ["train", "val"]
    for split, listing in found.splits.items():
        theirs = ImageFolder(tmp_path / split)
        assert list(zip(listing.paths(), listing.labels, strict=True)) == theirs.samples
        assert found.classes == tuple(theirs.classes)
        sizes = [p.stat().st_size if p.exists() else 0 for p in map(Path, listing.paths())]
        assert listing.sizes.tolist() == sizes
        assert min(sizes) == 0 if split == "train" else min(sizes) > 0
    assert found.left_out == (str(tmp_path / "train/a/notes.txt"),)


def test_the_digest_tells_names_classes_and_sizes():
    def digest(names=("ab", "c"), labels=(0, 1), sizes=(5, 6), parts=((0, 2),)):
        listing = Listing.pack(Path("/any"), names, list(labels), list(sizes))
        return digest_of_listings(listing[slice(*part)] for part in parts)

    plain = (2).to_bytes(8, "little") + b"ab\0c\0"
    plain += b"".join(n.to_bytes(8, "little") for n in (0, 1, 5, 6))
    assert digest() == hashlib.sha256(plain).hexdigest()
    others = [
        digest(names=("a", "bc")), digest(labels=(1, 0)), digest(sizes=(5, 7)),
        digest(parts=((0, 1), (1, 2))), digest(parts=((0, 2), (0, 0))),
    ]  # fmt: skip
    assert len({digest(), *others}) == 6


def listed(path, *rows, header="file,class,split"):
    path.write_text("\n".join((header, *rows)), encoding="utf-8")
    return path


def test_a_csv_file_says_what_is_in_it(tmp_path):
    for i in range(6):
        picture(tmp_path / f"pictures/{i}.png", 40 * i)
    file = tmp_path / "set.csv"
    with file.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["class", "note", "split", "file"])
        for i, (name, split) in enumerate(
            [("owl, barn", "train"), ("cat", "train"), ("cat", "val"), ("owl, barn", "test"),
             ("cat", "test"), ("owl, barn", "val")]
        ):  # fmt: skip
            writer.writerow([name, "", split, f"pictures/{i}.png"])
    images = load_images(f"folder:{file}@4")
    assert images.classes == ("cat", "owl, barn")
    reds = {
        name: sorted(zip(part.pixels[:, 0, 0, 0].tolist(), part.labels.tolist(), strict=True))
        for name, part in ((n, images.split(n)) for n in ("train", "validation", "test"))
    }
    assert reds == {
        "train": [(0, 1), (40, 0)],
        "validation": [(80, 0), (200, 1)],
        "test": [(120, 1), (160, 0)],
    }


def test_without_splits_both_are_drawn(tmp_path):
    for i in range(20):
        picture(tmp_path / f"{i}.png", 10 * i)
    file = listed(
        tmp_path / "set.csv", *(f"{i}.png,{'ab'[i % 2]}" for i in range(20)), header="file,class"
    )
    images = load_images(f"folder:{file}@4")
    parts = [images.split(name) for name in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [16, 2, 2]
    reds = np.concatenate([part.pixels[:, 0, 0, 0] for part in parts]).astype(int)
    labels = np.concatenate([part.labels for part in parts])
    assert sorted(reds.tolist()) == list(range(0, 200, 10))
    assert labels.tolist() == (reds // 10 % 2).tolist()


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([], "name,class", r"columns file and class.*; not 'name', 'class'$"),
        ([], "", r"columns file and class.*; not nothing$"),
        ([], "file,class,file", "columns file and class"),
        ([], "file,class", "lists no images to train on"),
        (["0.png,a,val"], "file,class,split", "lists no images to train on"),
        (["0.png,a", "1.png,a,b"], "file,class", "row 3 has 3 columns, not 2"),
        (["0.png,"], "file,class", "row 2 must name a file and its class"),
        ([",a"], "file,class", "row 2 must name a file and its class"),
        (["0.png,a", "0.png,b"], "file,class", "row 3 names '0.png' again"),
        (["0.png,a,valid"], "file,class,split", "row 2 has split 'valid': train, val or test"),
        (["0.png,a,train", "1.png,b,val"], "file,class,split", "images of the classes 'b' are to"),
        (["2.png,a"], "file,class", "lists '2.png', which cannot be read: No such file"),
        (['"0.png,a'], "file,class", "row 2 has 1 columns|malformed"),
    ],
)
def test_malformed_lists_are_refused(tmp_path, rows, header, message):
    for i in range(2):
        picture(tmp_path / f"{i}.png")
    file = listed(tmp_path / "set.csv", *rows, header=header)
    with pytest.raises(UserError, match=message) as error:
        list_pictures(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_list_that_is_no_text(tmp_path):
    (tmp_path / "set.csv").write_bytes(b"file,class\n\xff\xfe,a\n")
    with pytest.raises(UserError, match=r"set\.csv is malformed: .*utf-8"):
        list_pictures(tmp_path / "set.csv")
    with pytest.raises(UserError, match="is no file; name a CSV file"):
        list_pictures(tmp_path / "none.csv")


def test_random_lists_are_read_or_refused(tmp_path):
    rng = np.random.default_rng(0)
    picture(tmp_path / "a.png")
    refusals = []
    good = b"file,class,split\na.png,x,train\n"
    for _ in range(200):
        bad = bytearray(good)
        for place in rng.integers(0, len(bad), 3):
            bad[place] = rng.integers(0, 256)
        (tmp_path / "set.csv").write_bytes(bad)
        try:
            assert len(list_pictures(tmp_path / "set.csv")) == 1
        except UserError as error:
            refusals.append(str(error))
    assert len(refusals) > 100
    assert not any("\n" in line for line in refusals)

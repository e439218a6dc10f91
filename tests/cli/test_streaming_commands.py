"""``--stream`` and ``--skip-unreadable`` of the commands that train and measure."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apq_moo.data import folders
from apq_moo.data.assets import find_assets
from apq_moo.data.samples import load_samples
from apq_moo.pipeline import PipelineConfig, stages
from apq_moo.space import load_space
from apq_moo.supernet.checkpoint import load_supernet


@pytest.fixture
def space(tmp_path, monkeypatch):
    """Two classes of 40 images each, one of them unreadable."""
    monkeypatch.setenv("APQ_MOO_WORKERS", "1")
    folders.load_named_folder.cache_clear()
    text = (Path(str(files("apq_moo.space"))) / "presets" / "digits.toml").read_text()
    for old, new in (
        ('name = "digits"', 'name = "mine"'),
        ('images = "digits"', 'images = "folder:pictures@8-grey"'),
        ("classes = 10", "classes = 2"),
    ):
        text = text.replace(old, new)
    (tmp_path / "mine.toml").write_text(text)
    rng = np.random.default_rng(0)
    for split, n in (("train", 30), ("val", 5), ("test", 5)):
        for name in "ab":
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                Image.fromarray(rng.integers(0, 256, (10, 9), np.uint8)).save(folder / f"{i}.png")
    (tmp_path / "pictures/train/a/7.png").write_bytes(b"no image")
    return ("--space", "mine.toml", "--stream")


TRAIN = ("supernet", "train", "--steps", "2", "-o", "s.safetensors")


def test_what_cannot_be_read_is_refused_or_skipped(call, refused, space):
    line = refused(*TRAIN, *space)
    assert "cannot read image " in line
    assert "pictures/train/a/7.png: cannot identify" in line
    outcome = call(*TRAIN, *space, "--skip-unreadable")
    assert outcome.code == 0, outcome
    _, header = load_supernet("s.safetensors", load_space("mine.toml"))
    assert header["images_skipped"] == 1
    assert header["images"].endswith("pictures@8-grey-stream-skip")
    samples = ("samples", "collect", *space, "--skip-unreadable", "--supernet", "s.safetensors")
    few = ("--fp", "3", "--mp", "3", "--held-out", "3", "--jobs", "1", "-o", "samples.npz")
    assert call(*samples, *few).code == 0
    table = load_samples("samples.npz", load_space("mine.toml"))
    assert table.complete
    assert set(np.round(table.acc % 10, 9)) == {0.0}  # of ten validation images
    assert table.provenance["images"].endswith("-stream-skip")
    folder = Path("assets")
    folder.mkdir()
    for name, of in (("supernet.safetensors", "s.safetensors"), ("samples.npz", "samples.npz")):
        Path(of).rename(folder / name)
    loaded = load_space("mine.toml")
    stages.manifest(loaded, table.provenance["images"], folder, command="", seed=0)
    manifest = find_assets(loaded, folder).manifest
    assert manifest["images_skipped"] == 1
    new = Path("new").absolute()  # the space's file says where they are now
    new.mkdir()
    for moved in ("pictures", "mine.toml"):
        Path(moved).rename(new / moved)
    name = find_assets(load_space("new/mine.toml"), folder).images
    assert name == f"folder:{new}/pictures@8-grey-stream-skip"


def test_a_file_that_goes_while_it_is_trained_on(refused, space, monkeypatch):
    path = Path("pictures/train/a/7.png")
    path.unlink()
    load = folders.load_image_folder

    def and_then_one_goes(*of, **options):
        found = load(*of, **options)
        Path("pictures/train/b/3.png").unlink()
        return found

    monkeypatch.setattr(folders, "load_image_folder", and_then_one_goes)
    line = refused(*TRAIN, *space)
    assert "pictures/train/b/3.png is gone since the images were listed" in line
    assert not Path("s.safetensors").exists()


def test_images_that_ship_are_not_streamed(refused):
    line = refused(*TRAIN, "--stream", "--space", "digits")
    assert line.startswith("error: --stream is for images of your own, folder:PATH@SIZE; image set")


def test_the_command_of_a_pipeline():
    config = PipelineConfig("a", space="digits", stream=True, skip_unreadable=True, steps=9)
    words = ("--space", "digits", "--steps", "9", "--stream", "--skip-unreadable")
    assert config.command == " ".join(("apq-moo", "pipeline", "--out", "a", *words))

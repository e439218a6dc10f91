"""The benchmark of streaming: its set, and that it times nothing that differs."""

import json

import pytest
import torch
from PIL import Image

from apq_moo.benchmarks.speed import streaming_speed, streaming_training
from apq_moo.benchmarks.speed.streaming_set import CLASSES, make_set, space_of
from apq_moo.benchmarks.speed.streaming_speed import agree, main, timed
from apq_moo.data.folders import load_image_folder
from apq_moo.space import load_space
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.streaming import StreamedBatches
from apq_moo.supernet.training import Trainer


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    make_set(folder, 420, 16, 1)
    return folder


@pytest.fixture(autouse=True)
def one_worker(monkeypatch):
    monkeypatch.setenv("APQ_MOO_WORKERS", "1")


def test_the_set_is_made_once(place):
    files = sorted(place.rglob("*.jpg"))
    assert len(files) == 420
    assert len(sorted((place / "test").rglob("*.jpg"))) == 21
    with Image.open(files[0]) as image:
        assert image.size == (16, 16)
    before = [path.stat().st_mtime_ns for path in files]
    make_set(place, 420, 16, 1)
    assert [path.stat().st_mtime_ns for path in files] == before
    images = load_image_folder(place, size=14, stream=True)
    assert len(images.classes) == CLASSES
    assert set(images.train.labels) == set(range(CLASSES))


def test_figures_are_kept(place, tmp_path):
    out = tmp_path / "figures.json"
    sizes = ("--images", "420", "--pixels", "16", "--size", "14", "--batch", "16", "--jobs", "1")
    main(["--folder", str(place), *sizes, "--timed", "6", "--steps", "0", "--out", str(out)])
    found = json.loads(out.read_text())
    assert len(found["memory_gib"]) == 2
    for epoch in found["memory_gib"]:
        assert 0 < epoch["proportional"] <= epoch["resident"] < 16
    for unit in ("per_core", "per_second"):
        of = found["speed"][unit]
        assert of["ratio"] == pytest.approx(of["streamed"] / of["bare"], rel=0.01)
    assert found["workers"] == 1


def test_what_differs_is_not_timed(place, monkeypatch):
    images = load_image_folder(place, size=14, stream=True)
    batches = StreamedBatches(images, 16, 0, torch.device("cpu"))
    agree(images, batches)
    one_off = torch.ones(64, 16, 16, 3, dtype=torch.uint8)
    monkeypatch.setattr(streaming_speed, "bare_of", lambda *_: iter([one_off]))
    with pytest.raises(SystemExit, match="nothing is timed"):
        agree(images, batches)


def test_images_are_counted():
    n, seconds, of_cores = timed(iter([torch.zeros(3), torch.zeros(4)]))
    assert n == 7
    assert seconds > 0
    assert of_cores >= 0


def test_sizes_that_cannot_agree_are_refused(place, capsys):
    for words, told in (
        (["--pixels", "16", "--size", "10"], "--size is 0.875 times --pixels"),
        (["--pixels", "16", "--size", "14", "--timed", "99"], "lower --timed"),
        (["--images", "0"], "at least 1"),
    ):
        with pytest.raises(SystemExit):
            main(["--folder", str(place), "--images", "420", "--jobs", "1", *words])
        assert told in capsys.readouterr().err


def test_a_training_goes_on_from_its_checkpoint(place, tmp_path, monkeypatch, capsys):
    space = tmp_path / "generated.toml"
    space.write_text(space_of(place, 8))
    assert load_space(space).spec.input_channels == 3
    out = tmp_path / "a.safetensors"
    words = [str(space), str(out), "--steps", "6"]

    def stopped(trainer, *, checkpoint, every_s):
        assert every_s == 0
        trainer.step = 6  # of six, so that nothing is left to do
        trainer.save(checkpoint)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", stopped)
        with pytest.raises(KeyboardInterrupt):
            streaming_training.main(words)
    assert out.with_suffix(".training").exists()
    streaming_training.main(words)
    assert capsys.readouterr().out == "resumed at step 6\n"
    assert load_supernet(out, load_space(space))[0].ranges.known
    assert not out.with_suffix(".training").exists()

"""The command ``space new``, from a folder of images to a training."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apq_moo.cli import main, pipeline_commands
from apq_moo.space import load_space


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for split, n in (("train", 72), ("test", 10)):
        for name in ("daisy", "tulip"):
            folder = tmp_path / "my pictures" / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (10, 9, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")


def test_from_a_folder_to_a_training(call, pictures, monkeypatch, capsys):
    made = call("space", "new", "--images", "folder:my pictures@8", "--latency", "0.02")
    assert made.code == 0, made
    space = load_space("my-pictures.toml")
    assert space.spec.images == "folder:my pictures@8"
    assert (space.spec.input_size, space.spec.input_channels, space.spec.classes) == (8, 3, 2)
    lines = made.out.splitlines()
    assert lines[0].startswith("8x8 pixels, 3 channels, 2 classes, 130 images to train on: ")
    assert lines[2:4] == ["my-pictures.toml", "next:"]
    commands = [shlex.split(line.partition("  # ")[0]) for line in lines[4:]]
    assert [command[1] for command in commands] == ["data", "supernet", "supernet", "pipeline"]
    check, plan, train, pipeline = (command[1:] for command in commands)
    assert call(*check).out.startswith("train: 144 images of 2 classes: daisy 72, tulip 72")
    assert plan[:4] == ["supernet", "plan", "--space", "my-pictures.toml"]
    with pytest.raises(SystemExit):
        main([*plan, "--figures", "none.json"])
    assert "none.json" in capsys.readouterr().err  # read after all options were
    assert "fashion" in train
    few = ["3" if word == "3600" else word for word in train]
    trained = call(*few, "--batch-size", "8")
    assert trained.code == 0, trained
    assert "beginning with fashion" in trained.out or "weights" in trained.out
    assert Path("my-pictures.safetensors").is_file()

    configs = []

    def keep(config, *_):
        configs.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline_commands, "run", keep)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - it is stopped before it begins
        main(pipeline)
    (config,) = configs
    assert (config.space, config.steps, config.init) == ("my-pictures.toml", 3600, "fashion")
    assert (config.objectives, config.limits) == (("acc", "latency"), {"latency": 0.02})


@pytest.mark.slow
def test_with_few_images_the_stages_are_proposed(call, pictures):
    for split in ("train", "test"):
        for image in Path("my pictures", split).rglob("*.png"):
            if int(image.stem) >= 20:
                image.unlink()
    made = call("space", "new", "--images", "folder:my pictures@8", "--latency", "0.02")
    commands = [shlex.split(line.partition("  # ")[0])[1:] for line in made.out.splitlines()[4:]]
    assert [command[0] for command in commands] == [
        *("data", "supernet", "supernet", "samples", "predictor", "run"),
    ]
    assert "36 images to train on" in made.out
    train = commands[2]
    assert train[-4:] == ["--batch-size", "32", "-o", "my-pictures.safetensors"]
    assert call(*["2" if word == "3600" else word for word in train]).code == 0
    few = ("--fp", "30", "--mp", "30", "--held-out", "10")
    assert call(*commands[3], *few).code == 0
    assert call(*commands[4]).code == 0
    assert call(*commands[5], "--budget", "1000").code == 0
    assert Path("runs/my-pictures/front.csv").is_file()


def test_the_same_command_writes_the_same_file(call, refused):
    given = ("space", "new", "--images", "digits", "--latency", "0.02", "--size", "20")
    assert call(*given, "-o", "a.toml").code == 0
    text = Path("a.toml").read_bytes()
    assert "a.toml exists; add --overwrite to replace it" in refused(*given, "-o", "a.toml")
    assert call(*given, "-o", "a.toml", "--overwrite").code == 0
    assert Path("a.toml").read_bytes() == text
    assert load_space("a.toml").spec.classes == 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--images", "digits"), "a space is made for a limit"),
        (("--images", "digits", "--latency", "1e-7"), "8x8 images has latency <= 1e-07 ms"),
        (("--images", "digits", "--latency", "nan"), "latency must be a positive number"),
        (("--images", "digits", "--size", "-1"), "size must be a positive number, not -1"),
        (("--images", "digits", "--latency", "1", "--device", "x"), "unknown device 'x'"),
        (("--images", "cats", "--latency", "1"), "unknown image set 'cats'; known: "),
        (("--images", "folder:none", "--latency", "1"), "write folder:PATH@SIZE"),
        (("--images", "folder:none@8", "--latency", "1"), "is no folder"),
        (("--images", "folder:my pictures@0", "--latency", "1"), "positive integer"),
        (("--images", "folder:one@8", "--latency", "1"), "has a single class"),
        (("--images", "folder:empty@8", "--latency", "1"), "it has none"),
        (("--images", "digits", "--latency", "1", "-o", "tiny.toml"), "ships with the package"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(refused, pictures, arguments, words):
    for split in ("train", "test"):
        Path("empty", split).mkdir(parents=True)
        Path("one", split).mkdir(parents=True)
        Path("one", split, "daisy").symlink_to(Path("my pictures", split, "daisy").resolve())
    assert words in refused("space", "new", *arguments)
    assert not list(Path().glob("*.toml"))

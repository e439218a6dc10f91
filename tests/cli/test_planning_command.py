"""``apq-moo supernet plan``."""

import json
from pathlib import Path

from PIL import Image

PLAN = ("supernet", "plan", "--images", "6400", "--batch-size", "8", "--measured-steps", "1")


def test_a_plan_is_measured_kept_and_made_anew(call, refused):
    made = call(*PLAN, "--epochs", "1", "--on", "cpu", "--gpus", "2", "-o", "plan.json")
    assert made.code == 0
    assert "800 of 8 images (1.0 epochs)" in made.out
    assert "1 passes of 4 random images" in made.out
    assert "0.9 of 2 times that on 2 devices, 150 W each" in made.out
    assert "paper" not in made.out
    kept = json.loads(Path("plan.json").read_text())
    on_gpu = kept["figures"] | {"kind": "cuda", "memory_bytes": 2**31}
    Path("gpu.json").write_text(json.dumps(on_gpu))
    shown = call(*PLAN, "--steps", "800", "--figures", "gpu.json", "--watts", "300").out
    assert "by the paper's rate" in shown
    assert "2.0 GiB" in shown
    assert "300 W each" in shown
    again = call(*PLAN, "--epochs", "2", "--gpus", "4", "--figures", "plan.json", "--json")
    found = json.loads(again.out)
    assert found["figures"] == kept["figures"]
    assert found["plan"]["steps"] == 1600
    seconds = found["figures"]["seconds"]
    by_hand = 8 / 4 * (266 * seconds["warm-up"] + 1334 * seconds["floats"]) / (4 * 0.9) / 3600
    assert abs(found["plan"]["hours"] / by_hand - 1) < 1e-9
    assert "--steps 3 and --epochs 2: give one" in refused(*PLAN, "--epochs", "2", "--steps", "3")
    both = refused(*PLAN, "--figures", "plan.json", "--on", "cpu")
    assert "--figures plan.json were measured before; leave out --on cpu" in both
    assert "random_subnets was 2, is 3" in refused(
        *PLAN, "--figures", "plan.json", "--random-subnets", "3"
    )


def test_images_are_counted_by_name(call, refused):
    for split, n in (("train", 30), ("test", 3)):
        for number in range(n):
            folder = Path("set", split, f"class{number % 2}")
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8)).save(folder / f"{number}.png")
    figures = call(*PLAN, "--steps", "9", "--warmup-steps", "0", "--on", "cpu", "-o", "a.json")
    assert figures.code == 0
    common = ("supernet", "plan", "--figures", "a.json", "--warmup-steps", "0", "--json")
    one = ("--gpus", "1")

    def images(name):
        told = call(*common, "--images", name, "--steps", "9", "--batch-size", "4", *one)
        return json.loads(told.out)["plan"]["images"]

    assert [images(name) for name in ("12", "digits", "set", "folder:set@8")] == [12, 897, 27, 27]
    assert [images(name) for name in ("1,281,167", "1_281_167")] == [1281167] * 2
    Path("set").rename("set@8")
    assert [images(name) for name in ("set@8", "folder:set@8@8")] == [27, 27]
    assert "write a number from 1" in refused(*common, "--images", "0")
    for odd in ("none", "1.28M", "folder:none@8", "1,2"):
        line = refused(*common, "--images", odd)
        assert f"{odd!r} is neither a number of images nor an image set (cifar10, " in line
    odd = refused(*common, "--images", "20", "--steps", "9", "--batch-size", "32")
    assert "--batch-size 32 is more than the 20 training images; lower it" in odd
    odd = refused(*common, "--images", "20", "--steps", "9", "--batch-size", "4", "--gpus", "8")
    assert "--batch-size 4 is less than 8 processes; raise it" in odd
    odd = refused(
        *common, "--images", "20", "--steps", "9", "--batch-size", "16", "--accumulate", "3"
    )
    assert "--accumulate 3 is more than the 2 images that a process has of a step" in odd
    assert "--images N" in refused("supernet", "plan", "--space", "imagenet")
    assert "--batch-size 64 is more than the 12" in refused(
        "supernet", "plan", "--images", "12", "--batch-size", "64"
    )

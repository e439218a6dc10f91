"""Members of a front fine-tuned for several lengths, and trained alone at their bits."""

import json
from dataclasses import replace

import pytest

from apq_moo.benchmarks.experiments import tuned_fronts, tuned_trainings
from apq_moo.data.assets import find_assets
from apq_moo.deploy import cutting
from apq_moo.errors import UserError
from apq_moo.results.run import execute
from apq_moo.space import load_space
from apq_moo.study.config import RunConfig
from apq_moo.study.folder import RunFolder

ARGUMENTS = ["--members", "3", "--epochs", "2", "--alone-steps", "12"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run"
    config = RunConfig(space="digits", algo="nsga2", budget=200, seed=0)
    execute(RunFolder.create(path, config, verify=None, overwrite=False))
    return path


@pytest.fixture
def few_images(image_set, monkeypatch):
    """The first images of each split, which pass for all."""
    splits = {"train": 256, "calibration": 64, "validation": 200, "test": 200}
    parts = {name: (image_set.split(name), n) for name, n in splits.items()}
    few = {name: part[:n] for name, (part, n) in parts.items()}
    images = replace(image_set, **few)
    images.__dict__["checksum"] = image_set.checksum
    monkeypatch.setattr(cutting, "load_images", lambda _: images)


def call(run, out, *more):
    tuned_fronts.main(["--run", str(run), "--out", str(out), *ARGUMENTS, *more])
    state = json.loads(out.read_text())
    for member in state["members"]:
        for found in member["trained"].values():
            assert found.pop("seconds") >= 0
    return state


@pytest.mark.parametrize(
    ("values", "n", "rows"),
    [
        # 95 lies between the same two as 90 does: each is taken once.
        ([90, 80, 81, 82, 84.9, 86, 100], 5, [1, 4, 5, 0, 6]),
        ([0, 0, 0, 10], 3, [0, 1, 3]),
        ([3, 1, 2], 12, [1, 2, 0]),
        ([3, 1, 2], 2, [1, 0]),
        ([5, 5, 5], 2, [0, 2]),
    ],
)
def test_values_are_evenly_spread_with_both_ends(values, n, rows):
    assert tuned_fronts.evenly(values, n) == rows


def test_members_are_of_the_measured_front_where_there_is_one():
    columns = {"acc": [90.0, 91.0, 92.0, 93.0], "latency": [1.0, 2.0, 3.0, 4.0]}
    assert tuned_fronts.members(columns, 2) == [0, 3]
    columns |= {"acc_val_true": [None, 88.0, 95.0, 80.0], "measured_front": [None, 1.0, 1.0, 0.0]}
    assert tuned_fronts.members(columns, 3) == [1, 2]
    with pytest.raises(UserError, match="accuracy is no objective"):
        tuned_fronts.members({"latency": [1.0]}, 2)


def test_steps_see_as_many_images_as_epochs_do_and_alone_is_at_its_bits_for_a_quarter():
    assert tuned_trainings.lengths([1, 5, 20], 50_000, 1024) == {
        "1 epoch": 49, "5 epochs": 245, "20 epochs": 977,
    }  # fmt: skip
    whole = tuned_trainings.recipe(find_assets(load_space("fashion")))
    train, tuning = tuned_trainings.halves(whole, 16_000, 3)
    assert (train.steps, tuning.steps) == (12_000, 4_000)
    assert (train.batch_size, tuning.batch_size, tuning.labels) == (1024, 1024, 1.0)
    assert (train.learning_rate, train.weight_decay, train.label_smoothing) == (4e-3, 0.05, 0.1)
    assert (train.warmup, train.quantised_steps, train.seed, tuning.seed) == (0, 0, 3, 3)
    with pytest.raises(UserError, match="alone_steps=3: it takes at least 4"):
        tuned_trainings.halves(whole, 3, 0)


def test_a_supernet_of_unknown_recipe_is_refused(tmp_path):
    found = find_assets(load_space("digits"))
    for train, words in ((None, "no 'train'"), ({"steps": 0}, "steps must be at least 1")):
        (tmp_path / "manifest.json").write_text(json.dumps({**found.manifest, "train": train}))
        with pytest.raises(UserError, match=words):
            tuned_trainings.recipe(find_assets(found.space, tmp_path))


def test_the_table_shows_what_comes_out():
    def of(validation, test):
        return {"validation": validation, "test": test}

    state = {
        "settings": {"columns": {"1 epoch": 49, "tenth": 1600, "alone": 16_000}},
        "members": [
            {
                "macs": 1_234_567, "bits": 5.25, "inherited": of(90.0, 89.0),
                "trained": {
                    "1 epoch": of(89.9, 91.0), "tenth": of(92.0, 91.5), "alone": of(92.3, 91.9),
                },
            },
            {
                "macs": 400_000, "bits": 4.0, "inherited": of(80.0, 81.0),
                "trained": {"1 epoch": of(80.0, 80.5), "alone": of(70.0, 70.0)},
            },
        ],
    }  # fmt: skip
    assert tuned_fronts.table(state) == [
        "| million operations | bits | inherited | 1 epoch (49 steps) | "
        "a tenth of alone (1,600 steps) | alone (16,000 steps) |",
        "|---|---|---|---|---|---|",
        "| 1.23 | 5.2 | 90.00 / 89.00 | 90.00 / 89.00 | 92.00 / 91.50 | 92.30 / 91.90 |",
        "| 0.40 | 4.0 | 80.00 / 81.00 | 80.00 / 80.50 |  | 70.00 / 70.00 |",
    ]
    assert tuned_fronts.aims(state) == [
        "1 epoch: 1 of 2 are worse than inherited on the validation images and kept as they were; "
        "of what comes out 1 are worse on the test images",
        "tenth: 0 of 1 are worse than inherited on the validation images and kept as they were; "
        "of what comes out 0 are worse on the test images",
        "a tenth of the steps, validation images: 1 of 1 within 0.3 points of alone or above; "
        "gaps from -0.30 to -0.30",
        "a tenth of the steps, test images: 0 of 1 within 0.3 points of alone or above; "
        "gaps from -0.40 to -0.40",
    ]


def test_an_interrupted_run_goes_on_to_the_same_end(run, tmp_path, few_images, monkeypatch, capsys):
    whole = call(run, tmp_path / "whole.json")
    columns = whole["settings"]["columns"]
    assert columns == {"2 epochs": 4, "alone": 12}
    assert all(member["trained"].keys() == columns.keys() for member in whole["members"])
    assert len({member["trained"]["alone"]["validation"] for member in whole["members"]}) > 1
    lines = capsys.readouterr().out.splitlines()
    assert [" alone:" in line for line in lines[1:7]] == [True] * 3 + [False] * 3
    assert lines[7:12] == tuned_fronts.table(whole)

    looks = 0

    def late(_job):
        nonlocal looks
        looks += 1
        return looks % 9 == 0

    monkeypatch.setattr(tuned_trainings.Job, "late", property(late))
    out, kinds = tmp_path / "cut.json", set()
    for _ in range(5):
        cut = call(run, out)
        kinds |= {path.name.partition("-")[2][2:] for path in tmp_path.glob("cut-*.training")}
        if "are left; repeat the command" not in capsys.readouterr().out:
            break
    assert cut == whole
    assert kinds == {"alone.first.training", "alone.training", "2-epochs.training"}
    assert not list(tmp_path.glob("*.training"))
    with pytest.raises(UserError, match=r"other settings \(columns.alone was 12, is 16"):
        call(run, out, "--alone-steps", "16")
    with pytest.raises(UserError, match=r"other settings .*seed was 0, is 1"):
        call(run, out, "--seed", "1")


def test_nothing_begins_when_its_time_is_over(run, tmp_path, few_images, capsys):
    state = call(run, tmp_path / "a.json", "--seconds", "0", "--tenth")
    assert [member["trained"] for member in state["members"]] == [{}] * 3
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "9 trainings to do, 51 steps of 128 images in all"
    assert said[-1].endswith("9 trainings are left; repeat the command to go on")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--epochs", "1,x"], "epochs must be positive integers by commas, not '1,x'"),
        (["--members", "0"], "members must be at least 1, not 0"),
        (["--on", "gpu"], "no device 'gpu'"),
        (["--alone-steps", "-5"], "alone_steps=-5"),
    ],
)
def test_bad_settings_are_refused(run, tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        call(run, tmp_path / "a.json", *change)
    assert not (tmp_path / "a.json").exists()

"""The commands that make assets, and the pipeline that chains them."""

import json
import re
import shlex
import shutil
from dataclasses import asdict, replace
from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apq_moo.cli import pipeline_commands
from apq_moo.data import folders
from apq_moo.data.assets import find_assets
from apq_moo.data.samples import load_samples
from apq_moo.errors import UserError
from apq_moo.files import locked
from apq_moo.pipeline import Listener, PipelineConfig, run, stages
from apq_moo.predictors import mlp
from apq_moo.space import load_space
from apq_moo.study.folder import LOCK
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.training import TrainConfig, Trainer

TINY = (
    *("--steps", "4", "--fp", "16", "--mp", "16", "--held-out", "6", "--budget", "4800"),
    *("--jobs", "1", "--out", "made"),
)


@pytest.fixture
def brief(monkeypatch):
    """Predictors' networks are trained, and few subnets evaluated, for a moment.

    How well they learn and how subnets are told apart is tested elsewhere.
    """

    def train(weights, inputs, targets, recipe, rng):
        return real(weights, inputs, targets, replace(recipe, epochs=1, min_steps=10), rng)

    real = mlp.train
    monkeypatch.setattr(mlp, "train", train)
    monkeypatch.setattr(stages, "_CALIBRATIONS", 2)
    monkeypatch.setattr(stages, "evaluate", partial(stages.evaluate, n_random=2))


def test_stages_one_by_one(call, refused):
    assert call("supernet", "train", "--steps", "3", "-o", "net.safetensors").code == 0
    _, header = load_supernet(Path("net.safetensors"), load_space("digits"))
    assert header["train"] == asdict(TrainConfig(steps=3))
    assert "exists" in refused("supernet", "train", "-o", "net.safetensors")
    evaluate = ("supernet", "eval", "--supernet", "net.safetensors", "--random", "3")
    shown = call(*evaluate)
    assert shown.code == 0
    assert "Kendall tau" in shown.out
    sizes = call(*evaluate, "--draw", "sizes")
    means = [re.findall(r"mean ([0-9.]+) %", done.out) for done in (shown, sizes)]
    assert len(means[0]) == len(means[1]) == 2
    assert means[0] != means[1]
    collect = ("samples", "collect", "--supernet", "net.safetensors", "-o", "samples.npz")
    sizes = ("--fp", "30", "--mp", "30", "--held-out", "8", "--jobs", "1")
    assert "30 fp, 30 mp, 8 fp_held_out, 8 mp_held_out" in call(*collect, *sizes).out
    assert "other settings" in refused(*collect, "--fp", "20")
    assert "other settings" in refused(*collect, *sizes, "--draw", "sizes")
    assert "not 'size'" in refused(*collect, *sizes, "--draw", "size")
    assert "not 'size'" in refused("supernet", "train", "--draw", "size", "-o", "b.safetensors")
    fit = call("predictor", "fit", "additive", "--samples", "samples.npz", "-o", "a.safetensors")
    assert "Kendall tau" in fit.out
    assert "unknown predictor 'x'" in refused("predictor", "fit", "x", "-o", "b.safetensors")
    quick = ("--names", "additive,xgboost", "--sizes", "10,30", "--samples", "samples.npz")
    compared = call("predictor", "compare", *quick)
    assert compared.code == 0
    assert compared.out.count("additive") == 2
    files = ("--out", "curves.csv", "--picture", "curves.svg")
    repeated = call("predictor", "compare", *quick, "--seeds", "2", "--jobs", "2", *files)
    assert "±" in repeated.out
    assert Path("curves.csv").read_text().count("\nxgboost,") == 4
    assert "<svg" in Path("curves.svg").read_text()
    assert "exists" in refused("predictor", "compare", *quick, *files)
    assert "ends in .png" in refused("predictor", "compare", *quick, "--picture", "curves.bmp")
    assert "write numbers" in refused("predictor", "compare", "--sizes", "some")
    assert call("run", "--predictor", "a.safetensors", "--budget", "600", "--sweep", "1").code == 0
    Path("cut.safetensors").write_bytes(Path("net.safetensors").read_bytes()[:500])
    assert "cut.safetensors" in refused("supernet", "eval", "--supernet", "cut.safetensors")
    assert "names no image set" in refused(
        "supernet", "train", "--space", "imagenet", "-o", "n.safetensors"
    )


def test_a_training_begins_with_weights_of_another(call, refused, monkeypatch):
    """They are said, kept in the file, and the same after an interruption."""
    train = ("supernet", "train", "--steps", "2", "--warmup-steps", "0", "--batch-size", "32")
    begun = call(*train, "--init", "digits", "-o", "a.safetensors")
    assert begun.code == 0
    assert "beginning with digits: 26,683 of 26,683 weights (100 %)" in begun.out
    _, header = load_supernet(Path("a.safetensors"), load_space("digits"))
    assert header["begun"]["path"] == "digits"
    assert "cannot read" in refused(*train, "--init", "none.safetensors", "-o", "c.safetensors")

    class Killed(BaseException):
        pass

    def run(trainer, *, checkpoint, callback):
        trainer.save(checkpoint)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", run)
        with pytest.raises(Killed):
            stages.train(
                load_space("digits"), "digits", TrainConfig(steps=2, warmup_steps=0, batch_size=32),
                "d.safetensors", init="digits",
            )  # fmt: skip
    again = refused(*train, "-o", "d.safetensors")
    assert "began with --init digits; say the same, or name another file" in again
    assert call(*train, "--init", "digits", "-o", "d.safetensors").code == 0
    assert Path("d.safetensors").read_bytes()[-1000:] == Path("a.safetensors").read_bytes()[-1000:]
    assert "cannot read" in refused("pipeline", "--init", "none.safetensors", *TINY)
    assert not Path("made/pipeline.json").exists()


@pytest.mark.usefixtures("brief")
def test_the_pipeline_resumes_at_every_stage(call, refused, monkeypatch):
    """Each stage dies once when it begins; what was done before it is not done again."""
    counts = {}

    def dying(name, real):
        def stage(*arguments, **options):
            counts[name] = counts.get(name, 0) + 1
            if counts[name] == 1:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        return stage

    monkeypatch.setattr(stages, "train", dying("train", stages.train))
    monkeypatch.setattr(stages, "collect", dying("collect", stages.collect))
    monkeypatch.setattr(stages, "fit_predictors", dying("fit", stages.fit_predictors))
    monkeypatch.setattr(stages, "evaluate", dying("evaluate", stages.evaluate))
    codes = [call("pipeline", *TINY).code for _ in range(5)]
    assert codes == [130] * 4 + [0]
    assert counts["train"] == 2
    manifest = json.loads(Path("made/manifest.json").read_text())
    assert manifest["n_fp"] == manifest["n_mp"] == 16
    assert {"command", "seed", "versions", "acc_test", "seconds"} <= manifest.keys()
    space = load_space("digits")
    assets = find_assets(space, "made")
    assert load_samples(assets.path("samples.npz"), space).complete
    run = json.loads(Path("made/run/run.json").read_text())
    assert run["status"] == "finished"
    assert run["verified"]["networks"] > 0

    Path("made/manifest.json").write_text("[]")
    assert call("pipeline", *TINY).code == 0
    before = Path("made/manifest.json").read_bytes()
    assert call("pipeline", *TINY).code == 0
    assert Path("made/manifest.json").read_bytes() == before
    begun = json.loads(Path("made/pipeline.json").read_text())
    for stage in ("train", "samples"):  # as before there were several ways to draw
        assert begun["settings"][stage].pop("draw") == "uniform"
    Path("made/pipeline.json").write_text(json.dumps(begun))
    assert call("pipeline", *TINY).code == 0
    others = (("--seed", "1"), ("--algo", "random"), ("--objectives", "acc,size"))
    for other in (*others, ("--draw", "sizes")):
        assert "other settings" in refused("pipeline", *TINY, *other)
    other = ("--assets", "made", "--predictor", "additive", "--budget", "600", "--sweep", "1")
    assert call("run", *other).code == 0

    for name in ("supernet.safetensors", "samples.npz", "predictors/mlp.safetensors"):
        path = Path("made") / name
        content = path.read_bytes()
        path.write_bytes(content[:-50])
        predictor = "mlp" if "mlp" in name else "additive"
        extra = ("--verify",) if "supernet" in name else ()
        line = refused("run", *other[:2], "--predictor", predictor, *other[4:], *extra)
        assert "damaged" in line
        path.write_bytes(content)


def test_the_command_of_a_manifest_makes_those_assets(call, monkeypatch):
    """Each option that differs from its default is in it, also the file of a space."""
    asked = []

    def stop(config, _listener):
        asked.append(config)
        raise UserError("stop")

    monkeypatch.setattr(pipeline_commands, "run", stop)
    given = (
        *("--out", "two words", "--space", "my space.toml", "--steps", "400", "--fp", "41"),
        *("--mp", "42", "--held-out", "13", "--finetune-steps", "2", "--draw", "sizes", "--algo"),
        *("nsga2", "--objectives", "acc,size", "--budget", "500", "--jobs", "1", "--seed", "9"),
        *("--warmup-steps", "0", "--device", "my table.npz", "--missing", "infeasible"),
        *("--max", "size=60", "--max", "acc=70.5", "--verify", "3"),
    )
    for arguments in (given, (*given[:8], "--seed", "3")):
        call("pipeline", *arguments)
        call(*shlex.split(asked[-1].command)[1:])
        assert asked[-1] == asked[-2]
    assert asked[0].command.count(" --") == len(given) // 2
    assert PipelineConfig("made").command == "apq-moo pipeline --out made"


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_a_pipeline_of_a_space_in_a_file(tmp_path, monkeypatch):
    """One function of the library does it all."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))
    preset = files("apq_moo.space") / "presets" / "digits.toml"
    text = preset.read_text().replace('name = "digits"', 'name = "mine"')
    Path("mine.toml").write_text(text)
    told = []
    config = PipelineConfig(
        "made", space="mine.toml", steps=6, fp=20, mp=20, held_out=5, budget=600, algo="nsga2",
        jobs=1,
    )  # fmt: skip
    folder = run(config, Listener(stage=told.append))
    assert folder.finished
    assert folder.path == Path("made/run")
    assert told == [
        "training the supernet",
        "collecting samples",
        "fitting predictors",
        "evaluating the supernet",
        "searching",
    ]
    manifest = json.loads(Path("made/manifest.json").read_text())
    assert manifest["command"] == config.command
    assert "--space mine.toml --steps 6 --fp 20" in manifest["command"]
    assert manifest["train"]["warmup_steps"] == 1

    before = {path: path.read_bytes() for path in Path("made").rglob("*") if path.is_file()}
    assert run(config).read_front() == folder.read_front()
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(UserError, match="made was begun with other settings"):
        run(replace(config, fp=21))
    with pytest.raises(UserError, match="mp must be at least 2, not 1"):
        replace(config, mp=1)


@pytest.mark.parametrize(
    "command", [("supernet", "train", "-o", "made.safetensors"), ("pipeline", "--out", "made")]
)
def test_a_warm_up_longer_than_the_training_is_one_line(refused, command):
    line = refused(*command, "--steps", "4", "--warmup-steps", "5")
    assert line == "error: --warmup-steps 5 must lie between 0 and --steps 4"
    assert not Path("made/pipeline.json").exists()


def fill(folder, classes, n=30, marked=0):
    """Pictures of 8x8 pixels of every class: noise, brighter the later it stands."""
    rng = np.random.default_rng(marked)
    for split, share in (("train", n), ("test", n // 3)):
        for number, name in enumerate(classes):
            place = Path(folder, split, name)
            place.mkdir(parents=True, exist_ok=True)
            for i in range(share):
                pixels = rng.integers(40 * number, 40 * number + 90, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{i:02}.png")


def pictured(path, images="folder:my pictures@8-grey", classes=3):
    text = (files("apq_moo.space") / "presets" / "digits.toml").read_text()
    for old, new in (("images", f'"{images}"'), ("classes", classes), ("name", '"mine"')):
        text = re.sub(rf"(?m)^{old} = .*$", f"{old} = {new}", text)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


OWN = (
    *("--steps", "4", "--fp", "12", "--mp", "12", "--held-out", "4", "--budget", "300"),
    *("--algo", "nsga2", "--jobs", "1", "--verify", "3", "--max", "size=60"),
    *("--warmup-steps", "1"),
)


def untimed(text):
    return re.sub(r"[0-9.]+ s, in ", "", text)


@pytest.mark.usefixtures("brief")
def test_a_pipeline_of_own_pictures(call, refused, tmp_path, monkeypatch):
    """Begun in one working folder, continued in another; what changed since is told."""
    monkeypatch.setattr(stages, "fit_predictors", lambda *_given, **_options: {})
    fill("my spaces/my pictures", "abc")
    pictured(Path("my spaces/my.toml"))
    machine = files("apq_moo.hardware") / "machines" / "bitfusion.toml"
    Path("machine.toml").write_text(machine.read_text())
    given = ("--space", "my spaces/my.toml", "--device", "machine.toml", "--out", "made")
    made = call("pipeline", *given, *OWN)
    assert made.code == 0, made
    assert "steps are its warm-up" not in made.err
    run_file = Path("made/run/run.json")
    record = json.loads(run_file.read_text())
    assert record["verify"] == 3
    assert 3 <= record["verified"]["networks"] <= 9
    assert record["config"]["limits"] == {"size": 60.0}
    assert record["config"]["device"] == "machine.toml"
    noise = r"validation has 9 images: accuracies move in steps of 11 points, standard error about "
    assert re.search(rf"(?m)^{noise}[0-9.]+ points; test has 30 images: .* points$", made.out)
    manifest = json.loads(Path("made/manifest.json").read_text())
    assert manifest["supernet"]["images"] == {"validation": 9, "test": 30}
    assets = ("--space", "my spaces/my.toml", "--supernet", "made/supernet.safetensors")
    assert re.search(noise, call("supernet", "eval", *assets, "--random", "2").out)
    few = ("--fp", "4", "--mp", "4", "--held-out", "3", "--jobs", "1", "-o", "few.npz")
    assert re.search(rf"(?m)^{noise}[0-9.]+ points$", call("samples", "collect", *assets, *few).out)
    assert manifest["images"] == f"folder:{tmp_path}/my spaces/my pictures@8-grey"
    assert manifest["train"]["warmup_steps"] == 1
    again = call(*shlex.split(manifest["command"])[1:])
    assert again == replace(made, err="")

    Path("away").mkdir()
    monkeypatch.chdir("away")
    moved = [str(Path("..", text)) if Path("..", text).exists() else text for text in given]
    run_file = Path("..", run_file)
    run_file.write_text(run_file.read_text().replace('"finished"', '"unfinished"'))
    copy = run_file.with_name("space.toml")  # as of a space that was edited meanwhile, and mended
    copy.write_text(copy.read_text().replace("width = 8\n", "width = 16\n"))
    elsewhere = call("pipeline", *moved, *OWN)
    assert elsewhere.code == 0, elsewhere
    assert json.loads(run_file.read_text())["status"] == "finished"
    monkeypatch.chdir("..")

    for option, value, what in (
        ("--max", "macs=1e9", "limits.macs was not there, is 1000000000.0"),
        ("--verify", "4", "verify was 3, is 4"),
        ("--device", "bitfusion", "device was '../machine.toml', is 'bitfusion'"),
        ("--missing", "infeasible", "missing was 'error', is 'infeasible'"),
        ("--warmup-steps", "2", "train.warmup_steps was 1, is 2"),
    ):
        line = refused("pipeline", *given, *OWN, option, value)
        assert f"was begun with other settings ({what}" in line
        assert line.endswith("); repeat those, or name another folder")
    for path, old, new, what in (
        ("machine.toml", "\n", "\n\n", "device"),
        ("my spaces/my.toml", "width = 8\n", "width = 16\n", "space"),
    ):
        before = Path(path).read_text()
        Path(path).write_text(before.replace(old, new, 1))
        line = refused("pipeline", *given, *OWN)
        assert line.endswith(f"was begun with other data: {what} changed since; begin a new one")
        Path(path).write_text(before)
    fill("my spaces/my pictures", "abc", n=30, marked=1)
    assert "other data: pictures changed since" in refused("pipeline", *given, *OWN)
    fill("my spaces/my pictures", "d", n=6)
    folders.load_named_folder.cache_clear()
    for command in (("supernet", "eval"), ("samples", "collect", "-o", "other.npz")):
        assert "has classes = 3, but image set " in refused(*command, *assets)
    shutil.rmtree("my spaces/my pictures")
    again = call("pipeline", *given, *OWN)
    assert untimed(again.out) == untimed(made.out)


def test_a_space_that_is_edited_during_its_pipeline(call, monkeypatch):
    fill("my pictures", "abc")
    pictured(Path("my.toml"))
    monkeypatch.setattr(stages, "fit_predictors", lambda *_given, **_options: {})

    def edit(*_given, **_options):
        text = Path("my.toml").read_text()
        Path("my.toml").write_text(text.replace("width = 8\n", "width = 16\n", 1))
        return real(*_given, **_options, n_random=1)

    real = stages.evaluate
    monkeypatch.setattr(stages, "evaluate", edit)
    stopped = call("pipeline", "--space", "my.toml", "--out", "made", *OWN)
    assert stopped.code == 2
    line = stopped.err.splitlines()[-1]
    assert line == "error: made was begun with other data: space changed since; begin a new one"


def test_a_pipeline_of_other_classes_begins_nothing(refused):
    fill("my pictures", "abcd", n=6)
    pictured(Path("my.toml"), classes=5)
    line = refused("pipeline", "--space", "my.toml", "--out", "made", *OWN)
    assert "has classes = 5, but image set " in line
    assert line.endswith("has 4 ('a', 'b', 'c', 'd'); set classes = 4")
    assert not Path("made/pipeline.json").exists()


def test_a_second_pipeline_in_a_folder_is_refused(refused):
    with locked(Path("made") / LOCK, ""):
        line = refused("pipeline", *TINY)
    mend = "wait for its end, or name another folder"
    assert line == f"error: another process carries out the pipeline in made; {mend}"


def test_a_folder_that_is_not_a_pipeline(refused):
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("dear")
    assert "holds no pipeline" in refused("pipeline", "--out", "mine")
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.tex"]


def test_a_search_that_cannot_work_is_refused_before_training(refused, monkeypatch):
    monkeypatch.setattr(stages, "train", None)
    assert "unknown algorithm 'foo'" in refused("pipeline", *TINY, "--algo", "foo")
    assert "unknown objective 'x'" in refused("pipeline", *TINY, "--objectives", "acc,x")
    assert "smallest that works is 600" in refused("pipeline", *TINY, "--budget", "599")
    assert not Path("made/pipeline.json").exists()


@pytest.mark.slow
def test_the_whole_pipeline_meets_what_digits_promises(call):
    assert call("pipeline", "--out", "made").code == 0
    found = json.loads(Path("made/manifest.json").read_text())["supernet"]
    largest, smallest = found["named"]["largest"], found["named"]["smallest"]
    assert largest["fp"]["test_clean"] >= 98
    assert largest["fp"]["test"] - largest["mp"]["test"] <= 0.5
    assert largest["fp"]["test"] - smallest["fp"]["test"] >= 5
    assert found["tau"]["fp"] >= 0.6
    assert found["tau"]["mp"] >= 0.8


@pytest.mark.parametrize(
    "command",
    [
        ["supernet", "train", "-o", "new.safetensors"],
        ["supernet", "eval"],
        ["samples", "collect", "-o", "new.npz"],
    ],
)
def test_an_unknown_device_is_one_line(command, refused):
    assert "no device 'gpu'; known: cpu, cuda" in refused(*command, "--on", "gpu")
    assert not list(Path().glob("new*"))


def test_options_of_a_training_are_its_settings(call, monkeypatch):
    asked = []
    monkeypatch.setattr(stages, "train", lambda *given, **_: asked.append(given[2]) or 0.0)
    given = (
        *("--distillation", "alpha", "--average-decay", "0.9", "--sampling", "worst-up"),
        *("--candidates", "5", "--quantised-steps", "4", "--bit-phases", "--momentum-groups"),
        *("--augmentation", "erasing"),
    )
    for options in ((), given):
        assert call("supernet", "train", "-o", "a.safetensors", *options).code == 0
    plain, levers = asked
    assert plain == TrainConfig(steps=3600)
    assert levers == replace(
        plain,
        distillation="alpha",
        average_decay=0.9,
        sampling="worst-up",
        candidates=5,
        quantised_steps=4,
        bit_phases=True,
        momentum_groups=True,
        augmentation="erasing",
    )

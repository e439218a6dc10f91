"""The commands that make assets, and the pipeline that chains them."""

import json
import re
import shlex
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path

import pytest

from apq_moo.cli import train_commands
from apq_moo.data.assets import find_assets
from apq_moo.data.samples import load_samples
from apq_moo.errors import UserError
from apq_moo.pipeline import Listener, PipelineConfig, run, stages
from apq_moo.space import load_space

TINY = (
    *("--steps", "4", "--fp", "40", "--mp", "40", "--held-out", "12", "--budget", "4800"),
    *("--jobs", "1", "--out", "made"),
)


def test_stages_one_by_one(call, refused):
    assert call("supernet", "train", "--steps", "3", "-o", "net.safetensors").code == 0
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
    few = partial(stages.evaluate, n_random=4)
    monkeypatch.setattr(stages, "evaluate", dying("evaluate", few))
    codes = [call("pipeline", *TINY).code for _ in range(5)]
    assert codes == [130] * 4 + [0]
    assert counts["train"] == 2
    manifest = json.loads(Path("made/manifest.json").read_text())
    assert manifest["n_fp"] == manifest["n_mp"] == 40
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

    monkeypatch.setattr(train_commands, "run", stop)
    given = (
        *("--out", "two words", "--space", "my space.toml", "--steps", "400", "--fp", "41"),
        *("--mp", "42", "--held-out", "13", "--finetune-steps", "2", "--draw", "sizes", "--algo"),
        *("nsga2", "--objectives", "acc,size", "--budget", "500", "--jobs", "1", "--seed", "9"),
    )
    for arguments in (given, (*given[:8], "--seed", "3")):
        call("pipeline", *arguments)
        call(*shlex.split(asked[-1].command)[1:])
        assert asked[-1] == asked[-2]
    assert asked[0].command.count(" --") == len(given) // 2
    assert PipelineConfig("made").command == "apq-moo pipeline --out made"


def test_a_pipeline_of_a_space_in_a_file(tmp_path, monkeypatch):
    """One function of the library does it all."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stages, "evaluate", partial(stages.evaluate, n_random=4))
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


def test_a_warm_up_longer_than_the_training_is_one_line(refused):
    line = refused(
        "supernet", "train", "--steps", "4", "--warmup-steps", "5", "-o", "a.safetensors"
    )
    assert "warmup_steps must be within 0 and steps, 4; not 5" in line


def test_a_folder_that_is_not_a_pipeline(refused):
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("dear")
    assert "holds no pipeline" in refused("pipeline", "--out", "mine")
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.tex"]


def test_a_search_that_cannot_work_is_refused_before_training(refused, monkeypatch):
    monkeypatch.setattr(stages, "train", None)
    assert "unknown algorithm 'foo'" in refused("pipeline", *TINY, "--algo", "foo")
    assert "unknown objective 'x'" in refused("pipeline", *TINY, "--objectives", "acc,x")
    assert "smallest that works is 4800" in refused("pipeline", *TINY, "--budget", "4799")
    assert not Path("made").exists()


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

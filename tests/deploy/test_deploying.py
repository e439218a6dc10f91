"""From a policy or a run to a folder with a network that runs, and checks of what is in it."""

import ast
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apq_moo.cli import main
from apq_moo.data import IMAGES, load_images
from apq_moo.data.folders import load_image_folder
from apq_moo.deploy import (
    check,
    choose,
    cut_out,
    cut_out_of_assets,
    execute,
    export,
    load_network,
    save_network,
)
from apq_moo.deploy import classify as script
from apq_moo.deploy.c import c_source
from apq_moo.deploy.c_program import compiler_version
from apq_moo.deploy.checking import images_for, right
from apq_moo.deploy.exporting import FORMATS
from apq_moo.deploy.onnx_runtime import run as run_onnx
from apq_moo.errors import UserError
from apq_moo.supernet.scoring import Scorer

SCRIPT = Path(script.__file__)


def call(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code or 0


def told(capsys, *arguments):
    """The one line of what is refused."""
    assert call(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 320
    return line


@pytest.fixture(scope="module")
def subnet(digits):
    (found,) = digits.decode(digits.smallest()[None])
    return found


@pytest.fixture(scope="module")
def network(trained, subnet, image_set):
    known = {"images": "digits", "supernet_sha256": "0"}
    return cut_out(trained, subnet, image_set, known)


@pytest.fixture(scope="module")
def few(image_set):
    """A part of the images, with their name and checksum."""

    def part(split):
        return split[:200]

    found = replace(image_set, validation=part(image_set.validation), test=part(image_set.test))
    vars(found)["checksum"] = image_set.checksum
    return found


@pytest.fixture
def policy(subnet, tmp_path):
    (tmp_path / "policy.json").write_text(json.dumps(subnet.to_dict()))
    return tmp_path / "policy.json"


def test_a_policy_is_deployed(policy, trained, subnet, image_set, tmp_path, capsys):
    command = ("deploy", str(policy), "-o", str(tmp_path / "net"), "--finetune-steps")
    assert call(*command, "0") == 0
    text = capsys.readouterr().out
    assert "same class on 3,600 of 3,600 images, logits differ by 0" in text
    assert {path.name for path in (tmp_path / "net").iterdir()} == {
        *("net.safetensors", "net.onnx", "net-fused.onnx", "policy.json", "classify.py"),
        *("report.json", "report.md"),
    }
    report = json.loads((tmp_path / "net/report.json").read_text())
    assert report["policy"] == subnet.to_dict()
    wanted = Scorer(trained, image_set).accuracies([subnet], ["validation", "test"], quantised=True)
    assert list(report["accuracy"].values()) == pytest.approx(wanted[0])
    exact, fused = (report["files"][name] for name in ("net.onnx", "net-fused.onnx"))
    assert exact["bytes"] == (tmp_path / "net/net.onnx").stat().st_size
    assert [run["parity"]["same_class"] for run in exact["runs"]] == [3600, 3600]
    assert fused["runs"][1]["kernels"] == [10, 11]
    assert fused["latency_ms"].keys() == {"file", "floats"}
    pages = (tmp_path / "net/report.md").read_text()
    assert f"| acc on test images (%) | | {wanted[0, 1]:.4g} |" in pages
    assert "same class on 3,600 of 3,600 images" in pages
    assert report["finetuning"] is None
    file = str(tmp_path / "net/net.onnx")
    line = told(capsys, "deploy", str(policy), "-o", file)
    assert line == f"error: cannot write {file}/net.safetensors: Not a directory"
    assert "add --overwrite to replace it" in told(capsys, *command, "5")
    assert call(*command, "5", "--overwrite", "--format", "network") == 0
    report = json.loads((tmp_path / "net/report.json").read_text())
    assert list(report["finetuning"]["inherited"].values()) == pytest.approx(wanted[0])
    kept = "tuned" if report["finetuning"]["gained"] else "inherited"
    assert report["accuracy"] == pytest.approx(report["finetuning"][kept])


def test_a_run_is_deployed(tmp_path, capsys):
    run = str(tmp_path / "run")
    options = ("--space", "digits", "--predictor", "additive", "--algo", "random")
    assert call("run", *options, "--budget", "400", "--out", run) == 0
    chosen = choose(run, {"latency": 0.01})
    assert chosen.predicted["latency"] <= 0.01
    assert chosen.predicted.keys() > {"acc", "energy", "size", "memory"}
    assert chosen.device == "bitfusion"
    assert choose(run, {"latency": 0.01}, knee=True).predicted["acc"] <= chosen.predicted["acc"]
    assert choose(run).subnet != chosen.subnet
    capsys.readouterr()
    assert "has a space of its own" in told(capsys, "deploy", run, "-o", "x", "--space", "digits")
    assert "no evaluated network has" in told(
        capsys, "deploy", run, "-o", str(tmp_path / "x"), "--max", "latency=1e-9"
    )
    assert not (tmp_path / "x").exists()


def test_the_supernet_of_the_assets(digits, subnet, network):
    found = cut_out_of_assets(digits, subnet)
    assert found.origin["images"] == "digits"
    assert len(found.origin["supernet_sha256"]) == 64
    images = load_images("digits").test.images[:50]
    np.testing.assert_array_equal(execute(found, images), execute(network, images))


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".c"])
def test_files_are_checked(network, few, suffix, tmp_path):
    path = tmp_path / f"net{suffix}"
    export(network, path)
    found = check(path, few)
    assert found.accuracy["test"] == right(execute(network, few.test.images), few.test)
    assert found.bytes == path.stat().st_size
    lines = found.lines()
    assert lines[0].startswith(str(path))
    assert all(len(line) < 200 and line.isprintable() for line in lines)
    assert len(found.runs) == {".onnx": 2, ".c": compiler_version() is not None}.get(suffix, 0)
    assert all(run.parity.exact and run.accuracy == found.accuracy["test"] for run in found.runs)


def test_c_is_checked_without_a_compiler_too(network, few, tmp_path, monkeypatch):
    export(network, tmp_path / "net.c")
    monkeypatch.setenv("CC", "no-such-compiler")
    found = check(tmp_path / "net.c", few)
    assert found.runs == ()
    made = c_source(network)
    assert f"weights of {made.weight_bytes:,} bytes" in found.lines()[0]
    assert "not run, since no C compiler is here" in found.lines()[0]


def test_programs_are_checked(network, few, tmp_path, monkeypatch):
    from apq_moo.deploy import torch_program

    monkeypatch.setattr(
        torch_program, "torch_logits", lambda file, images: execute(file.network, images) + 1
    )
    monkeypatch.setattr(
        torch_program, "load_torch", lambda _path: torch_program.TorchFile(network, None)
    )
    monkeypatch.setattr(torch_program, "torch_policy", lambda _file: network.subnet)
    (tmp_path / "n.pt2").write_bytes(b"x")
    found = check(tmp_path / "n.pt2", few)
    assert found.runs[0].parity.largest_logit == pytest.approx(1, rel=1e-5)
    assert not found.runs[0].parity.exact


def test_what_is_refused(network, few, tmp_path, capsys, monkeypatch):
    path = tmp_path / "n.safetensors"
    assert "cannot read" in told(capsys, "check", str(path))
    assert "no format is known" in told(capsys, "check", str(tmp_path / "n.txt"))
    save_network(path, replace(network, origin={**network.origin, "images": "fashion-mnist"}))
    monkeypatch.setattr(
        IMAGES, "get", lambda _name: lambda: (_ for _ in ()).throw(UserError("not here; download"))
    )
    assert told(capsys, "check", str(path)) == "error: not here; download"
    monkeypatch.undo()
    save_network(path, replace(network, origin={**network.origin, "images_sha256": "0"}))
    assert "not the one that the network was made from" in told(capsys, "check", str(path))
    assert images_for(load_network(path), "digits").name == "digits"
    save_network(path, replace(network, origin={}))
    assert "does not say which images" in told(capsys, "check", str(path))
    monkeypatch.setitem(FORMATS, "network", replace(FORMATS["network"], policy=lambda _path: None))
    with pytest.raises(UserError, match="another policy than it says"):
        check(path, few)


def test_what_export_refuses(network, policy, tmp_path, capsys):
    net = tmp_path / "n.safetensors"
    assert call("export", str(policy), "-o", str(net)) == 0
    assert load_network(net).subnet == network.subnet
    assert call("export", str(net), "-o", str(tmp_path / "n.onnx"), "--arithmetic", "fused") == 0
    capsys.readouterr()
    line = told(capsys, "export", str(net), "-o", str(tmp_path / "n.onnx"))
    assert "exists; add --overwrite" in line
    line = told(capsys, "export", str(net), "-o", str(tmp_path / "m.onnx"), "--arithmetic", "x")
    assert "--arithmetic x: write exact or fused" in line or "--arithmetic" in line
    line = told(capsys, "export", str(net), "-o", str(tmp_path / "m.onnx"), "--format", "torch")
    assert "end in .pt2" in line
    line = told(capsys, "export", str(tmp_path / "n.onnx"), "-o", str(tmp_path / "m.onnx"))
    assert "was written before; name a policy (.json), a run, or" in line
    assert not (tmp_path / "m.onnx").exists()
    line = told(capsys, "deploy", str(policy), "-o", str(tmp_path / "d"), "--max", "acc=1")
    assert "is one network" in line
    line = told(capsys, "deploy", str(policy), "-o", str(tmp_path / "d"), "--format", "tflite")
    assert "--format" in line
    assert not (tmp_path / "d").exists()


# -- the script ------------------------------------------------------------------------------------


def test_the_script_is_short_and_stands_alone():
    text = SCRIPT.read_text()
    assert len(text.splitlines()) <= 40
    found = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module] if isinstance(node, ast.ImportFrom) else []
        )
    }  # fmt: skip
    assert found == {"json", "sys", "numpy", "onnxruntime", "PIL"}


@pytest.mark.parametrize("size", [(20, 16), (9, 31), (8, 8), (5, 7)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_script_reads_pictures_as_image_folders_do(size, mode, tmp_path):
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("train/a/0.png", "train/b/0.png", "train/b/1.png", "test/a/0.png", "test/b/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name, exif=exif)
    wanted = load_image_folder(tmp_path, size=8, channels=len(mode)).test.images[:1]
    found = script.values(str(tmp_path / "test/a/0.png"), mode, 8, 255, layout="NCHW")
    np.testing.assert_array_equal(found, wanted)


def test_the_script_classifies_a_picture(network, image_set, tmp_path):
    export(network, tmp_path / "net.onnx")
    pixels = np.rint(image_set.test_clean.images[:2, 0] * 255).astype(np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    names = [str(tmp_path / f"{number}.png") for number in range(2)]
    done = subprocess.run(  # noqa: S603
        [sys.executable, str(SCRIPT), str(tmp_path / "net.onnx"), *names],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]
    images = (pixels / np.float32(255)).astype(np.float32)[:, None]
    classes = execute(network, images).argmax(1)
    (logits,) = run_onnx((tmp_path / "net.onnx").read_bytes(), images)
    assert (logits.argmax(1) == classes).all()
    said = [line.split(": ")[1].split(" ")[0] for line in done.stdout.splitlines()]
    assert said == [str(found) for found in classes]

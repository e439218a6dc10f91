"""Every command and every snippet of the README and of the page on hardware works."""

import importlib.util
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from apq_moo.benchmarks.compare.plan import BenchPlan

README = Path(__file__).parent.parent / "README.md"
HARDWARE = README.parent / "docs" / "hardware.md"
SEARCH = README.parent / "docs" / "searching.md"
SYSTEMS = README.parent / "docs" / "systems.md"
BENCHMARK = README.parent / "docs" / "benchmark.md"
DEPLOY = README.parent / "docs" / "deploy.md"


SPEC = importlib.util.spec_from_file_location("documents", Path(__file__).with_name("documents.py"))
documents = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(documents)
call = documents.call


def blocks(language, section, page=README):
    return documents.blocks(language, section, page)


def commands(section, page=README):
    lines = [line for block in blocks("sh", section, page) for line in block.splitlines()]
    assert lines
    assert all(line.startswith("apq-moo ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))


def test_the_commands_that_search(tmp_path):
    for arguments in commands("Search"):
        call(arguments)
    fronts = list((tmp_path / "runs").glob("*/front.csv"))
    assert len(fronts) == 5
    assert all(len(path.read_text().splitlines()) > 10 for path in fronts)


@pytest.mark.usefixtures("hurried")
def test_the_commands_about_a_device(tmp_path):
    for arguments in commands("Your own device"):
        call(arguments)
    assert len(list((tmp_path / "runs").glob("*/front.csv"))) == 2
    assert len(list((tmp_path / "runs").glob("*/breakdown-0.png"))) == 1


@pytest.mark.parametrize(
    ("page", "section"), [(README, "Compare algorithms"), (BENCHMARK, "# Comparing algorithms")]
)
def test_the_commands_that_compare(page, section, tmp_path):
    for arguments in commands(section, page):
        call(arguments)
    kinds = {path.suffix for path in (tmp_path / "runs").glob("*.*")}
    assert {".html", ".md"} < kinds


def test_the_commands_that_hold_seeds_against_published_ones(tmp_path, capsys):
    for arguments in commands("Your seeds beside these", BENCHMARK):
        call(arguments)
    assert "beside 17 algorithms, unpaired" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "runs" / "mine.csv").is_file()


def test_the_plan_of_a_benchmark():
    (text,) = blocks("toml", "# Comparing algorithms", BENCHMARK)
    Path("plan.toml").write_text(text)
    assert len(BenchPlan.read("plan.toml").cells()) == 31 * 2 * 5


@pytest.mark.parametrize(
    "section",
    [
        "Algorithms",
        "What a run keeps",
        "Searching on the supernet itself",
        "Measure, refit, repeat",
    ],
)
def test_the_commands_about_searching(section, tmp_path):
    for arguments in commands(section, SEARCH):
        call(arguments)
    fronts = list((tmp_path / "runs").glob("*/front.csv"))
    assert len(fronts) == sum(
        "--resume" not in a and a[0] == "run" for a in commands(section, SEARCH)
    )


def test_an_environment_of_a_system():
    pytest.importorskip("stable_baselines3")
    (code,) = blocks("python", "Agents of other libraries", SYSTEMS)
    names = {}
    exec(compile(code, "systems.md", "exec"), names)  # noqa: S102
    assert names["reward"] == 0
    assert names["state"].shape == (13,)


def test_the_commands_about_systems(tmp_path):
    for arguments in commands("# Systems", SYSTEMS):
        call(arguments)
    assert len(list((tmp_path / "runs").glob("*/front.csv"))) == 2
    for arguments in commands("All of them at equal cost", SYSTEMS):
        call(arguments)
    assert (tmp_path / "runs" / "systems" / "comparison.md").is_file()


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("section", ["A table for your own machine", "Tables as files"])
def test_the_commands_about_hardware(section, tmp_path):
    for arguments in commands(section, HARDWARE):
        call(arguments)
    if section == "Tables as files":
        assert (tmp_path / "network.png").is_file()


def test_the_commands_that_deploy(tmp_path):
    sections = ("# From a front", "Fine-tuning", "QONNX for FPGAs")
    for arguments in [line for section in sections for line in commands(section, DEPLOY)]:
        if arguments[0] == "deploy":
            arguments = [*arguments, "--finetune-steps", "30"]  # noqa: PLW2901
        call(["30" if word == "2000" else word for word in arguments])
    (code,) = blocks("python", "# From a front", DEPLOY)
    names = {}
    Path("net.onnx").unlink(missing_ok=True)
    exec(compile(code, "deploy.md", "exec"), names)  # noqa: S102
    assert names["found"].runs[1].kernels[0] > 10
    (code,) = blocks("python", "A network that runs")
    exec(compile(code, "README", "exec"), {})  # noqa: S102
    done = subprocess.run(
        [sys.executable, "net/classify.py", "net/net.onnx", "three.png"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.startswith("three.png: 3 (")
    assert "`three.png: 3 (" in README.read_text(encoding="utf-8")
    assert (tmp_path / "net/report.md").is_file()


def test_the_published_format():
    from apq_moo.hardware import read_table

    (text,) = blocks("json", "Tables as files", HARDWARE)
    Path("table.json").write_text(text)
    table = read_table("table.json")
    assert table.names[0] == "(96, 456, 14, 1, 1, 0, 1)-W4A4"
    assert table.values["latency"].tolist() == [0.062192, 0.295904, 0.081608]


def test_the_problem_in_a_study():
    (code,) = blocks("python", "Use the problem")
    names = {}
    exec(compile(code, "README", "exec"), names)  # noqa: S102
    assert len(names["subnets"]) > 3
    assert (names["result"].F[:, 1] <= 0.02).all()


def test_the_published_space():
    (code,) = blocks("python", "The ImageNet space")
    names = {}
    exec(compile(code, "README", "exec"), names)  # noqa: S102
    assert names["smallest_ms"] == pytest.approx(2.959, abs=5e-4)


@pytest.mark.slow
def test_the_commands_that_train(tmp_path):
    for arguments in commands("Your own space"):
        call(arguments)
    assert (tmp_path / "runs/digits/run/front.csv").is_file()

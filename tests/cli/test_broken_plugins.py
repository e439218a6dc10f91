"""Plug-ins that cannot be loaded: one warning in lists, one error by name, and the rest works."""

import subprocess
import sys

import pytest

from apq_moo.algorithms import ALGORITHMS
from apq_moo.benchmarks.compare.scores import INDICATORS
from apq_moo.data import IMAGES
from apq_moo.data.sources import SOURCES
from apq_moo.hardware import DEVICES, QUANTITIES
from apq_moo.hardware.measuring.backends import BACKENDS
from apq_moo.predictors import PREDICTORS
from apq_moo.problems import SOURCES as ACCURACIES

REGISTRIES = {
    "algorithms": ALGORITHMS,
    "predictors": PREDICTORS,
    "devices": DEVICES,
    "objectives": QUANTITIES,
    "accuracy_sources": ACCURACIES,
    "image_sets": IMAGES,
    "data_sources": SOURCES,
    "backends": BACKENDS,
    "indicators": INDICATORS,
}
FAULTS = {
    "missing": ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_"),
    "raising": ("raise KeyError('first line\\nsecond' + 'x' * 999)", "KeyError: 'first line"),
    "syntax": ("def (:", "SyntaxError: invalid syntax"),
    "leaving": ("raise SystemExit('\\x1b[31mbye\\nbye')", "SystemExit: \\x1b[31mbye bye"),
}


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    """A distribution that has every fault in every group."""
    site = tmp_path / "site"
    about = site / "faulty_plugins-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-plugins\nVersion: 1.0\n")
    lines = []
    for group in REGISTRIES:
        lines.append(f"[apq_moo.{group}]")
        lines += [f"{fault} = faulty_{fault}:THING" for fault in FAULTS]
    (about / "entry_points.txt").write_text("\n".join(lines))
    for fault, (code, _) in FAULTS.items():
        (site / f"faulty_{fault}.py").write_text(code)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr("apq_moo.errors._warned", set())
    for registry in REGISTRIES.values():
        monkeypatch.setattr(registry, "_broken", {})
    return site


def check(line: str, kind: str, fault: str) -> None:
    start = f"{kind} {fault!r} is a plug-in of faulty-plugins that cannot be loaded"
    assert start in line
    assert f"faulty_{fault}:THING: {FAULTS[fault][1][:20]}" in line
    assert len(line) <= 300 + len("error: ")
    assert line.isprintable()


@pytest.mark.parametrize("registry", REGISTRIES.values(), ids=REGISTRIES)
def test_a_registry_lists_what_it_can_and_warns_once_of_the_rest(registry, capsys):
    names = registry.names()
    built_in = names[: -len(FAULTS)]
    for _ in range(2):
        assert [name for name, _ in registry.usable()] == built_in
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(FAULTS)
    for line, fault in zip(lines, sorted(FAULTS), strict=True):
        assert line.startswith("warning: ")
        check(line, registry.kind, fault)
        with pytest.raises(ValueError, match="is a plug-in of faulty-plugins") as caught:
            registry.get(fault)
        check(str(caught.value), registry.kind, fault)


@pytest.mark.parametrize(
    ("command", "kinds", "shown"),
    [
        ("algorithms", ["algorithm"], "nsga2: "),
        ("device list", ["device"], "bitfusion-edge: "),
        ("data list", ["data source", "image set"], "digits: no files"),
    ],
)
def test_lists_go_on(call, command, kinds, shown):
    outcome = call(*command.split())
    assert outcome.code == 0
    assert shown in outcome.out
    lines = outcome.err.splitlines()
    expected = [(kind, fault) for kind in kinds for fault in sorted(FAULTS)]
    for line, (kind, fault) in zip(lines, expected, strict=True):
        check(line, kind, fault)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("run --algo {}", "algorithm"),
        ("run --predictor {}", "accuracy source"),
        ("run --device {}", "device"),
        ("run --objectives acc,{}", "objective"),
        ("run --objectives acc,latency --max {}=3", "objective"),
        ("device show {}", "device"),
        ("data download {}", "data source"),
        ("predictor fit {} -o p.npz", "predictor"),
        ("predictor compare --names mlp,{}", "predictor"),
        ("bench --space digits --algos nsga2,{} --seeds 2 --out b", "algorithm"),
        ("lut measure --backend {} -o t.npz", "backend"),
    ],
)
def test_asked_for_by_name_it_is_one_error(refused, command, kind, fault):
    check(refused(*command.format(fault).split()), kind, fault)


def test_a_search_works_beside_them(call):
    options = "--objectives acc,macs --budget 100 --algo random --max size=15 --out r"
    outcome = call("run", *options.split())
    assert outcome.code == 0
    assert "is a plug-in" not in outcome.err
    outcome = call("pick", "r", "--max", "energy=100")
    assert outcome.code == 0, outcome
    assert not outcome.err
    bench = "--space digits --algos random,nsga2 --objectives latency,macs --seeds 2 --budget 100"
    outcome = call("bench", *bench.split(), "--out", "b")
    assert outcome.code == 0, outcome
    assert "nsga2" in outcome.out


def test_too_few_objectives_are_answered_with_what_can_be_loaded(call):
    outcome = call("run", "--algo", "nsga3", "--objectives", "acc")
    *warnings, error = outcome.err.splitlines()
    assert outcome.code == 2
    assert error.startswith("error: nsga3 needs at least 2 objectives; with 1 use apq-ga, ")
    assert not set(FAULTS) & set(error.split(", "))
    for line, fault in zip(warnings, sorted(FAULTS), strict=True):
        check(line, "algorithm", fault)


def test_a_device_that_cannot_be_made_is_warned_of(call, refused, monkeypatch):
    monkeypatch.setitem(DEVICES._items, "unmade", lambda: {}["cells"])
    outcome = call("device", "list")
    assert outcome.code == 0
    assert "warning: device 'unmade' cannot be made: KeyError: 'cells'" in outcome.err
    assert "device 'unmade' cannot be made: KeyError: 'cells'" in refused("run", "--device=unmade")


def test_the_program_starts_beside_them(installed):
    done = subprocess.run(
        [sys.executable, "-m", "apq_moo", "--help"],
        env={"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert not done.stderr

"""What is declared is what is used: dependencies, their bounds, and the recipe for conda."""

import ast
import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    name: [Requirement(line) for line in lines]
    for name, lines in PROJECT["optional-dependencies"].items()
}
CORE = [Requirement(line) for line in PROJECT["dependencies"]]

IMPORTED_AS = {"pillow": "PIL", "scikit-learn": "sklearn"}
"""Where that is not the distribution's name with underscores."""

CONDA = {"matplotlib": "matplotlib-base", "torch": "pytorch", "xgboost": "py-xgboost"}
"""Names that differ."""

SPEC = importlib.util.spec_from_file_location("lowest", Path(__file__).parent / "lowest.py")
lowest = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(lowest)


def imported():
    """Libraries that the package imports, wherever in it."""
    found = set()
    for room in ("apq_moo", "benchmarks", "hardware", "predictors", "problems"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    found.add(node.module.partition(".")[0])
    return found - {*sys.stdlib_module_names, "apq_moo"}


def test_what_is_imported_is_declared():
    declared = [*CORE, *(wanted for name in EXTRAS if name != "dev" for wanted in EXTRAS[name])]
    names = {IMPORTED_AS.get(of.name, of.name.replace("-", "_")) for of in declared}
    assert imported() - names == {"ray", "triton"}  # a cluster's own, and torch's


def test_all_that_is_in_the_core_is_imported():
    names = {IMPORTED_AS.get(of.name, of.name.replace("-", "_")) for of in CORE}
    assert names - imported() == set()
    assert not names & {"torch", "torchvision"}


def test_bounds_are_read_and_held():
    bounds = lowest.bounds()
    assert bounds["numpy"] == Version("2.0")
    assert bounds["torch"] == Version("2.4")
    assert not {"apq-moo", "ruff"} & bounds.keys()
    wanted = {"a": Version("2.4"), "b": Version("1"), "c": Version("3")}
    wrong = lowest.newer(wanted, {"a": "2.4.0+cpu", "b": "1.1"})
    assert [line.partition(",")[0] for line in wrong] == ["b: 1 is allowed", "c: 3 is allowed"]


def test_the_recipe_for_conda_is_what_pip_installs():
    yaml = pytest.importorskip("yaml", reason="reads the recipe")
    recipe = yaml.safe_load((ROOT / "recipe" / "recipe.yaml").read_text())

    def lines(requirements):
        return {(CONDA.get(of.name, of.name), of.specifier) for of in requirements}

    def stated(section):
        return {(of.name, of.specifier) for of in map(Requirement, recipe["requirements"][section])}

    python = {("python", Requirement(f"python{PROJECT['requires-python']}").specifier)}
    assert stated("run") == lines(CORE) | python
    on_conda = ("train", "onnx", "parquet", "age", "co2", "dask", "rl")
    assert stated("run_constraints") == lines([of for name in on_conda for of in EXTRAS[name]])
    system = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    built = {(of.name, of.specifier) for of in map(Requirement, system["requires"])}
    assert stated("host") == built | python | {("pip", Requirement("pip").specifier)}
    assert recipe["context"]["version"] == PROJECT["version"]
    assert recipe["about"]["summary"] == PROJECT["description"]
    assert recipe["about"]["license"] == PROJECT["license"]
    (entry,) = recipe["build"]["python"]["entry_points"]
    assert dict([entry.split(" = ")]) == PROJECT["scripts"]

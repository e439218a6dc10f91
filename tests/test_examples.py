"""Every script of examples/ runs, and what it prints makes sense."""

import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from moocore import hypervolume

from apq_moo.problems import APQProblem

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Runs a script by name, once, in an empty folder with an empty cache."""
    folder = tmp_path_factory.mktemp("examples")

    @cache
    def run(name):
        result = subprocess.run(  # noqa: S603 - runs this interpreter
            [sys.executable, "-W", "error::FutureWarning", str(EXAMPLES / f"{name}.py")],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            env={**os.environ, "APQ_MOO_CACHE": str(folder / "cache")},
            timeout=120,
        )
        assert result.returncode == 0, result.stderr
        assert "Warning" not in result.stderr
        return result.stdout

    return run


def number(text, before, after=""):
    """The one number of a text that stands between two pieces of it."""
    (found,) = re.findall(rf"{re.escape(before)}(-?[0-9.]+){re.escape(after)}", text)
    return float(found)


def beats_random(text, at_least):
    """Hypervolume of the search and of random draws."""
    found, random = number(text, "hypervolume ", ","), number(text, "random draws ")
    assert 0 < random < 1
    assert found > random + at_least


def plain_pymoo(text):
    random = number(text, "random draws:        hypervolume ")
    plain = number(text, "pymoo's operators:   hypervolume ", ",")
    own = number(text, "problem.operators(): hypervolume ", ",")
    assert 0.4 < random < plain - 0.03
    assert random < own - 0.03
    assert 85 < number(text, "most accurate: ", " %") < 100
    assert 0 < number(text, "%, ", " us") <= 12
    assert text.count("channels") >= 3


def ask_and_tell(text):
    assert text.startswith("1250 evaluations, ")
    assert number(text, "best accuracy ", " %") > number(text, "random draws ", " %")
    rows = re.findall(r"^ +([0-9.]+) % in +([0-9.]+) KiB$", text, flags=re.MULTILINE)
    accuracies, sizes = zip(*((float(acc), float(size)) for acc, size in rows), strict=True)
    assert len(rows) > 4
    assert list(accuracies) == sorted(accuracies)
    assert list(sizes) == sorted(sizes)


def mixed_variable(text):
    assert "a network is a dictionary of 51 option indices: stage0.depth=" in text
    beats_random(text, 0.02)


def optuna_study(text):
    for sampler, n_trials in (("NSGAIISampler", 600), ("TPESampler", 150)):
        # The best accuracy of 150 trials is luck; their hypervolume is what is optimised.
        best = ("hypervolume [0-9.]+, best ",) if n_trials == 600 else ()
        for what in (*best, "hypervolume "):
            values = [
                float(re.search(rf"{n_trials} trials of {name}: {what}([0-9.]+)", text)[1])
                for name in (sampler, "RandomSampler")
            ]
            assert values[0] > values[1], (sampler, what)


def bayesian(text):
    best = [float(value) for value in re.findall(r"best ([0-9.]+) %", text)]
    assert len(best) == 12
    assert best == sorted(best)
    beats_random(text, 0.03)


def own_predictor(text):
    own = number(text, "parabola: Kendall tau ")
    assert 0.8 < own <= number(text, "additive: Kendall tau ") + 0.02
    assert 0.7 < number(text, "parabola: R^2 ", " in cross-validation") < 0.98
    best = number(text, "its best of 2000 networks: ", " % by mlp")
    assert best > number(text, "their mean ", " %") + 5


def own_device(text):
    assert 0.5 < number(text, "latency: Kendall tau to bitfusion ") < 0.99
    beats_random(text, 0.02)


def own_algorithm(text):
    """Better than draws of all sizes, and by more than uniform ones, of which there are as many."""
    random, walk, nsga2 = (
        number(text, f"{name}: hypervolume ") for name in ("random", "front-walk", "nsga2")
    )
    assert min(walk, nsga2) > random
    problem = APQProblem("digits", ("acc", "latency"), {"latency": 0.012}, start="uniform")
    drawn = problem.draw(3000, np.random.default_rng(0))
    F = problem.evaluate(drawn, return_values_of=["F"])
    uniform = hypervolume(F / [100, 0.012], ref=[0, 1])
    assert walk > uniform + 0.02
    assert nsga2 > uniform + 0.03


def with_a_library(text, at_least):
    """All evaluations were spent, on the 16 genes of `tiny` that have a choice."""
    (spent,) = re.findall(r"^([0-9]+) evaluations of 16 ", text, flags=re.MULTILINE)
    assert 320 < int(spent) <= 400
    beats_random(text, at_least)


def with_deap(text):
    with_a_library(text, 0.04)


def with_jmetalpy(text):
    with_a_library(text, 0.02)


def with_nevergrad(text):
    with_a_library(text, 0.005)


def with_platypus(text):
    with_a_library(text, 0.02)


def with_pygmo(text):
    with_a_library(text, 0.02)


JUDGES = (
    *(plain_pymoo, ask_and_tell, mixed_variable, optuna_study, bayesian),
    *(own_predictor, own_device, own_algorithm),
    *(with_deap, with_jmetalpy, with_nevergrad, with_platypus, with_pygmo),
)
LIBRARIES = {
    "with_deap": "deap",
    "with_jmetalpy": "jmetal",
    "with_nevergrad": "nevergrad",
    "with_platypus": "platypus",
    "with_pygmo": "pygmo",
}
"""What is not among the packages of the tests, of `pip install '.[libraries]'`."""


SLOW = (optuna_study,)


@pytest.mark.parametrize(
    "judge",
    [pytest.param(x, marks=pytest.mark.slow if x in SLOW else ()) for x in JUDGES],
    ids=lambda judge: judge.__name__,
)
def test_examples(judge, output):
    name = judge.__name__
    if name in LIBRARIES and find_spec(LIBRARIES[name]) is None:
        pytest.skip(f"{LIBRARIES[name]} is not installed")
    judge(output(name))


def test_libraries_that_are_not_installed_are_of_one_extra():
    project = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text(encoding="utf-8"))
    extra = project["project"]["optional-dependencies"]["libraries"]
    named = {re.match(r"[A-Za-z]+", line)[0].lower() for line in extra}
    assert named == {"deap", "jmetalpy", "nevergrad", "platypus", "pygmo"}
    assert {name.removeprefix("with_") for name in LIBRARIES} == named


def test_every_script_is_tested_and_short():
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert [path.stem for path in scripts] == sorted(judge.__name__ for judge in JUDGES)
    for path in scripts:
        text = path.read_text(encoding="utf-8")
        assert text.startswith('"""')
        assert len(text.splitlines()) < 60, path


def test_the_page_on_libraries():
    text = (EXAMPLES.parent / "docs" / "libraries.md").read_text(encoding="utf-8")
    scripts = re.findall(r"\]\(\.\./examples/(\w+)\.py\)", text)
    assert sorted(scripts) == sorted([*LIBRARIES, "optuna_study"])
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names = {}
    exec(compile(code, "libraries.md", "exec"), names)  # noqa: S102
    whole = APQProblem("tiny", ("acc", "latency"), {"latency": 0.2}, predictor="table")
    problem, F = names["problem"], whole.evaluate(whole.xu, return_values_of=["F"])
    assert (problem.n_var, whole.n_var) == (16, 31)
    assert names["F"].tolist() == F.tolist()
    assert (names["G"] > 0).all()
    assert (problem.genotypes(problem.xu) == whole.xu).all()

"""Networks are evaluated in forked processes as in their parent, which had evaluated many."""

import multiprocessing
import os
import subprocess
import sys

import pytest
import torch

from apq_moo.predictors import PREDICTORS

_FORKED = """
import multiprocessing, sys
import numpy as np
from apq_moo.problems import APQProblem

if sys.argv[1] == "torch":
    import torch

    torch.ones(2000, 2000) @ torch.ones(2000, 2000)  # on all its threads
problems = [APQProblem(space="digits", predictor=path) for path in sys.argv[2:]]
X = problems[0].space.sample(10_000 if sys.argv[1] else 1000, np.random.default_rng(0))
expected = [problem.evaluate(X, return_values_of=["F"])[:600] for problem in problems]
with multiprocessing.get_context("fork").Pool(2) as pool:
    for path, problem, F in zip(sys.argv[2:], problems, expected):
        found = pool.map_async(problem.evaluate, [X[:600]] * 2)
        found.wait(timeout=20)
        assert found.ready(), path
        for values in found.get():
            np.testing.assert_array_equal(values[0], F)
"""


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot be forked"
)
@pytest.mark.parametrize("imported", ["torch", ""])
def test_a_forked_pool_evaluates_after_its_parent_did(imported, fitted, tmp_path):
    for name in PREDICTORS:
        fitted[name].save(tmp_path / f"{name}.safetensors")
    paths = sorted(tmp_path.iterdir())
    if imported:
        weights = fitted["mlp"].weights
        paths.append(tmp_path / "published.pt")
        torch.save({key: torch.from_numpy(array) for key, array in weights.items()}, paths[-1])
    command = [sys.executable, "-c", _FORKED, imported, *map(str, paths)]
    env = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(  # noqa: S603 - runs this interpreter
        command, check=False, env=env, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr[-2000:]

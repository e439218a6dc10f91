"""The benchmarks of the pages run, agree before they time, and print what the pages quote."""

import re
import sys

import numpy as np
import pytest

from apq_moo.benchmarks import cost_speed, feasibility, search_speed


def lines_of(module, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    module.main()
    return capsys.readouterr().out.splitlines()


def test_searches(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small = ("--rounds", "5", "--repeats", "1", "--large", "300", "--generations", "2")
    head, search, sweep, large = lines_of(search_speed, monkeypatch, capsys, *small)
    assert "630,801 weights" in head
    for line, n, batch in ((search, "600", "100"), (sweep, "12,000", "2,000")):
        assert f"{n} evaluations in" in line
        assert f"6 dense forward passes of {batch} in" in line
        assert 0.01 < float(re.search(r"ratio ([\d.]+)", line)[1]) < 1000
    seconds, memory = re.search(r"([\d.]+) s a generation.* memory (\d+) MiB", large).groups()
    assert 0 < float(seconds) < 60
    assert 0 < int(memory) < 512


def test_searches_refuse_a_predictor_that_is_wrong(monkeypatch, tmp_path):
    from apq_moo.predictors.mlp import MLPPredictor

    real = MLPPredictor._predict
    monkeypatch.setattr(MLPPredictor, "_predict", lambda self, X: real(self, X) + 0.01)
    with pytest.raises(AssertionError, match="differs from torch"):
        search_speed._prepare(str(tmp_path / "p.safetensors"), 1)


def test_feasible_draws(monkeypatch, capsys):
    real = feasibility.coverage
    monkeypatch.setattr(feasibility, "coverage", lambda *limit: real(*limit, batches=2))
    lines = lines_of(feasibility, monkeypatch, capsys)
    assert len(lines) == 1 + len(feasibility.PUBLISHED_LIMITS)
    for line in lines[1:]:
        distinct, depths = line.split()[-2:]
        assert distinct == "100%"
        present, allowed = map(int, depths.split("/"))
        assert present == allowed


def test_costs_agree_with_plain_sums():
    space = cost_speed.load_space("imagenet")
    plain = cost_speed.PlainSum(space)
    X = space.sample(5, np.random.default_rng(0))
    tables = [cost_speed.cost_table(space, name) for name in ("latency", "energy")]
    for row, subnet in zip(X, space.decode(X), strict=True):
        active = np.flatnonzero(space.active(row[None])[0])
        blocks = [(space.plans[b], block) for b, block in zip(active, subnet.blocks, strict=True)]
        np.testing.assert_allclose(
            plain(blocks), [table(row[None])[0] for table in tables], rtol=1e-12
        )

"""A search of two million evaluations that was stopped near its end is soon under way again."""

import time
from functools import partialmethod

import pytest

from apq_moo.algorithms import ALGORITHMS
from apq_moo.algorithms.baselines.evolution import RegularizedEvolution
from apq_moo.study.config import RunConfig
from apq_moo.study.search import Search

STOP, BUDGET = 1_950_000, 2_000_000


class StoppedError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nsga2", "apq-ga", "random", "regularized-evolution", "spea2"])
def test_two_million_evaluations_go_on_within_half_a_minute(name, tmp_path, monkeypatch):
    """Rounds are large, so that the test ends; what is kept is as much as with small ones."""
    monkeypatch.setenv("APQ_MOO_CACHE", str(tmp_path / "cache"))
    evolution = partialmethod(RegularizedEvolution.__init__, n_offsprings=2000)  # 10 otherwise
    monkeypatch.setattr(RegularizedEvolution, "__init__", evolution)
    swept = ALGORITHMS.get(name).swept
    config = RunConfig(
        algo=name,
        space="digits",
        predictor="additive",
        budget=BUDGET,
        pop_size=200 if name == "spea2" else 2000,
        sweep=2 if swept else 1,
    )

    def stop_at(n):
        def callback(done, _total):
            if done >= n:
                raise StoppedError

        return callback

    with pytest.raises(StoppedError):
        Search(config).run(folder=tmp_path, callback=stop_at(STOP), every_s=5.0)
    begun = time.perf_counter()
    with pytest.raises(StoppedError):
        Search(config).run(folder=tmp_path, callback=stop_at(STOP - 200_000))
    assert time.perf_counter() - begun < 30

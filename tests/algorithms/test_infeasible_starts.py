"""Searches whose first population meets no limit."""

import numpy as np
import pytest
from pymoo.core.population import Population

from apq_moo.algorithms.pymoo import tournaments
from apq_moo.results.run import execute
from apq_moo.study.config import RunConfig
from apq_moo.study.folder import RunFolder


@pytest.mark.parametrize("algo", ["nsga2", "spea2", "unsga3", "nsga3"])
def test_a_limit_that_no_first_network_meets(algo, tmp_path):
    config = RunConfig(
        algo=algo,
        space="tiny",
        predictor="table",
        objectives=("acc", "latency"),
        limits={"acc": 92.38},
        budget=2000,
        pop_size=20,
    )
    folder = RunFolder.create(tmp_path / "run", config, verify=None, overwrite=False)
    front = execute(folder)
    with np.load(tmp_path / "run" / "archive.npz") as archive:
        accuracies = -archive["F"][:, 0]
    assert accuracies[:20].max() < 92.38
    assert min(front["acc"]) >= 92.38


@pytest.mark.parametrize("of", [tournaments.by_dominance, tournaments.by_fitness])
def test_networks_that_survival_noted_nothing_of(of):
    pop = Population.new("X", np.zeros((4, 1)))
    pop.set("F", np.zeros((4, 2)))
    pop.set("CV", np.array([[3.0], [1.0], [2.0], [4.0]]))
    pairs = np.array([[0, 1], [2, 3], [3, 0]])
    assert of(pop, pairs, np.random.default_rng(0))[:, 0].tolist() == [1, 2, 0]

"""Searches whose first population meets no limit."""

import numpy as np
import pytest
from pymoo.core.population import Population

from apq_moo.algorithms import tournaments


@pytest.mark.parametrize("of", [tournaments.by_dominance, tournaments.by_fitness])
def test_networks_that_survival_noted_nothing_of(of):
    pop = Population.new("X", np.zeros((4, 1)))
    pop.set("F", np.zeros((4, 2)))
    pop.set("CV", np.array([[3.0], [1.0], [2.0], [4.0]]))
    pairs = np.array([[0, 1], [2, 3], [3, 0]])
    assert of(pop, pairs, np.random.default_rng(0))[:, 0].tolist() == [1, 2, 0]

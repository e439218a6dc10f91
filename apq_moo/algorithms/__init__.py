"""Search algorithms, and operators that know the space."""

from apq_moo.algorithms.apq_ga import ApqGA
from apq_moo.algorithms.catalogue import ALGORITHMS, AlgorithmEntry, AlgorithmFactory
from apq_moo.algorithms.operators import (
    CanonicalDuplicateElimination,
    FeasibleRepair,
    FeasibleSampling,
    SpaceCrossover,
    SpaceMutation,
    operators,
)
from apq_moo.algorithms.random_search import RandomSearch

__all__ = [
    "ALGORITHMS",
    "AlgorithmEntry",
    "AlgorithmFactory",
    "ApqGA",
    "CanonicalDuplicateElimination",
    "FeasibleRepair",
    "FeasibleSampling",
    "RandomSearch",
    "SpaceCrossover",
    "SpaceMutation",
    "operators",
]

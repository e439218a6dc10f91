"""Search algorithms, and operators that know the space."""

from apq_moo.algorithms import catalogue as _catalogue  # noqa: F401  registers what it lists
from apq_moo.algorithms.apq.ga import ApqGA
from apq_moo.algorithms.baselines.random_search import RandomSearch
from apq_moo.algorithms.entry import ALGORITHMS, AlgorithmEntry, AlgorithmFactory
from apq_moo.problems.operators import (
    CanonicalDuplicateElimination,
    FeasibleRepair,
    FeasibleSampling,
    SpaceCrossover,
    SpaceMutation,
    operators,
)

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

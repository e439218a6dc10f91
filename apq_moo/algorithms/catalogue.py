"""The algorithms by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.algorithm import Algorithm

from apq_moo.algorithms.apq_ga import ApqGA
from apq_moo.algorithms.base import require_apq_problem
from apq_moo.algorithms.random_search import RandomSearch
from apq_moo.registry import Registry

if TYPE_CHECKING:
    from apq_moo.problems import APQProblem


AlgorithmFactory: TypeAlias = Callable[..., Algorithm]
"""``factory(problem, pop_size=100, **options)`` makes an algorithm for ``setup(problem, ...)``; the
options are further arguments of its class."""


@dataclass(frozen=True)
class AlgorithmEntry:
    """An algorithm and what is known of it.

    Attributes:
        name: as users write it.
        factory: makes one for a problem.
        kind: whether one run yields a front, or one network for one set of limits, so that a front
            takes a sweep over limits.
        citation: of the method.
        summary: one line.
    """

    name: str
    factory: AlgorithmFactory
    kind: Literal["single-objective-sweep", "multi-objective"]
    citation: str
    summary: str


ALGORITHMS: Registry[AlgorithmEntry] = Registry("algorithm")


def _apq_ga(_problem: APQProblem, pop_size: int = 100, **options: Any) -> Algorithm:
    return ApqGA(pop_size=pop_size, **options)


def _nsga2(problem: APQProblem, pop_size: int = 100, **options: Any) -> Algorithm:
    operators = require_apq_problem(problem, "nsga2").operators()
    return NSGA2(pop_size=pop_size, **{**operators, **options})


def _random(_problem: APQProblem, pop_size: int = 100, **options: Any) -> Algorithm:
    return RandomSearch(pop_size=pop_size, **options)


for _entry in (
    AlgorithmEntry(
        "apq-ga",
        _apq_ga,
        "single-objective-sweep",
        "T. Wang et al., APQ: Joint Search for Network Architecture, Pruning and Quantization "
        "Policy, CVPR 2020, Algorithm 1",
        "APQ's evolution: most accurate network under each of several limits",
    ),
    AlgorithmEntry(
        "nsga2",
        _nsga2,
        "multi-objective",
        "K. Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE "
        "Transactions on Evolutionary Computation 6(2), 2002",
        "non-dominated sorting and crowding, with operators that know the space",
    ),
    AlgorithmEntry(
        "random",
        _random,
        "multi-objective",
        "J. Bergstra and Y. Bengio, Random Search for Hyper-Parameter Optimization, Journal of "
        "Machine Learning Research 13, 2012",
        "uniform draws from the networks that meet the limits",
    ),
):
    ALGORITHMS.register(_entry.name, _entry)

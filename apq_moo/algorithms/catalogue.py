"""The algorithms by name."""

from __future__ import annotations

from collections.abc import Callable
from math import comb
from typing import TYPE_CHECKING, Any

from pymoo.algorithms.moo.sms import SMSEMOA
from pymoo.core.algorithm import Algorithm
from pymoo.util.ref_dirs import get_reference_directions

from apq_moo.algorithms.apq.ga import ApqGA
from apq_moo.algorithms.apq.released import ReleasedApqGA
from apq_moo.algorithms.apq.strategy import ApqStrategy
from apq_moo.algorithms.base import require_apq_problem
from apq_moo.algorithms.baselines.evolution import LocalSearch, RegularizedEvolution
from apq_moo.algorithms.baselines.random_search import RandomSearch
from apq_moo.algorithms.baselines.systems import SYSTEMS
from apq_moo.algorithms.entry import ALGORITHMS, AlgorithmEntry, AlgorithmFactory, system_entry
from apq_moo.algorithms.exact.search import ExactSearch
from apq_moo.algorithms.pymoo.decomposed import (
    BudgetedRVEA,
    ConstrainedMOEAD,
    ScaledCTAEA,
    nsga3,
    spea2,
    unsga3,
)
from apq_moo.algorithms.pymoo.nsga2 import QuickNSGA2
from apq_moo.algorithms.surrogate.algorithm import MeasuredSearch
from apq_moo.algorithms.surrogate.inner import searched_by
from apq_moo.algorithms.surrogate.refit import Refit
from apq_moo.arrays import FloatArray
from apq_moo.errors import UserError
from apq_moo.predictors import create_predictor

if TYPE_CHECKING:
    from apq_moo.problems import APQProblem


def reference_directions(n_obj: int, n: int) -> FloatArray:
    """Das and Dennis's evenly spread weights, as many as fit into ``n``; shape ``(m, n_obj)``.

    At least one for each objective, with ``m > n`` only if ``n < n_obj``.
    """
    if n_obj < 2:
        raise UserError("reference directions need at least 2 objectives")
    partitions = 1
    while comb(partitions + n_obj, n_obj - 1) <= n:
        partitions += 1
    weights: FloatArray = get_reference_directions("das-dennis", n_obj, n_partitions=partitions)
    return weights


def _plain(maker: Callable[..., Algorithm]) -> AlgorithmFactory:
    """A factory of an algorithm that brings its own ways of varying networks."""

    def make(_problem: APQProblem, pop_size: int = 100, **options: Any) -> Algorithm:
        return maker(pop_size=pop_size, **options)

    return make


def _genetic(name: str, maker: Callable[..., Algorithm]) -> AlgorithmFactory:
    """A factory of one of pymoo's genetic algorithms, with operators that know the space."""

    def make(problem: APQProblem, pop_size: int = 100, **options: Any) -> Algorithm:
        operators = require_apq_problem(problem, name).operators()
        return maker(pop_size=pop_size, **{**operators, **options})

    return make


def _directed(name: str, maker: Callable[..., Algorithm], drop: str = "") -> AlgorithmFactory:
    """A factory of an algorithm whose population follows reference directions."""

    def make(problem: APQProblem, pop_size: int = 100, **options: Any) -> Algorithm:
        operators = require_apq_problem(problem, name).operators()
        operators.pop(drop, None)
        directions = reference_directions(problem.n_obj, pop_size)
        return maker(directions, **{**operators, **options})

    return make


def _age_moea2(**options: Any) -> Algorithm:
    try:
        from pymoo.algorithms.moo.age2 import AGEMOEA2
    except Exception as error:  # pymoo raises a bare Exception without numba
        raise UserError("age-moea2 needs numba: pip install 'apq-moo[age]'") from error
    return AGEMOEA2(**options)


def _exact(_problem: APQProblem, pop_size: int = 100, **options: Any) -> Algorithm:
    del pop_size  # it has no population
    return ExactSearch(**options)


SURROGATE = "gp-scratch"
"""The predictor of measuring searches; it needs no samples but what they measure."""

INNER = "nsga2"
"""The algorithm that searches its predictions."""


def _surrogate(
    problem: APQProblem, pop_size: int = 100, refit: Refit | None = None, **options: Any
) -> Algorithm:
    """A search that measures; by default from nothing."""
    space = require_apq_problem(problem, "surrogate").space
    if refit is None:
        inner = searched_by(ALGORITHMS.get(INNER).strategy, pop_size=pop_size)
        refit = Refit(create_predictor(SURROGATE, space), inner)
    return MeasuredSearch(refit, **options)


_NORMALISATION = tuple(
    f"survival.norm.{name}"
    for name in ("ideal_point", "worst_point", "nadir_point", "extreme_points")
)

for _entry in (
    AlgorithmEntry(
        "apq-ga",
        _plain(ApqGA),
        "single-objective-sweep",
        "T. Wang et al., APQ: Joint Search for Network Architecture, Pruning and Quantization "
        "Policy, CVPR 2020, Algorithm 1",
        "APQ's evolution: most accurate network under each of several limits",
        search=ApqStrategy,
    ),
    AlgorithmEntry(
        "apq-ga-released",
        _plain(ReleasedApqGA),
        "single-objective-sweep",
        "T. Wang et al., APQ, CVPR 2020, as its code was released",
        "the released code's behaviour, which departs from the paper: blind to bits, no crossover; "
        "what it keeps is reported, not all that it scored",
        state=(),
        reports_kept=True,
    ),
    AlgorithmEntry(
        "nsga2",
        _genetic("nsga2", QuickNSGA2),
        "multi-objective",
        "K. Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE "
        "Transactions on Evolutionary Computation 6(2), 2002",
        "non-dominated sorting and crowding, with operators that know the space",
        state=(),
    ),
    AlgorithmEntry(
        "random",
        _plain(RandomSearch),
        "multi-objective",
        "J. Bergstra and Y. Bengio, Random Search for Hyper-Parameter Optimization, Journal of "
        "Machine Learning Research 13, 2012",
        "random draws, of all sizes, from the networks that meet the limits",
        state=(),
    ),
    AlgorithmEntry(
        "nsga3",
        _directed("nsga3", nsga3),
        "multi-objective",
        "K. Deb and H. Jain, An Evolutionary Many-Objective Optimization Algorithm Using "
        "Reference-Point-Based Nondominated Sorting Approach, IEEE Transactions on Evolutionary "
        "Computation 18(4), 2014",
        "non-dominated sorting and reference directions",
        least_objectives=2,
        state=("survival.opt", *_NORMALISATION),
    ),
    AlgorithmEntry(
        "unsga3",
        _directed("unsga3", unsga3),
        "multi-objective",
        "H. Seada and K. Deb, A Unified Evolutionary Optimization Procedure for Single, Multiple, "
        "and Many Objectives, IEEE Transactions on Evolutionary Computation 20(3), 2016",
        "NSGA-III with niching tournaments",
        least_objectives=2,
        state=("survival.opt", *_NORMALISATION),
    ),
    AlgorithmEntry(
        "moead",
        _directed("moead", ConstrainedMOEAD, drop="eliminate_duplicates"),
        "multi-objective",
        "Q. Zhang and H. Li, MOEA/D: A Multiobjective Evolutionary Algorithm Based on "
        "Decomposition, IEEE Transactions on Evolutionary Computation 11(6), 2007",
        "one subproblem for each weight; constraints by Deb's rules, objectives scaled",
        least_objectives=2,
        state=("ideal", "_scale.low", "_scale.range"),
    ),
    AlgorithmEntry(
        "sms-emoa",
        _genetic("sms-emoa", SMSEMOA),
        "multi-objective",
        "N. Beume, B. Naujoks and M. Emmerich, SMS-EMOA: Multiobjective Selection Based on "
        "Dominated Hypervolume, European Journal of Operational Research 181(3), 2007",
        "drops what contributes least hypervolume",
        least_objectives=2,
        state=(),
    ),
    AlgorithmEntry(
        "age-moea2",
        _genetic("age-moea2", _age_moea2),
        "multi-objective",
        "A. Panichella, An Improved Pareto Front Modeling Algorithm for Large-Scale "
        "Many-Objective Optimization, GECCO 2022",
        "estimates the front's geometry; needs the extra apq-moo[age]",
        least_objectives=2,
        state=(),
    ),
    AlgorithmEntry(
        "rvea",
        _directed("rvea", BudgetedRVEA),
        "multi-objective",
        "R. Cheng et al., A Reference Vector Guided Evolutionary Algorithm for Many-Objective "
        "Optimization, IEEE Transactions on Evolutionary Computation 20(5), 2016",
        "angles to reference vectors, on a schedule that follows the budget",
        least_objectives=2,
        needs=("budget",),
        state=tuple(f"survival.{name}" for name in ("ideal", "nadir", "V", "gamma")),
    ),
    AlgorithmEntry(
        "spea2",
        _genetic("spea2", spea2),
        "multi-objective",
        "E. Zitzler, M. Laumanns and L. Thiele, SPEA2: Improving the Strength Pareto Evolutionary "
        "Algorithm, ETH Zurich, TIK-Report 103, 2001",
        "strength and density",
        least_objectives=2,
        state=("survival.points",),
    ),
    AlgorithmEntry(
        "ctaea",
        _directed("ctaea", ScaledCTAEA),
        "multi-objective",
        "K. Li et al., Two-Evaluated Evolutionary Algorithm for Constrained Multiobjective "
        "Optimization, IEEE Transactions on Evolutionary Computation 23(2), 2019",
        "an archive for convergence and one for diversity, objectives scaled",
        least_objectives=2,
        state=(
            "da",
            *(f"survival.{name}" for name in ("opt", "ideal_point")),
            *(f"survival._scale.{name}" for name in ("low", "range")),
        ),
    ),
    AlgorithmEntry(
        "regularized-evolution",
        _plain(RegularizedEvolution),
        "single-objective-sweep",
        "E. Real et al., Regularized Evolution for Image Classifier Architecture Search, AAAI 2019",
        "mutants of tournament winners, the oldest dies",
        state=(),
    ),
    AlgorithmEntry(
        "local-search",
        _plain(LocalSearch),
        "single-objective-sweep",
        "C. White, S. Nolen and Y. Savani, Exploring the Loss Landscape in Neural Architecture "
        "Search, UAI 2021",
        "hill climbs with restarts",
        state=("idle",),
    ),
    AlgorithmEntry(
        "surrogate",
        _surrogate,
        "multi-objective",
        "Z. Lu et al., NSGANetV2: Evolutionary Multi-Objective Surrogate-Assisted Neural "
        "Architecture Search, ECCV 2020; M. Emmerich et al., IEEE Transactions on Evolutionary "
        "Computation 10(4), 2006",
        "measures what a predictor, fitted to all that was measured, expects most of",
        needs=("refit",),
        state=(),
    ),
    AlgorithmEntry(
        "exact",
        _exact,
        "multi-objective",
        "M. Ehrgott, Multicriteria Optimization, Springer 2005, section 10.3",
        "the whole front of an additive surrogate, by dynamic programming; with several costs a "
        "grid of integer programs",
        needs=("surrogate",),
        state=(),
    ),
):
    ALGORITHMS.register(_entry.name, _entry)

for _system, _source, _summary in SYSTEMS:
    ALGORITHMS.register(_system.title, system_entry(_system.title, _system, _source, _summary))

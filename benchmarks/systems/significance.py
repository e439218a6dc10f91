"""Whether systems differ under a target: paired tests over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, count

import numpy as np

from apq_moo.benchmarks.compare.statistics import ALPHA, a12, holm, signed_rank, summarise
from apq_moo.benchmarks.systems.results import Accuracy, Results
from apq_moo.benchmarks.systems.settings import Case, title_of

_DIGITS = 9
"""Of differences in percent, so that those of as many images are equal, and share their rank."""

Pair = tuple[Case, str, str]
"""Two systems to compare in a case."""


@dataclass(frozen=True)
class PairedTest:
    """Two systems compared in a case, seed by seed.

    Values of a search that found nothing are below all others. Where a system does not depend on
    the seed, its one value is every seed's partner: the test asks whether the other's median is
    that. Where neither does there is nothing to test, and the larger value wins.

    Attributes:
        target: the limit.
        budget: evaluations.
        accuracy: the images that accuracies are of.
        a: the first system.
        b: the second.
        seeds: that both have.
        median_a: of the first's accuracies.
        median_b: of the second's.
        difference: median of the first's less the second's.
        seedless: of the two, those that do not depend on the seed.
        p: of Wilcoxon's signed-rank test, two-sided; None where there is nothing to test.
        p_adjusted: by Holm's method, over the family.
        rank_biserial: the test's effect size, from -1 to 1; above 0 where the first is better.
        a12: chance that a value of the first is larger than one of the second, ties counted half.
        winner: the significantly better one's name, or None.
    """

    target: str
    budget: int
    accuracy: Accuracy
    a: str
    b: str
    seeds: int
    median_a: float
    median_b: float
    difference: float
    seedless: tuple[str, ...]
    p: float | None
    p_adjusted: float | None
    rank_biserial: float
    a12: float
    winner: str | None


def all_pairs(results: Results, case: Case) -> list[Pair]:
    """Every two systems that have searched in a case."""
    names = [name for name in results.settings.systems if results.of(case, name)]
    return [(case, a, b) for a, b in combinations(names, 2)]


def paired_tests(
    results: Results, pairs: Sequence[Pair], on: Accuracy, alpha: float = ALPHA
) -> list[PairedTest]:
    """Test pairs of systems as one family.

    Pairs that have no seed in common are left out.

    Args:
        results: of the comparison.
        pairs: the family.
        on: the images that accuracies are of.
        alpha: largest adjusted p-value that is significant.
    """
    tests = []
    for case, a, b in pairs:
        first, second = results.values(case, a, on), results.values(case, b, on)
        seeds = sorted(first.keys() & second.keys())
        if not seeds:
            continue
        x, y = np.array([first[s] for s in seeds]), np.array([second[s] for s in seeds])
        with np.errstate(invalid="ignore"):  # nothing against nothing
            differences = np.where(x == y, 0.0, x - y).round(_DIGITS)
        found = signed_rank(differences, np.zeros(len(seeds)))
        seedless = tuple(name for name in (a, b) if results.seedless(case, name))
        tests.append(
            PairedTest(
                title_of(case.target),
                case.budget,
                on,
                a,
                b,
                len(seeds),
                median_a=summarise(x).median,
                median_b=summarise(y).median,
                difference=summarise(differences).median,
                seedless=seedless,
                p=found.p if len(seedless) < 2 else None,
                p_adjusted=None,
                rank_biserial=found.rank_biserial,
                a12=a12(x, y),
                winner=None,
            )
        )
    return _judged(tests, alpha)


def _judged(tests: Sequence[PairedTest], alpha: float) -> list[PairedTest]:
    """The same with adjusted p-values and winners."""
    p = [test.p for test in tests if test.p is not None]
    adjusted = iter(holm(p).tolist() if p else [])
    found = []
    for test in tests:
        p_adjusted = None if test.p is None else next(adjusted)
        differs = test.rank_biserial != 0 and (p_adjusted is None or p_adjusted <= alpha)
        better = test.a if test.rank_biserial > 0 else test.b
        found.append(replace(test, p_adjusted=p_adjusted, winner=better if differs else None))
    return found


def seeds_needed(tests: int, alpha: float = ALPHA) -> int:
    """The fewest seeds with which one of a family of tests can be significant."""
    return next(n for n in count(2) if tests * 2.0 ** (1 - n) <= alpha)

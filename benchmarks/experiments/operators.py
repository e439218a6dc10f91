"""What each search operator is worth: NSGA-II with all of them, and with one replaced at a time.

Run as ``python -m apq_moo.benchmarks.experiments.operators``. Every variant searches accuracy and
latency with populations of 100, begins with uniform networks and
gets the same number of evaluations. Its score is the
hypervolume of everything feasible that it evaluated. The reference point is fixed for each problem:
the lowest accuracy and the largest latency of 10,000 feasible networks drawn at random. 1 is the
box from there to 100 % at the least latency of the space, which no network reaches.

The problems are digits with its shipped predictor, without a limit and under the latency that one
in ten random networks meets; and imagenet under two published limits. No supernet ships for
imagenet, so its accuracy is made up (:class:`SyntheticAccuracy`): scores there compare operators
and say nothing of real networks.

Before anything is timed, every variant must have evaluated as many networks as the others, and its
values must equal what the problem says of the same networks and what their layers add up to. A
variant whose matings yield nothing but duplicates stops early; the table shows how many it got.

``p`` is that of the two-sided Mann-Whitney test against the full set, not corrected for the number
of comparisons; from 9 seeds on by the normal approximation, which cannot fall below 8e-5 with 11.
Seconds are CPU seconds of one search.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.algorithm import Algorithm
from pymoo.core.mixed import MixedVariableGA
from pymoo.core.sampling import Sampling
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.crossover.ux import UX
from pymoo.operators.mutation.nom import NoMutation
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding

from apq_moo.algorithms import RandomSearch, SpaceCrossover, SpaceMutation
from apq_moo.arrays import FloatArray, IntArray
from apq_moo.benchmarks.compare.scores import Bounds, hypervolume
from apq_moo.benchmarks.experiments.synthetic import SyntheticAccuracy
from apq_moo.errors import reported
from apq_moo.hardware import minimum
from apq_moo.hardware.breakdown import breakdown
from apq_moo.problems import UNIFORM, APQProblem
from apq_moo.problems.evaluated import Evaluated
from apq_moo.space import load_space

POP_SIZE = 100
_DRAWS = 10_000
_CHECKED = 5
"""Networks of each variant that are costed layer by layer."""


class UniformSampling(Sampling):  # type: ignore[misc]
    """Random networks of the space, whatever they cost."""

    def _do(
        self, problem: APQProblem, n_samples: int, *_args: Any, random_state: Any, **_kwargs: Any
    ) -> IntArray:
        return problem.space.sample(n_samples, random_state)


@dataclass(frozen=True)
class Variant:
    """A way of searching.

    Attributes:
        name: in tables.
        make: an algorithm for a problem.
    """

    name: str
    make: Callable[[APQProblem], Algorithm]


def nsga2_with(pop_size: int = POP_SIZE, **changes: Any) -> Callable[[APQProblem], Algorithm]:
    """A maker of NSGA-II with the operators of the problem but for ``changes``."""

    def make(problem: APQProblem) -> Algorithm:
        return NSGA2(pop_size=pop_size, **{**problem.operators(), **changes})

    return make


def _plain_nsga2(**options: float) -> Callable[[APQProblem], Algorithm]:
    """NSGA-II with operators of pymoo alone."""

    def make(_problem: APQProblem) -> Algorithm:
        return NSGA2(
            pop_size=POP_SIZE,
            sampling=IntegerRandomSampling(),
            # Without the type, children of integers are cut off instead of rounded.
            crossover=SBX(vtype=float, repair=RoundingRepair(), **options),
            mutation=PM(vtype=float, repair=RoundingRepair(), **options),
        )

    return make


def _mixed(_problem: APQProblem) -> Algorithm:
    return MixedVariableGA(pop_size=POP_SIZE, survival=RankAndCrowding())


FULL = "all of problem.operators()"

VARIANTS = (
    Variant(FULL, nsga2_with()),
    Variant("sampling: uniform networks", nsga2_with(sampling=UniformSampling())),
    Variant("crossover: blocks only", nsga2_with(crossover=SpaceCrossover(prob_genes=0.0))),
    Variant("crossover: genes only", nsga2_with(crossover=SpaceCrossover(prob_genes=1.0))),
    Variant("crossover: pymoo's UX", nsga2_with(crossover=UX())),
    Variant("crossover: none", nsga2_with(crossover=SpaceCrossover(prob=0.0))),
    Variant("mutation: no steps", nsga2_with(mutation=SpaceMutation(prob_step=0.0))),
    Variant("mutation: no block redraws", nsga2_with(mutation=SpaceMutation(prob_block=0.0))),
    Variant("mutation: none", nsga2_with(mutation=NoMutation())),
    Variant("duplicates: kept", nsga2_with(eliminate_duplicates=False)),
    Variant("pymoo: SBX, PM", _plain_nsga2()),
    Variant("pymoo: SBX, PM, prob 1, eta 3", _plain_nsga2(prob=1.0, eta=3.0)),
    Variant("pymoo: MixedVariableGA", _mixed),
    Variant("random feasible draws", lambda _problem: RandomSearch(pop_size=POP_SIZE)),
)


# -- problems --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A problem and what scores are measured from.

    Attributes:
        name: in tables.
        problem: objectives ``acc`` and ``latency``.
        bounds: the box that counts as 1; its nadir is the reference of the hypervolume.
    """

    name: str
    problem: APQProblem
    bounds: Bounds

    @classmethod
    def of(cls, name: str, problem: APQProblem, draws: int = _DRAWS) -> Case:
        """The case of a problem, with a reference as the module says."""
        X = problem.region.sample(draws, np.random.default_rng(0))
        reference = problem.evaluate(X, return_values_of=["F"]).max(axis=0)
        least, _ = minimum(problem.tables["latency"], problem.feasible)
        ideal = (-100.0, least)
        return cls(
            name, problem, Bounds(problem.objectives, ideal, tuple(reference), reference=1.0)
        )


def cases(space: str) -> list[Case]:
    """The problems on ``digits`` or ``imagenet``.

    Raises:
        ValueError: another space.
    """
    if space == "digits":
        free = APQProblem(space, start=UNIFORM)
        X = free.space.sample(_DRAWS, np.random.default_rng(1))
        limit = float(np.quantile(free.tables["latency"](X), 0.1))
        limited = free.with_limits({"latency": limit})
        return [
            Case.of("digits, no limit", free),
            Case.of(f"digits, latency <= {1000 * limit:.2f} us (one in ten)", limited),
        ]
    if space == "imagenet":
        accuracy = SyntheticAccuracy(load_space(space))
        return [
            Case.of(
                f"imagenet, latency <= {limit:g} ms, made-up accuracy",
                APQProblem(
                    space, constraints={"latency": limit}, predictor=accuracy, start=UNIFORM
                ),
            )
            for limit in (12.80, 6.11)
        ]
    raise ValueError(f"space must be digits or imagenet, not {space!r}")


# -- searching and scoring -------------------------------------------------------------------------


def search(problem: APQProblem, algorithm: Algorithm, budget: int, seed: int) -> Evaluated:
    """Run an algorithm for a number of evaluations; what it evaluates beyond does not count."""
    algorithm.setup(problem, termination=NoTermination(), seed=seed)
    parts: list[Evaluated] = []
    while sum(map(len, parts)) < budget:
        asked = algorithm.ask()
        if asked is None or not len(asked):
            break
        algorithm.evaluator.eval(problem, asked, algorithm=algorithm)
        X, F, G = asked.get("X", "F", "G")
        parts.append(Evaluated(problem.genotypes(X), F, np.all(G <= 0, axis=1)))
        algorithm.tell(asked)
    found = Evaluated.join(parts)
    return Evaluated(found.X[:budget], found.F[:budget], found.feasible[:budget])


def check(case: Case, variants: Sequence[Variant], budget: int = 3 * POP_SIZE) -> None:
    """Check that all variants evaluate equally many networks, and that the problem agrees.

    Raises:
        AssertionError: they do not.
    """
    problem = case.problem
    for variant in variants:
        found = search(problem, variant.make(problem), budget, seed=0)
        np.testing.assert_equal(len(found.X), budget, err_msg=variant.name)
        values = problem.evaluate_raw(found.X)
        told = np.column_stack([-values["acc"], values["latency"]])
        np.testing.assert_allclose(found.F, told, rtol=1e-12, err_msg=variant.name)
        np.testing.assert_array_equal(found.feasible, problem.feasible_rows(found.X))
        rows = np.flatnonzero(found.feasible)[-_CHECKED:]
        added = [
            sum(breakdown(problem.space, subnet, "latency", problem.device).values())
            for subnet in problem.space.decode(found.X[rows])
        ]
        np.testing.assert_allclose(found.F[rows, 1], added, rtol=1e-12, err_msg=variant.name)


@dataclass(frozen=True)
class Score:
    """A variant's results.

    Attributes:
        name: of the variant.
        hypervolumes: by seed, shape ``(n_seeds,)``.
        evaluations: of the search that made fewest.
        seconds: median CPU time of a search.
    """

    name: str
    hypervolumes: FloatArray
    evaluations: int
    seconds: float


def compare(case: Case, variants: Sequence[Variant], seeds: int, budget: int) -> list[Score]:
    """Search with all variants, seed by seed, so that a disturbance strikes all alike."""
    shape = (seeds, len(variants))
    volumes, seconds = np.empty(shape), np.empty(shape)
    counts = np.empty(shape, dtype=np.int64)
    for seed in range(seeds):
        for i, variant in enumerate(variants):
            begun = time.process_time()
            found = search(case.problem, variant.make(case.problem), budget, seed)
            counts[seed, i], seconds[seed, i] = len(found), time.process_time() - begun
            volumes[seed, i] = hypervolume(found.F[found.feasible], case.bounds)
    return [
        Score(variant.name, volumes[:, i], int(counts[:, i].min()), float(np.median(seconds[:, i])))
        for i, variant in enumerate(variants)
    ]


def table(scores: Sequence[Score]) -> list[str]:
    """Lines of a table; the first score is what the others are compared with."""
    from scipy.stats import mannwhitneyu

    full = scores[0].hypervolumes
    lines = [
        f"{'variant':32} {'median':>8} {'quartiles':>17} {'ratio':>7} {'p':>8} {'evals':>7} "
        f"{'CPU s':>6}"
    ]
    for score in scores:
        low, median, high = np.quantile(score.hypervolumes, [0.25, 0.5, 0.75])
        p = "-"
        if score is not scores[0]:
            p = f"{mannwhitneyu(score.hypervolumes, full).pvalue:.2g}"
        lines.append(
            f"{score.name:32} {median:8.5f} {low:8.5f} {high:8.5f} {median / np.median(full):7.4f} "
            f"{p:>8} {score.evaluations:7,} {score.seconds:6.2f}"
        )
    return lines


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=11)
    parser.add_argument("--budget", type=int, default=10_000, help="evaluations of each search")
    parser.add_argument("--space", default="digits,imagenet", help="names, by commas")
    args = parser.parse_args()
    spaces = args.space.split(",")
    if unknown := set(spaces) - {"digits", "imagenet"}:
        parser.error(f"--space takes digits and imagenet, not {', '.join(sorted(unknown))}")
    for case in (case for space in spaces for case in cases(space)):
        check(case, VARIANTS)
        scores = compare(case, VARIANTS, args.seeds, args.budget)
        title = f"{case.name}: {args.budget:,} evaluations, {args.seeds} seeds"
        print("\n".join([title, *table(scores), ""]), flush=True)


if __name__ == "__main__":
    with reported():
        main()

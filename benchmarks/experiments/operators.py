"""What each search operator is worth: NSGA-II with all of them, and with one replaced at a time.

Run as ``python -m apq_moo.benchmarks.experiments.operators``. Every variant searches accuracy and
latency with populations of 100 and gets the same number of evaluations. Its score is the
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
Seconds are CPU seconds of one search. PM's default rate is 1/n already, so two rows are equal.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.algorithm import Algorithm
from pymoo.core.mixed import MixedVariableGA, MixedVariableMating
from pymoo.core.sampling import Sampling
from pymoo.core.termination import NoTermination
from pymoo.core.variable import Integer
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.crossover.ux import UX
from pymoo.operators.mutation.nom import NoMutation
from pymoo.operators.mutation.pm import PM
from pymoo.operators.mutation.rm import ChoiceRandomMutation
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding

from apq_moo.algorithms import RandomSearch, SpaceCrossover, SpaceMutation
from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.benchmarks.experiments.synthetic import SyntheticAccuracy
from apq_moo.errors import reported
from apq_moo.hardware import minimum
from apq_moo.hardware.breakdown import breakdown
from apq_moo.problems import APQProblem
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


def _sbx(**options: float) -> SBX:
    # Without the type, children of integers are cut off instead of rounded.
    return SBX(vtype=float, repair=RoundingRepair(), **options)


def _pm(**options: float) -> PM:
    return PM(vtype=float, repair=RoundingRepair(), **options)


def _plain_nsga2(
    crossover: dict[str, float], mutation: dict[str, float], *, per_gene: bool = False
) -> Callable[[APQProblem], Algorithm]:
    """NSGA-II with operators of pymoo alone; ``per_gene`` states the mutation's rate of 1/n."""

    def make(problem: APQProblem) -> Algorithm:
        rate = {"prob_var": 1 / problem.n_var} if per_gene else {}
        return NSGA2(
            pop_size=POP_SIZE,
            sampling=IntegerRandomSampling(),
            crossover=_sbx(**crossover),
            mutation=_pm(**mutation, **rate),
        )

    return make


def _mixed(_problem: APQProblem) -> Algorithm:
    return MixedVariableGA(pop_size=POP_SIZE, survival=RankAndCrowding())


def _mixed_resets(problem: APQProblem) -> Algorithm:
    """With operators for categories, and duplicates found by canonical genotypes."""
    duplicates = problem.operators()["eliminate_duplicates"]
    mating = MixedVariableMating(
        crossover={Integer: UX()},
        mutation={Integer: ChoiceRandomMutation(prob_var=1 / problem.n_var)},
        eliminate_duplicates=duplicates,
    )
    return MixedVariableGA(
        pop_size=POP_SIZE,
        survival=RankAndCrowding(),
        mating=mating,
        eliminate_duplicates=duplicates,
    )


FULL = "all of problem.operators()"

VARIANTS = (
    Variant(FULL, nsga2_with()),
    Variant("sampling: uniform networks", nsga2_with(sampling=UniformSampling())),
    Variant("sampling: uniform integers", nsga2_with(sampling=IntegerRandomSampling())),
    Variant("crossover: blocks only", nsga2_with(crossover=SpaceCrossover(prob_genes=0.0))),
    Variant("crossover: genes only", nsga2_with(crossover=SpaceCrossover(prob_genes=1.0))),
    Variant("crossover: pymoo's UX", nsga2_with(crossover=UX())),
    Variant("crossover: none", nsga2_with(crossover=SpaceCrossover(prob=0.0))),
    Variant("mutation: no steps", nsga2_with(mutation=SpaceMutation(prob_step=0.0))),
    Variant("mutation: steps only", nsga2_with(mutation=SpaceMutation(prob_step=1.0))),
    Variant("mutation: no block redraws", nsga2_with(mutation=SpaceMutation(prob_block=0.0))),
    Variant("mutation: none", nsga2_with(mutation=NoMutation())),
    Variant("repair: none", nsga2_with(repair=None)),
    Variant("duplicates: kept", nsga2_with(eliminate_duplicates=False)),
    Variant("SBX, PM; the rest kept", nsga2_with(crossover=_sbx(), mutation=_pm())),
    Variant("pymoo: SBX, PM", _plain_nsga2({}, {})),
    Variant("pymoo: SBX, PM, prob_var 1/n", _plain_nsga2({}, {}, per_gene=True)),
    Variant(
        "pymoo: SBX, PM, prob 1, eta 3",
        _plain_nsga2({"prob": 1.0, "eta": 3.0}, {"prob": 1.0, "eta": 3.0}),
    ),
    Variant("pymoo: MixedVariableGA", _mixed),
    Variant("pymoo: MixedVariableGA, UX, 1/n", _mixed_resets),
    Variant("random feasible draws", lambda _problem: RandomSearch(pop_size=POP_SIZE)),
)


# -- problems --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A problem and what scores are measured from.

    Attributes:
        name: in tables.
        problem: objectives ``acc`` and ``latency``.
        reference: of the hypervolume, in the units of ``F``, shape ``(2,)``.
        ideal: the corner of the box that counts as 1, shape ``(2,)``.
    """

    name: str
    problem: APQProblem
    reference: FloatArray
    ideal: FloatArray

    @classmethod
    def of(cls, name: str, problem: APQProblem, draws: int = _DRAWS) -> Case:
        """The case of a problem, with a reference as the module says."""
        X = problem.region.sample(draws, np.random.default_rng(0))
        reference = problem.evaluate(X, return_values_of=["F"]).max(axis=0)
        least, _ = minimum(problem.tables["latency"], problem.feasible)
        return cls(name, problem, reference, np.array([-100.0, least]))

    def hypervolume(self, F: FloatArray, feasible: BoolArray) -> float:
        """Of the feasible rows of ``F``, as a share of the box."""
        import moocore

        inside = F[feasible & (self.reference > F).all(axis=1)]
        if not len(inside):
            return 0.0
        volume: float = moocore.hypervolume(inside, ref=self.reference)
        return volume / float((self.reference - self.ideal).prod())


def cases(space: str) -> list[Case]:
    """The problems on ``digits`` or ``imagenet``.

    Raises:
        ValueError: another space.
    """
    if space == "digits":
        free = APQProblem(space)
        X = free.space.sample(_DRAWS, np.random.default_rng(1))
        limit = float(np.quantile(free.tables["latency"](X), 0.1))
        limited = APQProblem(space, constraints={"latency": limit})
        return [
            Case.of("digits, no limit", free),
            Case.of(f"digits, latency <= {1000 * limit:.2f} us (one in ten)", limited),
        ]
    if space == "imagenet":
        accuracy = SyntheticAccuracy(load_space(space))
        return [
            Case.of(
                f"imagenet, latency <= {limit:g} ms, made-up accuracy",
                APQProblem(space, constraints={"latency": limit}, predictor=accuracy),
            )
            for limit in (12.80, 6.11)
        ]
    raise ValueError(f"space must be digits or imagenet, not {space!r}")


# -- searching and scoring -------------------------------------------------------------------------


@dataclass(frozen=True)
class Search:
    """What a search evaluated, in order.

    Attributes:
        X: canonical genotypes, shape ``(n, n_var)``.
        F: objectives, shape ``(n, 2)``.
        feasible: whether each meets the constraints, shape ``(n,)``.
        seconds: CPU time.
    """

    X: IntArray
    F: FloatArray
    feasible: BoolArray
    seconds: float


def search(problem: APQProblem, algorithm: Algorithm, budget: int, seed: int) -> Search:
    """Run an algorithm for a number of evaluations; what it evaluates beyond does not count."""
    algorithm.setup(problem, termination=NoTermination(), seed=seed)
    parts: dict[str, list[NDArray[Any]]] = {"X": [], "F": [], "G": []}
    done = 0
    begun = time.process_time()
    while done < budget:
        asked = algorithm.ask()
        if asked is None or not len(asked):
            break
        algorithm.evaluator.eval(problem, asked, algorithm=algorithm)
        for name, values in parts.items():
            values.append(asked.get(name))
        done += len(asked)
        algorithm.tell(asked)
    seconds = time.process_time() - begun
    X, F, G = (np.concatenate(parts[name])[:budget] for name in ("X", "F", "G"))
    feasible: BoolArray = np.all(G <= 0, axis=1)
    return Search(problem.genotypes(X), F, feasible, seconds)


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
            found = search(case.problem, variant.make(case.problem), budget, seed)
            volumes[seed, i] = case.hypervolume(found.F, found.feasible)
            counts[seed, i], seconds[seed, i] = len(found.X), found.seconds
    return [
        Score(variant.name, volumes[:, i], int(counts[:, i].min()), float(np.median(seconds[:, i])))
        for i, variant in enumerate(variants)
    ]


def p_value(a: FloatArray, b: FloatArray) -> float:
    """Of the two-sided Mann-Whitney test that two samples are of one distribution."""
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(a, b, alternative="two-sided").pvalue)


def table(scores: Sequence[Score]) -> list[str]:
    """Lines of a table; the first score is what the others are compared with."""
    full = scores[0].hypervolumes
    lines = [
        f"{'variant':32} {'median':>8} {'quartiles':>17} {'ratio':>7} {'p':>8} {'evals':>7} "
        f"{'CPU s':>6}"
    ]
    for score in scores:
        low, median, high = np.quantile(score.hypervolumes, [0.25, 0.5, 0.75])
        p = "-" if score is scores[0] else f"{p_value(score.hypervolumes, full):.2g}"
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

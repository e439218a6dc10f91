"""What the paper claims of APQ, each answered from a comparison's searches, whatever the answer.

T. Wang et al., APQ: Joint Search for Network Architecture, Pruning and Quantization Policy, CVPR
2020. The tests of a claim are one family, over all targets and budgets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from apq_moo.algorithms import ALGORITHMS
from apq_moo.algorithms.baselines.pipeline import Pipeline
from apq_moo.algorithms.baselines.reference import reference_network
from apq_moo.algorithms.baselines.system import System
from apq_moo.benchmarks.systems.ledger import Pricing, Spending
from apq_moo.benchmarks.systems.results import Accuracy, CostsAgain, Results, table_of
from apq_moo.benchmarks.systems.rows import Spread
from apq_moo.benchmarks.systems.settings import title_of
from apq_moo.benchmarks.systems.significance import Pair, PairedTest, paired_tests, seeds_needed
from apq_moo.hardware import find_device
from apq_moo.problems import APQProblem
from apq_moo.space import load_space
from apq_moo.space.spec import FIELDS, ROLES

JOINT = ("apq-ga", "spos")
"""Joint searches of all genes that score networks: the twins of pipelines."""

NO_DATA = "no data"


@dataclass(frozen=True)
class Claim:
    """A claim and its answer.

    Attributes:
        name: a word or two.
        statement: what is claimed, and the paper's figure.
        verdict: in a few words.
        accuracy: the images that the verdict is by; None where it is not by accuracy.
        tests: paired tests of accuracy, those of one kind of images being a family; the first of
            the two systems is the one that is claimed to be better.
        figures: what else answers it, as rows of a table.
        note: how to read it, or why there is nothing.
    """

    name: str
    statement: str
    verdict: str
    accuracy: Accuracy | None = None
    tests: Sequence[PairedTest] = ()
    figures: Sequence[dict[str, Any]] = field(default_factory=tuple)
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON; a value that is not finite is None."""
        plain = asdict(self)
        plain["tests"] = [
            {name: _finite(value) for name, value in test.items()} for test in plain["tests"]
        ]
        return plain


def claims_of(results: Results, pricing: Pricing) -> list[Claim]:
    """All claims."""
    return [make(results, pricing) for make in _CLAIMS]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


# -- what systems are ------------------------------------------------------------------------------

_Stage = tuple[str, dict[str, Any]]


def _stages(name: str) -> list[System] | None:
    """The stages of a system, a single one being one of its own; None where it is none."""
    make = ALGORITHMS.get(name).system if name in ALGORITHMS else None
    system = None if make is None else make()
    if isinstance(system, Pipeline):
        return list(system.systems)
    return None if system is None else [system]


def _told(stages: Sequence[System], *without: str) -> list[_Stage]:
    """What stages are, but for some of their parameters."""
    return [
        (
            stage.title,
            {k: v for k, v in stage.get_params(deep=False).items() if k not in without},
        )
        for stage in stages
    ]


def _is_joint(name: str) -> bool:
    return name.partition(":")[0] in JOINT


def _only_bits(stage: System) -> bool:
    return bool(stage.fields) and set(stage.fields or ()) <= set(ROLES)


def _keeps_bits(stage: System) -> bool:
    return stage.fields is not None and not set(stage.fields) & set(ROLES)


def _is_random(stage: System) -> bool:
    return bool(stage.get_params(deep=False).get("agent") == "random")


# -- claims by accuracy ----------------------------------------------------------------------------


def _by_tests(
    results: Results, name: str, statement: str, pairs: Sequence[tuple[str, str]], **more: Any
) -> Claim:
    """Answer a claim that the first of each two systems finds more accurate networks."""
    family: list[Pair] = [
        (case, a, b)
        for case in results.settings.cases
        for a, b in pairs
        if results.of(case, a) and results.of(case, b)
    ]
    kinds: tuple[Accuracy, ...] = ("test", "validation")
    found = {on: paired_tests(results, family, on) for on in kinds}
    on = next((on for on in kinds if found[on]), None)
    if on is None:
        return Claim(name, statement, NO_DATA, **more)
    tests = [test for kind in kinds for test in found[kind]]
    return Claim(name, statement, verdict_of(found[on]), on, tests, **more)


def verdict_of(tests: Sequence[PairedTest]) -> str:
    """What a family of tests says, the first systems being claimed to be better."""
    n = len(tests)
    better = sum(test.winner == test.a for test in tests)
    worse = sum(test.winner == test.b for test in tests)
    tested = [test for test in tests if test.p is not None]
    if not better and not worse:
        if tested and max(test.seeds for test in tested) < seeds_needed(len(tested)):
            return f"undecided: {len(tested)} tests need {seeds_needed(len(tested))} seeds"
        return f"not shown: no significant difference in {n}"
    if not worse:
        return "holds" if better == n else f"holds in {better} of {n}, no difference in the others"
    if not better:
        return f"the reverse holds in {worse} of {n}"
    return f"mixed: holds in {better} of {n}, the reverse in {worse}"


def joint_and_sequential(results: Results, _pricing: Pricing) -> Claim:
    """Joint searches beside pipelines, each at the same budget."""
    names = results.settings.systems
    pipelines = [name for name in names if len(_stages(name) or ()) > 1]
    return _by_tests(
        results,
        "joint beats sequential",
        "A joint search finds a more accurate network than stages one after the other, at the same "
        "number of scored networks (paper: 2.3 points at 8.4 ms against ProxylessNAS + AMC + HAQ).",
        [(joint, name) for name in pipelines for joint in names if _is_joint(joint)],
        note=f"The twins of pipelines are {' and '.join(JOINT)}.",
    )


def mixed_and_8_bits(results: Results, _pricing: Pricing) -> Claim:
    """Systems that keep 8 bits beside the same with stages that choose bits."""
    names = [name for name in results.settings.systems if _stages(name)]
    pairs = []
    for plain in names:
        base = _stages(plain) or []
        if not all(_keeps_bits(stage) for stage in base):
            continue
        for name in names:
            stages = _stages(name) or []
            begin, rest = stages[: len(base)], stages[len(base) :]
            if rest and all(map(_only_bits, rest)) and _told(begin) == _told(base):
                pairs.append((name, plain))
    return _by_tests(
        results,
        "mixed precision beats 8 bits",
        "Under the same limit, networks of mixed precision are more accurate than those whose "
        "layers keep 8 bits, or the widest that the space offers.",
        pairs,
        figures=_best_with_and_without(results),
        note="Compared are systems that keep the bits of the reference network with the same "
        "systems followed by a stage that chooses bits, at the same budget. Where a table knows "
        "all networks, the best of all is compared with the best that has the reference's bits.",
    )


def _best_with_and_without(results: Results) -> list[dict[str, Any]]:
    """By target, the best of all networks and the best with the reference network's bits."""
    settings = results.settings
    known = table_of(settings)
    if known is None:
        return []
    X, accuracies = known
    space = load_space(settings.space)
    costs = CostsAgain(settings).of(X)
    problem = APQProblem(space, ("latency",), device=find_device(settings.device))
    blocks = space.layout.split(space.layout.genes)
    reference, index = reference_network(problem), space.block_index(X)
    columns = [place for place, name in enumerate(FIELDS) if name in ROLES]
    kept = np.ones(len(X), dtype=bool)
    active = space.layout.active(index)
    for b, genes in enumerate(blocks):
        bits = genes[:, columns]
        kept &= ~active[:, b] | (bits[index[:, b]] == bits[reference[b]]).all(axis=1)
    rows = []
    for target in settings.targets:
        within = costs[target.quantity] <= target.value
        rows.append(
            {
                "target": title_of(target),
                "best of all networks": _highest(accuracies[within]),
                "best with the reference's bits": _highest(accuracies[within & kept]),
            }
        )
    return rows


def _highest(values: Any) -> float | None:
    return float(values.max()) if len(values) else None


def agents_and_random(results: Results, _pricing: Pricing) -> Claim:
    """Agents that learn beside the same systems whose agents act at random."""
    names = [name for name in results.settings.systems if _stages(name)]
    pairs = []
    for name in names:
        for other in names:
            learning, random = _stages(name) or [], _stages(other) or []
            acting = [stage for stage in random if "agent" in stage.get_params(deep=False)]
            if (
                acting
                and all(map(_is_random, acting))
                and not any(map(_is_random, learning))
                and _told(learning, "agent") == _told(random, "agent")
            ):
                pairs.append((name, other))
    return _by_tests(
        results,
        "agents beat random search",
        "An agent that learns finds a more accurate network than the same system whose agent acts "
        "at random.",
        pairs,
        note="Compare `haq` with `haq:agent=random`, `amc` likewise.",
    )


# -- claims by other figures -----------------------------------------------------------------------


def marginal_cost(results: Results, pricing: Pricing) -> Claim:
    """What one more deployment takes."""
    rows: list[dict[str, Any]] = []
    each = pricing.seconds_per_evaluation
    for budget in results.settings.budgets:
        for system in results.settings.systems:
            spent = [
                Spending.of(search.outcome)
                for case in results.settings.cases
                if case.budget == budget
                for search in results.of(case, system)
            ]
            hours = Spread.of([spending.hours(each) for spending in spent])
            if hours is not None:
                charged = float(np.median([spending.charged for spending in spent]))
                rows.append(
                    {"budget": budget, "system": system, "charged evaluations": charged}
                    | {"hours": hours.median, "hours q1": hours.q1, "hours q3": hours.q3}
                )
    how = "seconds that were measured" if each is None else f"{each:g} s an evaluation"
    verdict = NO_DATA
    if rows:
        least, most = (choose(rows, key=lambda row: row["hours"]) for choose in (min, max))
        verdict = (
            f"{least['hours']:.2g} ({least['system']}) to {most['hours']:.2g} hours "
            f"({most['system']})"
        )
    return Claim(
        "marginal cost of a deployment",
        "Once a supernet and predictors are there, one more deployment costs next to nothing "
        "(paper: 0.5 GPU hours, where others take 24 to 300).",
        verdict,
        figures=rows,
        note=f"Medians and quartiles over targets and seeds, from {how}; where accuracies are "
        "looked up, seconds say nothing of scoring networks.",
    )


def transfer(_results: Results, _pricing: Pricing) -> Claim:
    """Predictors are no part of a comparison."""
    return Claim(
        "transfer improves the predictor",
        "A predictor of quantised networks that begins with one of full-precision networks is "
        "better at as many samples (paper: 2.0 points of the accuracy that is found).",
        NO_DATA,
        note="A comparison of searches does not answer it; `apq-moo predictor compare` does, by "
        "learning curves with and without transfer.",
    )


_CLAIMS: tuple[Callable[[Results, Pricing], Claim], ...] = (
    joint_and_sequential,
    mixed_and_8_bits,
    agents_and_random,
    marginal_cost,
    transfer,
)


# -- writing ---------------------------------------------------------------------------------------


def markdown(claims: Sequence[Claim]) -> str:
    """Claims, their answers and what these rest on."""
    lines = ["# Claims", "", "| claim | answer |", "|---|---|"]
    lines += [f"| {claim.name} | {claim.verdict} |" for claim in claims]
    for claim in claims:
        lines += ["", f"## {claim.name.capitalize()}", "", claim.statement, ""]
        lines.append(answer(claim))
        if claim.tests:
            lines += ["", *_lines(rows_of(claim))]
        if claim.figures:
            lines += ["", *_lines(claim.figures)]
    return "\n".join(lines) + "\n"


def answer(claim: Claim) -> str:
    """The answer in words."""
    by = f" (by {claim.accuracy} images)" if claim.accuracy else ""
    return f"Answer{by}: {claim.verdict}. {claim.note}".rstrip()


def rows_of(claim: Claim) -> list[dict[str, Any]]:
    """The tests of a claim's verdict, as rows of a table."""
    return [
        {
            "target": test.target,
            "budget": test.budget,
            "claimed better": test.a,
            "than": test.b,
            "seeds": test.seeds,
            "medians": f"{test.median_a:.2f}, {test.median_b:.2f}",
            "difference": f"{test.difference:+.2f}",
            "p (Holm)": "-" if test.p_adjusted is None else f"{test.p_adjusted:.2g}",
            "rank-biserial": f"{test.rank_biserial:+.2f}",
            "A12": f"{test.a12:.2f}",
            "better": test.winner or "-",
        }
        for test in claim.tests
        if test.accuracy == claim.accuracy
    ]


def _lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"| {' | '.join(rows[0])} |",
        "|" + "---|" * len(rows[0]),
        *(f"| {' | '.join(text_of(value) for value in row.values())} |" for row in rows),
    ]


def text_of(value: Any) -> str:
    """A cell of a table."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)

"""What ``run`` takes for searches that measure: ``--algo surrogate`` and ``--refine``."""

from __future__ import annotations

from dataclasses import dataclass

from apq_moo.errors import UserError
from apq_moo.study.config import RefitConfig
from apq_moo.texts import by_commas

SURROGATE = "surrogate"
"""The algorithm that measures."""

MEASURED = 200
"""Networks that are measured where nobody says how many."""

INNER = RefitConfig().inner
"""What searches predictions where nobody says what."""

MEASURING = ("measure", "refine", "inner", "samples")
"""Options that other searches do not take."""

_LEAST = 4
"""Networks: two to fit to, and two to find."""

_TRANSFERRED = "gp"
"""The predictor where there are samples to begin with."""


@dataclass(frozen=True)
class Wish:
    """What was asked for; None where it was not.

    Attributes:
        algo: the algorithm; of a refined search the inner one.
        predictor: what is refitted, or what measures.
        budget: evaluations, all of which are measurements.
        measure: the same.
        refine: whether to begin with the shipped samples.
        inner: the inner algorithm.
        samples: what to begin with.
    """

    algo: str | None
    predictor: str | None
    budget: int | None
    measure: int | None
    refine: bool
    inner: str | None
    samples: str | None


def measuring(wish: Wish, space: str, assets: str | None) -> tuple[str, str, int, RefitConfig]:
    """Algorithm, predictor, budget and refitting of a run that measures.

    What measures is the table of a space that has one, else its supernet.

    Args:
        wish: what was asked for.
        space: a preset or a file.
        assets: a folder of assets, or None for the shipped ones.

    Raises:
        UserError: options that do not go together.
    """
    from apq_moo.files import is_file
    from apq_moo.predictors.specification import is_specification
    from apq_moo.problems import exact_name, is_measured
    from apq_moo.space import load_space

    if not wish.refine and wish.algo != SURROGATE:
        named = next(name for name in MEASURING if getattr(wish, name) not in (None, False))
        raise UserError(
            f"--{named} is for searches that measure: add --algo {SURROGATE}, or --refine"
        )
    if None not in (wish.measure, wish.budget) and wish.measure != wish.budget:
        raise UserError("--measure and --budget both say how many networks: leave out --budget")
    algo = None if wish.algo == SURROGATE else wish.algo
    if algo is not None and wish.inner not in (None, algo):
        raise UserError(
            f"--refine searches by --algo {algo} or by --inner {wish.inner}: leave out one of them"
        )
    truth, fitted = None, None
    if wish.predictor is not None and is_measured(wish.predictor):
        truth = wish.predictor
    elif wish.predictor is not None:
        fitted = wish.predictor
        if not is_specification(fitted) and is_file(fitted):
            raise UserError(
                f"--predictor {fitted}: what is refitted is a kind of predictor, such as "
                f"{_TRANSFERRED}, not a file"
            )
    samples = wish.samples or ("shipped" if wish.refine else None)
    budget = next((n for n in (wish.measure, wish.budget) if n is not None), MEASURED)
    if budget < _LEAST:
        raise UserError(f"--measure {budget}: at least {_LEAST} networks are needed")
    default = RefitConfig()
    refit = RefitConfig(
        predictor=fitted
        or (_TRANSFERRED if "shipped" in by_commas(samples or "") else default.predictor),
        inner=wish.inner or algo or default.inner,
        first=min(default.first, budget // 2),
        samples=samples,
    )
    return SURROGATE, truth or exact_name(load_space(space), assets), budget, refit

"""What a measuring search predicts by, and how it chooses what to measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from apq_moo.algorithms.surrogate.improvement import batch_by_gain
from apq_moo.arrays import FloatArray, IntArray
from apq_moo.errors import UserError
from apq_moo.predictors import PREDICTORS, Predictor
from apq_moo.problems import APQProblem
from apq_moo.problems.evaluated import Evaluated

_MOST_NAME = "max_rows"
"""Of the parameter that says how many samples a predictor learns from."""

InnerSearch: TypeAlias = Callable[[APQProblem, IntArray, int], Evaluated]
"""Searches a problem of predicted accuracies, beginning with networks, by a seed; returns all that
it evaluated."""


@dataclass(frozen=True)
class Candidates:
    """Networks that may be measured next, by their rank on the predicted front.

    Objectives are minimised and normalised by the problem's ideal and nadir, accuracy first.

    Attributes:
        X: canonical genotypes, shape ``(n, n_var)``.
        F: predicted accuracies and exact costs, shape ``(n, 1 + n_costs)``.
        std: of the accuracies, above 0, shape ``(n,)``; None where nobody asks for it.
        known: objectives of what was measured, shape ``(k, 1 + n_costs)``.
        reference: of the hypervolume, shape ``(1 + n_costs,)``.
    """

    X: IntArray
    F: FloatArray
    std: FloatArray | None
    known: FloatArray
    reference: FloatArray


Rule: TypeAlias = Callable[[Candidates, int, np.random.Generator], IntArray]
"""Positions of at most so many candidates, which are measured next."""


def largest_gains(candidates: Candidates, k: int, _rng: np.random.Generator) -> IntArray:
    """By expected gain in hypervolume, see :func:`batch_by_gain`."""
    assert candidates.std is not None
    accuracy, costs = candidates.F[:, 0], candidates.F[:, 1:]
    return batch_by_gain(accuracy, candidates.std, costs, candidates.known, candidates.reference, k)


@dataclass(frozen=True)
class Refit:
    """How a search goes from what was measured to what is measured next.

    Attributes:
        predictor: fitted anew before each batch but the first; one that transfers is pre-trained.
        search: finds candidates on the predicted problem.
        first: random networks of the first batch, where there are no samples.
        batch: networks of the others, at least.
        growth: share of what was measured that they are at least, since a few more networks change
            little where many are known.
        samples: networks and accuracies to fit to beside those that are measured.
        adopted: those of the samples that begin the search, measured as they are; genotypes.
        known: networks that are not measured since their accuracies are known; genotypes, shape
            ``(n, n_var)``.
        rule: chooses a batch among the candidates.
        needs_std: whether the rule asks for standard deviations.
    """

    predictor: Predictor
    search: InnerSearch
    first: int = 30
    batch: int = 10
    growth: float = 0.1
    samples: tuple[IntArray, FloatArray] | None = None
    adopted: IntArray | None = None
    known: IntArray | None = None
    rule: Rule = field(default=largest_gains)
    needs_std: bool = True

    def __post_init__(self) -> None:
        if self.needs_std:
            require_std(self.predictor.name, self.predictor.has_std)
        for name in ("first", "batch"):
            if getattr(self, name) < 2:
                raise UserError(f"{name}={getattr(self, name)}: at least 2 are needed")

    @property
    def smallest(self) -> int:
        """The smallest budget."""
        return self.first if self.samples is None else 1

    def size(self, measured: int) -> int:
        """Of the next batch."""
        return max(self.batch, int(measured * self.growth))

    def fit(self, X: IntArray, acc: FloatArray, rng: np.random.Generator) -> None:
        """Fit the predictor to what was measured, and to as many samples as it takes beside.

        Args:
            X: canonical genotypes, shape ``(n, n_var)``.
            acc: their accuracies in percent, shape ``(n,)``.
            rng: chooses samples where they are too many.
        """
        if self.samples is not None:
            rows, values = self.samples
            measured = {row.tobytes() for row in X}
            others = np.flatnonzero([row.tobytes() not in measured for row in rows])
            room = max(self._most - len(X), 0)
            chosen = np.sort(rng.permutation(others)[:room])
            X, acc = np.vstack([X, rows[chosen]]), np.concatenate([acc, values[chosen]])
        self.predictor.fit(X, acc)

    @property
    def _most(self) -> int:
        """Samples that the predictor learns from; of more it would leave out any."""
        parameters = self.predictor.get_params().items()
        return min(
            (int(value) for name, value in parameters if name.rpartition("__")[2] == _MOST_NAME),
            default=2**62,
        )


def require_std(name: str, has_std: bool) -> None:
    """Check that a predictor knows how certain it is.

    Raises:
        UserError: it does not; the message names those that do.
    """
    if not has_std:
        known = ", ".join(name for name, kind in PREDICTORS.usable() if kind.has_std)
        raise UserError(
            f"predictor {name!r} has no standard deviations, by which networks to measure are "
            f"chosen; those that have: {known}"
        )

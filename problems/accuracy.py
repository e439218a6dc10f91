"""From what a user calls a predictor to a checked function of genotypes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apq_moo.errors import UserError, shown
from apq_moo.space import IntArray, Space


@runtime_checkable
class AccuracyModel(Protocol):
    """Anything that estimates accuracies, such as :class:`apq_moo.predictors.Predictor`."""

    def predict(self, X: IntArray, /) -> ArrayLike:
        """Top-1 accuracies in percent, shape ``(n,)``, of canonical genotypes ``(n, n_var)``."""


AccuracyFunction: TypeAlias = Callable[[IntArray], ArrayLike]


def resolve_predictor(
    predictor: str | Path | AccuracyModel | AccuracyFunction, space: Space
) -> AccuracyFunction:
    """Find a predictor.

    Args:
        predictor: the name of a predictor that ships with the space, the path of a saved one, an
            object with ``predict``, or a function; the last two are used as they are.
        space: the space whose canonical genotypes it will be given.

    Returns:
        A function from canonical genotypes to accuracies in percent.

    Raises:
        UserError: it cannot be found, is none of these, or belongs to another space.
    """
    if isinstance(predictor, str | Path):
        from apq_moo.predictors.shipped import find_predictor

        predictor = find_predictor(space, predictor)
    fitted_to = getattr(predictor, "space", None)
    if isinstance(fitted_to, Space) and fitted_to.digest != space.digest:
        raise UserError(
            f"the predictor was fitted to space {fitted_to.name!r}, not to {space.name!r}; "
            "pass one of the same space"
        )
    if isinstance(predictor, AccuracyModel):
        return predictor.predict
    if callable(predictor):
        return predictor
    raise UserError(
        f"predictor {shown(predictor)} is neither a name, a path, an object with predict(X), "
        "nor a function of X"
    )


def accuracies(function: AccuracyFunction, X: IntArray) -> NDArray[np.float64]:
    """Estimate accuracies and check what came back.

    Args:
        function: see :func:`resolve_predictor`.
        X: canonical genotypes, shape ``(n, n_var)``.

    Returns:
        Percent, shape ``(n,)``.

    Raises:
        UserError: the function returned another shape, no numbers, or a value that is not finite.
    """
    answer = function(X)
    try:
        values = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"the predictor returned {shown(answer)}, not numbers") from error
    if values.shape != (len(X),):
        raise UserError(
            f"the predictor returned shape {values.shape} for {len(X)} networks; "
            f"it must be ({len(X)},)"
        )
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise UserError(
            f"the predictor returned {values[bad[0]]} for network {bad[0]} of {len(X)}; "
            "accuracies must be finite, in percent"
        )
    return values

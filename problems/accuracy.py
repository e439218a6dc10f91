"""From what a user calls a predictor to a checked function of genotypes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.errors import UserError, shown
from apq_moo.space import Space


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
        predictor: the name of a predictor that ships with the space; ``supernet``, which measures
            every network, or ``table``, which looks every network up; the path of a saved one, an
            object with ``predict``, or a function; the last two are used as they are.
        space: the space whose canonical genotypes it will be given.

    Returns:
        A function from canonical genotypes to accuracies in percent.

    Raises:
        UserError: it cannot be found, is none of these, or belongs to another space.
    """
    if predictor == "supernet":
        from apq_moo.data.assets import find_assets
        from apq_moo.problems.measured import SupernetAccuracy

        predictor = SupernetAccuracy(find_assets(space))
    elif predictor == "table":
        from apq_moo.data.assets import find_assets
        from apq_moo.problems.tabulated import TabulatedAccuracy

        predictor = TabulatedAccuracy(find_assets(space))
    elif isinstance(predictor, str | Path):
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


@runtime_checkable
class BlockModel(Protocol):
    """A model that also reads what :meth:`apq_moo.space.Space.block_index` returns, and faster."""

    def predict_blocks(self, index: IntArray, /) -> ArrayLike:
        """As ``predict`` does, for block configurations of shape ``(n, n_blocks)``."""


class Accuracy:
    """A predictor's estimates, checked.

    Args:
        predictor: see :func:`resolve_predictor`.
        space: the space.

    Raises:
        UserError: see :func:`resolve_predictor`.
    """

    def __init__(
        self, predictor: str | Path | AccuracyModel | AccuracyFunction, space: Space
    ) -> None:
        self._space = space
        self._function = resolve_predictor(predictor, space)
        owner = getattr(self._function, "__self__", None)
        self._of_blocks = owner.predict_blocks if isinstance(owner, BlockModel) else None

    def __call__(self, index: IntArray, X: IntArray | None = None) -> FloatArray:
        """Estimate accuracies and check what came back.

        Args:
            index: block configurations, shape ``(n, n_blocks)``.
            X: the same networks as canonical genotypes, where they are at hand.

        Returns:
            Percent, shape ``(n,)``.

        Raises:
            UserError: the predictor failed, or returned another shape, no numbers, or a value that
                is not finite.
        """
        try:
            if self._of_blocks is not None:
                answer = self._of_blocks(index)
            else:
                answer = self._function(self._space.from_block_index(index) if X is None else X)
        except UserError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())
            raise UserError(
                f"the predictor failed on {len(index)} networks: {type(error).__name__}: {text}"
            ) from error
        return _checked(answer, len(index))


def _checked(answer: ArrayLike, n: int) -> FloatArray:
    try:
        values = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"the predictor returned {shown(answer)}, not numbers") from error
    if values.shape != (n,):
        raise UserError(
            f"the predictor returned shape {values.shape} for {n} networks; it must be ({n},)"
        )
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise UserError(
            f"the predictor returned {values[bad[0]]} for network {bad[0]} of {n}; "
            "accuracies must be finite, in percent"
        )
    return values

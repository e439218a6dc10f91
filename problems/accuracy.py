"""Where accuracies come from: predictors, tables, the supernet and functions behind one interface.

:func:`resolve` turns what a user calls a predictor into an :class:`AccuracySource`; whoever has one
asks it for what it can do, never for its class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.data.assets import Assets, find_assets
from apq_moo.errors import UserError, shown
from apq_moo.files import is_file, sha256
from apq_moo.predictors import PREDICTORS, find_predictor, is_specification
from apq_moo.predictors.additive import AdditivePredictor
from apq_moo.registry import Registry
from apq_moo.space import Space, belonging, refuse_other_space, superspace

AssetsFolder: TypeAlias = str | Path | Assets | None
"""A folder of assets; None for those that ship with the package."""


@runtime_checkable
class AccuracyModel(Protocol):
    """Anything that estimates accuracies, such as :class:`apq_moo.predictors.Predictor`."""

    def predict(self, X: IntArray, /) -> ArrayLike:
        """Top-1 accuracies in percent, shape ``(n,)``, of canonical genotypes ``(n, n_var)``."""


AccuracyFunction: TypeAlias = Callable[[IntArray], ArrayLike]
"""Accuracies in percent, shape ``(n,)``, of genotypes of shape ``(n, n_var)``."""

Gains: TypeAlias = tuple[float, list[FloatArray]]
"""An accuracy that adds up: of a network without blocks, and what each configuration adds."""


def ignored(done: int) -> None:
    """A callback that does nothing."""


class AccuracySource(ABC):
    """Says how accurate networks are.

    Args:
        name: as users write it.
        space: whose networks.
        digest: SHA-256 of everything that its values come from, by name.

    Attributes:
        name: as given.
        space: as given.
        digest: as given.
        exact: whether values are measured (or looked up in what was), not predicted.
        measures: whether a value takes running a network on images.
        max_parallel: networks that it takes at a time with profit; None for any number.
        callback: told how many networks of a batch are done, where each takes long.
        where: where it works, such as ``on cuda``, for messages.
        assets: the folder of assets in which the supernet behind it lies, see :mod:`trained`.
        on: where torch runs, see :func:`resolve`; agents act there too.
        gradient_steps: that searches have taken on that supernet.
        gradient_evaluations: that they have paid for these steps.
    """

    exact: ClassVar[bool] = False
    measures: ClassVar[bool] = False
    max_parallel: int | None = None
    where: str = "here"
    assets: AssetsFolder = None
    on: str | None = None
    gradient_steps: int = 0
    gradient_evaluations: int = 0

    def __init__(self, name: str, space: Space, digest: Mapping[str, str] | None = None) -> None:
        self.name, self.space, self.digest = name, space, dict(digest or {})
        self.callback: Callable[[int], None] = ignored

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: all but the callback, which is for those who wait in this process."""
        return {**vars(self), "callback": ignored}

    @abstractmethod
    def predict_blocks(self, index: IntArray) -> ArrayLike:
        """Top-1 accuracies in percent, shape ``(n,)``.

        Args:
            index: block configurations, see :meth:`Space.block_index`, shape ``(n, n_blocks)``.
        """

    def _values(self, index: IntArray, X: IntArray | None) -> ArrayLike:  # noqa: ARG002
        """The same, where canonical genotypes may be at hand."""
        return self.predict_blocks(index)

    def __call__(self, index: IntArray, X: IntArray | None = None) -> FloatArray:
        """Accuracies in percent, shape ``(n,)``, checked.

        Args:
            index: block configurations, shape ``(n, n_blocks)``.
            X: the same networks as canonical genotypes, where they are at hand.

        Raises:
            UserError: the source failed, or returned another shape, no numbers, or a value that is
                not finite.
        """
        if not len(index):
            return np.empty(0)
        try:
            answer = self._values(index, X)
        except UserError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())
            raise UserError(
                f"the predictor failed on {len(index)} networks: {type(error).__name__}: {text}"
            ) from error
        return _checked(answer, len(index))

    def predict(self, X: IntArray) -> FloatArray:
        """Accuracies of canonical genotypes of shape ``(n, n_var)``; see :meth:`__call__`."""
        return self(self.space.block_index(X), X)

    def remember(self, X: IntArray, accuracies: FloatArray) -> None:
        """Take over what somebody else has measured just as this source would.

        One that measures does not measure these networks again; others need not be told.

        Args:
            X: canonical genotypes, shape ``(n, n_var)``.
            accuracies: in percent, shape ``(n,)``.
        """
        del X, accuracies

    def estimate_s(self, X: IntArray, splits: int = 1) -> float:  # noqa: ARG002
        """About how many seconds genotypes will take; 0 where that is not worth a word.

        Args:
            X: canonical genotypes, shape ``(n, n_var)``.
            splits: of the images: 1 for a prediction, 2 where an :class:`ExactSource` measures.
        """
        return 0.0

    def block_gains(self) -> Gains | None:
        """The accuracy as a sum over blocks, if it is one.

        See :meth:`apq_moo.predictors.AdditivePredictor.block_gains`.
        """
        return None

    def samples(self) -> tuple[IntArray, FloatArray] | None:
        """Genotypes and accuracies of the whole space, if it knows them all."""
        return None


class ExactSource(AccuracySource):
    """A source of true accuracies, on images that searches may see and on images that they not.

    Attributes:
        n_images: of the validation and the test split, where it knows.
    """

    exact = True
    n_images: tuple[int, int] | None = None

    @abstractmethod
    def measure(self, X: IntArray, callback: Callable[[int], None] = ignored) -> FloatArray:
        """Accuracies on the validation and the test images in percent, shape ``(n, 2)``.

        Args:
            X: canonical genotypes, shape ``(n, n_var)``.
            callback: told how many networks are done.
        """


SourceFactory: TypeAlias = Callable[[Space, AssetsFolder, str | None], AccuracySource]
"""Makes a source from a space, a folder of assets, and where torch runs (None: to be chosen)."""

SOURCES: Registry[SourceFactory] = Registry("accuracy source")
"""Sources beside the predictors of :data:`apq_moo.predictors.PREDICTORS`, by name."""


class PredictedAccuracy(AccuracySource):
    """What a predictor estimates.

    Args:
        predictor: fitted; has ``predict``, and perhaps ``predict_blocks`` and ``block_gains``.
        name: see :class:`AccuracySource`.
        space: see :class:`AccuracySource`.
        digest: see :class:`AccuracySource`.
    """

    def __init__(
        self,
        predictor: AccuracyModel,
        name: str,
        space: Space,
        digest: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(name, space, digest)
        self.predictor = predictor
        self._of_blocks = getattr(predictor, "predict_blocks", None)

    def predict_blocks(self, index: IntArray) -> ArrayLike:
        """See :class:`AccuracySource`."""
        return self._values(index, None)

    def _values(self, index: IntArray, X: IntArray | None) -> ArrayLike:
        if self._of_blocks is not None:
            answer: ArrayLike = self._of_blocks(index)
            return answer
        return self.predictor.predict(self.space.from_block_index(index) if X is None else X)

    def block_gains(self) -> Gains | None:
        """See :class:`AccuracySource`."""
        of: Callable[[], Gains] | None = getattr(self.predictor, "block_gains", None)
        return None if of is None else of()


class FunctionModel:
    """A function of genotypes as a model."""

    def __init__(self, function: AccuracyFunction) -> None:
        self.predict = function


def resolve(
    predictor: str | Path | AccuracySource | AccuracyModel | AccuracyFunction,
    space: Space,
    assets: AssetsFolder = None,
    on: str | None = None,
) -> AccuracySource:
    """Find where accuracies come from.

    Args:
        predictor: the name of a predictor that ships with the space, or can be fitted to its
            samples; ``supernet``, which measures every network, or ``table``, which looks every
            network up; the path of a saved predictor; an object with ``predict``; or a function of
            genotypes.
        space: whose networks.
        assets: a folder of assets; by default those shipped with the package.
        on: where torch runs, for sources that use it: ``cpu``, ``cuda``, ``cuda:1``. By default
            measuring uses a GPU that is there, and predictors the CPU.

    Raises:
        UserError: it cannot be found, is none of these, or belongs to another space.
    """
    if isinstance(predictor, str | Path):
        source = _named(str(predictor), space, assets, on)
        source.assets, source.on = assets, on
        return source
    owner = getattr(predictor, "space", None)
    if isinstance(owner, Space):
        refuse_other_space(belonging(owner), space, "the predictor")
    if isinstance(predictor, AccuracySource):
        return predictor
    if isinstance(predictor, AccuracyModel):
        return PredictedAccuracy(predictor, type(predictor).__name__, space)
    if callable(predictor):
        return PredictedAccuracy(FunctionModel(predictor), "function", space)
    raise UserError(
        f"predictor {shown(predictor)} is neither a name, a path, an object with predict(X), "
        "nor a function of X"
    )


def _named(name: str, space: Space, assets: AssetsFolder, on: str | None) -> AccuracySource:
    if name in SOURCES:
        return SOURCES.get(name)(space, assets, on)
    if is_specification(name):
        found = find_predictor(space, name, assets)
        return PredictedAccuracy(found, name, space, checksums(space, assets))
    if not is_file(name):
        known = ", ".join([*PREDICTORS, *SOURCES])
        raise UserError(f"unknown predictor {name!r}; known: {known}, or the path of a file")
    return PredictedAccuracy(find_predictor(space, name), name, space, {name: sha256(name)})


def is_measured(predictor: str) -> bool:
    """Whether the source of a name measures or looks up; one of a file predicts."""
    return predictor in SOURCES


def checksums(space: Space, assets: AssetsFolder) -> dict[str, str]:
    """Of all that accuracies of a space may come from: its assets, and its superspace's."""
    own, larger = find_assets(space, assets).checksums(), superspace(space)
    return own if larger is space else {**find_assets(larger).checksums(), **own}


class AdditiveSource(PredictedAccuracy):
    """A source whose accuracy is known to add up over blocks."""

    def block_gains(self) -> Gains:
        """See :class:`AccuracySource`."""
        gains = super().block_gains()
        assert gains is not None
        return gains


def additive_surrogate(
    source: AccuracySource | None, space: Space, assets: AssetsFolder = None
) -> AdditiveSource:
    """An accuracy that adds up over blocks, for algorithms that need one.

    It is the source itself if that adds up; else the additive predictor, fitted to all networks
    where these are known, or to the space's samples.

    Raises:
        UserError: the space has neither samples nor a table of all its networks.
    """
    known = source.samples() if source is not None else None
    if source is None or (known is None and source.block_gains() is None):
        source = resolve(AdditivePredictor.name, space, assets)
    if known is None and source.block_gains() is None:  # a subspace has no samples of its own
        source = SOURCES.get("table")(space, assets, None)
        known = source.samples()
    of = source if known is None else AdditivePredictor(space).fit(*known)
    return AdditiveSource(of, AdditivePredictor.name, space, source.digest)


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

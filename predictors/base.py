"""What every accuracy predictor can do, and the registry of their names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.errors import UserError
from apq_moo.predictors.parameters import Parametrised
from apq_moo.predictors.storage import Arrays, read_state, write_state
from apq_moo.registry import Registry
from apq_moo.space import Space


class Predictor(Parametrised, ABC):
    """Predicts the accuracy of a space's networks from their genotypes.

    The prediction is a deterministic function of ``space.canonical(X)``, row by row: it depends
    neither on the other rows of a batch nor on the number of threads. Fitting is deterministic in
    the samples and the seed, and leaves the global random state of every library alone.

    It is a regressor of scikit-learn: ``clone``, ``cross_val_score``, ``GridSearchCV`` and
    ``Pipeline`` take it. Its parameters are the arguments of its constructor, which keeps each
    unchanged in an attribute of the same name. (It does not derive from scikit-learn's classes,
    whose import takes longer than a small search.)

    A new kind implements :meth:`_fit`, :meth:`_predict`, :meth:`_state` and :meth:`_restore`;
    :meth:`_pretrain` too where it ``transfers``, and :meth:`_predict_std` where it ``has_std``. The
    samples that it is fitted to are canonical and checked.

    Args:
        space: the search space.
        seed: seeds everything random in fitting.

    Attributes:
        name: its name in :data:`PREDICTORS`.
        transfers: whether it learns from full-precision samples before the mixed-precision ones.
        has_std: whether it knows the standard deviations of its predictions.
        earlier: values of parameters that its files of before lack.
    """

    name: ClassVar[str]
    earlier: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    transfers: bool = False
    has_std: bool = False
    _estimator_type: ClassVar[str] = "regressor"  # what scikit-learn before 1.6 asks for

    def __init__(self, space: Space, *, seed: int = 0) -> None:
        _check_seed(seed)
        self.space = space
        self.seed = seed
        self._pretrained = False
        self._fitted = False

    def __repr__(self) -> str:
        changed = [
            f", {name}={value!r}"
            for name, value in self.get_params(deep=False).items()
            if name != "space" and repr(value) != repr(self._arguments()[name].default)
        ]
        return f"{type(self).__name__}({self.space.name!r}{''.join(changed)})"

    # -- as an estimator of scikit-learn ----------------------------------------------------------

    def set_params(self, **parameters: Any) -> Self:
        """Change parameters; what was learnt with the old ones is forgotten.

        Args:
            parameters: by the names of :meth:`get_params`, such as ``transfer__lr``.

        Returns:
            The predictor itself.

        Raises:
            UserError: there is no such parameter, or it refuses its value.
        """
        _check_seed(parameters.get("seed", self.seed))
        super().set_params(**parameters)
        self._pretrained = self._fitted = False
        return self

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """R^2, the share of the accuracies' variance that the predictions explain: 1 at best.

        Args:
            X: see :meth:`predict`.
            y: true accuracies in percent, shape ``(n,)``.
            sample_weight: of each sample, shape ``(n,)``.

        Raises:
            UserError: see :meth:`predict`.
        """
        from sklearn.metrics import r2_score

        return float(r2_score(y, self.predict(X), sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import RegressorTags, Tags, TargetTags

        target = TargetTags(required=True)
        return Tags(estimator_type="regressor", target_tags=target, regressor_tags=RegressorTags())

    def __sklearn_is_fitted__(self) -> bool:
        return self._fitted

    # -- fitting -----------------------------------------------------------------------------------

    def pretrain(self, X_fp: ArrayLike, y_fp: ArrayLike) -> Self:
        """Learn from full-precision samples, so that several :meth:`fit` can start from the result.

        ``pretrain(X_fp, y_fp).fit(X, y)`` equals ``fit(X, y, X_fp=X_fp, y_fp=y_fp)``. A predictor
        that transfers has to be fitted before it can predict again; others check the samples and
        ignore them.

        Args:
            X_fp: genotypes, shape ``(n, n_var)``; their bit genes do not matter.
            y_fp: full-precision accuracies in percent, shape ``(n,)``.

        Raises:
            UserError: see :meth:`fit`.
        """
        X, y = self._samples(X_fp, y_fp, "full-precision")
        if self.transfers:
            self._fitted = False
            self._pretrain(self.space.architecture(X), y)
            self._pretrained = True
        return self

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        X_fp: ArrayLike | None = None,
        y_fp: ArrayLike | None = None,
    ) -> Self:
        """Fit to mixed-precision samples, after pre-training on full-precision ones if given.

        Args:
            X: genotypes, shape ``(n, n_var)``, or a data frame with a column for each gene.
            y: accuracies in percent, shape ``(n,)``.
            X_fp: genotypes of the full-precision samples; their bit genes do not matter.
            y_fp: full-precision accuracies in percent.

        Returns:
            The predictor itself.

        Raises:
            UserError: wrong shapes, fewer than 2 samples, accuracies that are not percent, or a
                predictor that transfers has had no full-precision samples.
        """
        X, y = self._samples(X, y, "mixed-precision")
        if X_fp is not None and y_fp is not None:
            self.pretrain(X_fp, y_fp)
        elif X_fp is not None or y_fp is not None:
            raise UserError("X_fp and y_fp go together: give both or neither")
        if self.transfers and not self._pretrained:
            raise UserError(
                f"predictor {self.name!r} transfers from full-precision samples: "
                "give X_fp and y_fp, or choose a predictor that does not transfer"
            )
        self._fit(X, y)
        self._fitted = True
        return self

    def _samples(self, X: ArrayLike, y: ArrayLike, kind: str) -> tuple[IntArray, FloatArray]:
        rows = self.space.canonical(self.space.check(X))
        try:
            values = np.array(y, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise UserError(f"the {kind} accuracies must be numbers, got {y!r}") from error
        if values.shape != (len(rows),) or len(rows) < 2:
            raise UserError(
                f"the {kind} samples must be at least 2 rows with one accuracy each, "
                f"got {len(rows)} rows and accuracies of shape {values.shape}"
            )
        bad = ~((values >= 0) & (values <= 100))
        if bad.any():
            row = int(np.argmax(bad))
            raise UserError(
                f"the {kind} accuracies must be percent, 0 to 100; sample {row} has {values[row]}"
            )
        return rows, values

    # -- predicting --------------------------------------------------------------------------------

    @overload
    def predict(self, X: ArrayLike, return_std: Literal[False] = False) -> FloatArray: ...

    @overload
    def predict(self, X: ArrayLike, return_std: Literal[True]) -> tuple[FloatArray, FloatArray]: ...

    def predict(
        self, X: ArrayLike, return_std: bool = False
    ) -> FloatArray | tuple[FloatArray, FloatArray]:
        """Predicted accuracies in percent, shape ``(n,)``.

        Args:
            X: genotypes, shape ``(n, n_var)``, or a data frame with a column for each gene.
            return_std: return the standard deviations in percent points too, shape ``(n,)``; only
                of a predictor that ``has_std``.

        Raises:
            UserError: the predictor is not fitted or has no standard deviations, or ``X`` is
                malformed.
        """
        if return_std and not self.has_std:
            raise UserError(
                f"predictor {self.name!r} has no standard deviations; those that have: "
                f"{', '.join(_with_std())}"
            )
        self._require_fitted()
        rows = self.space.check(X)
        if return_std:
            return self._predict_std(rows) if len(rows) else (np.empty(0), np.empty(0))
        return self._predict(rows) if len(rows) else np.empty(0)

    def predict_blocks(self, index: IntArray) -> FloatArray:
        """The same for networks given by their blocks' configurations.

        Args:
            index: see :meth:`apq_moo.space.Space.block_index`, shape ``(n, n_blocks)``; it is not
                checked.

        Raises:
            UserError: the predictor is not fitted.
        """
        self._require_fitted()
        return self._predict_blocks(index) if len(index) else np.empty(0)

    def _require_fitted(self) -> None:
        if not self._fitted:
            raise UserError(f"predictor {self.name!r} is not fitted: call fit, or load a saved one")

    # -- storing -----------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the fitted predictor to a file, atomically; see :meth:`load`.

        What is needed to predict is kept; to fit again, pre-train again.

        Raises:
            UserError: it is not fitted, a parameter is not plain data, or the file cannot be
                written.
        """
        if not self._fitted:
            raise UserError(f"predictor {self.name!r} is not fitted: there is nothing to save")
        arrays, settings = self._state()
        header = {
            "predictor": self.name,
            "seed": int(self.seed),
            "parameters": {k: v for k, v in self._plain_params().items() if k != "seed"},
            "settings": settings,
        }
        write_state(path, self.space, arrays, header)

    @classmethod
    def load(cls, path: str | Path, space: Space) -> Self:
        """Read a saved predictor of this class or of one derived from it.

        Predictions of the result equal those of the saved predictor bit by bit.

        Raises:
            UserError: the file is missing, truncated, altered, of another space, or holds a
                predictor that is unknown or of another kind.
        """
        arrays, header = read_state(path, space)
        kind = PREDICTORS.get(str(header.get("predictor")))
        if not issubclass(kind, cls):
            raise UserError(f"{path} holds a predictor {kind.name!r}, not a {cls.__name__}")
        try:
            # Files of before predictors had parameters hold none: those were the defaults.
            parameters = kind._read_params({**kind.earlier, **header.get("parameters", {})})
            predictor = kind(space, seed=header["seed"], **parameters)
            predictor._restore(arrays, header["settings"])
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} does not hold a predictor {kind.name!r}: {error}") from error
        predictor._fitted = True
        return predictor

    # -- what a kind implements --------------------------------------------------------------------

    def _pretrain(self, X: IntArray, y: FloatArray) -> None:
        """Learn from full-precision samples; bit genes of ``X`` are 0."""
        raise NotImplementedError(f"predictor {self.name!r} transfers but has no _pretrain")

    @abstractmethod
    def _fit(self, X: IntArray, y: FloatArray) -> None:
        """Learn from mixed-precision samples, starting from what was pre-trained."""

    @abstractmethod
    def _predict(self, X: IntArray) -> FloatArray:
        """Accuracies in percent of ``n > 0`` rows, which are in range but may not be canonical."""

    def _predict_std(self, X: IntArray) -> tuple[FloatArray, FloatArray]:
        """What :meth:`_predict` says of the same rows, and its standard deviations."""
        raise NotImplementedError(f"predictor {self.name!r} has_std but has no _predict_std")

    def _predict_blocks(self, index: IntArray) -> FloatArray:
        """Accuracies of ``n > 0`` networks; override it where blocks are read faster than genes."""
        return self._predict(self.space.from_block_index(index))

    @abstractmethod
    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        """What :meth:`_predict` needs: arrays, and settings that survive JSON."""

    @abstractmethod
    def _restore(self, arrays: Arrays, settings: dict[str, Any]) -> None:
        """Take over what :meth:`_state` returned.

        Raises:
            KeyError, TypeError, ValueError: it is not of the expected form.
        """


def _check_seed(seed: Any) -> None:
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**31:
        raise UserError(f"a predictor's seed must be an integer from 0 to 2^31 - 1, not {seed!r}")


def _with_std() -> list[str]:
    """Names of the predictors that have standard deviations."""
    return [name for name, kind in PREDICTORS.usable() if kind.has_std]


PREDICTORS: Registry[type[Predictor]] = Registry("predictor")
"""Every kind of predictor by name; plug-ins join through the group ``apq_moo.predictors``."""

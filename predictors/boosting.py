"""Gradient-boosted trees on the options of the genes, with and without transfer by stacking."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.errors import UserError
from apq_moo.predictors.base import PREDICTORS, Predictor
from apq_moo.predictors.features import option_values
from apq_moo.predictors.storage import Arrays
from apq_moo.space import Space

Features = NDArray[np.float32]


class _Trees(Protocol):
    """A fitted ensemble."""

    def predict(self, features: Features) -> NDArray[Any]: ...


class _BoostedPredictor(Predictor):
    """Boosted trees; a stacked one also sees the prediction of M_FP as a feature.

    M_FP is an ensemble of the same kind, fitted to the full-precision samples; its prediction for
    a network's architecture tells the second ensemble what needs thousands of samples to learn.
    """

    _mp: _Trees
    _fp: _Trees

    @abstractmethod
    def _grow(self, features: Features, y: FloatArray) -> _Trees:
        """Fit an ensemble, deterministically.

        Raises:
            TypeError, ValueError: a parameter is of a wrong type or out of range.
        """

    def _tree_parameters(self) -> dict[str, Any]:
        parameters = self.get_params(deep=False)
        return {name: parameters[name] for name in parameters if name not in {"space", "seed"}}

    def _grown(self, features: Features, y: FloatArray) -> _Trees:
        try:
            return self._grow(features, y)
        except (TypeError, ValueError) as error:
            text = str(error).partition("\n")[0]
            raise UserError(f"{self!r} cannot be fitted: {text}") from error

    def _pretrain(self, X: IntArray, y: FloatArray) -> None:
        self._fp = self._grown(option_values(self.space, X), y)

    def _fit(self, X: IntArray, y: FloatArray) -> None:
        self._mp = self._grown(self._features(X), y)

    def _features(self, X: IntArray) -> Features:
        values = option_values(self.space, X)
        if not self.transfers:
            return values
        full = self._fp.predict(option_values(self.space, self.space.architecture(X)))
        return np.column_stack([values, full.astype(np.float32)])

    def _predict(self, X: IntArray) -> FloatArray:
        return self._mp.predict(self._features(X)).astype(np.float64)


class _XGBoostTrees:
    """An XGBoost model that runs on one thread, so that results do not depend on their number."""

    def __init__(self, booster: Any) -> None:
        self.booster = booster
        booster.set_param({"nthread": 1})

    def predict(self, features: Features) -> NDArray[np.float32]:
        result: NDArray[np.float32] = self.booster.inplace_predict(features)
        return result

    def dump(self) -> NDArray[np.uint8]:
        return np.frombuffer(self.booster.save_raw("ubj"), dtype=np.uint8)

    @classmethod
    def parse(cls, data: NDArray[np.uint8], n_features: int) -> _XGBoostTrees:
        import xgboost

        booster = xgboost.Booster()
        booster.load_model(bytearray(data.tobytes()))
        if booster.num_features() != n_features:
            raise ValueError(f"its trees use {booster.num_features()} features, not {n_features}")
        return cls(booster)


@PREDICTORS.add("xgboost")
class XGBoostPredictor(_BoostedPredictor):
    """XGBoost (Chen and Guestrin, KDD 2016) with shallow trees; stored as its own UBJSON.

    Args:
        space: the search space.
        seed: seeds everything random in fitting.
        rounds: number of trees.
        max_depth: of a tree.
        learning_rate: what a tree's values are multiplied by.
        colsample_bytree: share of the genes that a tree sees.
        subsample: share of the samples that a tree sees.
        min_child_weight: samples in a leaf at least.
    """

    name = "xgboost"

    def __init__(
        self,
        space: Space,
        *,
        seed: int = 0,
        rounds: int = 1500,
        max_depth: int = 2,
        learning_rate: float = 0.1,
        colsample_bytree: float = 0.3,
        subsample: float = 0.8,
        min_child_weight: float = 3,
    ) -> None:
        super().__init__(space, seed=seed)
        self.rounds = rounds
        self.max_depth = max_depth
        self.learning_rate = learning_rate
        self.colsample_bytree = colsample_bytree
        self.subsample = subsample
        self.min_child_weight = min_child_weight

    def _grow(self, features: Features, y: FloatArray) -> _Trees:
        import xgboost

        parameters = self._tree_parameters()
        rounds = parameters.pop("rounds")
        if rounds < 1:
            raise ValueError(f"rounds must be at least 1, not {rounds}")
        parameters |= {"tree_method": "hist", "seed": self.seed, "nthread": 1}
        parameters["base_score"] = float(y.mean())
        samples = xgboost.QuantileDMatrix(features, y, nthread=1)
        return _XGBoostTrees(xgboost.train(parameters, samples, num_boost_round=rounds))

    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        names = ["mp", "fp"] if self.transfers else ["mp"]
        return {name: getattr(self, f"_{name}").dump() for name in names}, {}

    def _restore(self, arrays: Arrays, settings: dict[str, Any]) -> None:  # noqa: ARG002
        n_features = self.space.n_var
        if self.transfers:
            self._fp = _XGBoostTrees.parse(arrays["fp"], n_features)
            n_features += 1
        self._mp = _XGBoostTrees.parse(arrays["mp"], n_features)


@PREDICTORS.add("xgboost-stacked")
class StackedXGBoostPredictor(XGBoostPredictor):
    """XGBoost that transfers by stacking on an XGBoost model of full-precision accuracy."""

    name = "xgboost-stacked"
    transfers = True


@PREDICTORS.add("gbdt")
class GBDTPredictor(_BoostedPredictor):
    """Scikit-learn's histogram-based boosted trees.

    Scikit-learn can store them as pickles only, which this project does not use. So the saved form
    is the samples, and loading fits again, which is deterministic and takes a second or two. Some
    predictions are stored too; where another release of scikit-learn does not reproduce them to the
    bit, loading fails rather than pass a different predictor off as the saved one.

    Args:
        space: the search space.
        seed: seeds everything random in fitting.
        max_iter: number of trees.
        max_depth: of a tree.
        learning_rate: what a tree's values are multiplied by.
        max_features: share of the genes that a split may choose from.
        min_samples_leaf: samples in a leaf at least.
        l2_regularization: of the leaves' values.
    """

    name = "gbdt"
    _probes: ClassVar[int] = 64

    def __init__(
        self,
        space: Space,
        *,
        seed: int = 0,
        max_iter: int = 800,
        max_depth: int = 2,
        learning_rate: float = 0.1,
        max_features: float = 0.3,
        min_samples_leaf: int = 5,
        l2_regularization: float = 1.0,
    ) -> None:
        super().__init__(space, seed=seed)
        self.max_iter = max_iter
        self.max_depth = max_depth
        self.learning_rate = learning_rate
        self.max_features = max_features
        self.min_samples_leaf = min_samples_leaf
        self.l2_regularization = l2_regularization

    def _grow(self, features: Features, y: FloatArray) -> _Trees:
        from sklearn.ensemble import HistGradientBoostingRegressor
        from threadpoolctl import threadpool_limits

        # Sums over several threads would round differently for another number of them.
        with threadpool_limits(1, user_api="openmp"):
            model = HistGradientBoostingRegressor(
                **self._tree_parameters(), early_stopping=False, random_state=self.seed
            )
            trees: _Trees = model.fit(features, y)
        return trees

    def _pretrain(self, X: IntArray, y: FloatArray) -> None:
        super()._pretrain(X, y)
        self._fp_samples = X, y

    def _fit(self, X: IntArray, y: FloatArray) -> None:
        super()._fit(X, y)
        self._mp_samples = X, y

    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        import sklearn

        X, y = self._mp_samples
        # Options of a gene rarely pass 256; the smallest type that holds them keeps files small.
        small = np.min_scalar_type(int(self.space.n_options.max()))
        arrays: Arrays = {"X": X.astype(small), "y": y, "probe": self._predict(X[: self._probes])}
        if self.transfers:
            X_fp, y_fp = self._fp_samples
            arrays |= {"X_fp": X_fp.astype(small), "y_fp": y_fp}
        return arrays, {"sklearn": sklearn.__version__}

    def _restore(self, arrays: Arrays, settings: dict[str, Any]) -> None:
        import sklearn

        samples = {name: arrays[name] for name in ("X", "y")}
        if self.transfers:
            samples |= {name: arrays[name] for name in ("X_fp", "y_fp")}
        self.fit(**samples)
        if not np.array_equal(self._predict(self._mp_samples[0][: self._probes]), arrays["probe"]):
            if settings["sklearn"] == sklearn.__version__:
                raise UserError(
                    "fitting again does not give the predictor that was saved: this version of "
                    "apq-moo has other settings for it, or the file was altered; fit it again"
                )
            raise UserError(
                f"scikit-learn {sklearn.__version__} does not reproduce this predictor, which was "
                f"saved under {settings['sklearn']}: use that release, or fit it again"
            )


@PREDICTORS.add("gbdt-stacked")
class StackedGBDTPredictor(GBDTPredictor):
    """Scikit-learn's boosted trees, stacked on such a model of full-precision accuracy."""

    name = "gbdt-stacked"
    transfers = True

"""Gradient-boosted trees on features of the genes, with and without transfer by stacking."""

from __future__ import annotations

from abc import abstractmethod
from types import MappingProxyType
from typing import Any

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.errors import UserError, shown
from apq_moo.predictors.base import PREDICTORS, Predictor
from apq_moo.predictors.features import FEATURES, features, n_features, option_values
from apq_moo.predictors.storage import Arrays
from apq_moo.predictors.targets import TARGETS, check_choice, from_target, to_target
from apq_moo.predictors.trees import Features, Trees
from apq_moo.predictors.ubjson import joined, read_ubjson
from apq_moo.space import Space


class _BoostedPredictor(Predictor):
    """Boosted trees; a stacked one also sees the prediction of M_FP as a feature.

    M_FP is an ensemble of the same kind, fitted to the full-precision samples; its prediction for
    a network's architecture tells the second ensemble what needs thousands of samples to learn.
    M_FP sees options and is fitted to accuracies always: other features and targets, with which it
    takes longer, do not make it better.

    Attributes:
        features: one of :data:`apq_moo.predictors.features.FEATURES`.
        target: one of :data:`apq_moo.predictors.targets.TARGETS`.
    """

    earlier = MappingProxyType({"features": "options", "target": "accuracy"})
    features: str
    target: str
    _mp: Trees
    _fp: Trees

    @abstractmethod
    def _grow(self, features: Features, y: FloatArray) -> Trees:
        """Fit an ensemble, deterministically.

        Raises:
            TypeError, ValueError: a parameter is of a wrong type or out of range.
        """

    def _tree_parameters(self) -> dict[str, Any]:
        parameters = self.get_params(deep=False)
        own = {"space", "seed", "features", "target"}
        return {name: parameters[name] for name in parameters if name not in own}

    def _check_choices(self) -> None:
        check_choice("features", self.features, FEATURES)
        check_choice("target", self.target, TARGETS)

    def _grown(self, features: Features, target: FloatArray) -> Trees:
        try:
            return self._grow(features, target)
        except (TypeError, ValueError) as error:
            text = str(error).partition("\n")[0]
            raise UserError(f"{self!r} cannot be fitted: {text}") from error

    def _pretrain(self, X: IntArray, y: FloatArray) -> None:
        self._fp = self._grown(option_values(self.space, X), y)

    def _fit(self, X: IntArray, y: FloatArray) -> None:
        self._check_choices()
        self._mp = self._grown(self._features(X), to_target(y, self.target))

    def _features(self, X: IntArray) -> Features:
        values = features(self.space, X, self.features)
        if not self.transfers:
            return values
        full = self._fp.predict(option_values(self.space, self.space.architecture(X)))
        return np.column_stack([values, full.astype(np.float32)])

    def _predict(self, X: IntArray) -> FloatArray:
        return from_target(self._mp.predict(self._features(X)).astype(np.float64), self.target)

    def _n_features(self) -> dict[str, int]:
        """Of the ensembles, by their names in files."""
        n = n_features(self.space, self.features)
        return {"fp": self.space.n_var, "mp": n + 1} if self.transfers else {"mp": n}

    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        arrays: Arrays = {}
        for name in self._n_features():
            arrays |= getattr(self, f"_{name}").dump(name)
        return arrays, {"n_features": self._mp.n_features}

    def _restore(self, arrays: Arrays, settings: dict[str, Any]) -> None:
        self._check_choices()
        n = self._n_features()["mp"]
        if settings["n_features"] != n:
            raise ValueError(f"its trees use {shown(settings['n_features'])} features, not {n}")
        for name, of in self._n_features().items():
            setattr(self, f"_{name}", Trees.parse(arrays, name, of))


def _xgboost_trees(model: bytes, n_features: int) -> Trees:
    """Take the trees out of a model that XGBoost wrote as UBJSON.

    Raises:
        KeyError, TypeError, ValueError: it is none, or not for one value from so many features.
    """
    learner = read_ubjson(model)["learner"]
    parameters, booster = learner["learner_model_param"], learner["gradient_booster"]
    if int(parameters["num_feature"]) != n_features:
        raise ValueError(
            f"its trees use {parameters['num_feature'][:9]} features, not {n_features}"
        )
    kind = booster["name"], learner["objective"]["name"], parameters.get("num_target", "1")
    if kind != ("gbtree", "reg:squarederror", "1"):
        raise ValueError(f"a model for {shown(kind)}")
    trees = booster["model"]["trees"]
    names = ("left_children", "right_children", "split_indices", "split_conditions", "split_type")
    left, right, features, numbers, types = (
        joined([tree[name] for tree in trees], kind)
        for name, kind in zip(names, "llldU", strict=True)
    )
    if types.any():
        raise ValueError("a split that is not by a number")
    sizes = [len(tree["split_type"][1]) for tree in trees]
    base = np.array([parameters["base_score"].strip("[]")], dtype=np.float32)
    numbers = numbers.astype(np.float32)
    return Trees.joined(
        base, sizes, np.stack([left, right], axis=1), features, numbers, numbers, n_features
    )


@PREDICTORS.add("xgboost")
class XGBoostPredictor(_BoostedPredictor):
    """XGBoost (Chen and Guestrin, KDD 2016) with shallow trees.

    Args:
        space: the search space.
        seed: seeds everything random in fitting.
        features: what the trees see, one of :data:`apq_moo.predictors.features.FEATURES`.
        target: what they are fitted to, one of :data:`apq_moo.predictors.targets.TARGETS`.
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
        features: str = "options",
        target: str = "log-error",
        rounds: int = 1500,
        max_depth: int = 2,
        learning_rate: float = 0.1,
        colsample_bytree: float = 0.3,
        subsample: float = 0.8,
        min_child_weight: float = 3,
    ) -> None:
        super().__init__(space, seed=seed)
        self.features = features
        self.target = target
        self.rounds = rounds
        self.max_depth = max_depth
        self.learning_rate = learning_rate
        self.colsample_bytree = colsample_bytree
        self.subsample = subsample
        self.min_child_weight = min_child_weight

    def _grow(self, features: Features, y: FloatArray) -> Trees:
        import xgboost

        parameters = self._tree_parameters()
        rounds = parameters.pop("rounds")
        if rounds < 1:
            raise ValueError(f"rounds must be at least 1, not {rounds}")
        parameters |= {"tree_method": "hist", "seed": self.seed, "nthread": 1}
        parameters["base_score"] = float(y.mean())
        samples = xgboost.QuantileDMatrix(features, y, nthread=1)
        booster = xgboost.train(parameters, samples, num_boost_round=rounds)
        return _xgboost_trees(bytes(booster.save_raw("ubj")), features.shape[1])

    def _restore(self, arrays: Arrays, settings: dict[str, Any]) -> None:
        if "mp" not in arrays:
            super()._restore(arrays, settings)
            return
        self._check_choices()
        for name, n in self._n_features().items():  # as files were before
            setattr(self, f"_{name}", _xgboost_trees(arrays[name].tobytes(), n))


@PREDICTORS.add("xgboost-stacked")
class StackedXGBoostPredictor(XGBoostPredictor):
    """XGBoost that transfers by stacking on an XGBoost model of full-precision accuracy."""

    name = "xgboost-stacked"
    transfers = True


def _scikit_learn_trees(model: Any, n_features: int) -> Trees:
    """The trees of a fitted ``HistGradientBoostingRegressor``."""
    trees = [predictor.nodes for (predictor,) in model._predictors]
    nodes = np.concatenate(trees)
    leaf = nodes["is_leaf"].astype(bool)
    children = np.stack([nodes["left"], nodes["right"]], axis=1).astype(np.int64)
    children[leaf] = -1
    # Rows go left where their feature, a float32, is at most the threshold, a float64.
    at_most = np.where(leaf, 0, nodes["num_threshold"])
    rounded = at_most.astype(np.float32)
    above = np.nextafter(rounded, np.float32(np.inf))
    less_than = np.where(rounded > at_most, rounded, above)
    base, sizes = model._baseline_prediction.ravel(), [len(tree) for tree in trees]
    features, values = nodes["feature_idx"], nodes["value"]
    return Trees.joined(base, sizes, children, features, less_than, values, n_features)


@PREDICTORS.add("gbdt")
class GBDTPredictor(_BoostedPredictor):
    """Scikit-learn's histogram-based boosted trees.

    Args:
        space: the search space.
        seed: seeds everything random in fitting.
        features: what the trees see, one of :data:`apq_moo.predictors.features.FEATURES`.
        target: what they are fitted to, one of :data:`apq_moo.predictors.targets.TARGETS`.
        max_iter: number of trees.
        max_depth: of a tree.
        learning_rate: what a tree's values are multiplied by.
        max_features: share of the genes that a split may choose from.
        min_samples_leaf: samples in a leaf at least.
        l2_regularization: of the leaves' values.
    """

    name = "gbdt"

    def __init__(
        self,
        space: Space,
        *,
        seed: int = 0,
        features: str = "options",
        target: str = "log-error",
        max_iter: int = 800,
        max_depth: int = 2,
        learning_rate: float = 0.1,
        max_features: float = 0.3,
        min_samples_leaf: int = 5,
        l2_regularization: float = 1.0,
    ) -> None:
        super().__init__(space, seed=seed)
        self.features = features
        self.target = target
        self.max_iter = max_iter
        self.max_depth = max_depth
        self.learning_rate = learning_rate
        self.max_features = max_features
        self.min_samples_leaf = min_samples_leaf
        self.l2_regularization = l2_regularization

    def _grow(self, features: Features, y: FloatArray) -> Trees:
        from sklearn.ensemble import HistGradientBoostingRegressor
        from threadpoolctl import threadpool_limits

        # Sums over several threads would round differently for another number of them.
        with threadpool_limits(1, user_api="openmp"):
            model = HistGradientBoostingRegressor(
                **self._tree_parameters(), early_stopping=False, random_state=self.seed
            )
            model.fit(features, y)
        return _scikit_learn_trees(model, features.shape[1])


@PREDICTORS.add("gbdt-stacked")
class StackedGBDTPredictor(GBDTPredictor):
    """Scikit-learn's boosted trees, stacked on such a model of full-precision accuracy."""

    name = "gbdt-stacked"
    transfers = True

"""Gaussian processes on engineered features, with and without transfer."""

from __future__ import annotations

from typing import Any

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.errors import UserError
from apq_moo.predictors.base import PREDICTORS, Predictor
from apq_moo.predictors.boosting import XGBoostPredictor
from apq_moo.predictors.features import (
    FLAT,
    LARGEST,
    deviations,
    engineered,
    n_features,
    option_values,
)
from apq_moo.predictors.gaussian import BOUNDS, Kernel, Process, learn_kernel
from apq_moo.predictors.storage import MOST, Arrays, real
from apq_moo.predictors.targets import from_target, slope, to_target
from apq_moo.predictors.trees import Trees
from apq_moo.space import Space

_MOST_ROWS = 20_000
"""Their covariances take 3.2 GB."""

_CHUNK = 1024
"""Networks whose features are computed at a time."""

_TARGET = "log-error"
"""What separates good networks counts most."""


@PREDICTORS.add("gp-scratch")
class ScratchGPPredictor(Predictor):
    """Exact Gaussian process on what bits and channels do to a network.

    The features are those of :func:`apq_moo.predictors.features.engineered`, the kernel is a
    constant, a linear and a Matern-5/2 part with a length scale for each feature; both features and
    target, ``-log(101 - accuracy)``, are standardised. Standard deviations are those of the
    accuracy itself, without the noise of measuring it, by the delta method: ``101 - accuracy``
    times the deviation of the target.

    Fitting takes ``O(n^3)`` time and ``O(n^2)`` memory for ``n`` samples, and so does the first
    call for deviations.

    Args:
        space: the search space.
        seed: seeds everything random in fitting.
        steps: of Adam on the marginal likelihood, from length scales of 1.5 times the root of the
            number of features.
        learning_rate: of Adam.
        likelihood_rows: random samples that the marginal likelihood is computed on, at most.
        max_rows: random samples that are learnt from, at most.
    """

    name = "gp-scratch"
    has_std = True
    _process: Process

    def __init__(
        self,
        space: Space,
        *,
        seed: int = 0,
        steps: int = 50,
        learning_rate: float = 0.06,
        likelihood_rows: int = 1000,
        max_rows: int = 5000,
    ) -> None:
        super().__init__(space, seed=seed)
        self.steps = steps
        self.learning_rate = learning_rate
        self.likelihood_rows = likelihood_rows
        self.max_rows = max_rows

    def _fit(self, X: IntArray, y: FloatArray) -> None:
        from threadpoolctl import threadpool_limits

        for name in ("likelihood_rows", "max_rows"):
            if not 2 <= (rows := getattr(self, name)) <= _MOST_ROWS:
                raise UserError(f"{name} must be from 2 to {_MOST_ROWS:,}, not {rows!r}")
        rng = np.random.default_rng([self.seed, 2])
        rows = _some(len(X), self.max_rows, rng)
        target = to_target(y[rows], _TARGET)
        self._index = self.space.block_index(X[rows])
        features = self._raw_features(self._index)
        self._center, self._scale = features.mean(axis=0), deviations(features)
        self._level, self._spread = float(target.mean()), float(deviations(target))
        x, target = self._standardised(features), (target - self._level) / self._spread
        part = _some(len(x), self.likelihood_rows, rng)
        # Several threads would add up in an order of their own, and round differently.
        with threadpool_limits(1, user_api="blas"):
            kernel = learn_kernel(
                x[part], target[part], steps=self.steps, learning_rate=self.learning_rate
            )
        self._process = Process(kernel, x, y=target)

    # -- features ----------------------------------------------------------------------------------

    @property
    def _n_features(self) -> int:
        return n_features(self.space, "engineered")

    def _raw_features(self, index: IntArray) -> FloatArray:
        return engineered(self.space, index)

    def _standardised(self, features: FloatArray) -> FloatArray:
        x: FloatArray = (features - self._center) / self._scale
        return np.clip(x, -LARGEST, LARGEST)

    def _features(self, index: IntArray) -> FloatArray:
        found = np.empty((len(index), self._n_features))
        for start in range(0, len(index), _CHUNK):
            part = slice(start, start + _CHUNK)
            found[part] = self._standardised(self._raw_features(index[part]))
        return found

    # -- predicting --------------------------------------------------------------------------------

    def _predict(self, X: IntArray) -> FloatArray:
        return self._predict_blocks(self.space.block_index(X))

    def _predict_blocks(self, index: IntArray) -> FloatArray:
        return self._accuracy(self._process.mean(self._features(index)))

    def _predict_std(self, X: IntArray) -> tuple[FloatArray, FloatArray]:
        x = self._features(self.space.block_index(X))
        target, variance = self._process.mean_and_variance(x)
        mean = self._accuracy(target)
        return mean, slope(mean, _TARGET) * self._spread * np.sqrt(variance)

    def _accuracy(self, target: FloatArray) -> FloatArray:
        """In percent, at least 0."""
        return from_target(self._level + self._spread * target, _TARGET)

    # -- storing -----------------------------------------------------------------------------------

    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        kernel = self._process.kernel
        arrays: Arrays = {
            "index": self._index.astype(np.int32),
            "alpha": self._process.alpha,
            "center": self._center,
            "scale": self._scale,
            "lengths": kernel.lengths,
        }
        settings = {name: getattr(kernel, name) for name in BOUNDS if name != "lengths"}
        return arrays, {**settings, "level": self._level, "spread": self._spread}

    def _restore(self, arrays: Arrays, settings: dict[str, Any]) -> None:
        index, d = arrays["index"], self._n_features
        n, sizes = len(index), self.space.block_sizes
        if index.shape != (n, len(sizes)) or index.dtype != np.int32 or not 2 <= n <= _MOST_ROWS:
            raise ValueError(
                f"it needs 2 to {_MOST_ROWS:,} samples of {len(sizes)} blocks each, in int32"
            )
        if not ((index >= 0) & (index <= sizes)).all():
            raise ValueError("a sample has a configuration that its block has not")
        self._index = index.astype(np.int64)
        bounds = {"alpha": (-MOST, MOST), "center": (-MOST, MOST), "scale": (FLAT, MOST)}
        for name, (low, high) in (bounds | {"lengths": _loose("lengths")}).items():
            array, size = arrays[name], n if name == "alpha" else d
            if array.shape != (size,) or array.dtype != np.float64:
                raise ValueError(f"it needs {size} float64 numbers {name}")
            if not ((array >= low) & (array <= high)).all():
                raise ValueError(f"its {name} must be numbers of {low:g} to {high:g}")
        values = {name: real(settings, name) for name in BOUNDS if name != "lengths"}
        self._level, self._spread = real(settings, "level"), real(settings, "spread")
        for name, value in {**values, "spread": self._spread}.items():
            low, high = _loose(name) if name in BOUNDS else (FLAT, MOST)
            if not low <= value <= high:
                raise ValueError(f"its {name} must lie between {low:g} and {high:g}, not {value:g}")
        self._center, self._scale = arrays["center"], arrays["scale"]
        kernel = Kernel(**values, lengths=arrays["lengths"])
        self._process = Process(kernel, self._features(self._index), arrays["alpha"])


@PREDICTORS.add("gp")
class GPPredictor(ScratchGPPredictor):
    """The same with one more feature: what boosted trees predict in full precision.

    The trees are those of :class:`apq_moo.predictors.XGBoostPredictor`, fitted to the
    full-precision samples; the process is stacked on them as ``xgboost-stacked`` is.

    Args:
        space: the search space.
        seed: seeds everything random in fitting.
        steps: see :class:`ScratchGPPredictor`.
        learning_rate: likewise.
        likelihood_rows: likewise.
        max_rows: likewise.
        rounds: number of the trees.
    """

    name = "gp"
    transfers = True
    _fp: Trees

    def __init__(
        self,
        space: Space,
        *,
        seed: int = 0,
        steps: int = 50,
        learning_rate: float = 0.06,
        likelihood_rows: int = 1000,
        max_rows: int = 5000,
        rounds: int = 1500,
    ) -> None:
        super().__init__(
            space,
            seed=seed,
            steps=steps,
            learning_rate=learning_rate,
            likelihood_rows=likelihood_rows,
            max_rows=max_rows,
        )
        self.rounds = rounds

    def _pretrain(self, X: IntArray, y: FloatArray) -> None:
        self._fp = (
            XGBoostPredictor(
                self.space,
                seed=self.seed,
                rounds=self.rounds,
                features="options",
                target="accuracy",
            )
            .fit(X, y)
            ._mp
        )

    @property
    def _n_features(self) -> int:
        return super()._n_features + 1

    def _raw_features(self, index: IntArray) -> FloatArray:
        architectures = self.space.architecture(self.space.from_block_index(index))
        full = self._fp.predict(option_values(self.space, architectures))
        return np.column_stack([super()._raw_features(index), full])

    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        arrays, settings = super()._state()
        return arrays | self._fp.dump("fp"), settings

    def _restore(self, arrays: Arrays, settings: dict[str, Any]) -> None:
        self._fp = Trees.parse(arrays, "fp", self.space.n_var)
        super()._restore(arrays, settings)


def _some(n: int, most: int, rng: np.random.Generator) -> IntArray:
    """At most so many of ``n`` rows, in order."""
    return np.sort(rng.permutation(n)[:most])


def _loose(name: str) -> tuple[float, float]:
    """Bounds of a kernel's value that allow for rounding."""
    low, high = BOUNDS[name]
    return low * 0.999, high * 1.001

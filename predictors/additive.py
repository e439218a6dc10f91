"""A linear predictor: every option of every block adds its own share of accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.predictors.base import PREDICTORS, Predictor
from apq_moo.predictors.storage import MOST, Arrays, real

_PENALTIES = np.logspace(-3, 5, 33)

_GRID = 2.0**-30
"""Coefficients are multiples of this (1e-9 percent), so that their sums are exact in any order."""


@PREDICTORS.add("additive")
class AdditivePredictor(Predictor):
    """Ridge regression on the one-hot inputs.

    The penalty minimises generalised cross-validation (Golub, Heath and Wahba, 1979), which has a
    closed form in the eigenvalues of the Gram matrix. Fitting takes ``O(n p^2 + p^3)`` for ``p``
    inputs and has no randomness; full-precision samples are ignored.

    Attributes:
        intercept: accuracy in percent of a network with all inputs 0.
        coefficients: share of each one-hot input in percent, shape ``(n_inputs,)``.
    """

    name = "additive"
    intercept: float
    coefficients: FloatArray

    def _fit(self, X: IntArray, y: FloatArray) -> None:
        from threadpoolctl import threadpool_limits

        Z = self.space.one_hot(X).astype(np.float64)
        mean = Z.mean(axis=0)
        # Several threads would add up in an order of their own, and round differently.
        with threadpool_limits(1, user_api="blas"):
            weights = _ridge(Z - mean, y - y.mean())
            intercept = y.mean() - mean @ weights
        self.coefficients = np.rint(weights / _GRID) * _GRID
        self.intercept = float(np.rint(intercept / _GRID) * _GRID)

    def _predict(self, X: IntArray) -> FloatArray:
        index = self.space.one_hot_index(X).reshape(len(X), -1)
        padded = np.append(self.coefficients, 0.0)
        total: FloatArray = padded[index].sum(axis=1) + self.intercept
        return total

    def block_gains(self) -> tuple[float, list[FloatArray]]:
        """The prediction as a sum over blocks.

        Returns:
            The accuracy in percent of a network without blocks, and what each block's
            configurations add to it, shape ``(block_sizes[b],)`` each; they are multiples of
            2^-30.
        """
        layout, offsets = self.space.layout, self.space.one_hot_offsets
        gains = [
            self.coefficients[offsets[b] + genes[:-1]].sum(axis=1)
            for b, genes in enumerate(layout.split(layout.genes))
        ]
        return self.intercept, gains

    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        return {"coefficients": self.coefficients}, {"intercept": self.intercept}

    def _restore(self, arrays: Arrays, settings: dict[str, Any]) -> None:
        coefficients = arrays["coefficients"]
        if coefficients.shape != (self.space.n_inputs,) or coefficients.dtype != np.float64:
            raise ValueError(f"it needs {self.space.n_inputs} float64 coefficients")
        if not (np.abs(coefficients) <= MOST).all():
            raise ValueError(f"its coefficients must be numbers of at most {MOST:,.0f}")
        self.coefficients = coefficients
        self.intercept = real(settings, "intercept")


def _ridge(Z: FloatArray, target: FloatArray) -> FloatArray:
    """Weights at the penalty with the least score of generalised cross-validation.

    Args:
        Z: inputs with mean 0, shape ``(n, p)``.
        target: with mean 0, shape ``(n,)``.
    """
    eigenvalues, vectors = np.linalg.eigh(Z.T @ Z)
    eigenvalues = np.maximum(eigenvalues, 0.0)
    projected = vectors.T @ (Z.T @ target)
    # Directions that the samples do not span would divide rounding noise by rounding noise.
    spanned = eigenvalues > 1e-10 * max(eigenvalues[-1], 1.0)
    eigenvalues, vectors, projected = eigenvalues[spanned], vectors[:, spanned], projected[spanned]
    energy = projected**2 / eigenvalues
    shrink = eigenvalues / (eigenvalues + _PENALTIES[:, None])
    outside = max(float(target @ target - energy.sum()), 0.0)
    residual = outside + ((1 - shrink) ** 2 * energy).sum(axis=1)
    # One degree of freedom went into the mean.
    freedom = len(target) - 1 - shrink.sum(axis=1)
    best = int(np.argmin(residual / np.maximum(freedom, 1e-9) ** 2))
    weights: FloatArray = vectors @ (projected / (eigenvalues + _PENALTIES[best]))
    return weights

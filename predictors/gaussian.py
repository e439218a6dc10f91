"""Exact regression by a Gaussian process that has a length scale for each feature.

Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), chapters 2, 4 and 5. What is
learnt from samples is computed on one thread of BLAS. A prediction must not depend on the rest of
its batch, but a floating-point matrix product may round differently in another one; so its factors
are rounded to integers here, so coarse that all sums of their products are exact in float64. What
is left are functions of single numbers, and sums along a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from apq_moo.arrays import FloatArray
from apq_moo.predictors.features import LARGEST
from apq_moo.predictors.inference import power_of_two

_CHUNK_VALUES = 2**18
"""Covariances computed at a time; they stay in the processor's cache."""

_FACTOR_BITS = 25
"""Of a vector's length in steps; a squared distance is at most 2^52 squared steps."""

_COVARIANCE_BITS = 24
"""Of a covariance, where it is multiplied by the inverse of the factor of Cholesky."""

_PIECE = 500
"""Rows of that triangular inverse that are multiplied at a time."""


@dataclass(frozen=True)
class Kernel:
    """``constant + linear <a, b> / d + matern (1 + r + r^2 / 3) e^-r``, ``r = sqrt(5) |a - b|``.

    Differences of the ``d`` features are divided by their length scales in ``r``.

    Attributes:
        constant: variance of the constant.
        linear: variance of a linear function of features of mean square 1.
        matern: variance of the part with Matern's covariance (nu = 5/2).
        noise: variance of the samples' errors.
        lengths: length scales, shape ``(d,)``.
    """

    constant: float
    linear: float
    matern: float
    noise: float
    lengths: FloatArray

    @classmethod
    def of(cls, logarithms: FloatArray) -> Kernel:
        """From the logarithms of all, shape ``(4 + d,)``."""
        constant, linear, matern, noise = np.exp(logarithms[:4]).tolist()
        return cls(constant, linear, matern, noise, np.exp(logarithms[4:]))


BOUNDS = {
    "constant": (1e-4, 1e3),
    "linear": (1e-4, 1e3),
    "matern": (1e-4, 1e3),
    "noise": (1e-3, 1e3),
    "lengths": (0.1, 1e5),
}
"""Least and largest values of a kernel, for a target of variance 1."""


def log_likelihood(
    logarithms: FloatArray, x: FloatArray, y: FloatArray
) -> tuple[float, FloatArray]:
    """Logarithm of the marginal likelihood (equation 2.30), and its gradient (5.9).

    Args:
        logarithms: of the kernel's values, shape ``(4 + d,)``.
        x: features, shape ``(n, d)``.
        y: target, shape ``(n,)``.
    """
    from scipy.linalg import cholesky, lapack

    kernel, (n, d) = Kernel.of(logarithms), x.shape
    dots = x @ x.T
    dots *= kernel.linear / d
    z = x / kernel.lengths
    squares = (z**2).sum(axis=1)
    r = 5 * np.maximum(squares[:, None] + squares - 2 * (z @ z.T), 0)
    np.fill_diagonal(r, 0)
    third = r / 3
    np.sqrt(r, out=r)
    decay = np.exp(-r) * kernel.matern
    r += 1
    third += r
    matern = third
    matern *= decay
    total = dots + matern
    total += kernel.constant
    total.flat[:: n + 1] += kernel.noise
    factor = cholesky(total.T, lower=True, overwrite_a=True, check_finite=False)
    inverse, _ = lapack.dpotri(factor, lower=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    alpha = inverse @ y
    value = -y @ alpha / 2 - np.log(factor.diagonal()).sum() - n / 2 * np.log(2 * np.pi)
    slope = np.outer(alpha, alpha) - inverse
    gradient = np.empty_like(logarithms)
    gradient[0] = kernel.constant * slope.sum() / 2
    gradient[1] = np.vdot(slope, dots) / 2
    gradient[2] = np.vdot(slope, matern) / 2
    gradient[3] = kernel.noise * slope.trace() / 2
    # Of log length f the covariance's slope is 5/3 matern (1 + r) e^-r (a_f - b_f)^2 / length^2.
    slope *= decay
    slope *= r
    slope *= 5 / 3
    gradient[4:] = slope.sum(axis=1) @ z**2 - (z * (slope @ z)).sum(axis=0)
    return float(value), gradient


def learn_kernel(x: FloatArray, y: FloatArray, *, steps: int, learning_rate: float) -> Kernel:
    """Climb the marginal likelihood by Adam (Kingma and Ba, 2015), in logarithms.

    Args:
        x: standardised features, shape ``(n, d)``.
        y: standardised target, shape ``(n,)``.
        steps: of Adam.
        learning_rate: of Adam.
    """
    d = x.shape[1]
    low, high = (
        np.log([*(BOUNDS[name][i] for name in list(BOUNDS)[:4]), *[BOUNDS["lengths"][i]] * d])
        for i in (0, 1)
    )
    logarithms = np.log([1.0, 1.0, 1.0, 0.1, *[1.5 * np.sqrt(d)] * d])
    first, second = np.zeros_like(logarithms), np.zeros_like(logarithms)
    for step in range(1, steps + 1):
        _, gradient = log_likelihood(logarithms, x, y)
        first += 0.1 * (gradient - first)
        second += 0.001 * (gradient**2 - second)
        mean, square = first / (1 - 0.9**step), second / (1 - 0.999**step)
        logarithms += learning_rate * mean / (np.sqrt(square) + 1e-8)
        logarithms = np.clip(logarithms, low, high)
    return Kernel.of(logarithms)


class _Grid:
    """Vectors in whole steps, whose products with those of the samples are exact.

    Args:
        x: the samples' features, shape ``(n, d)``, at most :data:`LARGEST`.
        scales: what each feature is multiplied by, shape ``(d,)``.
    """

    def __init__(self, x: FloatArray, scales: FloatArray) -> None:
        self.step = power_of_two(LARGEST * float(np.sqrt(scales @ scales)), _FACTOR_BITS)
        self._scales = scales / self.step
        self._rows = self.whole(x)
        self._columns = np.ascontiguousarray(self._rows.T)
        self._squares = (self._rows**2).sum(axis=1)

    def whole(self, x: FloatArray) -> FloatArray:
        """Features in steps."""
        steps: FloatArray = np.rint(x * self._scales)
        return steps

    def products(self, x: FloatArray) -> FloatArray:
        """With the samples, shape ``(m, n)``."""
        found: FloatArray = self.whole(x) @ self._columns
        found *= self.step**2
        return found

    def distances(self, x: FloatArray, out: FloatArray) -> FloatArray:
        """Squared ones to the samples, into ``out`` of shape ``(m, n)``."""
        whole = self.whole(x)
        np.matmul(-2 * whole, self._columns, out=out)
        out += self._squares
        out += (whole**2).sum(axis=1)[:, None]
        out *= self.step**2
        return out


class Process:
    """What is known after samples.

    Args:
        kernel: the kernel.
        x: standardised features of the samples, shape ``(n, d)``, at most :data:`LARGEST`.
        alpha: ``(K + noise)^-1 y``, shape ``(n,)`` (equation 2.25); or None, to give ``y``.
        y: standardised target, shape ``(n,)``.
    """

    def __init__(
        self,
        kernel: Kernel,
        x: FloatArray,
        alpha: FloatArray | None = None,
        y: FloatArray | None = None,
    ) -> None:
        self.kernel, self._x = kernel, x
        self._near = _Grid(x, 1 / kernel.lengths)
        if alpha is None:
            from scipy.linalg import cho_solve
            from threadpoolctl import threadpool_limits

            with threadpool_limits(1, user_api="blas"):
                alpha = cho_solve((self._factor(), True), y)
        self.alpha: FloatArray = alpha
        self._weights = (x * alpha[:, None]).sum(axis=0) * (kernel.linear / x.shape[1])
        self._level = kernel.constant * float(alpha.sum())

    def mean(self, x: FloatArray) -> FloatArray:
        """Expected target, shape ``(m,)``, for features of shape ``(m, d)``."""
        found: FloatArray = (x * self._weights).sum(axis=1) + self._level
        for part in _chunks(len(x), len(self.alpha)):
            covariances = self._matern(x[part])
            covariances *= self.alpha
            found[part] += covariances.sum(axis=1)
        return found

    def mean_and_variance(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """What :meth:`mean` is, and the variance without noise, shape ``(m,)`` (equation 2.26).

        The variance is good to some 1e-5 of that before samples, which is also its least value.
        """
        kernel, (m, d) = self.kernel, x.shape
        prior = kernel.constant + kernel.matern + kernel.linear * (x**2).sum(axis=1) / d
        mean: FloatArray = (x * self._weights).sum(axis=1) + self._level
        found: FloatArray = prior.copy()
        for part in _chunks(m, len(self.alpha), 8):
            covariances = self._matern(x[part])
            mean[part] += (covariances * self.alpha).sum(axis=1)
            covariances += self._linear.products(x[part])
            covariances += kernel.constant
            largest = np.maximum(np.abs(covariances).max(axis=1), 1e-30)
            units = np.exp2(np.ceil(np.log2(largest)) - _COVARIANCE_BITS)[:, None]
            covariances /= units
            whole = np.rint(covariances, out=covariances)
            for stop, piece, piece_units in self._inverse:
                explained = whole[:, :stop] @ piece
                explained *= piece_units
                explained *= units
                explained **= 2
                found[part] -= explained.sum(axis=1)
        return mean, np.maximum(found, 1e-5 * prior)

    def _matern(self, x: FloatArray) -> FloatArray:
        distances: FloatArray = np.empty((len(x), len(self._x)))
        self._near.distances(x, distances)
        distances *= 5
        r = np.sqrt(distances)
        distances *= 1 / 3
        distances += r
        distances += 1
        np.negative(r, out=r)
        np.exp(r, out=r)
        distances *= r
        distances *= self.kernel.matern
        return distances

    def _covariances(self, x: FloatArray) -> FloatArray:
        found = self._matern(x)
        found += self._linear.products(x)
        found += self.kernel.constant
        return found

    @cached_property
    def _linear(self) -> _Grid:
        d = self._x.shape[1]
        return _Grid(self._x, np.full(d, np.sqrt(self.kernel.linear / d)))

    def _factor(self) -> FloatArray:
        """The lower factor of Cholesky of the samples' covariances and noise."""
        from scipy.linalg import cholesky
        from threadpoolctl import threadpool_limits

        n = len(self._x)
        total = np.empty((n, n))
        for part in _chunks(n, n):
            total[part] = self._covariances(self._x[part])
        total.flat[:: n + 1] += self.kernel.noise
        with threadpool_limits(1, user_api="blas"):
            factor: FloatArray = cholesky(total.T, lower=True, overwrite_a=True, check_finite=False)
        return factor

    @cached_property
    def _inverse(self) -> list[tuple[int, FloatArray, FloatArray]]:
        """The inverse of that factor, transposed, in pieces of some rows each.

        For each: where its rows end, whole numbers of shape ``(end, rows)``, and what 1 stands for
        in each row. Products with covariances, which are whole numbers too, stay below 2^53.
        """
        from scipy.linalg import lapack
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, user_api="blas"):
            inverse, _ = lapack.dtrtri(self._factor(), lower=1, overwrite_c=1)
        pieces = []
        for start in range(0, len(inverse), _PIECE):
            stop = min(start + _PIECE, len(inverse))
            piece = inverse[start:stop, :stop]
            units = np.abs(piece).sum(axis=1) + stop * 1e-12
            units = np.exp2(np.ceil(np.log2(units)) + _COVARIANCE_BITS - 52)
            pieces.append((stop, np.ascontiguousarray(np.rint(piece / units[:, None]).T), units))
        return pieces


def _chunks(m: int, n: int, times: int = 1) -> list[slice]:
    size = max(times * _CHUNK_VALUES // n, 1)
    return [slice(start, start + size) for start in range(0, m, size)]

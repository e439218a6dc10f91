"""What the networks see of genotypes: one-hot options or engineered features, in two vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from apq_moo.arrays import BoolArray, FloatArray, IntArray
from apq_moo.predictors.features import (
    FLAT,
    LARGEST,
    PER_BLOCK,
    deviations,
    engineered,
    n_features,
)
from apq_moo.predictors.network import Float32
from apq_moo.predictors.storage import MOST, Arrays
from apq_moo.space import Space

NETWORK_FEATURES = ("one-hot", "engineered")
"""Which option each gene chooses, or what the choices do to the network."""

_OF_ARCHITECTURE = (0, 1, 2, 15)
"""Engineered features of a block that bits do not move."""

_DRAWN = 1000
"""Uniform networks whose features have mean 0 and deviation 1."""

Below = Callable[[IntArray], FloatArray]
"""What a network predicts of genotypes by their blocks, shape ``(n,)``."""


class Inputs:
    """The two vectors, of the architecture and of its bits.

    Args:
        space: the search space.
        kind: one of :data:`NETWORK_FEATURES`.
        standard: of the engineered features, their centers and scales; by default those of
            networks drawn uniformly.
        below: another network, whose output is the last input of the architecture.

    Attributes:
        is_one_hot: whether the first inputs are the one-hot options.
    """

    def __init__(
        self,
        space: Space,
        kind: str,
        *,
        standard: tuple[FloatArray, FloatArray] | None = None,
        below: Below | None = None,
    ) -> None:
        self.space, self.below = space, below
        self.is_one_hot = kind == "one-hot"
        self._standard = standard
        if not self.is_one_hot and standard is None:
            drawn = space.sample(_DRAWN, np.random.default_rng(0))
            features = engineered(space, space.block_index(drawn))
            self._standard = features.mean(axis=0), deviations(features)

    @property
    def n_real(self) -> tuple[int, int]:
        """Real inputs of the architecture and of the bits."""
        below = int(self.below is not None)
        if self.is_one_hot:
            return below, 0
        of = _of_architecture(self.space)
        return int(of.sum()) + below, int((~of).sum())

    @property
    def sizes(self) -> tuple[int, int]:
        """All inputs of the architecture and of the bits."""
        architecture, bits = self.n_real
        if self.is_one_hot:
            architecture += self.space.n_architecture_inputs
            bits += self.space.n_inputs - self.space.n_architecture_inputs
        return architecture, bits

    def real(self, index: IntArray) -> tuple[FloatArray, FloatArray]:
        """The real inputs, shapes ``(n, n_real[0])`` and ``(n, n_real[1])``.

        Args:
            index: networks by their blocks, shape ``(n, n_blocks)``.
        """
        architecture, bits = np.empty((len(index), 0)), np.empty((len(index), 0))
        if self._standard is not None:
            center, scale = self._standard
            features = (engineered(self.space, index) - center) / scale
            of = _of_architecture(self.space)
            architecture, bits = features[:, of], features[:, ~of]
        if self.below is not None:
            architecture = np.column_stack([architecture, self.below(index)])
        return architecture.clip(-LARGEST, LARGEST), bits.clip(-LARGEST, LARGEST)

    def arrays(self, X: IntArray) -> tuple[Float32, Float32]:
        """All inputs in float32, to train with: shapes ``(n, sizes[0])`` and ``(n, sizes[1])``."""
        parts = [part.astype(np.float32) for part in self.real(self.space.block_index(X))]
        if self.is_one_hot:
            Z, split = self.space.one_hot(X), self.space.n_architecture_inputs
            parts = [np.hstack([Z[:, :split], parts[0]]), np.hstack([Z[:, split:], parts[1]])]
        return parts[0], parts[1]

    def above(self, below: Below) -> Inputs:
        """The same inputs, and the output of another network as the architecture's last."""
        kind = "one-hot" if self.is_one_hot else "engineered"
        return Inputs(self.space, kind, standard=self._standard, below=below)

    def dump(self) -> Arrays:
        """What :meth:`parse` takes."""
        if self._standard is None:
            return {}
        return {"inputs.center": self._standard[0], "inputs.scale": self._standard[1]}

    @classmethod
    def parse(cls, space: Space, kind: str, arrays: Arrays) -> Inputs:
        """Take what :meth:`dump` returned out of ``arrays``.

        Raises:
            KeyError, ValueError: it is not of the expected form.
        """
        if kind == "one-hot":
            return cls(space, kind)
        n = n_features(space, "engineered")
        standard = []
        for name, least in (("center", -MOST), ("scale", FLAT)):
            array: Any = arrays.pop(f"inputs.{name}")
            if array.shape != (n,) or array.dtype != np.float64:
                raise ValueError(f"it needs {n} float64 numbers inputs.{name}")
            if not ((array >= least) & (array <= MOST)).all():
                raise ValueError(f"inputs.{name} must be numbers of {least:g} to {MOST:g}")
            standard.append(array)
        return cls(space, kind, standard=(standard[0], standard[1]))


def _of_architecture(space: Space) -> BoolArray:
    """Which engineered features are the architecture's."""
    block = np.isin(np.arange(PER_BLOCK), _OF_ARCHITECTURE)
    depths_and_macs = np.ones(len(space.spec.stages) + 1, dtype=bool)
    found: BoolArray = np.concatenate([np.tile(block, space.n_blocks), depths_and_macs, [False]])
    return found

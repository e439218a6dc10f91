"""An accuracy for the ``imagenet`` space, for which no weights ship: made up, for ranking only."""

from __future__ import annotations

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.space import Space


class SyntheticAccuracy:
    """A fixed accuracy for spaces without a predictor; it is made up, not measured.

    Every option of an active block adds a gain, with diminishing returns for larger options and
    some noise. Pairs of options add an interaction, the inner product of two hidden vectors, within
    a block and between blocks that follow one another and are both active. Over random networks the
    gains have a standard deviation of 0.5 %, the interactions half of that, around 65 %.

    Args:
        space: the space.
        seed: of the gains and the hidden vectors.
    """

    def __init__(self, space: Space, seed: int = 2020) -> None:
        self.space = space
        rng = np.random.default_rng(seed)
        gains = [
            rate * np.sqrt(np.arange(1, n + 1) / n) + rng.normal(0, 0.05, n)
            for rate, n in (
                (rng.uniform(0.1, 1.0), space.n_options[column])
                for column in space.block_columns.T.ravel()
            )
        ]
        # The last entries are for inactive blocks, which :meth:`Space.one_hot_index` numbers -1.
        self.gains: FloatArray = np.append(np.concatenate(gains), 0.0)
        self.hidden: FloatArray = rng.normal(size=(space.n_inputs + 1, 2))
        self.hidden[-1] = 0.0
        parts = self.parts(space.sample(4000, rng))
        self._mean, self._scale = parts.mean(axis=1), np.array([0.5, 0.25]) / parts.std(axis=1)

    def parts(self, X: IntArray) -> FloatArray:
        """Sums of gains and of interactions, unscaled, shape ``(2, n)``."""
        index = self.space.one_hot_index(X)
        vectors = self.hidden[index]  # (n, n_blocks, 6, 2)
        blocks = vectors.sum(axis=2)
        within = ((blocks**2).sum(axis=(1, 2)) - (vectors**2).sum(axis=(1, 2, 3))) / 2
        between = (blocks[:, 1:] * blocks[:, :-1]).sum(axis=(1, 2))
        return np.stack([self.gains[index].sum(axis=(1, 2)), within + between])

    def predict(self, X: IntArray) -> FloatArray:
        """Percent, shape ``(n,)``, of canonical genotypes ``(n, n_var)``."""
        scaled = (self.parts(X).T - self._mean) * self._scale
        accuracy: FloatArray = 65.0 + scaled.sum(axis=1)
        return accuracy


# -- variants --------------------------------------------------------------------------------------

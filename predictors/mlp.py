"""The paper's predictor: a network that transfers from full precision to mixed precision."""

from __future__ import annotations

from typing import Any

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.predictors.base import PREDICTORS, Predictor
from apq_moo.predictors.inference import ExactNetwork
from apq_moo.predictors.network import Float32, Weights, check_weights
from apq_moo.predictors.storage import Arrays, real
from apq_moo.predictors.training import Recipe, initial_weights, train
from apq_moo.space import Space

_PRETRAINING = Recipe(batch=128, lr=3e-3, bits_lr=0.0)
_TRANSFER = Recipe(batch=64, lr=3e-4, bits_lr=1e-3)
_TRAINING = Recipe(batch=64, lr=2e-3, bits_lr=2e-3)


class _NetworkPredictor(Predictor):
    """What both networks share: inputs, scaled targets, exact inference and stored form.

    Attributes:
        weights: the arrays of the network, by the names that released checkpoints use.
        center: accuracy in percent where the network's output is 0.
        scale: percent for one unit of the network's output.
    """

    weights: Weights
    center: float
    scale: float

    def set_network(self, weights: Weights, *, center: float, scale: float) -> None:
        """Predict ``center + scale * output`` by a trained network from now on.

        Args:
            weights: arrays by the names that released checkpoints use.
            center: accuracy in percent where the network's output is 0.
            scale: percent for one unit of the network's output.

        Raises:
            UserError: arrays are missing, unexpected, of a wrong shape or not finite.
        """
        self.weights = check_weights(weights, self.space)
        self.center, self.scale = center, scale
        self._network = ExactNetwork(self.space, self.weights)
        self._fitted = True

    def _one_hot(self, X: IntArray) -> tuple[Float32, Float32]:
        Z = self.space.one_hot(X)
        split = self.space.n_architecture_inputs
        return Z[:, :split], Z[:, split:]

    def _train(self, X: IntArray, y: FloatArray, weights: Weights, recipe: Recipe) -> None:
        center, scale = _scaling(y)
        rng = np.random.default_rng([self.seed, 1])
        weights = train(weights, self._one_hot(X), (y - center) / scale, recipe, rng)
        self.set_network(weights, center=center, scale=scale)

    def _predict(self, X: IntArray) -> FloatArray:
        return self.center + self.scale * self._network(X)

    def _predict_blocks(self, index: IntArray) -> FloatArray:
        return self.center + self.scale * self._network.of_blocks(index)

    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        return dict(self.weights), {"center": self.center, "scale": self.scale}

    def _restore(self, arrays: Arrays, settings: dict[str, Any]) -> None:
        center, scale = real(settings, "center"), real(settings, "scale")
        self.set_network(arrays, center=center, scale=scale)


@PREDICTORS.add("mlp")
class MLPPredictor(_NetworkPredictor):
    """The paper's transferred predictor (Wang et al., CVPR 2020, section 3.2).

    Three fully connected layers of 400 with ReLU on the one-hot architecture, and one output. M_FP
    is trained on full-precision samples. M_MP starts from its weights; a linear map of the one-hot
    bits, added to the first layer's output (after its ReLU, as the released code has it), starts at
    zero, so that training begins with M_FP's function. Targets are standardised by each set's own
    mean and deviation: what is transferred is the ranking, not the level.

    Args:
        space: the search space.
        seed: seeds everything random in fitting.
        pretraining: how M_FP is trained, from random weights.
        transfer: how M_MP is trained; more slowly, so that what M_FP knows is kept.
    """

    name = "mlp"
    transfers = True
    _pretrained_weights: Weights

    def __init__(
        self,
        space: Space,
        *,
        seed: int = 0,
        pretraining: Recipe = _PRETRAINING,
        transfer: Recipe = _TRANSFER,
    ) -> None:
        super().__init__(space, seed=seed)
        self.pretraining = pretraining
        self.transfer = transfer

    def _pretrain(self, X: IntArray, y: FloatArray) -> None:
        center, scale = _scaling(y)
        rng = np.random.default_rng([self.seed, 0])
        start = initial_weights(self.space, rng, zero_bits=True)
        architectures, _ = self._one_hot(X)
        self._pretrained_weights = train(
            start, (architectures, None), (y - center) / scale, self.pretraining, rng
        )

    def _fit(self, X: IntArray, y: FloatArray) -> None:
        self._train(X, y, self._pretrained_weights, self.transfer)


@PREDICTORS.add("mlp-scratch")
class ScratchMLPPredictor(_NetworkPredictor):
    """The same network trained on mixed-precision samples alone.

    Args:
        space: the search space.
        seed: seeds everything random in fitting.
        training: how it is trained.
    """

    name = "mlp-scratch"

    def __init__(self, space: Space, *, seed: int = 0, training: Recipe = _TRAINING) -> None:
        super().__init__(space, seed=seed)
        self.training = training

    def _fit(self, X: IntArray, y: FloatArray) -> None:
        rng = np.random.default_rng([self.seed, 0])
        start = initial_weights(self.space, rng, zero_bits=False)
        self._train(X, y, start, self.training)


def _scaling(y: FloatArray) -> tuple[float, float]:
    return float(y.mean()), float(y.std()) or 1.0

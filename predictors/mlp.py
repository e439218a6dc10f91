"""The paper's predictor: a network that transfers from full precision to mixed precision."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.predictors.base import PREDICTORS, Predictor
from apq_moo.predictors.inference import ExactNetwork
from apq_moo.predictors.inputs import NETWORK_FEATURES, Inputs
from apq_moo.predictors.network import Weights, check_weights
from apq_moo.predictors.storage import Arrays, real
from apq_moo.predictors.targets import TARGETS, check_choice, from_target, to_target
from apq_moo.predictors.training import Recipe, initial_weights, train
from apq_moo.space import Space

_PRETRAINING = Recipe(batch=128, lr=3e-3, bits_lr=0.0)
_TRANSFER = Recipe(batch=64, lr=3e-4, bits_lr=1e-3)
_TRAINING = Recipe(batch=64, lr=2e-3, bits_lr=2e-3)

_BELOW = "fp."
"""Before the names of M_FP's arrays."""


class _NetworkPredictor(Predictor):
    """What the networks share: inputs, scaled targets, exact inference and stored form.

    Attributes:
        features: one of :data:`apq_moo.predictors.inputs.NETWORK_FEATURES`.
        target: one of :data:`apq_moo.predictors.targets.TARGETS`.
        weights: the arrays of the network, by the names that released checkpoints use.
        center: the target where the network's output is 0, by default accuracy in percent.
        scale: the target for one unit of the network's output.
    """

    earlier = MappingProxyType({"features": "one-hot", "target": "accuracy"})
    features: str
    target: str
    weights: Weights
    center: float
    scale: float

    def __init__(self, space: Space, *, seed: int, features: str, target: str) -> None:
        super().__init__(space, seed=seed)
        self.features = features
        self.target = target

    def _set(self, weights: Weights, inputs: Inputs, center: float, scale: float) -> None:
        self._seen = inputs
        self.weights = check_weights(weights, self.space, inputs.sizes)
        self.center, self.scale = center, scale
        self._network = ExactNetwork(self.space, self.weights, inputs)
        self._fitted = True

    def _check_choices(self) -> None:
        check_choice("features", self.features, NETWORK_FEATURES)
        check_choice("target", self.target, TARGETS)

    def _plain_inputs(self) -> Inputs:
        """What M_FP sees."""
        self._check_choices()
        return Inputs(self.space, self.features)

    def _inputs(self, plain: Inputs) -> Inputs:
        """What the network sees, given what M_FP sees."""
        return plain

    def _trained(
        self,
        X: IntArray,
        y: FloatArray,
        inputs: Inputs,
        weights: Weights,
        recipe: Recipe,
        rng: np.random.Generator,
        *,
        full_precision: bool = False,
    ) -> tuple[Weights, Inputs, float, float]:
        """What :meth:`_set` takes, after training."""
        target = to_target(y, self.target)
        center, scale = float(target.mean()), float(target.std()) or 1.0
        architectures, bits = inputs.arrays(X)
        seen = architectures, None if full_precision else bits
        found = train(weights, seen, (target - center) / scale, recipe, rng)
        return found, inputs, center, scale

    def _full_precision(self, X: IntArray, y: FloatArray, recipe: Recipe) -> Weights:
        """M_FP, trained from random weights; what it has for bits adds nothing."""
        rng, inputs = np.random.default_rng([self.seed, 0]), self._plain_inputs()
        start = initial_weights(self.space, rng, zero_bits=True, sizes=inputs.sizes)
        found, *_ = self._trained(X, y, inputs, start, recipe, rng, full_precision=True)
        return found

    def _fit_from_scratch(self, X: IntArray, y: FloatArray, inputs: Inputs, recipe: Recipe) -> None:
        rng = np.random.default_rng([self.seed, 0])
        start = initial_weights(self.space, rng, zero_bits=False, sizes=inputs.sizes)
        rng = np.random.default_rng([self.seed, 1])
        self._set(*self._trained(X, y, inputs, start, recipe, rng))

    def _predict(self, X: IntArray) -> FloatArray:
        return self._predict_blocks(self.space.block_index(X))

    def _predict_blocks(self, index: IntArray) -> FloatArray:
        output = self._network.of_blocks(index)
        return from_target(self.center + self.scale * output, self.target)

    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        arrays = dict(self.weights) | self._seen.dump()
        return arrays, {"center": self.center, "scale": self.scale}

    def _restore(self, arrays: Arrays, settings: dict[str, Any]) -> None:
        self._check_choices()
        weights = dict(arrays)
        inputs = self._inputs(Inputs.parse(self.space, self.features, weights))
        self._set(weights, inputs, real(settings, "center"), real(settings, "scale"))


class _PlainNetworkPredictor(_NetworkPredictor):
    """A network that sees nothing but a genotype."""

    def set_network(self, weights: Weights, *, center: float, scale: float) -> None:
        """Predict the target ``center + scale * output`` by a trained network from now on.

        Args:
            weights: arrays by the names that released checkpoints use.
            center: the target where the network's output is 0.
            scale: the target for one unit of the network's output.

        Raises:
            UserError: arrays are missing, unexpected, of a wrong shape or not finite.
        """
        self._set(weights, self._plain_inputs(), center, scale)


@PREDICTORS.add("mlp")
class MLPPredictor(_PlainNetworkPredictor):
    """The paper's transferred predictor (Wang et al., CVPR 2020, section 3.2).

    Three fully connected layers of 400 with ReLU on the one-hot architecture, and one output. M_FP
    is trained on full-precision samples. M_MP starts from its weights; a linear map of the one-hot
    bits, added to the first layer's output (after its ReLU, as the released code has it), starts at
    zero, so that training begins with M_FP's function. Targets are standardised by each set's own
    mean and deviation: what is transferred is the ranking, not the level.

    Args:
        space: the search space.
        seed: seeds everything random in fitting.
        features: what the network sees, one of
            :data:`apq_moo.predictors.inputs.NETWORK_FEATURES`.
        target: what it is fitted to, one of :data:`apq_moo.predictors.targets.TARGETS`.
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
        features: str = "one-hot",
        target: str = "accuracy",
        pretraining: Recipe = _PRETRAINING,
        transfer: Recipe = _TRANSFER,
    ) -> None:
        super().__init__(space, seed=seed, features=features, target=target)
        self.pretraining = pretraining
        self.transfer = transfer

    def _pretrain(self, X: IntArray, y: FloatArray) -> None:
        self._pretrained_weights = self._full_precision(X, y, self.pretraining)

    def _fit(self, X: IntArray, y: FloatArray) -> None:
        inputs, rng = self._plain_inputs(), np.random.default_rng([self.seed, 1])
        start = self._pretrained_weights
        self._set(*self._trained(X, y, inputs, start, self.transfer, rng))


@PREDICTORS.add("mlp-scratch")
class ScratchMLPPredictor(_PlainNetworkPredictor):
    """The same network trained on mixed-precision samples alone.

    Args:
        space: the search space.
        seed: seeds everything random in fitting.
        features: see :class:`MLPPredictor`.
        target: likewise.
        training: how it is trained.
    """

    name = "mlp-scratch"

    def __init__(
        self,
        space: Space,
        *,
        seed: int = 0,
        features: str = "one-hot",
        target: str = "accuracy",
        training: Recipe = _TRAINING,
    ) -> None:
        super().__init__(space, seed=seed, features=features, target=target)
        self.training = training

    def _fit(self, X: IntArray, y: FloatArray) -> None:
        self._fit_from_scratch(X, y, self._plain_inputs(), self.training)


@PREDICTORS.add("mlp-stacked")
class StackedMLPPredictor(_NetworkPredictor):
    """The network from scratch, with the output of M_FP as one more input of the architecture.

    M_FP is that of :class:`MLPPredictor`; what it knows arrives as a feature instead of as weights.

    Args:
        space: the search space.
        seed: seeds everything random in fitting.
        features: see :class:`MLPPredictor`.
        target: likewise.
        pretraining: how M_FP is trained.
        training: how the network on top is trained.
    """

    name = "mlp-stacked"
    transfers = True
    _below: Weights

    def __init__(
        self,
        space: Space,
        *,
        seed: int = 0,
        features: str = "one-hot",
        target: str = "accuracy",
        pretraining: Recipe = _PRETRAINING,
        training: Recipe = _TRAINING,
    ) -> None:
        super().__init__(space, seed=seed, features=features, target=target)
        self.pretraining = pretraining
        self.training = training

    def _pretrain(self, X: IntArray, y: FloatArray) -> None:
        self._below = self._full_precision(X, y, self.pretraining)

    def _fit(self, X: IntArray, y: FloatArray) -> None:
        inputs = self._inputs(self._plain_inputs())
        self._fit_from_scratch(X, y, inputs, self.training)

    def _inputs(self, plain: Inputs) -> Inputs:
        return plain.above(ExactNetwork(self.space, self._below, plain).of_blocks)

    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        arrays, settings = super()._state()
        return arrays | {f"{_BELOW}{name}": a for name, a in self._below.items()}, settings

    def _restore(self, arrays: Arrays, settings: dict[str, Any]) -> None:
        self._check_choices()
        below = {name for name in arrays if name.startswith(_BELOW)}
        given = {name.removeprefix(_BELOW): arrays[name] for name in below}
        rest = {name: array for name, array in arrays.items() if name not in below}
        sizes = Inputs.parse(self.space, self.features, dict(rest)).sizes
        self._below = check_weights(given, self.space, sizes)
        super()._restore(rest, settings)

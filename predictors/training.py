"""Training the published predictor network with torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from apq_moo.arrays import FloatArray
from apq_moo.errors import UserError
from apq_moo.extras import require
from apq_moo.predictors.network import (
    ARCHITECTURE,
    BITS,
    OUTPUT,
    SECOND,
    THIRD,
    Float32,
    Weights,
    weight_shapes,
)
from apq_moo.space import Space
from apq_moo.threads import one_torch_thread

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train: AdamW, linear warm-up, then cosine decay to 0.

    Attributes:
        batch: samples in an update.
        lr: peak learning rate.
        bits_lr: peak learning rate of the map of the bits.
        epochs: passes over the samples.
        min_steps: updates to make at least, so that few samples are not under-trained.
        weight_decay: decoupled weight decay.
        warmup: share of the updates in which the learning rate rises.

    Raises:
        UserError: a value is out of range.
    """

    batch: int
    lr: float
    bits_lr: float
    epochs: int = 25
    min_steps: int = 600
    weight_decay: float = 1.0
    warmup: float = 0.05

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            lowest = 1 if name in {"batch", "epochs"} else 0
            if not lowest <= value < math.inf:
                raise UserError(f"a recipe's {name} must be at least {lowest}, not {value!r}")


def initial_weights(
    space: Space,
    rng: np.random.Generator,
    *,
    zero_bits: bool,
    sizes: tuple[int, int] | None = None,
) -> Weights:
    """Draw a network's arrays: uniform within ``1 / sqrt(inputs)``, biases 0.

    Args:
        space: the search space.
        rng: the generator.
        zero_bits: start with a map of the bits that adds nothing.
        sizes: see :func:`apq_moo.predictors.network.weight_shapes`.
    """
    weights: Weights = {}
    for name, shape in weight_shapes(space, sizes).items():
        scale = 1.0 / math.sqrt(shape[-1])
        if name.endswith("bias") or (zero_bits and name.startswith(BITS)):
            scale = 0.0
        weights[name] = (scale * rng.uniform(-1.0, 1.0, shape)).astype(np.float32)
    return weights


def train(
    weights: Weights,
    inputs: tuple[Float32, Float32 | None],
    targets: FloatArray,
    recipe: Recipe,
    rng: np.random.Generator,
) -> Weights:
    """Train a network to the least mean squared error.

    Runs on one thread, so that the result does not depend on the number of processors, and draws
    only from ``rng``.

    Args:
        weights: where to start; left as they are.
        inputs: of the architectures, shape ``(n, n_architecture_inputs)``, and of the bits, shape
            ``(n, n_bit_inputs)``. Without the latter the map of the bits is left out and stays as
            it is.
        targets: shape ``(n,)``, of about zero mean and unit variance.
        recipe: how to train.
        rng: shuffles the samples.

    Returns:
        The trained arrays.

    Raises:
        UserError: torch is not installed.
    """
    require("torch", "fitting a network")
    import torch

    n = len(targets)
    batch = min(recipe.batch, n)
    per_epoch = n // batch
    epochs = max(recipe.epochs, math.ceil(recipe.min_steps / per_epoch))
    with one_torch_thread():
        parameters = {
            name: torch.tensor(array, requires_grad=True) for name, array in weights.items()
        }
        is_bits = {name: name.startswith(BITS) for name in parameters}
        rest = [value for name, value in parameters.items() if not is_bits[name]]
        bits = [value for name, value in parameters.items() if is_bits[name]]
        groups = [{"params": rest, "lr": recipe.lr}]
        if inputs[1] is not None:
            groups.append({"params": bits, "lr": recipe.bits_lr})
        optimiser = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, _warmup_then_cosine(epochs * per_epoch, recipe.warmup)
        )
        architectures, policies = (
            None if array is None else torch.from_numpy(np.ascontiguousarray(array))
            for array in inputs
        )
        assert architectures is not None
        wanted = torch.from_numpy(targets.astype(np.float32))
        for _ in range(epochs):
            order = torch.from_numpy(rng.permutation(n))
            for i in range(per_epoch):
                chosen = order[i * batch : (i + 1) * batch]
                outputs = _forward(
                    parameters,
                    architectures[chosen],
                    None if policies is None else policies[chosen],
                )
                loss = torch.nn.functional.mse_loss(outputs, wanted[chosen])
                optimiser.zero_grad()
                torch.autograd.backward(loss)
                optimiser.step()
                schedule.step()
    return {name: value.detach().numpy() for name, value in parameters.items()}


def _forward(parameters: dict[str, Tensor], architectures: Tensor, bits: Tensor | None) -> Tensor:
    from torch.nn.functional import linear, relu

    def layer(name: str, x: Tensor) -> Tensor:
        return linear(x, parameters[f"{name}.weight"], parameters[f"{name}.bias"])

    h = relu(layer(ARCHITECTURE, architectures))
    if bits is not None:
        h = h + layer(BITS, bits)
    h = relu(layer(SECOND, h))
    h = relu(layer(THIRD, h))
    return layer(OUTPUT, h)[:, 0]


def _warmup_then_cosine(steps: int, warmup: float) -> Callable[[int], float]:
    def factor(step: int) -> float:
        rising = min(1.0, (step + 1) / (warmup * steps + 1))
        return rising * 0.5 * (1.0 + math.cos(math.pi * step / steps))

    return factor

"""The published predictor network: its layout and its weights.

The network maps the one-hot inputs of an architecture and of its bits to one number (Wang et al.,
CVPR 2020, section 3.2; in the layout of the released checkpoints)::

    h = relu(layers.0 @ architecture) + quantize_fc @ bits
    h = relu(layers.1 @ h)
    h = relu(layers.2 @ h)
    output = regressor @ h
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from apq_moo.errors import UserError
from apq_moo.predictors.storage import MOST
from apq_moo.space import Space

WIDTH = 400
"""Units of every hidden layer."""

ARCHITECTURE = "layers.0.0"
BITS = "quantize_fc"
SECOND = "layers.1.0"
THIRD = "layers.2.0"
OUTPUT = "regressor"

Float32 = NDArray[np.float32]

Weights = dict[str, Float32]
"""The network's ten arrays by the names that released checkpoints use."""


def weight_shapes(space: Space, sizes: tuple[int, int] | None = None) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the network's arrays, in the order of its layers.

    Args:
        space: the search space.
        sizes: inputs of the architecture and of its bits; by default the one-hot options.
    """
    of_space = space.n_architecture_inputs
    architecture, bits = sizes or (of_space, space.n_inputs - of_space)
    inputs = {
        ARCHITECTURE: architecture,
        BITS: bits,
        SECOND: WIDTH,
        THIRD: WIDTH,
        OUTPUT: WIDTH,
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, n_in in inputs.items():
        n_out = 1 if layer == OUTPUT else WIDTH
        shapes |= {f"{layer}.weight": (n_out, n_in), f"{layer}.bias": (n_out,)}
    return shapes


def check_weights(
    weights: Mapping[str, NDArray[np.generic]],
    space: Space,
    sizes: tuple[int, int] | None = None,
) -> Weights:
    """Check names, shapes and values of a network's arrays.

    Args:
        weights: the arrays.
        space: the search space.
        sizes: see :func:`weight_shapes`.

    Returns:
        The arrays as contiguous float32.

    Raises:
        UserError: an array is missing, unexpected, of another shape or too large.
    """
    shapes = weight_shapes(space, sizes)
    unexpected = sorted(set(weights) - set(shapes))
    if unexpected:
        raise UserError(f"unexpected array {unexpected[0]!r}; expected {', '.join(shapes)}")
    checked: Weights = {}
    for name, shape in shapes.items():
        if name not in weights:
            raise UserError(f"the array {name!r} is missing; expected {', '.join(shapes)}")
        array = np.ascontiguousarray(weights[name])
        if array.shape != shape:
            raise UserError(
                f"{name} has shape {array.shape}; space {space.name!r} needs {shape}: "
                "was it trained on another space?"
            )
        if array.dtype.kind != "f" or not (np.abs(array) <= MOST).all():
            raise UserError(f"{name} must hold floating-point numbers of at most {MOST:,.0f}")
        checked[name] = array.astype(np.float32)
    return checked

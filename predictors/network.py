"""The published predictor network: its weights, and inference that is exact in any order.

The network maps the one-hot inputs of an architecture and of its bits to one number (Wang et al.,
CVPR 2020, section 3.2; in the layout of the released checkpoints)::

    h = relu(layers.0 @ architecture) + quantize_fc @ bits
    h = relu(layers.1 @ h)
    h = relu(layers.2 @ h)
    output = regressor @ h

A floating-point matrix product may round differently for another batch size, position in the
batch, number of threads or processor, and one last bit is enough to send a search elsewhere. So
:class:`ExactNetwork` computes with integers that it keeps in float64: as long as no partial sum
passes 2^53, all of them are exact, and every BLAS gives the same result for the same row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from apq_moo.errors import UserError
from apq_moo.predictors.base import FloatArray
from apq_moo.space import FIELDS, IntArray, Space

WIDTH = 400
"""Units of every hidden layer."""

ARCHITECTURE = "layers.0.0"
BITS = "quantize_fc"
SECOND = "layers.1.0"
THIRD = "layers.2.0"
OUTPUT = "regressor"

Weights = dict[str, NDArray[np.float32]]
"""The network's ten arrays by the names that released checkpoints use."""

_WEIGHT_BITS = 20
_SUM_BITS = 52
"""One less than float64 has, since rounding can lift sums a little above their bound."""

_CHUNK = 256
"""Rows computed at a time; their activations stay in the processor's cache."""

_MAX_COMBINATIONS = 256
"""Rows of a table for one block; with 8 options for each bit-width it would be 13 MB otherwise."""


def weight_shapes(space: Space) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the network's arrays for a space, in the order of its layers."""
    architecture = space.n_architecture_inputs
    inputs = {
        ARCHITECTURE: architecture,
        BITS: space.n_inputs - architecture,
        SECOND: WIDTH,
        THIRD: WIDTH,
        OUTPUT: WIDTH,
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, n_in in inputs.items():
        n_out = 1 if layer == OUTPUT else WIDTH
        shapes |= {f"{layer}.weight": (n_out, n_in), f"{layer}.bias": (n_out,)}
    return shapes


def check_weights(weights: Mapping[str, NDArray[np.generic]], space: Space) -> Weights:
    """Check names, shapes and values of a network's arrays.

    Returns:
        The arrays as contiguous float32.

    Raises:
        UserError: an array is missing, unexpected, of another shape or not finite.
    """
    shapes = weight_shapes(space)
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
        if array.dtype.kind != "f" or not (np.abs(array) <= np.finfo(np.float32).max).all():
            raise UserError(f"{name} must hold finite floating-point numbers")
        checked[name] = array.astype(np.float32)
    return checked


class ExactNetwork:
    """Evaluates the network so that a row's value depends on nothing but the row.

    Weights are rounded to a step 2^-20 of the largest one of their layer, activations to the finest
    step at which no partial sum of the product they enter can pass 2^53. Any partial sum over
    inputs ``h`` is at most ``|h| |w|`` (Cauchy and Schwarz), and ``|h|`` is bounded layer by layer
    through the spectral norms of the weights. Both steps are powers of two, so that changing units
    is exact too. Outputs differ from those of exact weights by a few times what float32 arithmetic
    would lose.

    Args:
        space: the search space.
        weights: the network's arrays (see :func:`check_weights`).
    """

    def __init__(self, space: Space, weights: Weights) -> None:
        self._space = space
        split = space.n_architecture_inputs
        exact = {name: array.astype(np.float64) for name, array in weights.items()}
        first = exact[f"{ARCHITECTURE}.weight"].T, exact[f"{ARCHITECTURE}.bias"]
        bits = exact[f"{BITS}.weight"].T, exact[f"{BITS}.bias"]
        self._architecture = _Table(space, FIELDS[:2], *first, position=0)
        self._bits = _Table(space, FIELDS[2:], *bits, position=split)

        norm = self._architecture.norm + self._bits.norm
        input_steps, sum_steps = [], []
        self._dense: list[tuple[FloatArray, FloatArray]] = []
        for layer in (SECOND, THIRD, OUTPUT):
            weight = exact[f"{layer}.weight"].T
            bias = exact[f"{layer}.bias"]
            weight_step = _step(np.abs(weight).max(), _WEIGHT_BITS)
            largest_sum = norm * np.linalg.norm(weight, axis=0).max() + np.abs(bias).max()
            input_steps.append(_step(largest_sum / weight_step, _SUM_BITS))
            sum_steps.append(input_steps[-1] * weight_step)
            self._dense.append((np.rint(weight / weight_step), np.rint(bias / sum_steps[-1])))
            norm = norm * float(np.linalg.norm(weight, 2)) + float(np.linalg.norm(bias))
        self._architecture.quantise(input_steps[0])
        self._bits.quantise(input_steps[0])
        # From the unit of a layer's sums to that of the next layer's inputs, or of the output.
        self._rescale = [a / b for a, b in zip(sum_steps, [*input_steps[1:], 1.0], strict=True)]

    def __call__(self, X: IntArray) -> FloatArray:
        """Outputs, shape ``(n,)``, for genotypes of shape ``(n, n_var)``, ``n > 0``."""
        return np.concatenate([self._chunk(X[i : i + _CHUNK]) for i in range(0, len(X), _CHUNK)])

    def _chunk(self, X: IntArray) -> FloatArray:
        genes, active = X[:, self._space.block_columns], self._space.active(X)
        h = self._architecture(genes, active)
        np.maximum(h, 0.0, out=h)
        h += self._bits(genes, active)
        for (weight, bias), rescale in zip(self._dense[:-1], self._rescale[:-1], strict=True):
            h = h @ weight
            h += bias
            np.maximum(h, 0.0, out=h)
            h *= rescale
            np.rint(h, out=h)
        weight, bias = self._dense[-1]
        output: FloatArray = (h @ weight + bias)[:, 0] * self._rescale[-1]
        return output


class _Table:
    """A linear map of one-hot fields as a table with a row for each combination of options.

    A network's output is a sum of one row for each active block; where a block's fields have too
    many combinations they are split into groups, each with rows of its own.

    Args:
        space: the search space.
        fields: names of fields.
        weight: shape ``(inputs, WIDTH)``.
        bias: shape ``(WIDTH,)``.
        position: of the map's first input among all one-hot inputs.

    Attributes:
        norm: a bound of the Euclidean norm of the outputs.
    """

    def __init__(
        self,
        space: Space,
        fields: tuple[str, ...],
        weight: FloatArray,
        bias: FloatArray,
        *,
        position: int,
    ) -> None:
        everything = np.zeros((1, space.n_var), dtype=np.int64)
        deepest = list(space.depth_columns.values())
        everything[:, deepest] = space.n_options[deepest] - 1
        starts = space.one_hot_index(everything)[0] - position

        self.norm = float(np.linalg.norm(bias))
        self._bias = bias
        blocks: list[FloatArray] = []
        used = 0
        # Row of a block's combination: offset + genes @ strides, for each group of fields.
        self._index: list[tuple[list[int], IntArray, IntArray]] = []
        for group in _groups(space, fields):
            offsets, strides = [], []
            for plan, start in zip(space.plans, starts[:, group], strict=True):
                shape = [plan.shape[field] for field in group]
                choices = np.indices(shape).reshape(len(group), -1).T
                blocks.append(weight[start + choices].sum(axis=1))
                self.norm += float(np.linalg.norm(blocks[-1], axis=1).max())
                offsets.append(used)
                strides.append([math.prod(shape[i + 1 :]) for i in range(len(group))])
                used += len(choices)
            self._index.append((group, np.array(offsets), np.array(strides)))
        self._rows = np.concatenate([*blocks, np.zeros((1, WIDTH))])

    def quantise(self, step: float) -> None:
        """Turn the table into whole multiples of a step."""
        self._rows = np.rint(self._rows / step)
        self._bias = np.rint(self._bias / step)

    def __call__(self, genes: IntArray, active: NDArray[np.bool_]) -> FloatArray:
        """Sums of rows for genes ``(n, n_blocks, 6)`` and active blocks ``(n, n_blocks)``."""
        nothing = len(self._rows) - 1
        total = np.tile(self._bias, (len(genes), 1))
        rows = np.empty_like(total)
        for group, offsets, strides in self._index:
            index = offsets + (genes[:, :, group] * strides).sum(axis=2)
            index = np.where(active, index, nothing)
            for block in np.ascontiguousarray(index.T):
                # Any mode but "raise" lets take write to its target without a copy.
                np.take(self._rows, block, axis=0, out=rows, mode="clip")
                total += rows
        return total


def _groups(space: Space, fields: tuple[str, ...]) -> list[list[int]]:
    """Fields, as positions in ``FIELDS``, grouped while a block has few combinations of them."""
    groups: list[list[int]] = []
    combinations = 0
    for name in fields:
        options = max(len(plan.options[name]) for plan in space.plans)
        if groups and combinations * options <= _MAX_COMBINATIONS:
            groups[-1].append(FIELDS.index(name))
            combinations *= options
        else:
            groups.append([FIELDS.index(name)])
            combinations = options
    return groups


def _step(bound: float, bits: int) -> float:
    """The smallest power of two that is at least ``bound / 2^bits`` (1 for a bound of 0)."""
    return 2.0 ** (math.ceil(math.log2(bound)) - bits) if bound > 0 else 1.0

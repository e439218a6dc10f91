"""Inference of the published network: exact in any order, and fast.

A floating-point matrix product may round differently for another batch size, position in the
batch, number of threads or processor, and one last bit is enough to send a search elsewhere. So all
sums over several terms are sums of integers here, which are exact in any order; what is left in
floating point acts on single numbers, which IEEE 754 rounds the same everywhere.

* The one-hot inputs choose rows of a table, which are whole multiples of a step so coarse that
  their sums fit into float32.
* Real inputs and the weights that they are multiplied by are rounded to whole steps, so coarse that
  float64 holds all sums of their products.
* Hidden layers multiply integers of 16 bits: the activations of a network in units of their
  largest, the weights of an output in units of their largest. Such a product is a sum of four
  products of 8-bit integers, for which processors have instructions that are several times as fast
  as those for float32; without them (or without torch) float64 does the same, with the same result.

Outputs differ from the network's in real numbers by some 1e-5 of their size, about as much as with
weights stored in half precision.
"""

from __future__ import annotations

import math
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.extras import is_installed
from apq_moo.predictors.inputs import Inputs
from apq_moo.predictors.network import (
    ARCHITECTURE,
    BITS,
    OUTPUT,
    SECOND,
    THIRD,
    WIDTH,
    Float32,
    Weights,
)
from apq_moo.space import FIELDS, Space
from apq_moo.threads import one_torch_thread

if TYPE_CHECKING:
    from torch import Tensor

Int8 = NDArray[np.int8]

_LARGEST = 127 * 256 + 127
"""Of the integers that two signed digits to base 256 can write."""

_REAL_BITS, _REAL_WEIGHT_BITS = 16, 31
"""Behind the point of real inputs (5 before it), and of the sum of the weights of an output."""

_TABLE_BITS = 24
_OUTPUT_BITS = 22

_CHUNK = 256
"""Rows computed at a time; their activations stay in the processor's cache."""

_MAX_COMBINATIONS = 256
"""Rows of a table for one block; with 8 options for each bit-width it would be 13 MB otherwise."""

_TORCH_AFTER = 200_000
"""Rows after which importing torch, which takes a second or two, pays."""


class ExactNetwork:
    """Evaluates the network so that a row's value depends on nothing but the row.

    Args:
        space: the search space.
        weights: the network's arrays (see :func:`apq_moo.predictors.network.check_weights`).
        inputs: what it sees; by default the one-hot options.
    """

    def __init__(self, space: Space, weights: Weights, inputs: Inputs | None = None) -> None:
        self._space = space
        self._inputs = inputs or Inputs(space, "one-hot")
        exact = {name: array.astype(np.float64) for name, array in weights.items()}
        self._first = [
            _FirstLayer(
                self._inputs, fields, exact[f"{name}.weight"].T, exact[f"{name}.bias"], part=part
            )
            for part, (name, fields) in enumerate(((ARCHITECTURE, FIELDS[:2]), (BITS, FIELDS[2:])))
        ]
        self._hidden = [
            _Layer(exact[f"{name}.weight"].T, exact[f"{name}.bias"]) for name in (SECOND, THIRD)
        ]
        output = exact[f"{OUTPUT}.weight"][0]
        self._output_step = power_of_two(np.abs(output).max(), _OUTPUT_BITS)
        self._output = np.rint(output / self._output_step)
        self._output_bias = float(exact[f"{OUTPUT}.bias"][0])
        self._rows_seen = 0

    def __call__(self, X: IntArray) -> FloatArray:
        """Outputs, shape ``(n,)``, for genotypes of shape ``(n, n_var)``, ``n > 0``."""
        return self.of_blocks(self._space.block_index(X))

    def of_blocks(self, index: IntArray) -> FloatArray:
        """The same for what :meth:`Space.block_index` returns, shape ``(n, n_blocks)``."""
        self._rows_seen += len(index)
        worth = "torch" in sys.modules or (self._rows_seen > _TORCH_AFTER and is_installed("torch"))
        output = np.empty(len(index))
        room = _Room.of(min(len(index), _CHUNK))
        # A process that was forked after its parent had used several of torch's threads would wait
        # for them for ever; chunks are so small that others do not pay.
        with one_torch_thread() if worth else nullcontext():
            fast = worth and _has_byte_products()
            for start in range(0, len(index), _CHUNK):
                rows = index[start : start + _CHUNK]
                chunk = self._chunk(rows, room.first(len(rows)), fast=fast)
                output[start : start + len(rows)] = chunk
        return output

    def _chunk(self, index: IntArray, room: _Room, *, fast: bool) -> FloatArray:
        rows = index + self._space.layout.offsets
        architecture, bits = self._inputs.real(index)
        h = self._first[0](rows, architecture, fast=fast)
        np.maximum(h, 0, out=h)
        h += self._first[1](rows, bits, fast=fast)
        for layer in self._hidden:
            unit = _to_integers(h, room.real)
            layer.multiply(h, room, fast=fast)
            np.copyto(h, room.total, casting="same_kind")
            h *= layer.units
            h *= unit
            h += layer.bias
            np.maximum(h, 0, out=h)
        unit = _to_integers(h, room.real)
        np.copyto(room.total, h)
        sums: FloatArray = room.total @ self._output
        return sums * self._output_step * unit[:, 0].astype(np.float64) + self._output_bias


@dataclass
class _Room:
    """Arrays that a chunk of networks is computed in, shape ``(..., n, WIDTH)`` each.

    Fresh ones would cost more time than the arithmetic: the system clears every page of them.
    """

    real: Float32
    total: FloatArray
    wide: FloatArray
    short: NDArray[np.int16]
    digits: Int8
    products: NDArray[np.int32]

    @classmethod
    def of(cls, n: int) -> _Room:
        """Room for ``n`` networks."""
        shape = (n, WIDTH)
        return cls(
            np.empty(shape, np.float32),
            np.empty(shape),
            np.empty(shape),
            np.empty(shape, np.int16),
            np.empty((2, *shape), np.int8),
            np.empty((4, *shape), np.int32),
        )

    def first(self, n: int) -> _Room:
        """The same memory for fewer networks."""
        return _Room(*(array[..., :n, :] for array in vars(self).values()))


def _to_integers(h: Float32, room: Float32) -> Float32:
    """Round each row to whole multiples of 1/32639 of its largest, in place.

    Returns:
        These units, shape ``(n, 1)``.
    """
    np.abs(h, out=room)
    largest = np.maximum(room.max(axis=1, keepdims=True), np.float32(1e-30))
    h *= np.float32(_LARGEST) / largest
    np.rint(h, out=h)
    units: Float32 = largest / np.float32(_LARGEST)
    return units


class _Layer:
    """A hidden layer's weights as integers of 16 bits.

    Args:
        weight: shape ``(WIDTH, WIDTH)``, inputs by outputs.
        bias: shape ``(WIDTH,)``.

    Attributes:
        units: what 1 stands for in each output's weights, shape ``(WIDTH,)``.
        bias: in float32.
    """

    def __init__(self, weight: FloatArray, bias: FloatArray) -> None:
        largest = np.maximum(np.abs(weight).max(axis=0), 1e-30)
        self.units: Float32 = (largest / _LARGEST).astype(np.float32)
        self.bias: Float32 = bias.astype(np.float32)
        whole = np.rint(weight * (_LARGEST / largest)).astype(np.int64)
        self._whole = whole.astype(np.float64)
        low = (whole + 128) % 256 - 128
        high = (whole - low) // 256
        self._digits = high.astype(np.int8), low.astype(np.int8)
        self._tensors: tuple[Tensor, Tensor] | None = None

    def multiply(self, h: Float32, room: _Room, *, fast: bool) -> None:
        """Products of integers ``h`` with the weights, exact, into ``room.total``."""
        if not fast:
            np.copyto(room.wide, h)
            np.matmul(room.wide, self._whole, out=room.total)
            return
        import torch

        if self._tensors is None:
            high, low = self._digits
            self._tensors = torch.from_numpy(high), torch.from_numpy(low)
        np.copyto(room.short, h, casting="unsafe")
        high, low = room.digits
        np.copyto(low, room.short, casting="unsafe")  # keeps the low byte, signed
        room.short += 128
        room.short >>= 8
        np.copyto(high, room.short, casting="unsafe")
        inputs = torch.from_numpy(high), torch.from_numpy(low)
        pairs = [(a, b) for a in inputs for b in self._tensors]
        for (a, b), product in zip(pairs, room.products, strict=True):
            torch._int_mm(a, b, out=torch.from_numpy(product))
        both_high, one, other, both_low = room.products
        both_high <<= 8  # at most 2^31 / 1.2 with what is added
        both_high += one
        both_high += other
        np.multiply(both_high, 256.0, out=room.total)
        room.total += both_low


_BYTE_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8"}
"""Instructions for products of 8-bit integers. Without them torch is slower, and saturates."""


@cache
def _has_byte_products() -> bool:
    """Whether the processor has products of 8-bit integers, and torch's are exact."""
    import torch

    if not hasattr(torch, "_int_mm") or not _BYTE_PRODUCTS & _processor_flags():
        return False
    rng = np.random.default_rng(0)
    shape = (WIDTH, WIDTH)
    extremes = [rng.choice(np.array([-128, -127, 127], dtype=np.int8), shape) for _ in range(2)]
    try:
        product = torch._int_mm(*(torch.from_numpy(values) for values in extremes)).numpy()
    except RuntimeError:
        return False
    wide_a, wide_b = (values.astype(np.float64) for values in extremes)
    return np.array_equal(product, wide_a @ wide_b)


def _processor_flags() -> set[str]:
    """Names of what the processor can do, as torch tells where it does, and else Linux."""
    import torch

    if hasattr(torch.cpu, "get_capabilities"):
        return {name for name, has in torch.cpu.get_capabilities().items() if has is True}
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    return {flag for line in text.splitlines() if line.startswith("flags") for flag in line.split()}


class _FirstLayer:
    """A linear map of one of the two inputs, where real ones follow the one-hot options.

    Args:
        inputs: of the network.
        fields: names of the fields whose options it sees.
        weight: shape ``(inputs, WIDTH)``.
        bias: shape ``(WIDTH,)``.
        part: 0 of the architecture, 1 of the bits.
    """

    def __init__(
        self,
        inputs: Inputs,
        fields: tuple[str, ...],
        weight: FloatArray,
        bias: FloatArray,
        *,
        part: int,
    ) -> None:
        n_real = inputs.n_real[part]
        one_hot, real = np.split(weight, [len(weight) - n_real])
        self._table = self._real = None
        if inputs.is_one_hot:
            position = inputs.space.n_architecture_inputs * part
            self._table = _Table(inputs.space, fields, one_hot, bias, position=position)
        if n_real:
            self._real = _RealMap(real, np.zeros(WIDTH) if inputs.is_one_hot else bias)

    def __call__(self, configurations: IntArray, real: FloatArray, *, fast: bool) -> Float32:
        """Shape ``(n, WIDTH)``.

        Args:
            configurations: see :class:`_Table`.
            real: the real inputs, shape ``(n, n_real)``.
            fast: by torch.
        """
        if self._real is None:
            assert self._table is not None
            return self._table(configurations, fast=fast)
        found = self._real(real)
        if self._table is not None:
            found += self._table(configurations, fast=fast)
        return found


class _RealMap:
    """A linear map of real inputs, at most :data:`LARGEST`, to float32."""

    def __init__(self, weight: FloatArray, bias: FloatArray) -> None:
        sums = np.maximum(np.abs(weight).sum(axis=0), 1e-30)
        steps = np.exp2(np.ceil(np.log2(sums)) - _REAL_WEIGHT_BITS)
        self._whole, self._bias = np.rint(weight / steps), bias
        self._units = steps * 2.0**-_REAL_BITS

    def __call__(self, real: FloatArray) -> Float32:
        found: FloatArray = np.rint(real * 2.0**_REAL_BITS) @ self._whole
        found *= self._units
        found += self._bias
        return found.astype(np.float32)


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
        starts = space.one_hot_offsets - position
        bound = np.abs(bias)
        rows: list[FloatArray] = []
        numbers: list[IntArray] = []
        used = 0
        genes = space.layout.split(space.layout.genes)
        for group in _groups(space, fields):
            places = []
            for b, plan in enumerate(space.plans):
                shape = [plan.shape[field] for field in group]
                choices = np.indices(shape).reshape(len(group), -1).T
                rows.append(weight[starts[b, group] + choices].sum(axis=1))
                bound += np.abs(rows[-1]).max(axis=0)
                chosen = tuple(genes[b][:-1, group].T)
                places.append(used + np.ravel_multi_index(chosen, shape))
                used += len(choices)
            numbers.append(space.layout.table(places, inactive=-1))
        step = power_of_two(bound.max() * 1.001, _TABLE_BITS)
        table = np.concatenate([*rows, np.zeros((1, WIDTH))])
        self._rows: Float32 = (np.rint(table / step) * step).astype(np.float32)
        self._bias: Float32 = (np.rint(bias / step) * step).astype(np.float32)
        # Row of a block's configuration, for each group of fields.
        self._numbers = [np.where(part < 0, used, part) for part in numbers]
        self._tensor: Tensor | None = None

    def __call__(self, configurations: IntArray, *, fast: bool) -> Float32:
        """Sums of rows, shape ``(n, WIDTH)``.

        Args:
            configurations: numbers of the blocks' configurations among those of all blocks, shape
                ``(n, n_blocks)``.
            fast: by torch.
        """
        parts = [numbers.take(configurations) for numbers in self._numbers]
        if fast:
            import torch

            if self._tensor is None:
                self._tensor = torch.from_numpy(self._rows)
            chosen = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
            bags = torch.nn.functional.embedding_bag(
                torch.from_numpy(chosen), self._tensor, mode="sum"
            )
            total: Float32 = bags.numpy()
            total += self._bias
            return total
        total = np.tile(self._bias, (len(configurations), 1))
        rows = np.empty_like(total)
        for part in parts:
            for block in np.ascontiguousarray(part.T):
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


def power_of_two(bound: float, bits: int) -> float:
    """The smallest power of two that is at least ``bound / 2^bits`` (1 for a bound of 0)."""
    return 2.0 ** (math.ceil(math.log2(bound)) - bits) if bound > 0 else 1.0

"""Ranges of activations: one for each place of a supernet and bit-width, shared by its subnets.

Batch norm gives an activation about the same distribution in every subnet, so that a range belongs
to a place in the supernet and to a bit-width, and is stored with the weights: labels do not depend
on the images that happen to calibrate. A range is that of least squared error over the activations
of random subnets; nothing of it comes from a single extreme value.

Behind a ReLU6 and at the image, levels are ``0 ... 2^bits - 1``; elsewhere they are those of two's
complement, ``-2^(bits-1) ... 2^(bits-1) - 1``, with 0 standing for 0, as integer back ends need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apq_moo.arrays import FloatArray
from apq_moo.errors import UserError
from apq_moo.space import Layer, Space
from apq_moo.space.spec import FLOAT_BITS, ROLES

Range = tuple[float, float]
"""Bottom (at most 0) and top of an activation, single-precision numbers."""

STORED_BITS = 8
"""Bits of integers between blocks."""

NO_RANGES = (
    "the supernet has no ranges, so that its networks run in full precision only; train it anew, "
    "or fit ranges by apq_moo.supernet.range_fitting.fit_ranges"
)
"""Why networks cannot run at their bits."""

T = TypeVar("T")

_LEAST, _MOST = 1e-30, 1e30
_HALVES = 2**16
_NEIGHBOURS = 3
_OCTAVES = 6
_COARSE, _FINE = 8, 64
"""Candidates an octave: first all of some octaves below the largest value, then around the best."""


class LayerRanges(NamedTuple):
    """Ranges around one layer at its bits; None where they are not needed or not known.

    Attributes:
        input: of its input.
        output: of what is stored behind its batch norm, before a shortcut is added.
        total: of what is stored behind the shortcut.
    """

    input: Range | None = None
    output: Range | None = None
    total: Range | None = None


UNKNOWN = LayerRanges()


def needed(found: T | None) -> T:
    """What is known of a range, where networks run at their bits.

    Raises:
        UserError: nothing is, since the supernet has no ranges.
    """
    if found is None:
        raise UserError(NO_RANGES)
    return found


class Ranges:
    """The ranges of a supernet.

    Args:
        space: the supernet's.

    Attributes:
        places: names and whether they have both signs: each layer's input, by the layer's name;
            with integers between blocks what leaves a part, with and without the shortcut.
        widths: bit-widths, ascending.
        high: tops, single precision, shape ``(n_places, n_widths)``; 0 where not known.
    """

    def __init__(self, space: Space) -> None:
        self.places: dict[str, bool] = {}
        spec = space.spec
        for layer in space.layers(space.decode(space.largest())[0]):
            self.places[layer.name] = layer.signed
            if layer.between_bits == STORED_BITS:
                self.places[output_of(layer)] = layer.activation is None
                if layer.closes_shortcut:
                    self.places[total_of(layer)] = True
        offered = {spec.fixed_bits, *(bits for role in ROLES for bits in spec.bits[role])}
        if spec.between_bits == STORED_BITS:
            offered.add(STORED_BITS)
        self.widths = tuple(sorted(offered - {FLOAT_BITS}))
        self._row = {place: row for row, place in enumerate(self.places)}
        self.high = np.zeros((len(self.places), len(self.widths)), dtype=np.float32)

    @property
    def known(self) -> bool:
        """Whether they have been fitted; those of nothing but floats are."""
        return bool((self.high > 0).all())

    @property
    def low(self) -> NDArray[np.float32]:
        """Bottoms, shape ``(n_places, n_widths)``."""
        tops = 2.0 ** (np.array(self.widths) - 1)
        signed = np.array(list(self.places.values()))[:, None]
        low: NDArray[np.float32] = np.where(signed, -self.high * (tops / (tops - 1)), 0)
        return low.astype(np.float32)

    def of(self, place: str, bits: int) -> Range | None:
        """The range of a place; None at 32 bits, or if it is not known."""
        if bits == FLOAT_BITS or not self.known:
            return None
        at = self._row[place], self.widths.index(bits)
        return float(self.low[at]), float(self.high[at])

    def around(self, layer: Layer) -> LayerRanges:
        """The ranges around a layer at its bits."""
        entering = self.of(layer.name, layer.a_bits)
        if layer.between_bits != STORED_BITS:
            return LayerRanges(entering)
        output = self.of(output_of(layer), STORED_BITS)
        if not layer.closes_shortcut:
            return LayerRanges(entering, output)
        return LayerRanges(entering, output, self.of(total_of(layer), STORED_BITS))

    def tensor(self) -> Tensor:
        """The tops as they are stored."""
        return torch.from_numpy(self.high.copy())

    def load(self, high: Tensor) -> None:
        """Take what :meth:`tensor` gave.

        Raises:
            UserError: it has another shape or type, or numbers that are not positive or out of
                all bounds.
        """
        if high.shape != self.high.shape or high.dtype != torch.float32:
            raise UserError(
                f"ranges have shape {tuple(high.shape)}, not {self.high.shape} in float32"
            )
        if not ((high >= _LEAST) & (high <= _MOST)).all():
            raise UserError(f"ranges must lie between {_LEAST:g} and {_MOST:g}")
        self.high = high.detach().cpu().numpy().copy()

    def fit(self, histograms: Mapping[str, FloatArray]) -> None:
        """Take the ranges of least squared error.

        Args:
            histograms: for each place how often each half-precision number occurs, by its 16 bits
                as an unsigned integer, shape ``(65536,)``. Places without one get 1.
        """
        high = np.ones_like(self.high)
        for place, signed in self.places.items():
            if place not in histograms:
                continue
            values, weights = _occurring(histograms[place])
            for column, bits in enumerate(self.widths):
                high[self._row[place], column] = least_error(values, weights, bits, signed=signed)
        self.high = high


def output_of(layer: Layer) -> str:
    """The place of what a layer stores between blocks, before a shortcut is added."""
    return f"{layer.part}.output"


def total_of(layer: Layer) -> str:
    """The place of what a layer stores behind its shortcut."""
    return f"{layer.part}.total"


def histogram(x: Tensor) -> Tensor:
    """How often each half-precision number occurs, shape ``(65536,)``; see :meth:`Ranges.fit`."""
    keys = x.half().view(torch.int16).to(torch.int32) & (_HALVES - 1)
    return torch.bincount(keys.flatten(), minlength=_HALVES)


def _occurring(counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Values and how often they occur; neighbours, of one sign and within 1 %, as their mean."""
    keys = np.flatnonzero(counts)
    values = keys.astype(np.uint16).view(np.float16).astype(np.float64)
    _, group = np.unique(keys >> _NEIGHBOURS, return_inverse=True)
    weights: FloatArray = np.bincount(group, counts[keys]).astype(np.float64)
    return np.bincount(group, values * counts[keys]) / weights, weights


def least_error(values: FloatArray, weights: FloatArray, bits: int, *, signed: bool) -> float:
    """The top of the range whose levels have the least mean squared error.

    Args:
        values: shape ``(n,)``.
        weights: how often each occurs, shape ``(n,)``.
        bits: of the levels.
        signed: whether these are of two's complement.
    """
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0:
        return 1.0
    lowest, highest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    centre: float = largest * 2.0 ** (0.5 - _OCTAVES / 2)
    span, steps = _OCTAVES / 2 + 0.5, _COARSE
    for _ in range(2):
        tops = centre * 2.0 ** (np.arange(-span * steps, span * steps + 1) / steps)
        errors = []
        for top in tops:
            step = top / highest
            levels = np.clip(np.rint(values / step), lowest, highest)
            errors.append(float(np.dot(weights, (levels * step - values) ** 2)))
        centre, span, steps = float(tops[int(np.argmin(errors))]), 1 / _COARSE, _FINE
    return centre

"""A supernet's ranges as the kernels read them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from apq_moo.arrays import FloatArray
from apq_moo.space import Layer
from apq_moo.supernet.ranges import STORED_BITS, Ranges, needed, output_of, total_of


class Spans:
    """Eight floats for each place and bit-width.

    Bottom and top of the range; of its levels the step, its inverse, and the lowest and the highest
    around zero; and nothing twice. They are taken in double precision and rounded, as the reference
    on a CPU does it. Those of a supernet that has no ranges are refused where one is asked for.

    Args:
        ranges: the supernet's.
        device: where they are read.
    """

    def __init__(self, ranges: Ranges, device: torch.device) -> None:
        self._rows = _table(ranges).to(device)
        self._spans = {
            (place, bits): self._rows[row, column]
            for row, place in enumerate(ranges.places)
            for column, bits in enumerate(ranges.widths)
        }
        self._triples: dict[tuple[str, str], Tensor] = {}
        self._fitted, self._known = ranges.high, ranges.known

    def fit(self, ranges: Ranges) -> bool:
        """Take the same places' ranges as they are now into the same memory.

        Returns:
            Whether they have changed.
        """
        if self._fitted is ranges.high:
            return False
        self._rows.copy_(_table(ranges))
        self._triples.clear()
        self._fitted, self._known = ranges.high, ranges.known
        return True

    def entering(self, layer: Layer) -> Tensor:
        """The span of a layer's input at its bits."""
        return self._of(layer.name, layer.a_bits)

    def leaving(self, layer: Layer) -> Tensor:
        """The span of the integers that a layer stores in the end."""
        place = total_of(layer) if layer.closes_shortcut else output_of(layer)
        return self._of(place, STORED_BITS)

    def storing(self, layer: Layer, kept: Layer | None) -> Tensor:
        """The spans of ``OUT_STORED``, three of eight floats.

        Args:
            layer: what stores.
            kept: the layer whose integers a shortcut adds, if one does.
        """
        key = layer.part, "" if kept is None else kept.part
        found = self._triples.get(key)
        if found is None:
            output, total = self._of(output_of(layer), STORED_BITS), self.leaving(layer)
            before = total if kept is None else self.leaving(kept)
            found = self._triples[key] = torch.cat([output, total, before])
        return found

    def _of(self, place: str, bits: int) -> Tensor:
        return needed(self._spans[place, bits] if self._known else None)


def _table(ranges: Ranges) -> Tensor:
    low, high = ranges.low.astype(np.float64), ranges.high.astype(np.float64)
    top = 2.0 ** np.array(ranges.widths) - 1
    wide = np.maximum(high - low, 1e-8) / top
    inverse = 1 / wide.astype(np.float32).astype(np.float64)
    zero = np.rint(-low / wide)
    unused = np.zeros_like(wide)
    columns: list[FloatArray] = [low, high, wide, inverse, -zero, top - zero, unused, unused]
    return torch.from_numpy(np.stack(columns, axis=2).astype(np.float32))

"""How closely something computes what an integer network is: levels, logits and classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.deploy.executing import execute
from apq_moo.deploy.integers import Grid, IntegerNetwork, Singles
from apq_moo.errors import UserError


@dataclass(frozen=True)
class Parity:
    """Two computations of one network, compared.

    Attributes:
        images: how many.
        same_class: on how many of them both say the same.
        largest_logit: the largest difference of logits.
        largest_level: the largest difference of levels anywhere; None where none were compared.
        off_by_one: the share of levels that differ, by one or more.
        level_images: on how many images levels were compared.
    """

    images: int
    same_class: int
    largest_logit: float
    largest_level: int | None = None
    off_by_one: float | None = None
    level_images: int = 0

    @property
    def exact(self) -> bool:
        """Whether nothing differs."""
        return self.largest_logit == 0.0 and not self.largest_level

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        text = (
            f"same class on {self.same_class:,} of {self.images:,} images, logits differ by "
            f"{self.largest_logit:.2g}"
        )
        if self.largest_level is None or self.off_by_one is None:
            return text
        return (
            f"{text}, levels by {self.largest_level} at most ({100 * self.off_by_one:.2g} % of "
            f"them on {self.level_images:,} images)"
        )


def compare(wanted: Singles, found: NDArray[Any], levels: Parity | None = None) -> Parity:
    """Compare logits of shape ``(n, classes)``; ``levels`` adds what :func:`compare_levels` said.

    Raises:
        UserError: their shapes differ.
    """
    if wanted.shape != found.shape:
        raise UserError(f"logits have shape {found.shape}, not {wanted.shape}")
    same = int((wanted.argmax(1) == found.argmax(1)).sum())
    largest = float(np.abs(wanted.astype(np.float64) - found).max(initial=0.0))
    if levels is None:
        return Parity(len(wanted), same, largest)
    return Parity(
        len(wanted), same, largest, levels.largest_level, levels.off_by_one, levels.level_images
    )


def levels_of(network: IntegerNetwork, images: Singles) -> tuple[Singles, dict[str, Singles]]:
    """Logits, and the levels of every activation by its place, shape ``(n, height, width, c)``."""
    seen: dict[str, list[Singles]] = {}
    logits = execute(network, images, lambda place, x: seen.setdefault(place, []).append(x))
    return logits, {place: np.concatenate(parts) for place, parts in seen.items()}


def grids(network: IntegerNetwork) -> dict[str, Grid]:
    """The levels that the activation of each place may have, in the order of execution."""
    found = {}
    for layer in network.layers:
        found[layer.name] = layer.input
        for name in ("output", "total"):
            grid = getattr(layer, name)
            if grid is not None:
                found[f"{layer.shape.part}.{name}"] = grid
    return found


def compare_levels(wanted: Mapping[str, Singles], found: Mapping[str, NDArray[Any]]) -> Parity:
    """Compare levels of the same places and shapes; says nothing of logits.

    Raises:
        UserError: a place is missing, or of another shape.
    """
    largest, differ, total, images = 0, 0, 0, 0
    for place, levels in wanted.items():
        if place not in found or found[place].shape != levels.shape:
            raise UserError(f"there are no levels of {place}")
        difference = np.abs(levels - found[place])
        largest = max(largest, int(difference.max(initial=0)))
        differ += int((difference > 0).sum())
        total += difference.size
        images = len(levels)
    return Parity(images, images, 0.0, largest, differ / max(total, 1), images)

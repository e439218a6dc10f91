"""How well an accuracy is known that was measured on few images."""

from __future__ import annotations

import math
from collections.abc import Mapping

_SMALL = 1.0
"""Points of standard error that nobody needs to be told of."""


def few_images(measured: Mapping[str, tuple[int, float]]) -> str | None:
    """A line about accuracies whose images are few, or None where no standard error is above 1.

    The share that is right is estimated by Laplace's rule of succession, since all of few images
    may be classified rightly by a network that is not perfect.

    Args:
        measured: for each split its images, and an accuracy in percent, such as the mean of what
            was measured.

    >>> few_images({"validation": (120, 76.0), "test": (10_000, 75.0)}).split(": ")[1]
    'accuracies move in steps of 0.83 points, standard error about 3.9 points'
    >>> few_images({"test": (10_000, 75.0)})
    """
    parts = []
    for split, (n, accuracy) in measured.items():
        right = (n * accuracy / 100 + 1) / (n + 2)
        error = 100 * math.sqrt(right * (1 - right) / n)
        if error > _SMALL:
            parts.append(
                f"{split} has {n:,} images: accuracies move in steps of {100 / n:.2g} points, "
                f"standard error about {error:.1f} points"
            )
    return "; ".join(parts) or None

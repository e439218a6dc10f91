"""What is done to a picture before a network classifies it, as it was with all images before."""

from __future__ import annotations

from typing import Any

from apq_moo.deploy.integers import IntegerNetwork


def preprocessing(network: IntegerNetwork) -> dict[str, Any]:
    """How a picture becomes what a network reads, fit for JSON.

    Returns:
        ``mode`` of Pillow (``L`` or ``RGB``), ``size``, to which the shorter side is scaled and the
        middle then cut out, ``layout`` of the values, and what they are ``divided_by``.
    """
    channels, size, _ = network.image_shape
    return {
        "mode": "L" if channels == 1 else "RGB",
        "size": size,
        "layout": "NCHW",
        "divided_by": 255,
    }

"""Reading any predictor from a file."""

from __future__ import annotations

from pathlib import Path

from apq_moo.predictors.base import Predictor
from apq_moo.predictors.published import TORCH_SUFFIXES, load_published
from apq_moo.space import Space


def load_predictor(path: str | Path, space: Space) -> Predictor:
    """Read a predictor that :meth:`Predictor.save` wrote, or a published torch checkpoint.

    Files ending in ``.pt``, ``.pth`` or ``.pth.tar`` are published checkpoints (see
    :func:`load_published`); any other says by its own header what it is.

    Raises:
        UserError: the file is missing, truncated, altered, unknown, or of another space.
    """
    if str(path).lower().endswith(TORCH_SUFFIXES):
        return load_published(path, space)
    return Predictor.load(path, space)

"""Reading accuracy predictors that were released as torch checkpoints."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apq_moo.errors import UserError
from apq_moo.predictors.mlp import MLPPredictor
from apq_moo.space import Space

TORCH_SUFFIXES = (".pt", ".pth", ".pth.tar")
"""Names of torch checkpoints end in one of these."""


def load_published(path: str | Path, space: Space) -> MLPPredictor:
    """Read a published checkpoint of the paper's predictor.

    It holds ``layers.{0,1,2}.0.{weight,bias}``, ``quantize_fc.{weight,bias}`` and
    ``regressor.{weight,bias}``, at its top level or under ``state_dict``, with or without the
    prefix ``module.``; its output is accuracy as a fraction of 1. For the ``imagenet`` space the
    first layer maps 520 inputs to 400 and ``quantize_fc`` 252 to 400.

    Args:
        path: a torch checkpoint, or a ``.safetensors`` with the same names.
        space: the space that it was trained on.

    Returns:
        A fitted predictor, which can be saved like any other.

    Raises:
        UserError: the file is missing or damaged, holds anything but tensors, or its tensors do
            not fit the space. Code in a checkpoint is never run.
    """
    contents = _safetensors(path) if str(path).endswith(".safetensors") else _checkpoint(path)
    predictor = MLPPredictor(space)
    try:
        predictor.set_network(_arrays(contents), center=0.0, scale=100.0)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return predictor


def _safetensors(path: str | Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read checkpoint {path}: {error}") from error


def _checkpoint(path: str | Path) -> Any:
    import torch

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read checkpoint {path}: {error.strerror or error}") from error
    try:
        return torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged archives and pickles fail in every way there is
        raise UserError(
            f"cannot read checkpoint {path}: damaged, or it holds more than tensors; "
            "save its state_dict again with torch.save"
        ) from error


def _arrays(contents: Any) -> dict[str, NDArray[Any]]:
    import torch

    if isinstance(contents, dict) and isinstance(contents.get("state_dict"), dict):
        contents = contents["state_dict"]
    if not isinstance(contents, dict):
        raise UserError(f"expected a dictionary of tensors, found {type(contents).__name__}")
    arrays = {}
    for name, value in contents.items():
        if not isinstance(value, torch.Tensor):
            raise UserError(f"expected tensors only, found {name!r}: {type(value).__name__}")
        dense = value.detach().to("cpu")
        if dense.is_floating_point():
            dense = dense.float()
        arrays[str(name).removeprefix("module.")] = np.asarray(dense)
    return arrays

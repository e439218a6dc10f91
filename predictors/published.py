"""Reading accuracy predictors that were released as torch checkpoints."""

from __future__ import annotations

import pickletools
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from apq_moo.errors import UserError, shown
from apq_moo.files import read_bytes
from apq_moo.npz import open_zip
from apq_moo.predictors.mlp import MLPPredictor
from apq_moo.space import Space

TORCH_SUFFIXES = (".pt", ".pth", ".pth.tar")
"""Names of torch checkpoints end in one of these."""

_MAX_BYTES = 2**28
_MAX_PICKLE = 2**20
_MAX_NUMBERS = 2**26
_NAMES = {
    *("collections OrderedDict", "torch Size"),
    *("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"),
    *(f"torch {kind}Storage" for kind in ("Double", "Float", "Half", "BFloat16")),
    *(f"torch {kind}Storage" for kind in ("Long", "Int", "Short", "Char", "Byte", "Bool")),
}
"""All that a checkpoint of plain tensors names; each only makes a tensor of data that is there."""

_NAMING = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}
"""Operations of pickles that name or call something, but for REDUCE, which calls what was named."""

_LEGACY_PICKLES = 5
"""At the beginning of a checkpoint that is no zip archive; raw numbers follow."""


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
    predictor = MLPPredictor(space, features="one-hot", target="accuracy")
    try:
        predictor.set_network(_arrays(contents), center=0.0, scale=100.0)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return predictor


def _safetensors(path: str | Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    try:
        if Path(path).stat().st_size > _MAX_BYTES:
            raise UserError(f"checkpoint {path} has more than {_MAX_BYTES:,} bytes")
        return dict(load_file(path))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read checkpoint {path}: {error.strerror or error}") from error
    except Exception as error:  # such as of types that torch has not
        raise UserError(f"cannot read checkpoint {path}: {error}") from error


def _checkpoint(path: str | Path) -> Any:
    import torch

    content = read_bytes(path, _MAX_BYTES)
    try:
        if content[:2] == b"PK":
            with open_zip(BytesIO(content)) as archive:
                (listed,) = (m for m in archive.infolist() if m.filename.endswith("/data.pkl"))
                if listed.file_size > _MAX_PICKLE:
                    raise ValueError("its list of tensors is too long")
                _check_names(BytesIO(archive.read(listed)), 1)
            # Mapped, a tensor is a part of the file, whatever length it claims to have.
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
        _check_names(BytesIO(content), _LEGACY_PICKLES)
        return torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged archives and pickles fail in every way there is
        raise UserError(
            f"cannot read checkpoint {path}: damaged, or it holds more than tensors; "
            "save its state_dict again with torch.save"
        ) from error


def _check_names(stream: BinaryIO, pickles: int) -> None:
    """Refuse pickles that name anything but what makes plain tensors."""
    for _ in range(pickles):
        for operation, argument, place in pickletools.genops(stream):
            if place is not None and place > _MAX_PICKLE:
                raise ValueError("its list of tensors is too long")
            if operation.name in _NAMING and argument not in _NAMES:
                raise ValueError(f"it names {argument}")


def _arrays(contents: Any) -> dict[str, NDArray[Any]]:
    import torch

    if isinstance(contents, dict) and isinstance(contents.get("state_dict"), dict):
        contents = contents["state_dict"]
    if not isinstance(contents, dict):
        raise UserError(f"expected a dictionary of tensors, found {type(contents).__name__}")
    arrays = {}
    numbers = 0
    for name, value in contents.items():
        if not isinstance(value, torch.Tensor):
            raise UserError(f"expected tensors only, found {shown(name)}: {type(value).__name__}")
        if (value.layout, value.device.type) != (torch.strided, "cpu") or value.is_nested:
            raise UserError(f"expected plain tensors only, found {shown(name)}: {value.layout}")
        numbers += value.numel()
        if numbers > _MAX_NUMBERS:
            raise UserError(f"its tensors have more than {_MAX_NUMBERS:,} numbers")
        dense = value.detach()
        if dense.is_floating_point():
            dense = dense.float()
        arrays[str(name).removeprefix("module.")] = dense.numpy().copy()
    return arrays

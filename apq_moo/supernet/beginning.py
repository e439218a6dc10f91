"""Beginning a supernet with the weights of a network of the same family.

What is copied computes what it did: layers are cut to the leading channels, of a block's middle
ones to the most important (Cai et al., "Once-for-All", ICLR 2020), and where the supernet is wider,
deeper or has larger kernels, nothing of what it has beyond reaches what was copied, until it is
trained: weights from further inputs are 0, kernels are surrounded by zeros, and further blocks that
have a shortcut add nothing. Weights that nothing was copied to stay random.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from apq_moo.data.assets import SUPERNET, find_assets
from apq_moo.errors import UserError
from apq_moo.files import sha256
from apq_moo.space import load_space, presets
from apq_moo.space.belonging import CONTENT
from apq_moo.supernet.checkpoint import FORMAT
from apq_moo.supernet.layers import ElasticBlock, ElasticConv, ElasticDepthwise, ElasticNorm
from apq_moo.supernet.network import Supernet
from apq_moo.tensors import read_tensors

_MAX_BYTES = 2**31
_DEEPEST = 1000
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Beginning:
    """What a supernet began with.

    Attributes:
        path: the file.
        sha256: of the file.
        copied: weights that were copied.
        weights: all that the supernet has.
        fresh: layers that the file does not have, or not for as many classes.
    """

    path: str
    sha256: str
    copied: int
    weights: int
    fresh: tuple[str, ...]

    def __str__(self) -> str:
        share = 100 * self.copied / self.weights
        left = f"; not there: {', '.join(self.fresh)}" if self.fresh else ""
        return f"{self.path}: {self.copied:,} of {self.weights:,} weights ({share:.0f} %){left}"


def beginning_of(said: object, path: str | Path) -> Beginning | None:
    """What a file says that a training began with.

    Raises:
        UserError: it is malformed; names ``path``.
    """
    if said is None:
        return None
    try:
        found = Beginning(**said)  # type: ignore[arg-type]
        return replace(found, fresh=tuple(found.fresh))
    except TypeError as error:
        raise UserError(f"{path} is damaged: it does not say what it began with") from error


def begin_with(supernet: Supernet, source: str | Path) -> Beginning:
    """Copy what there is of a network into a supernet.

    Args:
        supernet: one that is not trained; changed in place.
        source: a preset whose supernet ships, the file of a supernet of any space, or any
            safetensors file with layers ``stem``, ``first_block``, ``stages.S.B`` (block ``B`` of
            stage ``S``, both from 0), ``feature_mix`` and ``classifier``. Blocks have the parts
            ``expand``, ``depthwise`` and ``project``; a convolution has a ``weight`` as torch lays
            it out and the scale and shift of its batch norm as ``norm.weight`` and ``norm.bias``,
            the classifier ``weight`` and ``bias``. Statistics of batch norms are not needed.

    Raises:
        UserError: the file is unreadable, none of these, or of no layer of the supernet; or a
            tensor has another number of dimensions, or numbers that are not finite.
    """
    path = _file_of(source)
    weights = _by_place(*read_tensors(path, None, "pt", _MAX_BYTES), path)
    copying = _Copying(weights, path)
    with torch.no_grad():
        copying.conv("stem", supernet.stem, image=True)
        if supernet.first_block is not None:
            copying.block("first_block", supernet.first_block)
        for plan, block in zip(supernet.space.plans, supernet.blocks, strict=True):
            assert isinstance(block, ElasticBlock)
            shortcut = plan.stride == 1 and plan.c_in == plan.c_out
            name = f"stages.{plan.stage}.{plan.position}"
            if not copying.block(name, block) and shortcut:
                block.project.norm.weight.zero_()
        if supernet.feature_mix is not None:
            copying.conv("feature_mix", supernet.feature_mix)
        copying.classifier(supernet.classifier)
    total = sum(p.numel() for p in supernet.parameters())
    if not copying.copied:
        raise UserError(f"{path} has no layer of this supernet: see `begin_with` for their names")
    return Beginning(str(source), sha256(path), copying.copied, total, tuple(copying.fresh))


def _file_of(source: str | Path) -> Path:
    if isinstance(source, str) and source in presets():
        return find_assets(load_space(source)).path(SUPERNET)
    return Path(source)


def _by_place(tensors: dict[str, Tensor], header: dict[str, Any], path: Path) -> Weights:
    """Tensors by names that say the stage of a block and its place there."""
    if header.get("format") != FORMAT:
        if any(_BLOCK.fullmatch(name) for name in tensors):
            raise UserError(f"{path}: blocks are called stages.S.B where no supernet is described")
        return tensors
    places = [(s, b) for s, depth in enumerate(_depths(header, path)) for b in range(depth)]
    found = {}
    for key, value in tensors.items():
        match = _BLOCK.fullmatch(key)
        if match is None:
            found[key] = value
        elif int(match[1]) < len(places):
            stage, position = places[int(match[1])]
            found[f"stages.{stage}.{position}.{match[2]}"] = value
    return found


def _depths(header: Mapping[str, Any], path: Path) -> list[int]:
    """Blocks of each stage of the space that a supernet's file belongs to."""
    content = header.get(CONTENT)
    if content is None and header.get("space") in presets():
        content = load_space(header["space"]).spec.content
    try:
        depths = [max(stage["depths"]) for stage in content["stages"]]  # type: ignore[index]
        if all(isinstance(depth, int) and 0 < depth < _DEEPEST for depth in depths):
            return depths
    except (KeyError, TypeError, ValueError):
        pass
    raise UserError(f"{path} does not say which blocks its stages have")


class _Copying:
    """Copies layers, and counts what it copied."""

    def __init__(self, weights: Weights, path: Path) -> None:
        self._weights = weights
        self._path = path
        self.copied = 0
        self.fresh: list[str] = []

    def _tensor(self, name: str, dimensions: int) -> Tensor | None:
        found = self._weights.get(name)
        if found is None:
            return None
        if found.dim() != dimensions or not found.is_floating_point() or not found.numel():
            raise UserError(
                f"{self._path}: {name} must be floats of {dimensions} dimensions, "
                f"not {str(found.dtype).removeprefix('torch.')} of shape {tuple(found.shape)}"
            )
        if not bool(found.isfinite().all()):
            raise UserError(f"{self._path}: {name} has numbers that are not finite")
        return found.float()

    def _paste(self, target: Tensor, source: Tensor) -> None:
        """Copy the leading part that both have."""
        part = tuple(slice(min(a, b)) for a, b in zip(target.shape, source.shape, strict=True))
        target[part] = source[part].to(target.device)
        self.copied += source[part].numel()

    def _norm(self, name: str, norm: ElasticNorm, order: Tensor | None = None) -> None:
        for key in ("weight", "bias"):
            found = self._tensor(f"{name}.norm.{key}", 1)
            if found is not None:
                self._paste(getattr(norm, key), found if order is None else found[order])

    def conv(
        self, name: str, layer: ElasticConv, *, image: bool = False,
        outputs: Tensor | None = None, inputs: Tensor | None = None,
    ) -> bool:  # fmt: skip
        """Copy a convolution; ``outputs`` and ``inputs`` say the order of its channels."""
        found = self._tensor(f"{name}.weight", 4)
        if found is None:
            self.fresh.append(name)
            return False
        found = found if outputs is None else found[outputs]
        found = found if inputs is None else found[:, inputs]
        wanted = layer.weight
        if image and found.shape[1] != wanted.shape[1]:
            # Colours are added up, or a grey image is what all of them show.
            found = found.sum(1, keepdim=True).expand(-1, wanted.shape[1], -1, -1)
            found = found / wanted.shape[1]
        found = resized(found, wanted.shape[-1])
        wanted[: len(found)] = 0.0
        self._paste(wanted, found)
        self._norm(name, layer.norm, outputs)
        return True

    def block(self, name: str, block: ElasticBlock) -> bool:
        """Copy a block, its middle channels in the order of their importance."""
        reach = self._tensor(f"{name}.project.weight", 4)
        depthwise = self._tensor(f"{name}.depthwise.weight", 4)
        if reach is None or depthwise is None:
            self.fresh.append(name)
            return False
        scale = self._tensor(f"{name}.depthwise.norm.weight", 1)
        importance = reach.abs().sum(dim=(0, 2, 3))
        if len(depthwise) != len(importance) or (
            scale is not None and len(scale) != len(depthwise)
        ):
            raise UserError(f"{self._path}: the layers of {name} differ in their middle channels")
        if scale is not None:
            importance = importance * scale.abs()
        order = None
        if block.expand is not None:
            order = importance.argsort(descending=True, stable=True)
            self.conv(f"{name}.expand", block.expand, outputs=order)
        self._depthwise(f"{name}.depthwise", block.depthwise, depthwise, order)
        return self.conv(f"{name}.project", block.project, inputs=order)

    def _depthwise(
        self, name: str, layer: ElasticDepthwise, found: Tensor, order: Tensor | None
    ) -> None:
        found = found if order is None else found[order]
        self._paste(layer.weight, resized(found, layer.kernels[-1]))
        for key, transform in layer.transforms.items():
            known = self._tensor(f"{name}.transforms.{key}", 2)
            if known is not None and known.shape == transform.shape:
                self._paste(transform, known)
        self._norm(name, layer.norm, order)

    def classifier(self, layer: torch.nn.Linear) -> None:
        """Copy the classifier where it has as many classes."""
        weight, bias = self._tensor("classifier.weight", 2), self._tensor("classifier.bias", 1)
        if weight is None or bias is None or len(weight) != layer.out_features != len(bias):
            self.fresh.append("classifier")
            return
        layer.weight.zero_()
        self._paste(layer.weight, weight)
        self._paste(layer.bias, bias)


def resized(weight: Tensor, kernel: int) -> Tensor:
    """The centre of kernels, or kernels surrounded by zeros.

    Args:
        weight: shape ``(c_out, c_in, k, k)``.
        kernel: the size to be had; both are odd, or both even.
    """
    margin = (kernel - weight.shape[-1]) // 2
    return torch.nn.functional.pad(weight, (margin,) * 4)

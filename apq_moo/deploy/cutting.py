"""Cutting a subnet out of the supernet as an integer network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apq_moo.data import ImageSource, load_images
from apq_moo.data.assets import SUPERNET, Assets, find_assets
from apq_moo.data.pixels import as_floats
from apq_moo.deploy.integers import Grid, IntegerLayer, IntegerNetwork, check_bits
from apq_moo.errors import UserError
from apq_moo.files import sha256
from apq_moo.space import Space, Subnet, belonging, superspace
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.devices import device_of, torch_device
from apq_moo.supernet.evaluation import FoldedLayer, calibrate, fold
from apq_moo.supernet.network import SlicedLayer, Supernet
from apq_moo.supernet.ranges import STORED_BITS, Range, needed


def cut_out(
    supernet: Supernet, subnet: Subnet, images: ImageSource, origin: Mapping[str, Any] | None = None
) -> IntegerNetwork:
    """Cut a subnet out of a supernet, with calibrated batch norms and the supernet's ranges.

    Args:
        supernet: the weights.
        subnet: a member of its space.
        images: whose calibration images calibrate, as they do for searches.
        origin: what is known beside the digests of space and images, such as the supernet's.

    Returns:
        The network that searches measured: the same logits on all images, to the last bit.

    Raises:
        UserError: the subnet is not a member of the space; the supernet has no ranges; or a layer
            has other than 2 to 8 bits.
    """
    layers = sliced(supernet, subnet)
    calibration = as_floats(torch.from_numpy(images.calibration.pixels).to(device_of(supernet)))
    recorded = calibrate(layers, calibration, quantised=True)
    folded = fold(layers, recorded, quantised=True)
    return integer_network(folded, supernet.space, images, origin)


def sliced(supernet: Supernet, subnet: Subnet) -> list[SlicedLayer]:
    """The layers of a subnet that can be one of integers.

    Raises:
        UserError: the subnet is not a member of the space, or a layer has other than 2 to 8 bits.
    """
    layers = supernet.slice(subnet)
    for item in layers:
        check_bits(item.layer)
    return layers


def integer_network(
    folded: Sequence[FoldedLayer],
    space: Space,
    images: ImageSource,
    origin: Mapping[str, Any] | None = None,
) -> IntegerNetwork:
    """The integer network of folded layers.

    Args:
        folded: the layers, quantised.
        space: what their subnet is a member of.
        images: whose classes they tell apart.
        origin: see :func:`cut_out`.
    """
    stages = [plan.stage for plan in space.plans]
    return IntegerNetwork(
        tuple(_layer(each, stages) for each in folded),
        names_of_classes(images, space.spec.classes),
        space.name,
        {**belonging(space), "images_sha256": images.checksum, **(origin or {})},
    )


@dataclass(frozen=True)
class Inheritance:
    """What a subnet inherits from a space's assets.

    Attributes:
        supernet: the weights, on the device that was asked for.
        subnet: the subnet as a member of the supernet's space.
        images: the image set.
        origin: the name of the image set, and the supernet's digest.
    """

    supernet: Supernet
    subnet: Subnet
    images: ImageSource
    origin: dict[str, Any]


def inheritance(
    space: Space, subnet: Subnet, assets: str | Path | Assets | None = None, on: str | None = None
) -> Inheritance:
    """Load what a subnet inherits.

    Args:
        space: the space.
        subnet: a member of it.
        assets: a folder of assets; by default those that ship with the package. A subspace has the
            supernet of the space that it is part of.
        on: where torch runs, by default on the CPU.

    Raises:
        UserError: there is no supernet, or its images cannot be had or are not those that it was
            made from.
    """
    found, whole = find_assets(space, assets), superspace(space)
    if space.spec.part_of:
        found, subnet = find_assets(whole), replace(subnet, space=whole.name)
    images = load_images(found.images)
    if images.checksum != found.checksums()["images"]:
        raise UserError(f"image set {images.name!r} is not the one that the supernet was made from")
    path = found.path(SUPERNET)
    supernet, _ = load_supernet(path, whole)
    origin = {"images": images.name, "supernet_sha256": sha256(path)}
    return Inheritance(supernet.to(torch_device(on or "cpu")), subnet, images, origin)


def cut_out_of_assets(
    space: Space, subnet: Subnet, assets: str | Path | Assets | None = None, on: str | None = None
) -> IntegerNetwork:
    """Cut a subnet out of the supernet among a space's assets.

    Args:
        space: see :func:`inheritance`.
        subnet: likewise.
        assets: likewise.
        on: likewise.

    Raises:
        UserError: see there and :func:`cut_out`.
    """
    left = inheritance(space, subnet, assets, on)
    return cut_out(left.supernet, left.subnet, left.images, left.origin)


def names_of_classes(images: ImageSource, n: int) -> tuple[str, ...]:
    """The names of an image set's ``n`` classes; their numbers where they have none."""
    return images.classes or tuple(map(str, range(n)))


def _layer(folded: FoldedLayer, stages: list[int]) -> IntegerLayer:
    item, layer = folded.item, folded.item.layer
    assert folded.gain is not None
    weight, gain, bias = (
        tensor.detach().cpu().numpy()
        for tensor in (folded.weight, folded.gain.flatten(), folded.bias)
    )
    weight = np.where((gain < 0)[:, None, None, None], -weight, weight)
    return IntegerLayer(
        shape=layer,
        stage=None if layer.block is None else stages[layer.block],
        weight=weight.astype(np.int8),
        gain=np.abs(gain),
        bias=bias.copy(),
        input=grid(needed(item.ranges.input), layer.a_bits),
        output=None if item.ranges.output is None else grid(item.ranges.output, STORED_BITS),
        total=None if item.ranges.total is None else grid(item.ranges.total, STORED_BITS),
    )


def grid(span: Range, bits: int) -> Grid:
    """The levels of a range, see :func:`apq_moo.supernet.quantisers.activation_levels`."""
    low, high = span
    step = max(high - low, 1e-8) / (2**bits - 1)
    return Grid(float(np.float32(step)), -round(-low / step), bits)

"""Cutting a subnet out of the supernet as an integer network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from apq_moo.data import ImageSet
from apq_moo.deploy.integers import Grid, IntegerLayer, IntegerNetwork, check_bits
from apq_moo.errors import UserError
from apq_moo.space import Subnet, belonging
from apq_moo.supernet.devices import device_of
from apq_moo.supernet.evaluation import FoldedLayer, calibrate, fold
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.ranges import STORED_BITS, Range


def cut_out(
    supernet: Supernet, subnet: Subnet, images: ImageSet, origin: Mapping[str, Any] | None = None
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
    layers = supernet.slice(subnet)
    if not supernet.ranges.known:
        raise UserError(
            f"the supernet of space {supernet.space.name!r} has no ranges of its own, without "
            "which networks cannot be cut out; train it anew"
        )
    for item in layers:
        check_bits(item.layer)
    calibration = torch.from_numpy(images.calibration.images).to(device_of(supernet))
    recorded = calibrate(layers, calibration, quantised=True)
    stages = [plan.stage for plan in supernet.space.plans]
    return IntegerNetwork(
        tuple(_layer(each, stages) for each in fold(layers, recorded, quantised=True)),
        names_of_classes(images, supernet.space.spec.classes),
        supernet.space.name,
        {**belonging(supernet.space), "images_sha256": images.checksum, **(origin or {})},
    )


def names_of_classes(images: ImageSet, n: int) -> tuple[str, ...]:
    """The names of an image set's ``n`` classes; their numbers where they have none."""
    return images.classes or tuple(map(str, range(n)))


def _layer(folded: FoldedLayer, stages: list[int]) -> IntegerLayer:
    item, known = folded.item, folded.recorded
    layer = item.layer
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
        input=grid((known.low, known.high), layer.a_bits),
        output=None if item.ranges.output is None else grid(item.ranges.output, STORED_BITS),
        total=None if item.ranges.total is None else grid(item.ranges.total, STORED_BITS),
    )


def grid(span: Range, bits: int) -> Grid:
    """The levels of a range, see :func:`apq_moo.supernet.quantisers.activation_levels`."""
    low, high = span
    step = max(high - low, 1e-8) / (2**bits - 1)
    return Grid(float(np.float32(step)), -round(-low / step), bits)

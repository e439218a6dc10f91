"""Fitting a supernet's ranges to the activations of random subnets."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from apq_moo.arrays import FloatArray
from apq_moo.space import Subnet, sample_sizes
from apq_moo.supernet.backends import evaluator_for
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.ranges import histogram

_IMAGES = 256


@torch.no_grad()
def fit_ranges(
    supernet: Supernet,
    images: Tensor,
    *,
    subnets: int = 32,
    seed: int = 0,
    only: Subnet | None = None,
) -> None:
    """Set a supernet's ranges to those of least squared error.

    Half of the random subnets are uniform over each gene, half of all sizes; each counts the same,
    and so that ranges depend on nothing but weights and images they run in full precision.

    Args:
        supernet: the weights, on any device.
        images: training images, shape ``(n, c, h, w)``; the first 256 are used.
        subnets: how many are drawn.
        seed: of the draw.
        only: the one subnet to fit them to instead.
    """
    space, rng = supernet.space, np.random.default_rng(seed)
    half = subnets // 2
    rows = np.vstack([space.sample(half, rng), sample_sizes(space, subnets - half, rng)])
    # Every place belongs to the largest.
    drawn = space.decode(np.vstack([space.largest(), rows])) if only is None else [only]
    evaluator = evaluator_for(supernet, images[:_IMAGES])
    sums: dict[str, Tensor] = {}

    def observe(place: str, x: Tensor) -> None:
        counts = histogram(x).double()
        total = sums.setdefault(place, torch.zeros_like(counts))
        total += counts / x.numel()

    for subnet in drawn:
        evaluator.observe(subnet, observe)
    found: dict[str, FloatArray] = {place: total.cpu().numpy() for place, total in sums.items()}
    supernet.ranges.fit(found)

"""A family of spaces for images of any size, of which one number is free: how wide they are.

All have inverted-bottleneck blocks, as MobileNetV2 (Sandler et al., CVPR 2018) and the presets. How
often the image is halved, and where, follows from its size; see :func:`member`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apq_moo.data.counting import Facts
from apq_moo.space import ROLES, Space, SpaceSpec
from apq_moo.space.plan import size_behind

WIDTHS = (0.25, 0.35, 0.5, 0.75, 1.0, 1.4, 2.0, 3.0, 4.0, 6.0)
"""How wide members may be, relative to the widths below."""

BITS = (4, 6, 8)
"""Bits on offer, as in the published space."""

LARGE = 64
"""Pixels from which on the stem halves the image and a block without choices follows it."""

MANY = 20_000
"""Training images from which on a layer that mixes features ends large networks."""

_SMALLEST_MAP = 4
_MOST_HALVINGS = 5
_OF_WIDTH_ONE = {
    2: (16, 32),
    3: (16, 32, 64),
    4: (16, 32, 64, 96),
    5: (24, 40, 80, 112, 192),
}
"""Output channels of the stages, by how many there are."""

_GRID = 8
_CHANNEL_NUMBERS = 100
"""Middle channels on offer in the widest block, at most; fewer make smaller tables."""


@dataclass(frozen=True)
class Member:
    """A space of the family.

    Attributes:
        facts: of the images.
        width: of :data:`WIDTHS`.
        stem: channels of the first convolution.
        stem_stride: its stride.
        first_block: channels of the fixed block behind it; 0 without one.
        feature_mix: channels of the convolution before pooling; 0 without one.
        channel_step: of the middle channels.
        stages: width, stride and kernels of each.
        bits: on offer, by role.
    """

    facts: Facts
    width: float
    stem: int
    stem_stride: int
    first_block: int
    feature_mix: int
    channel_step: int
    stages: tuple[tuple[int, int, tuple[int, ...]], ...]
    bits: dict[str, tuple[int, ...]]

    depths = (1, 2, 3)
    expand = (0.5, 6)
    fixed = 8
    between = 8

    def space(self, **others: Any) -> Space:
        """The space.

        Args:
            **others: ``depths``, ``expand`` or ``bits`` that stand in for its own.
        """
        chosen = {"depths": self.depths, "expand": self.expand, "bits": self.bits} | others
        bits = {role: list(options) for role, options in chosen["bits"].items()}
        data: dict[str, Any] = {
            "name": "new",
            "input_size": self.facts.size,
            "input_channels": self.facts.channels,
            "classes": self.facts.classes,
            "channel_step": self.channel_step,
            "expand": list(chosen["expand"]),
            "bits": {**bits, "fixed": self.fixed, "between": self.between},
            "stem": {"channels": self.stem, "stride": self.stem_stride},
            "stages": [
                {
                    "width": width,
                    "stride": stride,
                    "depths": list(chosen["depths"]),
                    "kernels": list(kernels),
                }
                for width, stride, kernels in self.stages
            ],
        }
        if self.first_block:
            data["first_block"] = {"channels": self.first_block}
        if self.feature_mix:
            data["feature_mix"] = {"channels": self.feature_mix}
        return Space(SpaceSpec.from_dict(data, source="the new space"))


def halvings(size: int) -> int:
    """How often images are halved: while at least 4x4 pixels are left, at most five times."""
    n = 0
    while n < _MOST_HALVINGS and size_behind(size, 2) >= _SMALLEST_MAP:
        size, n = size_behind(size, 2), n + 1
    return n


def member(facts: Facts, width: float, bits: Mapping[str, Sequence[int]] | None = None) -> Member:
    """The space of the family that has a width.

    The stem keeps the resolution of small images, of which every pixel counts, and halves large
    ones. Each stage halves what it gets but for the one before the last, as in MobileNetV2, where
    the middle of the network is deepest. Kernels are no wider than a stage's output and one pixel.

    Args:
        facts: of the images.
        width: see :data:`WIDTHS`.
        bits: on offer, by role; by default :data:`BITS` in each.
    """
    large = facts.size >= LARGE
    rest = halvings(facts.size) - large
    strides = [2] * rest
    strides = [*strides, *[1] * (2 - rest)] if rest < 2 else [*strides[:-1], 1, 2]
    size = size_behind(facts.size, 2 if large else 1)
    stages = []
    for channels, stride in zip(_OF_WIDTH_ONE[len(strides)], strides, strict=True):
        size = size_behind(size, stride)
        kernels = tuple(kernel for kernel in (3, 5, 7) if kernel == 3 or kernel <= size + 1)
        stages.append((_rounded(width * channels), stride, kernels))
    widest = max(channels for channels, _, _ in stages)
    step = _GRID
    while (Member.expand[1] - Member.expand[0]) * widest > step * _CHANNEL_NUMBERS:
        step *= 2
    return Member(
        facts=facts,
        width=width,
        stem=_rounded(width * (32 if large else 16)),
        stem_stride=2 if large else 1,
        first_block=_rounded(width * 16) if large else 0,
        feature_mix=4 * widest if large and facts.train >= MANY else 0,
        channel_step=step,
        stages=tuple(stages),
        bits={role: tuple((bits or {}).get(role, BITS)) for role in ROLES},
    )


def _rounded(channels: float) -> int:
    return max(_GRID, _GRID * round(channels / _GRID))

"""How the planes of a depthwise convolution are cut into patches, and the window of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from apq_moo.supernet.gpu.sizes import power_of_two

_ALIGNED = 4
"""Windows begin at multiples of this many pixels, so that threads load several at once."""


@dataclass(frozen=True)
class Patch:
    """A patch of the output, and the window of the input that it depends on, in pixels.

    Attributes:
        height: of the patch, a power of two.
        width: likewise.
        step: height and width that are the patch's own: from one to the next.
        base: rows and columns of the input from one window to the next.
        top: rows by which the window begins above its base.
        left: columns likewise.
        rows: of the window.
        across: its columns, a power of two.
    """

    height: int
    width: int
    step: tuple[int, int]
    base: tuple[int, int]
    top: int
    left: int
    rows: int
    across: int

    def count(self, size: int) -> int:
        """Patches of a plane of ``size`` by ``size`` pixels."""
        return -(-size // self.step[0]) * -(-size // self.step[1])


@lru_cache
def patch_of(kernel: int, stride: int, *, back: bool = False, low: bool = False) -> Patch:
    """The patch of a convolution.

    Args:
        kernel: its size.
        stride: its stride.
        back: of its gradient with respect to the input.
        low: with a window of few rows, which the gradient of its weight holds at once.
    """
    pad = kernel // 2
    if back:
        # Pixel d of the input's plane depends on (d - pad) / stride ... (d + pad) / stride.
        height, width = max(4, power_of_two(stride)), 8 if stride == 1 else 16
        step = height // stride * stride, width // stride * stride
        base = step[0] // stride, step[1] // stride
        top = pad // stride
        reach = [(own - 1 + pad) // stride + 1 for own in step]
    else:
        height, width = (4, 8) if stride == 1 else (4 if low or stride > 2 else 8, 4)
        step, base, top = (height, width), (height * stride, width * stride), pad
        reach = [(own - 1) * stride + pad + 1 for own in step]
    left = max(1, -(-top // _ALIGNED)) * _ALIGNED
    return Patch(
        height, width, step, base, top, left, top + reach[0], power_of_two(left + reach[1], 16)
    )

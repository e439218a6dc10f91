"""What is said where a GPU's memory is full: how many images fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from apq_moo.errors import UserError
from apq_moo.supernet.gradients import Gradients, Student


def batch_that_fits(
    way: Callable[[], Gradients], x: Tensor, y: Tensor, students: Sequence[Student]
) -> int:
    """Images of a pass that fit: half of those that did not, or half of that, and so on; 0 if none.

    Args:
        way: makes what computes gradients, with no memory of what failed.
        x: images that did not fit, shape ``(n, c, h, w)``.
        y: labels, shape ``(n,)``.
        students: of a step.
    """
    size = len(x) // 2
    while size and not _fits(way, x[:size], y[:size], students):
        size //= 2
    return size


def _fits(way: Callable[[], Gradients], x: Tensor, y: Tensor, students: Sequence[Student]) -> bool:
    if x.is_cuda:
        torch.cuda.empty_cache()
    try:
        way().step(x, y, students)
    except torch.cuda.OutOfMemoryError:
        return False
    return True


def too_large(images: int, fit: int, share: int, batch_size: int, device: object) -> UserError:
    """The mistake of a step that does not fit.

    Args:
        images: of the pass that failed.
        fit: images of a pass that fit, perhaps 0.
        share: images that a process has of a step.
        batch_size: images of a step.
        device: whose memory is full.
    """
    if not fit:
        return UserError(
            f"the memory of {device} is full: not even one image passes through the largest "
            "subnet; free what other processes hold of it, or use a smaller space"
        )
    parts = math.ceil(share / fit)
    return UserError(
        f"the memory of {device} is full: of {images} images in one pass {fit} fit; add "
        f"accumulation={parts} to have {parts} passes a step, or lower batch_size={batch_size}"
    )


def none_fits(calibration: int, device: object) -> UserError:
    """The mistake of a subnet that cannot classify one image.

    Args:
        calibration: images that calibrate it, which pass through it at once.
        device: whose memory is full.
    """
    return UserError(
        f"the memory of {device} is full: the {calibration} images that calibrate a network do not "
        "pass through it at once; free what other processes hold of it, or measure with on='cpu'"
    )

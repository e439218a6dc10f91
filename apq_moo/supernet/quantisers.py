"""Fake quantisation with straight-through gradients, by torch's own operators.

Weights are symmetric, one scale for each output channel. Activations are affine, one range for the
whole tensor; the range is static and the supernet's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apq_moo.space.spec import FLOAT_BITS


def quantise_weight(weight: Tensor, bits: int) -> Tensor:
    """Round a weight to ``bits`` symmetric integers per output channel.

    Args:
        weight: shape ``(c_out, ...)``.
        bits: at least 2; the levels are ``-(2^(bits-1) - 1) ... 2^(bits-1) - 1``. At 32 bits, which
            stand for floating point, nothing is rounded.

    Returns:
        The dequantised weight, same shape. Gradients pass straight through.
    """
    if bits == FLOAT_BITS:
        return weight
    top = 2 ** (bits - 1) - 1
    scale = weight.detach().abs().flatten(1).amax(1).clamp_min(1e-8) / top
    zero = torch.zeros(len(scale), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -top, top)


def quantise_activation(x: Tensor, low: float, high: float, bits: int) -> Tensor:
    """Round an activation to ``2^bits`` levels between ``low <= 0`` and ``high >= 0``.

    Zero is representable exactly. Values outside are clipped; gradients pass straight through
    within the range and are 0 outside.

    Args:
        x: any shape.
        low: bottom of the range; 0 for the output of a ReLU.
        high: top of the range.
        bits: at least 2; at 32, floating point, nothing is rounded or clipped.

    Returns:
        The dequantised activation, same shape.
    """
    if bits == FLOAT_BITS:
        return x
    if torch.is_grad_enabled() and x.requires_grad:
        scale, zero = _affine(low, high, bits)
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 2**bits - 1)
    # The same numbers, several times faster on a CPU: torch's operator also stores a mask.
    levels, step = activation_levels(x, low, high, bits)
    return levels.mul_(step)


def activation_levels(x: Tensor, low: float, high: float, bits: int) -> tuple[Tensor, float]:
    """The integers behind :func:`quantise_activation`, 0 standing for 0, and their step.

    Args:
        x: any shape.
        low: bottom of the range, at most 0.
        high: top of the range.
        bits: at most 16.

    Returns:
        Levels as floats, same shape, and the single-precision step between them.
    """
    scale, zero = _affine(low, high, bits)
    single = torch.tensor(scale, dtype=torch.float32)
    levels = (x * float(1 / single)).round_().clamp_(-zero, 2**bits - 1 - zero)
    return levels, float(single)


def activation_step(low: float, high: float, bits: int) -> float:
    """The single-precision step between the levels of :func:`activation_levels`."""
    return float(torch.tensor(_affine(low, high, bits)[0], dtype=torch.float32))


def weight_levels(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The integers behind :func:`quantise_weight`, and the size of each output channel's.

    Args:
        weight: shape ``(c_out, ...)``.
        bits: 2 to 16.

    Returns:
        Levels as floats, same shape, and sizes of shape ``(c_out,)``.
    """
    top = 2 ** (bits - 1) - 1
    # In double precision, since CUDA divides by a number by multiplying by its inverse.
    size = (weight.abs().flatten(1).amax(1).clamp_min(1e-8).double() / top).float()
    inverse = (1 / size).view(-1, *[1] * (weight.dim() - 1))
    return (weight * inverse).round_().clamp_(-top, top), size


def _affine(low: float, high: float, bits: int) -> tuple[float, int]:
    scale = max(high - low, 1e-8) / (2**bits - 1)
    return scale, round(-low / scale)

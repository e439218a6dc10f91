"""What a student learns from its teacher's soft predictions, as gradients of its logits.

Both ways of computing gradients (:mod:`apq_moo.supernet.gradients`) take them from here, so that a
new divergence is one function.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import torch
from torch import Tensor

BETA = 5.0
"""Largest power of the importance ratio, (p / q)^a, for a = -1."""

LogitsGradient = Callable[[Tensor, Tensor], Tensor]


def cross_entropy_gradient(soft: Tensor, logits: Tensor) -> Tensor:
    """Gradient of the mean cross entropy, which is that of KL(p || q).

    Args:
        soft: the teacher's probabilities p, shape ``(n, classes)``.
        logits: the student's, whose softmax is q, of the same shape.

    Returns:
        Shape ``(n, classes)``.
    """
    return (logits.softmax(1) - soft) / len(logits)


def alpha_gradient(soft: Tensor, logits: Tensor) -> Tensor:
    """Gradient of the mean adaptive alpha-divergence, for alpha = -1 and alpha = 1.

    D_a(p || q) = E_q[(p / q)^a - 1] / (a (a - 1)), which is KL(p || q) in the limit of a = 1,
    punishes a student for a = -1 where it is surer than the teacher, and for a = 1 where it misses
    what the teacher holds possible. Of each image the larger one counts. In value and gradient,
    -E_q[(p / q)^a grad log q] / a, the power is clipped at 5 for a = -1; for a = 1 the gradient is
    bounded as it is, and is left so as in the authors' code. Wang et al., "AlphaNet: Improved
    Training of Supernets with Alpha-Divergence", ICML 2021, equations 4 to 8.

    Args:
        soft: the teacher's probabilities p, shape ``(n, classes)``; may be 0.
        logits: the student's, whose softmax is q, of the same shape.

    Returns:
        Shape ``(n, classes)``.
    """
    log_q = logits.log_softmax(1)
    q = log_q.exp()
    ratio = (log_q - soft.log()).exp().clamp_max(BETA)  # (p / q)^-1
    low = (q * (ratio - 1)).sum(1, keepdim=True) / 2
    high = (torch.xlogy(soft, soft) - soft * log_q).sum(1, keepdim=True)
    weight = torch.where(low > high, -q * ratio, soft)  # of log q, times -1
    return (q * weight.sum(1, keepdim=True) - weight) / len(logits)


DISTILLATIONS: MappingProxyType[str, LogitsGradient] = MappingProxyType(
    {"kl": cross_entropy_gradient, "alpha": alpha_gradient}
)
"""Gradients by name, each ``(soft, logits) -> gradient``."""

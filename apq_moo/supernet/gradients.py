"""One training step's gradients: the largest subnet on the labels, others on its predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from apq_moo.space import Subnet
from apq_moo.supernet.distillation import DISTILLATIONS
from apq_moo.supernet.network import Norm, Supernet, batch_norm, forward

PRECISIONS = ("float32", "bf16")
"""Of convolutions: single precision, or bfloat16 by torch's autocast."""


@dataclass(frozen=True)
class Student:
    """A subnet to be trained.

    Attributes:
        subnet: a member of the space.
        quantised: whether it is trained at its bits.
    """

    subnet: Subnet
    quantised: bool = False


class Gradients(Protocol):
    """Computes the gradients of a step.

    Attributes:
        logits: of the latest step's students, in order.
    """

    logits: list[Tensor]

    def step(
        self, x: Tensor, y: Tensor, students: Sequence[Student], soft: Tensor | None = None
    ) -> Tensor:
        """Set the parameters' gradients.

        Args:
            x: images, shape ``(n, c, h, w)``.
            y: labels, shape ``(n,)``.
            students: the first learns from the labels, the others from its soft predictions.
            soft: predictions from which all learn, if any, shape ``(n, classes)``.

        Returns:
            Cross entropy of the first, a scalar on the device.
        """
        ...

    def predict(self, x: Tensor, student: Student) -> Tensor:
        """Logits by the statistics of these images, as in a step, shape ``(n, classes)``."""
        ...


class TorchGradients:
    """Gradients by torch's own autograd, on any device.

    Args:
        supernet: the weights.
        smoothing: share of the labels spread evenly over all classes (Szegedy et al., "Rethinking
            the Inception Architecture", CVPR 2016).
        distillation: what the others learn from, one of
            :data:`apq_moo.supernet.distillation.DISTILLATIONS`.
        norm: batch norm by the statistics of a step's images.
        precision: of students in full precision, one of :data:`PRECISIONS`; those at their bits,
            whose steps may be finer than bfloat16's, are in single precision.
    """

    def __init__(
        self,
        supernet: Supernet,
        smoothing: float = 0.0,
        distillation: str = "kl",
        *,
        norm: Norm = batch_norm,
        precision: str = "float32",
    ) -> None:
        self.supernet = supernet
        self.smoothing = smoothing
        self.distillation = distillation
        self.logits: list[Tensor] = []
        self._norm = norm
        self._halves = precision == "bf16"

    def step(
        self, x: Tensor, y: Tensor, students: Sequence[Student], soft: Tensor | None = None
    ) -> Tensor:
        """See :meth:`Gradients.step`."""
        self.supernet.zero_grad()
        self.logits = []
        for student in students:
            logits = self._logits(student, x)
            self.logits.append(logits.detach())
            if soft is None:
                F.cross_entropy(logits, y, label_smoothing=self.smoothing).backward()
                soft = logits.detach().softmax(1)
            elif self.distillation == "kl":  # to the bit what training has always done
                F.cross_entropy(logits, soft).backward()
            else:
                logits.backward(DISTILLATIONS[self.distillation](soft, logits.detach()))
        return F.cross_entropy(self.logits[0], y)

    @torch.no_grad()
    def predict(self, x: Tensor, student: Student) -> Tensor:
        """See :meth:`Gradients.predict`."""
        return self._logits(student, x)

    def _logits(self, student: Student, x: Tensor) -> Tensor:
        layers = self.supernet.slice(student.subnet)
        halves = self._halves and not student.quantised
        with torch.autocast(x.device.type, torch.bfloat16, enabled=halves):
            logits = forward(layers, x, quantised=student.quantised, norm=self._norm)
        return logits.to(x.dtype)

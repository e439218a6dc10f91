"""Steps whose images pass through the network in parts, each of which needs less memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from apq_moo.supernet.gradients import Gradients, Student
from apq_moo.supernet.network import Supernet


class Accumulated:
    """Gradients of a step as the mean over parts of its images.

    A part's gradients count as its images do, so that the sum is the gradient of the mean loss over
    all of them. Batch norm uses the statistics of each part alone, which is the one difference from
    a step in one piece, and every part's students learn from the largest subnet's predictions in
    that part.

    Args:
        inner: computes the gradients of a part.
        supernet: whose gradients they are.
        parts: how many, of sizes that differ by one image at most.
    """

    def __init__(self, inner: Gradients, supernet: Supernet, parts: int) -> None:
        self.logits: list[Tensor] = []
        self._inner = inner
        self._supernet = supernet
        self._parts = parts

    def step(
        self, x: Tensor, y: Tensor, students: Sequence[Student], soft: Tensor | None = None
    ) -> Tensor:
        """See :meth:`apq_moo.supernet.gradients.Gradients.step`."""
        weights = list(self._supernet.parameters())
        sums = [torch.zeros_like(weight) for weight in weights]
        loss = torch.zeros((), device=x.device)
        found: list[list[Tensor]] = []
        softs = [None] * self._parts if soft is None else soft.tensor_split(self._parts)
        parts = zip(x.tensor_split(self._parts), y.tensor_split(self._parts), softs, strict=True)
        for images, labels, predictions in parts:
            share = len(images) / len(x)
            loss += share * self._inner.step(images, labels, students, predictions)
            found.append(self._inner.logits)
            for total, weight in zip(sums, weights, strict=True):
                if weight.grad is not None:  # unused by these students
                    total.add_(weight.grad, alpha=share)
        for total, weight in zip(sums, weights, strict=True):
            if weight.grad is None:
                weight.grad = total
            else:
                weight.grad.copy_(total)
        self.logits = [torch.cat(each) for each in zip(*found, strict=True)]
        return loss

    def predict(self, x: Tensor, student: Student) -> Tensor:
        """See :meth:`apq_moo.supernet.gradients.Gradients.predict`."""
        parts = x.tensor_split(self._parts)
        return torch.cat([self._inner.predict(part, student) for part in parts])

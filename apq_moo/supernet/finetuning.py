"""Fine-tuning single subnets at their bits, from the weights that they inherit.

APQ fine-tunes every sampled policy for a fifth of an epoch before its accuracy is taken (Wang et
al., CVPR 2020, section 3.2).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from apq_moo.arrays import BoolArray
from apq_moo.data.images import ImageSource
from apq_moo.space import Subnet
from apq_moo.supernet.backends import gradients_on
from apq_moo.supernet.gradients import Student
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.scoring import Scorer
from apq_moo.supernet.sources import batches_of


@dataclass(frozen=True)
class FineTuning:
    """Settings of a fine-tuning.

    Attributes:
        steps: optimiser steps.
        batch_size: images a step; all training images where there are fewer.
        learning_rate: AdamW's, falling linearly to 0.
        label_smoothing: share of the labels spread evenly over all classes.
        seed: of the batches and their augmentation.
    """

    steps: int
    batch_size: int = 128
    learning_rate: float = 2e-3
    label_smoothing: float = 0.0
    seed: int = 0


class FineTunedScorer(Scorer):
    """Scores subnets at their bits after a fine-tuning of each; in full precision as they are.

    Args:
        supernet: the weights that are inherited; they stay as they are, what is tuned is a copy.
        images: the data set; ``train`` and ``augment`` are tuned on.
        config: of the fine-tuning.
    """

    def __init__(self, supernet: Supernet, images: ImageSource, config: FineTuning) -> None:
        self._inherited, self._tuned = supernet, copy.deepcopy(supernet)
        super().__init__(self._tuned, images)
        self._config = config
        self._gradients = gradients_on(self._tuned, config.label_smoothing)
        size = min(config.batch_size, len(images.train))
        self._batches = batches_of(images, size, config.seed, self._device)

    def tune(self, subnet: Subnet) -> Supernet:
        """Fine-tune a subnet at its bits, from the inherited weights.

        Returns:
            The copy, whose weights of the subnet are tuned, until it is used again.
        """
        self._restore()
        steps = self._config.steps
        optimiser = torch.optim.AdamW(self._tuned.parameters(), weight_decay=0.0)
        for step, (x, y) in enumerate(islice(self._batches.from_step(0), steps)):
            optimiser.param_groups[0]["lr"] = self._config.learning_rate * (1 - step / steps)
            self._gradients.step(x, y, [Student(subnet, quantised=True)])
            optimiser.step()
        return self._tuned

    @torch.no_grad()
    def _restore(self) -> None:
        pairs = zip(self._tuned.parameters(), self._inherited.parameters(), strict=True)
        for tuned, inherited in pairs:
            tuned.copy_(inherited)

    def _hits(
        self, subnets: Sequence[Subnet], splits: Sequence[str], quantised: BoolArray
    ) -> Iterator[Sequence[Tensor]]:
        for subnet, at in zip(subnets, quantised, strict=True):
            if at:
                self.tune(subnet)
            else:
                self._restore()
            self._evaluator.forget()
            yield from super()._hits([subnet], splits, np.array([at]))

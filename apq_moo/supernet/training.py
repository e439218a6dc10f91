"""Training a supernet: sandwich rule or progressive shrinking, with in-place distillation.

First the largest subnet is trained alone; its channels are then ordered by importance. From there
on, each step trains the largest subnet on the labels, and the smallest and a few random ones on the
largest one's soft predictions (Yu and Huang, "Universally Slimmable Networks", ICCV 2019). With
progressive shrinking (Cai et al., "Once-for-All", ICLR 2020) the others vary in kernel size only at
first, then in depth too, then in channels too. In a last phase some of them run at random bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from apq_moo.data.augmentation import AUGMENTATIONS
from apq_moo.data.images import ImageSource, check_images
from apq_moo.errors import UserError
from apq_moo.space import Space, Subnet
from apq_moo.supernet.accumulation import Accumulated
from apq_moo.supernet.backends import gradients_on
from apq_moo.supernet.beginning import Beginning, begin_with
from apq_moo.supernet.checkpoint import save_tensors
from apq_moo.supernet.distributed import ALONE, Group
from apq_moo.supernet.drawing import Drawing
from apq_moo.supernet.gradients import Gradients, Student
from apq_moo.supernet.memory_full import batch_that_fits, too_large
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.range_fitting import fit_ranges
from apq_moo.supernet.recipe import TrainConfig, check_shares
from apq_moo.supernet.resuming import FORMAT, Parts, Reached, restore, snapshot
from apq_moo.supernet.saving import Saving
from apq_moo.supernet.sources import batches_of

__all__ = ["FORMAT", "SPLITS", "Progress", "TrainConfig", "Trainer"]

SPLITS = ("images", "subnets")
"""What of a step several processes may share."""

_REFITTED, _BRIEFLY = 200, 8
"""Quantised steps after which ranges are fitted again, and to how many subnets meanwhile."""


@dataclass(frozen=True)
class Progress:
    """What a callback is told after a step.

    Attributes:
        step: steps done.
        steps: steps in all.
        latest: cross entropy of the largest subnet on this batch, a scalar on the device.
    """

    step: int
    steps: int
    latest: Tensor

    @property
    def loss(self) -> float:
        """Cross entropy of the largest subnet on this batch; waits for the device."""
        return float(self.latest)


class Trainer:
    """A supernet in training, which can be stored and resumed at any step.

    Resuming continues exactly the run that was interrupted: batches, augmentation and subnets are
    functions of the seed and of the epoch or step.

    Args:
        space: the space.
        images: the data set; it is trained on its ``train``.
        config: settings.
        device: where to train.
        group: this process among others that train the same supernet.
        alone: the only subnet to train, by the same settings; default: all.
        split: what of a step they share, one of :data:`SPLITS`: its ``images``, with batch-norm
            statistics of each share, or its ``subnets``, as if one process trained them all.

    Attributes:
        begun: what the weights began with, if not at random.

    Raises:
        UserError: a batch is larger than the training split or smaller than the group that shares
            it, a share has fewer images than it is to have parts, the images do not fit the space,
            or subnets are to be shared where there is one or where they take turns.
    """

    def __init__(
        self,
        space: Space,
        images: ImageSource,
        config: TrainConfig,
        device: torch.device | str = "cpu",
        group: Group = ALONE,
        alone: Subnet | None = None,
        split: str = "images",
    ) -> None:
        self.space = space
        self._shares_subnets = _shares_subnets(split, config, alone, group)
        self.alone = alone
        self.images = images
        self.config = config
        check_images(space, images)
        size, n = config.batch_size, len(images.train)
        if size == TrainConfig.batch_size:
            size = min(size, n)
        if size > n:
            raise UserError(f"batch_size={size} is more than the {n} training images; lower it")
        check_shares(size, 1 if self._shares_subnets else group.size, config.accumulation)
        self.group = group
        self.device = torch.device(device)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(config.seed)
            self.supernet = Supernet(space).to(device)
        self.optimisers = {
            name: torch.optim.AdamW(
                self.supernet.parameters(),
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                fused=self.device.type == "cuda" or None,
            )
            for name in (("opt", "small") if config.momentum_groups else ("opt",))
        }
        self._average = self._averages()
        self.begun: Beginning | None = None
        self.step = 0
        self.seconds = 0.0
        self._gradients = self._way()
        self._drawing = Drawing(space, config)
        self._rated = replace(config, batch_size=size)
        self._batches = batches_of(
            images, size, config.seed, self.device, AUGMENTATIONS[config.augmentation],
            ALONE if self._shares_subnets else group,
        )  # fmt: skip

    def begin(self, source: str | Path) -> Beginning:
        """Begin with the weights of a network of the same family, before the first step.

        Args:
            source: see :func:`apq_moo.supernet.beginning.begin_with`.

        Raises:
            UserError: likewise.
        """
        self.begun = begin_with(self.supernet, source)
        self._average = self._averages()
        return self.begun

    def _way(self) -> Gradients:
        way = self._way_of_a_part()
        if self.config.accumulation == 1:
            return way
        return Accumulated(way, self.supernet, self.config.accumulation)

    def _way_of_a_part(self, *, tried: bool = False) -> Gradients:
        config = self.config
        return gradients_on(
            self.supernet,
            config.label_smoothing,
            config.distillation,
            group=self.group if config.sync_batch_norm else ALONE,
            tried=tried,
            precision=config.precision,
        )

    def _averages(self) -> dict[str, Tensor]:
        """Where the moving average of the weights begins; empty without one."""
        if not self.config.average_decay:
            return {}
        return {name: p.detach().clone() for name, p in self.supernet.named_parameters()}

    def _update_in_memory(self, x: Tensor, y: Tensor, first: Student) -> Tensor:
        """One step; where the device's memory is full, what fits is tried and named."""
        try:
            return self._update(x, y, first)
        except torch.cuda.OutOfMemoryError:
            pass  # what its traceback holds goes with it
        del self._gradients
        share = len(x)
        part = math.ceil(share / self.config.accumulation)
        students = [first] if self.alone else [first, *self._drawing.students(self.step)]
        way = partial(self._way_of_a_part, tried=True)  # the other processes do not try
        fit = batch_that_fits(way, x[:part], y[:part], students)
        raise too_large(part, fit, share, self._batches.size, self.device)

    def _update(self, x: Tensor, y: Tensor, first: Student) -> Tensor:
        others = self._drawing.students(self.step) if self.alone is None else []
        if self._shares_subnets:
            return self._update_shared(x, y, [first, *others])
        smaller = others[(len(others) + 1) // 2 :] if self.config.momentum_groups else []
        loss = self._gradients.step(x, y, [first, *others[: len(others) - len(smaller)]])
        logits = self._gradients.logits
        if smaller:
            logits = logits + self._descend_by_halves(x, y, smaller, logits[0].softmax(1))
        else:
            self._descend("opt")
        if others and self.config.sampling != "random":
            losses = torch.stack([F.cross_entropy(z, y) for z in logits])
            self._drawing.learn(self.group.mean(losses).tolist())
        return loss

    def _update_shared(self, x: Tensor, y: Tensor, students: list[Student]) -> Tensor:
        """One step, of which this process does its share of the subnets.

        All need the first one's predictions, so that what is shared of it is the way back.
        """
        costs = [float(len(self.space.layers(student.subnet))) for student in students]
        costs[0] *= 2 / 3
        mine = self.group.mine(costs)
        losses = torch.zeros(len(students), device=x.device)
        if 0 in mine:
            losses[0] = loss = self._gradients.step(x, y, [students[task] for task in mine])
        else:
            logits = self._gradients.predict(x, students[0])
            loss = F.cross_entropy(logits, y)
            self.supernet.zero_grad(set_to_none=False)
            if mine:
                some = [students[task] for task in mine]
                self._gradients.step(x, y, some, logits.softmax(1))
        self._descend("opt")
        if len(students) > 1 and self.config.sampling != "random":
            if mine:
                found = [F.cross_entropy(logits, y) for logits in self._gradients.logits]
                losses[mine] = torch.stack(found)
            self._drawing.learn((self.group.mean(losses) * self.group.size).tolist())
        return loss

    @torch.no_grad()
    def _descend_by_halves(
        self, x: Tensor, y: Tensor, smaller: list[Student], soft: Tensor
    ) -> list[Tensor]:
        """Descend by the gradients there are and by those of smaller students, half of each."""
        weights: list[Tensor] = list(self.supernet.parameters())
        before = [weight.clone() for weight in weights]
        self._descend("opt")
        one = [weight.clone() for weight in weights]
        torch._foreach_copy_(weights, before)
        with torch.enable_grad():
            self._gradients.step(x, y, smaller, soft)
        self._descend("small")
        torch._foreach_lerp_(weights, one, 0.5)
        return self._gradients.logits

    def _descend(self, name: str) -> None:
        """Let an optimiser descend by the gradients that there are."""
        optimiser = self.optimisers[name]
        optimiser.param_groups[0]["lr"] = self._rated.rate(self.step)
        if self._shares_subnets:
            self.group.total(self.supernet.parameters())
        else:
            self.group.average(self.supernet.parameters())
        torch.nn.utils.clip_grad_norm_(self.supernet.parameters(), self.config.clip_norm)
        optimiser.step()

    def run(
        self,
        *,
        checkpoint: str | Path | None = None,
        every_s: float = 20.0,
        callback: Callable[[Progress], None] | None = None,
    ) -> Supernet:
        """Train to the end.

        Args:
            checkpoint: where to store the run now and then, while it goes on, and at its end.
            every_s: seconds between checkpoints; more where one takes longer to write.
            callback: told about every step.

        Returns:
            The trained supernet.

        Raises:
            UserError: the training diverged, a checkpoint could not be written, or a step does not
                fit the device's memory; the last checkpoint before that is kept.
        """
        first = Student(self.alone or self.space.decode(self.space.largest())[0])
        begun = stored = time.perf_counter()
        before = self.seconds
        leads = self.group.leads
        with Saving() as saving:
            for x, y in self._batches.from_step(self.step):
                if self.step >= self.config.steps:
                    break
                into = self.step - (self.config.steps - self.config.quantised_steps)
                if into >= 0 and into % _REFITTED == 0:
                    self._fit_ranges(_BRIEFLY)
                loss = self._update_in_memory(x, y, first)
                self.step += 1
                if self.step == self.config.warmup and self.alone is None:
                    self._order_channels()
                self._keep_average()
                now = time.perf_counter()
                self.seconds = before + now - begun
                if checkpoint is not None and leads and now - stored > every_s and not saving.busy:
                    saving.begin(checkpoint, *self._snapshot())
                    stored = now
                if callback is not None:
                    callback(Progress(self.step, self.config.steps, loss))
        if checkpoint is not None and leads:
            self.save(checkpoint)
        self._refuse_divergence()
        self.supernet.load_state_dict(self._average, strict=False)
        self._fit_ranges()
        return self.supernet.eval()

    def _fit_ranges(self, subnets: int = 32) -> None:
        images = torch.from_numpy(self.images.calibration.pixels)
        fit_ranges(self.supernet, images, subnets=subnets, only=self.alone)

    @torch.no_grad()
    def _keep_average(self) -> None:
        """Move the average towards the weights; it begins as those that follow the warm-up."""
        if not self._average:
            return
        since = max(0, self.step - self.config.warmup)
        # A young average would else be little but its first weights.
        share = 1 - min(self.config.average_decay, since / (since + 9))
        weights: list[Tensor] = list(self.supernet.parameters())
        torch._foreach_lerp_(list(self._average.values()), weights, share)

    def _refuse_divergence(self) -> None:
        if not all(bool(weight.isfinite().all()) for weight in self.supernet.parameters()):
            raise UserError(
                f"the training diverged before step {self.step}: its weights are not finite; "
                f"lower learning_rate ({self.config.learning_rate:g})"
            )

    def _order_channels(self) -> None:
        """Order the channels and forget moments that belong to the old order."""
        self.supernet.order_channels()
        for optimiser in self.optimisers.values():
            optimiser.state.clear()

    def save(self, path: str | Path) -> None:
        """Store the run.

        Raises:
            UserError: it cannot be written, or has diverged.
        """
        save_tensors(path, *self._snapshot())

    def load(self, path: str | Path) -> None:
        """Continue a stored run.

        Raises:
            UserError: the file is unreadable, or of another space, data set or configuration.
        """
        reached = restore(self._parts(), path)
        self.step, self.seconds, self.begun = reached.step, reached.seconds, reached.begun

    def _snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What is stored; the tensors go on changing."""
        self._refuse_divergence()
        return snapshot(self._parts(), Reached(self.step, self.seconds, self.begun))

    def _parts(self) -> Parts:
        return Parts(
            supernet=self.supernet,
            optimisers=self.optimisers,
            average=self._average,
            excess=self._drawing.excess,
            config=self.config,
            images=self.images.checksum,
            alone=self.alone,
        )


def _shares_subnets(split: str, config: TrainConfig, alone: Subnet | None, group: Group) -> bool:
    if split not in SPLITS:
        raise UserError(f"split must be one of {', '.join(SPLITS)}; not {split!r}")
    if group.size == 1:
        return False
    if split == "subnets" and (config.momentum_groups or alone is not None):
        why = "there is one" if alone is not None else "momentum_groups lets them take turns"
        raise UserError(f"split='subnets' shares a step's subnets, but {why}")
    if split == "subnets" and config.sync_batch_norm:
        raise UserError(
            "split='subnets' gives each process all images, so that there is nothing for "
            "sync_batch_norm to share; leave one of them out"
        )
    return split == "subnets"

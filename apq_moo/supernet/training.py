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
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apq_moo.arrays import IntArray
from apq_moo.changes import refuse_other_settings
from apq_moo.data.images import ImageSet, check_images
from apq_moo.errors import UserError
from apq_moo.files import with_defaults
from apq_moo.space import Space, Subnet, belonging, find_distribution, refuse_other_space
from apq_moo.supernet.backends import gradients_on
from apq_moo.supernet.batches import Batches
from apq_moo.supernet.checkpoint import load_tensors, save_tensors
from apq_moo.supernet.distillation import DISTILLATIONS
from apq_moo.supernet.distributed import ALONE, Group
from apq_moo.supernet.gradients import Student
from apq_moo.supernet.network import Supernet

FORMAT = "apq-moo training 1"

_CHOICES: dict[str, Collection[str]] = {"distillation": DISTILLATIONS}
_MOST_WARMUP = 500
"""Steps of warm-up by default, where they are at most a sixth of all."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    Attributes:
        steps: optimiser steps in all.
        warmup_steps: leading steps that train the largest subnet alone; by default 500, at most a
            sixth of the steps.
        batch_size: images a step; the default is all training images where there are fewer.
        random_subnets: random subnets a step, beside the largest and the smallest.
        draw: how these are drawn, one of :data:`apq_moo.space.DISTRIBUTIONS`.
        shrink: whether dimensions become elastic one after the other, each for a third of the steps
            between the warm-up and the quantised phase.
        quantised_steps: last steps, in which as many random subnets again run at their bits.
        learning_rate: peak of the cosine schedule.
        ramp_steps: steps of linear ramp before the cosine.
        weight_decay: AdamW's.
        label_smoothing: share of the labels spread evenly over all classes.
        clip_norm: largest norm of the gradient.
        distillation: what the other subnets learn from the largest, one of
            :data:`apq_moo.supernet.distillation.DISTILLATIONS`.
        average_decay: share of the moving average of the weights that a step keeps; the average is
            what the training ends with. 0: the weights themselves.
        seed: of the initial weights, batches, augmentation and subnets.
    """

    steps: int = 3000
    warmup_steps: int | None = None
    batch_size: int = 128
    random_subnets: int = 2
    draw: str = "uniform"
    shrink: bool = False
    quantised_steps: int = 0
    learning_rate: float = 3e-3
    ramp_steps: int = 100
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    clip_norm: float = 5.0
    distillation: str = "kl"
    average_decay: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.warmup_steps is None:
            object.__setattr__(self, "warmup_steps", min(_MOST_WARMUP, self.steps // 6))
        if not 0 <= self.warmup <= self.steps:
            raise UserError(f"warmup_steps={self.warmup} must lie between 0 and steps={self.steps}")
        find_distribution(self.draw)
        self._check_choices()
        for name in ("learning_rate", "weight_decay", "clip_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(
                    f"{name} must be a finite number, at least 0; not {getattr(self, name)}"
                )
        for name in ("label_smoothing", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}")
        if not 0 <= self.quantised_steps <= self.steps:
            raise UserError(
                f"quantised_steps must be within 0 and steps, {self.steps}; not "
                f"{self.quantised_steps}"
            )

    def _check_choices(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                allowed = ", ".join(known)
                raise UserError(f"{name} must be one of {allowed}; not {getattr(self, name)!r}")

    @property
    def warmup(self) -> int:
        """``warmup_steps`` as given, or by default."""
        assert self.warmup_steps is not None
        return self.warmup_steps

    def rate(self, step: int) -> float:
        """Learning rate at a step."""
        ramp = min(1.0, (step + 1) / max(1, self.ramp_steps))
        return self.learning_rate * ramp * 0.5 * (1 + math.cos(math.pi * step / self.steps))


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
        images: the data set; only ``train`` and ``augment`` are used.
        config: settings.
        device: where to train.
        group: this process among others that train the same supernet, each on its share of every
            batch, with batch-norm statistics of that share.
        alone: the only subnet to train, by the same settings; default: all.

    Raises:
        UserError: a batch is larger than the training split or smaller than the group, or the
            images do not fit the space.
    """

    def __init__(
        self,
        space: Space,
        images: ImageSet,
        config: TrainConfig,
        device: torch.device | str = "cpu",
        group: Group = ALONE,
        alone: Subnet | None = None,
    ) -> None:
        self.space = space
        self.alone = alone
        self.images = images
        self.config = config
        check_images(space, images)
        size, n = config.batch_size, len(images.train)
        if size == TrainConfig.batch_size:
            size = min(size, n)
        if size > n:
            raise UserError(f"batch_size={size} is more than the {n} training images; lower it")
        if size < group.size:
            raise UserError(f"batch_size={size} is less than {group.size} processes; raise it")
        self.group = group
        self.device = torch.device(device)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(config.seed)
            self.supernet = Supernet(space).to(device)
        self.optimiser = torch.optim.AdamW(
            self.supernet.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=self.device.type == "cuda" or None,
        )
        self._average: dict[str, Tensor] = {}
        if config.average_decay:
            self._average = {n: p.detach().clone() for n, p in self.supernet.named_parameters()}
        self.step = 0
        self.seconds = 0.0
        self._gradients = gradients_on(self.supernet, config.label_smoothing, config.distillation)
        self._batches = Batches(images, size, config.seed, self.device)

    def _others(self) -> list[Student]:
        """The subnets that learn from the largest in this step."""
        config, space = self.config, self.space
        if self.alone is not None or self.step < config.warmup:
            return []
        rng = np.random.default_rng([config.seed, 2, self.step])
        draw = find_distribution(config.draw)
        drawn = draw(space, config.random_subnets, rng)
        rows = np.vstack([space.smallest(), drawn])
        if config.shrink:
            rows = self._shrunk(rows)
        students = [Student(subnet) for subnet in space.decode(rows)]
        if self.step >= config.steps - config.quantised_steps:
            drawn = draw(space, config.random_subnets, rng)
            students += [Student(subnet, quantised=True) for subnet in space.decode(drawn)]
        return students

    def _shrunk(self, rows: IntArray) -> IntArray:
        """Rows with the largest option wherever a dimension is not elastic yet."""
        config, space = self.config, self.space
        length = config.steps - config.quantised_steps - config.warmup
        phase = 3 * (self.step - config.warmup) // max(1, length)
        fixed = ("depth", "channels")[phase:]
        if not fixed:
            return rows
        keep = np.array([gene.kind not in fixed for gene in space.genes])
        blocks = np.array([gene.block for gene in space.genes])
        # Genes of blocks that were drawn inactive are 0, the smallest option: they say nothing.
        drawn = np.where(blocks >= 0, space.active(rows)[:, blocks], True)
        return np.where(keep & drawn, rows, space.largest())

    def _update(self, x: Tensor, y: Tensor, first: Student) -> Tensor:
        self.optimiser.param_groups[0]["lr"] = self.config.rate(self.step)
        x, y = self.group.share(x), self.group.share(y)
        loss = self._gradients.step(x, y, [first, *self._others()])
        self.group.average(self.supernet.parameters())
        torch.nn.utils.clip_grad_norm_(self.supernet.parameters(), self.config.clip_norm)
        self.optimiser.step()
        return loss

    def run(
        self,
        *,
        checkpoint: str | Path | None = None,
        every_s: float = 20.0,
        callback: Callable[[Progress], None] | None = None,
    ) -> Supernet:
        """Train to the end.

        Args:
            checkpoint: where to store the run now and then.
            every_s: seconds between checkpoints.
            callback: told about every step.

        Returns:
            The trained supernet.

        Raises:
            UserError: the training diverged; the last checkpoint before that is kept.
        """
        first = Student(self.alone or self.space.decode(self.space.largest())[0])
        begun = stored = time.perf_counter()
        before = self.seconds
        for x, y in self._batches.from_step(self.step):
            if self.step >= self.config.steps:
                break
            loss = self._update(x, y, first)
            self.step += 1
            if self.step == self.config.warmup and self.alone is None:
                self._order_channels()
            self._keep_average()
            now = time.perf_counter()
            self.seconds = before + now - begun
            if checkpoint is not None and self.group.leads and now - stored > every_s:
                self.save(checkpoint)
                stored = now
            if callback is not None:
                callback(Progress(self.step, self.config.steps, loss))
        self._refuse_divergence()
        self.supernet.load_state_dict(self._average, strict=False)
        return self.supernet.eval()

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
        self.optimiser.state.clear()

    def save(self, path: str | Path) -> None:
        """Store the run.

        Raises:
            UserError: it cannot be written, or has diverged.
        """
        self._refuse_divergence()
        tensors = {f"net.{name}": value for name, value in self.supernet.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"opt.{index}.{name}": value for name, value in state.items()}
        tensors |= {f"avg.{name}": value for name, value in self._average.items()}
        header = {
            "format": FORMAT,
            **belonging(self.space),
            "images": self.images.checksum,
            "config": asdict(self.config),
            "alone": self._alone(),
            "step": self.step,
            "seconds": self.seconds,
        }
        save_tensors(path, tensors, header)

    def _alone(self) -> dict[str, Any] | None:
        return None if self.alone is None else self.alone.to_dict()

    def load(self, path: str | Path) -> None:
        """Continue a stored run.

        Raises:
            UserError: the file is unreadable, or of another space, data set or configuration.
        """
        tensors, header = load_tensors(path, FORMAT)
        refuse_other_space(header, self.space, path)
        if header.get("images") != self.images.checksum:
            raise UserError(f"{path} was trained on other images")
        then = with_defaults(header.get("config"), TrainConfig)
        refuse_other_settings(path, then, asdict(self.config), "name another file")
        if header.get("alone") != self._alone():
            raise UserError(f"{path} is the training of another subnet")
        net = {name[4:]: value for name, value in tensors.items() if name.startswith("net.")}
        try:
            self.supernet.load_state_dict(net)
            for name, value in self._average.items():
                value.copy_(tensors[f"avg.{name}"])
        except (RuntimeError, KeyError) as error:
            raise UserError(f"{path} does not hold this space's weights") from error
        state: dict[int, dict[str, Tensor]] = {}
        try:
            for name, value in tensors.items():
                if name.startswith("opt."):
                    _, index, key = name.split(".")
                    state.setdefault(int(index), {})[key] = value
            groups = self.optimiser.state_dict()["param_groups"]
            self.optimiser.load_state_dict({"state": state, "param_groups": groups})
            self.step, self.seconds = int(header["step"]), float(header["seconds"])
        except Exception as error:  # torch checks little of what it is given
            raise UserError(f"{path} is damaged: its optimiser's state is malformed") from error

"""Fine-tuning a subnet at its bits, from the weights that it inherits.

The teacher is the supernet's largest subnet in full precision. Batch norms keep their statistics in
the last part, so that what is trained is what is exported; a moving average of everything that is
learned is what comes out. A training that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from apq_moo.changes import refuse_other_settings
from apq_moo.data import ImageSource
from apq_moo.data.assets import Assets
from apq_moo.data.pixels import as_floats
from apq_moo.data.tables import SPLITS
from apq_moo.deploy.cutting import inheritance, integer_network, sliced
from apq_moo.deploy.integers import IntegerNetwork
from apq_moo.deploy.storage import save_network
from apq_moo.deploy.tunable import TunableNetwork
from apq_moo.errors import UserError
from apq_moo.files import growing, with_defaults
from apq_moo.space import Space, Subnet, belonging, refuse_other_space
from apq_moo.supernet.checkpoint import load_tensors, save_tensors
from apq_moo.supernet.devices import device_of
from apq_moo.supernet.evaluation import FoldedLayer, calibrate, fold, infer
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.sources import batches_of
from apq_moo.threads import one_torch_thread

FORMAT = "apq-moo fine-tuning 1"
SUFFIX = ".training"
_CHUNK = 512
_YOUNG = 10
_STATE = ("exp_avg", "exp_avg_sq", "step")
_LONG_S = 1e9


@dataclass(frozen=True)
class TuningConfig:
    """Settings of a fine-tuning.

    Attributes:
        steps: optimiser steps.
        batch_size: images a step; all training images where there are fewer.
        learning_rate: AdamW's peak; it falls to 0 by half a cosine.
        step_rate: the same for the logarithms of the quantisers' steps.
        weight_decay: AdamW's, of convolutions and the classifier.
        labels: share of the loss that is the labels' cross entropy; the rest is the teacher's.
        freeze: share of the steps after which batch norms keep their statistics.
        average_decay: share that the moving average keeps in a step.
        seed: of batches and augmentation.
    """

    steps: int = 2000
    batch_size: int = 128
    learning_rate: float = 5e-3
    step_rate: float = 5e-3
    weight_decay: float = 1e-4
    labels: float = 0.0
    freeze: float = 0.7
    average_decay: float = 0.99
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "step_rate", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(
                    f"{name} must be a finite number, at least 0; not {getattr(self, name)}"
                )
        for name in ("labels", "freeze"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} must lie within 0 and 1, not {getattr(self, name)}")
        if not 0 <= self.average_decay < 1:
            raise UserError(
                f"average_decay must be at least 0 and below 1, not {self.average_decay}"
            )

    def share(self, step: int) -> float:
        """The learning rates at a step, as a share of their peaks."""
        return 0.5 * (1 + math.cos(math.pi * step / self.steps))


@dataclass(frozen=True, eq=False)
class Tuned:
    """What a fine-tuning came to.

    Attributes:
        network: the network; the inherited one if that is better on the validation images.
        inherited: accuracies in percent before, by split.
        tuned: after.
        seconds: of the fine-tuning in all.
    """

    network: IntegerNetwork
    inherited: dict[str, float]
    tuned: dict[str, float]
    seconds: float

    @property
    def gained(self) -> bool:
        """Whether what was tuned is what was kept."""
        return self.tuned["validation"] >= self.inherited["validation"]

    def lines(self) -> list[str]:
        """What it came to, for people."""
        told = [
            f"{name}: {before:.2f} % inherited, {self.tuned[name]:.2f} % fine-tuned"
            for name, before in self.inherited.items()
        ]
        if not self.gained:
            told.append("the inherited weights are better on the validation images, and are kept")
        return told

    def to_dict(self) -> dict[str, Any]:
        """What it came to, fit for JSON."""
        told = {name: getattr(self, name) for name in ("inherited", "tuned", "seconds", "gained")}
        return {**told, "settings": self.network.origin.get("finetuned")}


def finetune(
    space: Space,
    subnet: Subnet,
    out: str | Path,
    config: TuningConfig,
    *,
    assets: str | Path | Assets | None = None,
    on: str | None = None,
    callback: Callable[[int, int], None] | None = None,
) -> Tuned:
    """Fine-tune a subnet at its bits and store it; what was interrupted goes on where it stopped.

    Args:
        space: the space.
        subnet: a member of it.
        out: the network's file; the unfinished fine-tuning lies beside it as ``*.training``.
        config: settings.
        assets: see :func:`apq_moo.deploy.cutting.inheritance`.
        on: likewise.
        callback: told about every step, ``(steps done, in all)``.

    Raises:
        UserError: see :class:`Tuner` and :func:`apq_moo.deploy.cutting.inheritance`; an unfinished
            fine-tuning there is another one; or a file cannot be written.
    """
    out = Path(out)
    unfinished = out.with_suffix(SUFFIX)
    left = inheritance(space, subnet, assets, on)
    # With more threads sums are taken in another order, and small layers take longer, not less.
    with growing(out), one_torch_thread():
        tuner = Tuner(left.supernet, left.subnet, left.images, config)
        before = tuner.network.folded()
        inherited = {name: tuner.accuracy(before, name) for name in SPLITS}
        if unfinished.is_file():
            tuner.load(unfinished)
        after = tuner.run(checkpoint=unfinished, callback=callback)
        tuned = {name: tuner.accuracy(after, name) for name in SPLITS}
        found = Tuned(tuner.integers(after, left.origin), inherited, tuned, tuner.seconds)
        if not found.gained:
            found = replace(found, network=integer_network(
                before, left.supernet.space, left.images, left.origin
            ))  # fmt: skip
        save_network(out, found.network)
        unfinished.unlink(missing_ok=True)
    return found


class Tuner:
    """A subnet in fine-tuning, which can be stored and resumed at any step.

    Args:
        supernet: the weights that are inherited, on the device to train on; they stay as they are.
        subnet: a member of its space.
        images: the data set.
        config: settings.

    Raises:
        UserError: the subnet is not a member of the space, has layers of other than 2 to 8 bits, or
            the supernet has no ranges.
    """

    def __init__(
        self, supernet: Supernet, subnet: Subnet, images: ImageSource, config: TuningConfig
    ) -> None:
        self.config, self.images, self.subnet = config, images, subnet
        self._space, self._device = supernet.space, device_of(supernet)
        layers = sliced(supernet, subnet)
        calibration = as_floats(torch.from_numpy(images.calibration.pixels).to(self._device))
        self.network = TunableNetwork(layers, calibrate(layers, calibration, quantised=True))
        self.network.to(self._device).train()
        largest = supernet.slice(self._space.decode(self._space.largest())[0])
        recorded = calibrate(largest, calibration, quantised=False)
        self._teacher = fold(largest, recorded, quantised=False)
        steps = self.network.steps()
        special = {id(parameter) for parameter in steps}
        convolved = [p for p in self.network.parameters() if p.dim() == 4]
        special |= {id(parameter) for parameter in convolved}
        others = [p for p in self.network.parameters() if id(p) not in special]
        self._rates = (config.learning_rate, config.learning_rate, config.step_rate)
        groups: list[dict[str, Any]] = [
            {"params": convolved, "weight_decay": config.weight_decay},
            {"params": others},
            {"params": steps},
        ]
        fused = self._device.type == "cuda" or None
        self._optimiser = torch.optim.AdamW(groups, weight_decay=0.0, fused=fused)
        self._learned = [*convolved, *others, *steps]
        self._average = [parameter.detach().clone() for parameter in self._learned]
        size = min(config.batch_size, len(images.train))
        self._batches = batches_of(images, size, config.seed, self._device)
        self.step = 0
        self.seconds = 0.0

    @property
    def frozen_from(self) -> int:
        """The step from which on batch norms keep their statistics."""
        return round(self.config.freeze * self.config.steps)

    def run(
        self,
        *,
        checkpoint: str | Path | None = None,
        every_s: float = 20.0,
        callback: Callable[[int, int], None] | None = None,
    ) -> list[FoldedLayer]:
        """Train to the end.

        Args:
            checkpoint: where to store the run now and then.
            every_s: seconds between checkpoints.
            callback: told about every step, ``(steps done, in all)``.

        Returns:
            The network, averaged, in exact integers; see :func:`tuned`.

        Raises:
            UserError: the training diverged.
        """
        begun = stored = time.perf_counter()
        before = self.seconds
        for x, y in self._batches.from_step(self.step):
            if self.step >= self.config.steps:
                break
            if self.step >= self.frozen_from:
                self.network.freeze_statistics()
            self._update(x, y)
            self.step += 1
            now = time.perf_counter()
            self.seconds = before + now - begun
            if checkpoint is not None and now - stored > every_s:
                self.save(checkpoint)
                stored = now
            if callback is not None:
                callback(self.step, self.config.steps)
        self._refuse_divergence()
        with torch.no_grad():
            torch._foreach_copy_(list(self._learned), self._average)
        self.network.eval()
        return self.network.folded()

    def _update(self, x: Tensor, y: Tensor) -> None:
        config = self.config
        logits = self.network(x)
        loss = torch.zeros((), device=x.device)
        if config.labels > 0:
            loss = loss + config.labels * F.cross_entropy(logits, y)
        if config.labels < 1:
            soft = infer(self._teacher, x, quantised=False).softmax(1)
            loss = loss + (1 - config.labels) * F.cross_entropy(logits, soft)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        share = config.share(self.step)
        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
        self._optimiser.step()
        # A young average would else be little but its first weights.
        young = (self.step + 1) / (self.step + _YOUNG)
        with torch.no_grad():
            weights: list[Tensor] = list(self._learned)
            torch._foreach_lerp_(self._average, weights, 1 - min(config.average_decay, young))

    def accuracy(self, folded: list[FoldedLayer], split: str) -> float:
        """Accuracy of a network in exact integers on a split, in percent."""
        right = 0
        for block in self.images.blocks([split]):
            for part in block.parts(_CHUNK):
                x = as_floats(torch.from_numpy(part.pixels).to(self._device))
                found = infer(folded, x, quantised=True).argmax(1).cpu().numpy()
                right += int(np.sum(found == part.labels))
        return 100.0 * right / len(self.images.split(split))

    def integers(self, folded: list[FoldedLayer], origin: dict[str, Any]) -> IntegerNetwork:
        """A network in exact integers, ready to be stored and exported."""
        told = {"steps": self.step, "seconds": round(self.seconds, 1), **asdict(self.config)}
        return integer_network(folded, self._space, self.images, {**origin, "finetuned": told})

    def _refuse_divergence(self) -> None:
        if not all(bool(value.isfinite().all()) for value in self.network.state_dict().values()):
            raise UserError(
                f"the fine-tuning diverged before step {self.step}: its weights are not finite; "
                f"lower learning_rate ({self.config.learning_rate:g})"
            )

    def save(self, path: str | Path) -> None:
        """Store the run.

        Raises:
            UserError: it cannot be written, or has diverged.
        """
        self._refuse_divergence()
        tensors = {f"net.{name}": value for name, value in self.network.state_dict().items()}
        for index, state in self._optimiser.state_dict()["state"].items():
            tensors |= {f"opt.{index}.{name}": value for name, value in state.items()}
        tensors |= {f"avg.{index}": value for index, value in enumerate(self._average)}
        header = {
            "format": FORMAT,
            **belonging(self._space),
            "images": self.images.checksum,
            "subnet": self.subnet.to_dict(),
            "config": asdict(self.config),
            "step": self.step,
            "seconds": self.seconds,
        }
        save_tensors(path, tensors, header)

    def load(self, path: str | Path) -> None:
        """Continue a stored run.

        Raises:
            UserError: the file is unreadable, or of another space, image set, network or
                configuration.
        """
        tensors, header = load_tensors(path, FORMAT)
        refuse_other_space(header, self._space, path)
        if header.get("images") != self.images.checksum:
            raise UserError(f"{path} was trained on other images")
        if header.get("subnet") != self.subnet.to_dict():
            raise UserError(f"{path} is the fine-tuning of another network; name another file")
        then = with_defaults(header.get("config"), TuningConfig)
        refuse_other_settings(path, then, asdict(self.config), "name another file")
        try:
            self._take(tensors, header)
        except Exception as error:  # torch checks little of what it is given
            raise UserError(f"{path} is damaged: its tensors are malformed") from error

    def _take(self, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        step, seconds = header["step"], float(header["seconds"])
        if type(step) is not int or not (0 <= step <= self.config.steps and 0 <= seconds < _LONG_S):
            raise ValueError(step, seconds)
        names = {name[4:]: value for name, value in tensors.items() if name.startswith("net.")}
        _check_finite(tensors)
        self.network.load_state_dict(names)
        state: dict[int, dict[str, Tensor]] = {}
        for index, parameter in enumerate(self._learned if step else ()):
            moments = {name: tensors[f"opt.{index}.{name}"] for name in _STATE}
            shapes = [tuple(value.shape) for value in moments.values()]
            if shapes != [tuple(parameter.shape)] * 2 + [()] or moments["step"] < 0:
                raise ValueError(index, shapes)
            state[index] = moments
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": state, "param_groups": groups})
        for index, value in enumerate(self._average):
            if tensors[f"avg.{index}"].shape != value.shape:
                raise ValueError(index)
            value.copy_(tensors[f"avg.{index}"])
        self.step, self.seconds = step, seconds


def _check_finite(tensors: dict[str, Tensor]) -> None:
    for name, value in tensors.items():
        if value.dtype != torch.float32 or not bool(value.isfinite().all()):
            raise ValueError(name)

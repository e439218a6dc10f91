"""What is stored of a training, so that it continues exactly where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from apq_moo.arrays import FloatArray
from apq_moo.changes import refuse_other_settings
from apq_moo.errors import UserError
from apq_moo.files import with_defaults
from apq_moo.space import Subnet, belonging, refuse_other_space
from apq_moo.supernet.beginning import Beginning, beginning_of
from apq_moo.supernet.checkpoint import load_tensors, take_tensors, tensors_of
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.recipe import TrainConfig

FORMAT = "apq-moo training 1"
_LONG_S = 1e9
"""More seconds than any training takes."""


@dataclass(frozen=True)
class Parts:
    """What a training changes as it goes on, and what it belongs to.

    Attributes:
        supernet: the weights.
        optimisers: by the prefix of their tensors' names.
        average: moving averages of the weights by name; empty without them.
        excess: what :class:`apq_moo.supernet.drawing.Drawing` has learnt.
        config: settings.
        images: checksum of the image set.
        alone: the only subnet that is trained, if not all are.
    """

    supernet: Supernet
    optimisers: Mapping[str, torch.optim.Optimizer]
    average: dict[str, Tensor]
    excess: FloatArray
    config: TrainConfig
    images: str
    alone: Subnet | None

    @property
    def learns(self) -> bool:
        """Whether ``excess`` is used."""
        return self.config.sampling != "random"


@dataclass(frozen=True)
class Reached:
    """How far a training is.

    Attributes:
        step: steps done.
        seconds: that they took.
        begun: what the weights began with, if not at random.
    """

    step: int
    seconds: float
    begun: Beginning | None


def snapshot(parts: Parts, reached: Reached) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a training; the tensors are those that it goes on changing."""
    tensors = {f"net.{name}": value for name, value in tensors_of(parts.supernet).items()}
    for prefix, optimiser in parts.optimisers.items():
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"{prefix}.{index}.{name}": value for name, value in state.items()}
    tensors |= {f"avg.{name}": value for name, value in parts.average.items()}
    if parts.learns:
        tensors["draw.excess"] = torch.from_numpy(parts.excess)
    header = {
        "format": FORMAT,
        **belonging(parts.supernet.space),
        "images": parts.images,
        "config": asdict(parts.config),
        "alone": _alone(parts),
        "begun": None if reached.begun is None else asdict(reached.begun),
        "step": reached.step,
        "seconds": reached.seconds,
    }
    return tensors, header


def restore(parts: Parts, path: str | Path) -> Reached:
    """Take what :func:`snapshot` gave, as it was stored.

    Args:
        parts: of a training that is to continue the stored one.
        path: the file.

    Raises:
        UserError: the file is unreadable, or of another space, data set or configuration.
    """
    tensors, header = load_tensors(path, FORMAT)
    refuse_other_space(header, parts.supernet.space, path)
    if header.get("images") != parts.images:
        raise UserError(f"{path} was trained on other images")
    then = with_defaults(header.get("config"), TrainConfig)
    refuse_other_settings(path, then, asdict(parts.config), "name another file")
    if header.get("alone") != _alone(parts):
        raise UserError(f"{path} is the training of another subnet")
    begun = beginning_of(header.get("begun"), path)
    net = {name[4:]: value for name, value in tensors.items() if name.startswith("net.")}
    take_tensors(parts.supernet, net, path)
    try:
        for name, value in parts.average.items():
            value.copy_(tensors[f"avg.{name}"])
        if parts.learns:
            torch.from_numpy(parts.excess).copy_(tensors["draw.excess"])
    except (RuntimeError, KeyError) as error:
        raise UserError(f"{path} does not hold this space's weights") from error
    try:
        for prefix, optimiser in parts.optimisers.items():
            _take_moments(prefix, optimiser, tensors)
        step, seconds = _progress(header, parts.config.steps)
    except Exception as error:  # torch checks little of what it is given
        raise UserError(f"{path} is damaged: its optimiser's state is malformed") from error
    return Reached(step, seconds, begun)


def _alone(parts: Parts) -> dict[str, Any] | None:
    return None if parts.alone is None else parts.alone.to_dict()


def _take_moments(
    prefix: str, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(f"{prefix}."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
    _check_moments(optimiser, state)
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def _progress(header: dict[str, Any], steps: int) -> tuple[int, float]:
    step, seconds = header["step"], float(header["seconds"])
    if type(step) is not int or not (0 <= step <= steps and 0 <= seconds < _LONG_S):
        raise ValueError(step, seconds)
    return step, seconds


def _check_moments(optimiser: torch.optim.Optimizer, state: dict[int, dict[str, Tensor]]) -> None:
    """Check the state of an AdamW, which takes anything and fails at its next step.

    Raises:
        ValueError: a parameter has none of that number, or moments of another kind.
    """
    parameters = dict(enumerate(optimiser.param_groups[0]["params"]))
    for index, moments in state.items():
        shape = parameters[index].shape
        found = {name: (value.shape, value.dtype) for name, value in moments.items()}
        kinds = {"exp_avg": shape, "exp_avg_sq": shape, "step": torch.Size([])}
        if found != {name: (kind, torch.float32) for name, kind in kinds.items()}:
            raise ValueError(f"parameter {index} has {found}")
        if not moments["step"] >= 0 or not all(
            value.isfinite().all() for value in moments.values()
        ):
            raise ValueError(f"parameter {index} has odd moments")

"""Several processes that work on one supernet, started by ``torchrun``.

In training they share a step's images or its subnets. With shares of the images each keeps
batch-norm statistics of its own share, unless these are synchronised; with shares of the subnets
everything is as on one process, and a small batch, which keeps no GPU busy, takes less time on
several.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous

from apq_moo.errors import UserError, shown
from apq_moo.supernet.devices import torch_device
from apq_moo.workers import WorkerLostError

JOIN_S = 120.0
"""Seconds in which all processes must have come; ``torchrun`` starts them together."""

_BEGUN = timedelta(minutes=30)
"""Within which those that came send their first message: each reads its images before."""

_NUMBERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")
"""What ``torchrun`` tells each process, beside ``MASTER_ADDR``."""


@contextmanager
def _heard(
    why: str = "another process ended, or cannot be reached; see what it said",
) -> Iterator[None]:
    """A message whose sender is gone is a mistake that is told in one line.

    Args:
        why: what is said of it.

    Raises:
        WorkerLostError: another process ended, or cannot be reached.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise WorkerLostError(f"{why}, and start all again") from error


@dataclass(frozen=True)
class Group:
    """One process among its like.

    Attributes:
        rank: which one, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the one that stores and reports."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """This process's part of a batch, the same number of rows for each."""
        return batch[self.rank : len(batch) // self.size * self.size : self.size]

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over the processes, in one message."""
        self._sum(parameters, self.size)

    def total(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their sum over the processes, in one message."""
        self._sum(parameters, 1)

    def _sum(self, parameters: Iterable[nn.Parameter], over: int) -> None:
        if self.size == 1:
            return
        grads = []
        for parameter in parameters:
            if parameter.grad is None:  # unused here, perhaps used elsewhere
                parameter.grad = torch.zeros_like(parameter)
            grads.append(parameter.grad)
        flat = torch.cat([grad.flatten() for grad in grads])
        with _heard():
            distributed.all_reduce(flat)
        flat /= over
        parts = flat.split([grad.numel() for grad in grads])
        torch._foreach_copy_(grads, [p.view_as(g) for p, g in zip(parts, grads, strict=True)])

    def mine(self, costs: Sequence[float]) -> list[int]:
        """This process's tasks, by their numbers.

        Each goes, the costliest first, to the process that has least to do.

        Args:
            costs: of each task, in any unit.
        """
        loads = [0.0] * self.size
        found: list[list[int]] = [[] for _ in loads]
        for task in sorted(range(len(costs)), key=lambda task: -costs[task]):
            least = loads.index(min(loads))
            found[least].append(task)
            loads[least] += costs[task]
        return sorted(found[self.rank])

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes."""
        if self.size > 1:
            with _heard():
                distributed.all_reduce(values)
        return values / self.size

    def gather(self, values: Tensor) -> Tensor:
        """What all processes have, shape ``(size, *values.shape)``."""
        if self.size == 1:
            return values[None]
        found = [torch.empty_like(values) for _ in range(self.size)]
        with _heard():
            distributed.all_gather(found, values)
        return torch.stack(found)

    def wait(self) -> None:
        """Return when all processes are here."""
        if self.size > 1:
            with _heard():
                distributed.barrier()


ALONE = Group()


def rank_of_environment() -> int:
    """This process's number according to ``torchrun``, 0 without it."""
    return int(os.environ.get("RANK", "0"))


def join(on: str) -> tuple[Group, torch.device]:
    """Join the processes that ``torchrun`` started, if it did, each with a GPU of its own.

    Args:
        on: the device that was asked for.

    Returns:
        This process among the others, and its device.

    Raises:
        UserError: there is no such device, or not one for each process.
        WorkerLostError: the others cannot be reached.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        return ALONE, torch_device(on)
    if on.startswith("cuda:"):
        raise UserError(f"several processes need a GPU each: on='cuda', not {on!r}")
    told = os.environ
    wrong = [name for name in _NUMBERS if not told.get(name, "").isdecimal()]
    if wrong or "MASTER_ADDR" not in told:
        name = wrong[0] if wrong else "MASTER_ADDR"
        state = f"{name}={shown(told[name])}" if name in told else f"{name} is not set"
        raise UserError(
            f"WORLD_SIZE={shown(size)} stands for several processes, but {state}; start them by "
            "torchrun, or unset WORLD_SIZE"
        )
    device = torch_device(f"cuda:{os.environ['LOCAL_RANK']}" if on == "cuda" else on)
    if not distributed.is_initialized():
        _meet("nccl" if device.type == "cuda" else "gloo")
    return Group(distributed.get_rank(), distributed.get_world_size()), device


def _meet(backend: str) -> None:
    """Begin to send messages, once all processes have come.

    Messages may take half an hour, since processes do other work too; to come takes none.

    Raises:
        WorkerLostError: not all have come in time.
    """
    wait = timedelta(seconds=JOIN_S)
    with _heard(f"not all processes came within {JOIN_S:.0f} s; see whether each was started"):
        store, rank, size = next(rendezvous("env://", timeout=wait))
        store.set(f"came {rank}", "")
        store.wait([f"came {other}" for other in range(size)], wait)
        store.set_timeout(_BEGUN)
    with _heard():
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size)

"""Where torch runs, and which spaces' networks the GPU's kernels can run."""

from __future__ import annotations

import torch
from torch import nn

from apq_moo.errors import UserError
from apq_moo.space import Space
from apq_moo.space.spec import FLOAT_BITS
from apq_moo.supernet.ranges import STORED_BITS

_MOST_BITS = 8

_OLDEST = (8, 0)
"""Compute capability of the first GPUs that multiply bfloat16."""


def torch_device(name: str) -> torch.device:
    """The device called ``cpu``, ``cuda`` or ``cuda:1``.

    A GPU called by its number becomes this process's current one, on which Triton launches kernels.

    Raises:
        UserError: no such device here.
    """
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()) or name == "cpu:":
        raise UserError(f"no device {name!r}; known: cpu, cuda, cuda:0, cuda:1, ...")
    if kind == "cuda":
        count = torch.cuda.device_count()
        if int(index or 0) >= count:
            raise UserError(f"no device {name!r} here: torch finds {count} GPUs; use cpu")
        if index:
            torch.cuda.set_device(int(index))
    return torch.device(name)


def chosen_device(on: str | None) -> torch.device:
    """The device of a name; without one a GPU if there is one, else the CPU.

    Raises:
        UserError: no such device here.
    """
    return torch_device(on or ("cuda" if torch.cuda.is_available() else "cpu"))


def device_of(network: nn.Module) -> torch.device:
    """Where a network's parameters lie."""
    return next(network.parameters()).device


def why_not_on_gpu(space: Space) -> str | None:
    """Why the GPU's kernels cannot run a space's networks at their bits, or None if they can."""
    spec = space.spec
    offered = {spec.fixed_bits, *(bits for role in spec.bits.values() for bits in role)}
    many = [bits for bits in offered if _MOST_BITS < bits < FLOAT_BITS]
    if many:
        return f"space {space.name!r} offers {max(many)} bits; on a GPU {_MOST_BITS} are the most"
    if spec.between_bits == FLOAT_BITS:
        return (
            f"space {space.name!r} stores {spec.between_bits}-bit floats between blocks; a GPU's "
            "kernels need between = 8 or between = 16 in its [bits]"
        )
    if spec.between_bits == STORED_BITS and FLOAT_BITS in offered:
        return (
            f"space {space.name!r} stores integers between blocks and offers {FLOAT_BITS} bits; on "
            "a GPU that needs between = 16 in its [bits]"
        )
    return None


def why_not_on_this(capability: tuple[int, int]) -> str | None:
    """Why a GPU of a compute capability does not run the kernels, or None if it does."""
    if capability >= _OLDEST:
        return None
    return (
        f"the GPU's compute capability is {capability[0]}.{capability[1]}; the kernels need "
        f"{_OLDEST[0]}.{_OLDEST[1]} or later"
    )

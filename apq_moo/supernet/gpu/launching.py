"""How kernels are launched on a device, past Triton's public interface where it is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

from apq_moo.supernet.gpu.plans import MOST_SHARED

STARTED_DIRECTLY = "3.6."
"""Versions of Triton whose compiled kernels were tried without its public launch."""


class Launcher:
    """Launches kernels on one device.

    Args:
        device: where their tensors lie.

    Attributes:
        device: it.
        shared: bytes of shared memory that a program can have.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.shared = shared_memory(device)
        self._ready: dict[tuple[Any, ...], Callable[..., None]] = {}
        self._tensors: dict[int, tuple[int, ...]] = {}

    def launch(
        self, kernel: Any, programs: int, args: tuple[Any, ...], constants: tuple[Any, ...],
        warps: int = 4, stages: int = 3,
    ) -> None:  # fmt: skip
        """Launch a kernel, past Triton's look at every argument where it has been seen before.

        What a compiled kernel depends on is its constants and the types of its tensors: all
        pointers are multiples of 16 bytes, and integers are not specialised, but for pitches,
        which are all multiples of :data:`PITCH`. It is then started as Triton itself starts it,
        without the description it would make for profilers: subnets of usual size run as fast as
        the host can launch them. How Triton starts a kernel is not public, so versions other than
        :data:`STARTED_DIRECTLY` launch every time as the public interface does.
        """
        number = id(kernel)  # a kernel's own hash is slow
        tensors = self._tensors.get(number)
        if tensors is None:
            found = [place for place, x in enumerate(args) if isinstance(x, Tensor)]
            tensors = self._tensors[number] = tuple(found)
        key = number, constants, warps, stages, tuple([args[place].dtype for place in tensors])
        start = self._ready.get(key)
        if start is not None:
            plain = list(args)
            for place in tensors:
                plain[place] = args[place].data_ptr()
            start(programs, args[tensors[0]].get_device(), plain, constants)
            return
        # Products and sums are rounded one by one, as everywhere else.
        compiled = kernel[(programs,)](
            *args, *constants, num_warps=warps, num_stages=stages, enable_fp_fusion=False
        )
        # It is None where kernels are interpreted.
        if compiled is not None and triton.__version__.startswith(STARTED_DIRECTLY):
            self._ready[key] = _starter(compiled)


def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that a program can have on a device, as Triton grants it."""
    if device.type != "cuda":
        return MOST_SHARED
    properties = triton.runtime.driver.active.utils.get_device_properties(device.index or 0)
    return int(properties["max_shared_mem"])


def _starter(compiled: Any) -> Callable[[int, int, list[Any], tuple[Any, ...]], None]:
    """What starts a compiled kernel: programs, device, arguments and constants."""
    stream_of = triton.runtime.driver.active.get_current_stream
    run, function, described = compiled.run, compiled.function, compiled.packed_metadata

    def usual(programs: int, device: int, args: list[Any], constants: tuple[Any, ...]) -> None:
        stream = stream_of(device)
        run(programs, 1, 1, stream, function, described, None, None, None, *args, *constants)

    if run.global_scratch_size or run.profile_scratch_size:
        return usual
    launch, together, early = run.launch, run.launch_cooperative_grid, run.launch_pdl

    def at_once(programs: int, device: int, args: list[Any], constants: tuple[Any, ...]) -> None:
        launch(
            programs, 1, 1, stream_of(device), function, together, early, None, None,
            described, None, None, None, *args, *constants,
        )  # fmt: skip

    return at_once

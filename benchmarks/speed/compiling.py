"""Compiles the kernels of some subnets ahead, by several processes, into Triton's cache on disk."""

from __future__ import annotations

import multiprocessing
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from apq_moo.space import Space, Subnet
from apq_moo.space.spec import SpaceSpec
from apq_moo.supernet.gradients import Student
from apq_moo.supernet.network import Supernet

_IMAGES = 8


def compile_ahead(
    space: Space,
    subnets: Sequence[Subnet],
    device: torch.device,
    *,
    largest_planes: Sequence[int],
    processes: int,
) -> None:
    """Compile what these subnets need to be evaluated, and to be trained in full precision.

    Each process goes through all their launches, and lets one in ``processes`` happen.

    Args:
        space: the subnets'.
        subnets: what is compiled for.
        device: a GPU.
        largest_planes: values of ``plans.LARGEST_PLANE``.
        processes: how many compile.

    Raises:
        RuntimeError: some of them failed; what they print says why.
    """
    context = multiprocessing.get_context("spawn")
    shared = space.spec, subnets, str(device), largest_planes
    started = [
        context.Process(target=_compile, args=(*shared, rank, processes))
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    failed = sum(process.exitcode != 0 for process in started)
    if failed:
        raise RuntimeError(f"{failed} of {processes} processes that compile failed")


def _compile(
    spec: SpaceSpec,
    subnets: Sequence[Subnet],
    on: str,
    largest_planes: Sequence[int],
    rank: int,
    processes: int,
) -> None:
    from apq_moo.supernet.gpu import plans
    from apq_moo.supernet.gpu.evaluator import GpuEvaluator
    from apq_moo.supernet.gpu.launching import Launcher
    from apq_moo.supernet.gpu.training import GpuGradients

    launch, seen = Launcher.launch, set[str]()

    def some(
        self: Launcher, kernel: Any, programs: int, args: tuple[Any, ...],
        constants: tuple[Any, ...], warps: int = 4, stages: int = 3,
    ) -> None:  # fmt: skip
        types = [x.dtype for x in args if isinstance(x, Tensor)]
        key = repr((kernel.__name__, constants, warps, stages, types))
        if key not in seen and zlib.crc32(key.encode()) % processes == rank:
            launch(self, kernel, min(programs, 1), args, constants, warps, stages)
        seen.add(key)

    Launcher.launch = some  # type: ignore[method-assign]
    net = Supernet(Space(spec)).to(on)
    net.ranges.load(torch.ones_like(net.ranges.tensor()))
    shape = _IMAGES, spec.input_channels, spec.input_size, spec.input_size
    x, y = torch.rand(shape, device=on), torch.zeros(_IMAGES, dtype=torch.long, device=on)
    for plans.LARGEST_PLANE in largest_planes:
        plans._plan.cache_clear()
        evaluator, gradients = GpuEvaluator(net, x), GpuGradients(net)
        for subnet in subnets:
            for quantised in (True, False):
                evaluator.logits(subnet, x, quantised=quantised)
            gradients.step(x, y, [Student(subnet)])
    torch.cuda.synchronize()

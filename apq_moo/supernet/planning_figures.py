"""A few steps of a recipe, measured on random images, for :mod:`apq_moo.supernet.planning`."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from apq_moo.space import Space, belonging
from apq_moo.supernet.backends import gradients_on
from apq_moo.supernet.devices import torch_device
from apq_moo.supernet.drawing import Drawing
from apq_moo.supernet.gradients import Student
from apq_moo.supernet.memory_full import batch_that_fits, too_large
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.planning import BITS, FORMAT, Figures, phases, students_of
from apq_moo.supernet.range_fitting import fit_ranges
from apq_moo.supernet.recipe import TrainConfig
from apq_moo.versions import processor, versions

CPU_BATCH = 4
"""Images of a pass on a CPU, where they are a sample of what a GPU would be given."""


def measure(
    space: Space, config: TrainConfig, *, on: str, gpus: int = 1, measured_steps: int = 3
) -> Figures:
    """Time passes of each phase of a recipe, spread over its steps, on one device.

    A pass is that of a step's students, with AdamW's update; images are random and on the device,
    so that reading and decoding them is not counted, nor is what processes tell each other. On a
    GPU a pass has as many images as it would have; on a CPU at most :data:`CPU_BATCH`.

    Args:
        space: the space.
        config: the recipe.
        on: the device.
        gpus: devices that are to share a step.
        measured_steps: passes of each phase.

    Raises:
        UserError: there is no such device, or a pass does not fit its memory.
    """
    device = torch_device(on)
    share = max(1, config.batch_size // gpus)
    n = max(1, share // config.accumulation)
    if device.type == "cpu":
        n = min(n, CPU_BATCH)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        supernet = Supernet(space).to(device)
        spec = space.spec
        x = torch.rand(n, spec.input_channels, spec.input_size, spec.input_size, device=device)
        y = torch.randint(spec.classes, (n,), device=device)
    found = phases(config)
    if BITS in found:
        fit_ranges(supernet, x, subnets=2)
    timing = _Timing(supernet, config, x, y)
    try:
        seconds = {name: timing.of(steps, measured_steps) for name, steps in found.items()}
    except torch.cuda.OutOfMemoryError:
        seconds = {}  # what its traceback holds goes with it
    if not seconds:
        del timing
        first = [Student(space.decode(space.largest())[0])]
        fit = batch_that_fits(
            lambda: gradients_on(supernet, precision=config.precision), x, y, first
        )
        raise too_large(n, fit, share, config.batch_size, device)
    gpu = device.type == "cuda"
    return Figures(
        format=FORMAT,
        **belonging(space),
        device=torch.cuda.get_device_name(device) if gpu else processor(),
        kind=device.type,
        batch=n,
        measured_steps=measured_steps,
        seconds=seconds,
        recipe=students_of(config),
        memory_bytes=torch.cuda.max_memory_allocated(device) if gpu else None,
        versions=versions(),
    )


class _Timing:
    """Times passes of a recipe on one device."""

    def __init__(
        self, supernet: Supernet, config: TrainConfig, x: torch.Tensor, y: torch.Tensor
    ) -> None:
        space = supernet.space
        self._x, self._y = x, y
        self._first = Student(space.decode(space.largest())[0])
        self._drawing = Drawing(space, config)
        self._gradients = gradients_on(
            supernet, config.label_smoothing, config.distillation, precision=config.precision
        )
        # The rate does not change what an update takes.
        self._optimiser = torch.optim.AdamW(supernet.parameters(), lr=0.0)
        if x.is_cuda:
            torch.cuda.reset_peak_memory_stats(x.device)

    def of(self, steps: Sequence[int], n: int) -> float:
        """Mean seconds of a pass over steps of a phase, all of which were run before on a GPU."""
        places = np.linspace(0, len(steps) - 1, n).round().astype(int)
        students = [[self._first, *self._drawing.students(steps[place])] for place in places]
        for some in students if self._x.is_cuda else students[:1]:  # GPUs' kernels are compiled
            self._pass(some)
        self._wait()
        begun = time.perf_counter()
        for some in students:
            self._pass(some)
        self._wait()
        return (time.perf_counter() - begun) / n

    def _pass(self, students: Sequence[Student]) -> None:
        self._gradients.step(self._x, self._y, students)
        self._optimiser.step()

    def _wait(self) -> None:
        if self._x.is_cuda:
            torch.cuda.synchronize(self._x.device)

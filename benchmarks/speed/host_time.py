"""What the host does to launch a subnet's kernels, on a machine without a GPU.

Run as ``python -m apq_moo.benchmarks.speed.host_time --space fashion``. Kernels are neither
compiled nor run: what starts them does nothing, so that the time of the process is that of Python
alone, of finding tiles, grids and arguments, of memory, and of torch's own operators, here on a CPU
and few images. On a GPU a launch takes the driver some two microseconds more, and what torch itself
does behind the last block is a recorded graph.
"""

from __future__ import annotations

import argparse
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch

from apq_moo.errors import reported
from apq_moo.space import Space, Subnet, load_space
from apq_moo.supernet.gradients import Student
from apq_moo.supernet.network import Supernet

_IMAGES = 2


class Counter:
    """Starts nothing, and counts it.

    Attributes:
        alone: kernels that were started one by one.
        together: kernels of stretches that were repeated.
    """

    def __init__(self) -> None:
        self.alone = self.together = 0

    @property
    def kernels(self) -> int:
        """All."""
        return self.alone + self.together

    def start(self, *_: Any) -> None:
        """One kernel."""
        self.alone += 1

    def start_all(self, words: array[int], _stream: int) -> None:
        """Those that some words describe."""
        from apq_moo.supernet.gpu.starting import HEAD

        at = 0
        while at < len(words):
            at += HEAD + words[at + HEAD - 1]
            self.together += 1


@contextmanager
def without_gpu() -> Iterator[Counter]:
    """Kernels are counted in place of being compiled and run."""
    from apq_moo.supernet.gpu import launching
    from apq_moo.supernet.gpu.starting import words_of

    counter = Counter()

    def first(*_: Any) -> launching.Start:
        counter.alone += 1
        return launching.Start(
            counter.start, lambda programs, args: words_of(1, programs, 128, 0, args)
        )

    with (
        mock.patch.object(launching, "launched_first", first),
        mock.patch.object(launching, "starter_of_driver", return_value=counter.start_all),
        mock.patch.object(launching, "stream_of", return_value=0),
    ):
        yield counter


def host_times(space: Space, n: int) -> Iterator[tuple[str, float, float]]:
    """Of what is done with random subnets: its name, and microseconds and kernels of a subnet.

    Args:
        space: any that the kernels run.
        n: subnets of each figure.
    """
    from apq_moo.supernet.gpu.evaluator import GpuEvaluator
    from apq_moo.supernet.gpu.training import GpuGradients

    supernet = Supernet(space)
    supernet.ranges.load(torch.ones_like(supernet.ranges.tensor()))
    spec = space.spec
    x = torch.zeros(_IMAGES, spec.input_channels, spec.input_size, spec.input_size)
    y = torch.zeros(_IMAGES, dtype=torch.long)
    subnets = space.decode(space.sample(n, np.random.default_rng(0)))
    (largest,) = space.decode(space.largest())
    with without_gpu() as counter:
        evaluator, gradients = GpuEvaluator(supernet, x), GpuGradients(supernet)
        images = evaluator.prepare(x)

        def evaluate(subnet: Subnet) -> None:
            evaluator.logits(subnet, images, quantised=True)

        def train(subnet: Subnet) -> None:
            gradients.step(x, y, [Student(subnet)])

        for name, do, way in (
            ("evaluation", evaluate, evaluator), ("training", train, gradients)
        ):  # fmt: skip
            for subnet in (largest, *subnets, *subnets):  # memory grows, launches are recorded
                do(subnet)
            for repeats in (False, True):
                way._work.repeats = repeats
                kind = "launches repeated" if repeats else "launches found anew"
                yield f"{name}, {kind}", *_mean(do, subnets, counter)


def _mean(
    do: Callable[[Subnet], None], subnets: Sequence[Subnet], counter: Counter
) -> tuple[float, float]:
    before, begun = counter.kernels, time.thread_time()
    for subnet in subnets:
        do(subnet)
    taken = time.thread_time() - begun
    return 1e6 * taken / len(subnets), (counter.kernels - before) / len(subnets)


def main(argv: Sequence[str] | None = None) -> None:
    """Print microseconds and launches of a subnet."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--space", default="fashion")
    parser.add_argument("--subnets", type=int, default=64)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    for name, us, kernels in host_times(load_space(args.space), args.subnets):
        print(
            f"{name}: {us:.0f} us of the host a subnet, {kernels:.0f} kernels, "
            f"{us / kernels:.1f} us each"
        )


if __name__ == "__main__":
    with reported():
        main()

"""Evaluation and training on random images of a space's size, apart and layer by layer.

:mod:`apq_moo.benchmarks.speed.supernet_speed` runs this for a space that has no images. What is
timed comes in the order of its worth; all figures so far are written after each part.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from triton.errors import TritonError

from apq_moo.benchmarks.speed import traffic
from apq_moo.benchmarks.speed.compiling import compile_ahead
from apq_moo.benchmarks.speed.launches import Launched, timed
from apq_moo.files import write_json
from apq_moo.space import Layer, Space, Subnet
from apq_moo.space.spec import FLOAT_BITS
from apq_moo.supernet.evaluation import Evaluator
from apq_moo.supernet.gpu import plans
from apq_moo.supernet.gpu.evaluator import GpuEvaluator
from apq_moo.supernet.gpu.training import GpuGradients
from apq_moo.supernet.gradients import Student, TorchGradients
from apq_moo.supernet.network import Supernet, forward
from apq_moo.supernet.range_fitting import fit_ranges

_SHOWN = 14
_LARGEST_PLANES = (1024, 256, 64)
_ENOUGH_S = 3.0


@dataclass(frozen=True)
class Amounts:
    """How much is measured.

    Attributes:
        images: classified.
        calibration: images of the calibration.
        subnets: random ones that are evaluated.
        sliced: images on which sliced subnets are timed.
        batch: images of a training step at most.
        steps: training steps that are timed.
        seconds: after which nothing new is begun.
    """

    images: int
    calibration: int
    subnets: int
    sliced: int
    batch: int
    steps: int
    seconds: float


class LargeImages:
    """Measurements of one space on one device; figures gather in ``results``.

    Args:
        space: any space.
        device: where everything runs.
        amounts: how much is measured.
        out: where figures are written, if anywhere.
    """

    def __init__(
        self, space: Space, device: torch.device, amounts: Amounts, out: Path | None
    ) -> None:
        self.space, self.device, self.amounts, self.out = space, device, amounts, out
        self.results: dict[str, Any] = {"space": space.name}
        self._begun = time.perf_counter()
        torch.manual_seed(0)
        spec = space.spec
        shape = spec.input_channels, spec.input_size, spec.input_size
        self.calibration = torch.rand(amounts.calibration, *shape, device=device)
        self.images = torch.rand(amounts.images, *shape, device=device)
        self.supernet = Supernet(space).to(device)
        rows = space.sample(max(2, amounts.subnets), np.random.default_rng(0))
        self.drawn = space.decode(rows)
        self.ends = space.decode(np.vstack([space.largest(), space.smallest()]))

    def run(self, bandwidth: float) -> dict[str, Any]:
        """All parts that time is left for; ``bandwidth`` of a copy in bytes a second."""
        self.bandwidth = bandwidth
        for part in (
            self.compiling, self.evaluation, self.kernels_training, self.layers, self.sliced,
            self.torch_training, self.other_patches, self.compiled,
        ):  # fmt: skip
            spent = time.perf_counter() - self._begun
            if spent > self.amounts.seconds:
                _say(f"{part.__name__}: left out, {spent:.0f} s have passed")
                continue
            _say(f"{part.__name__.replace('_', ' ')} ({spent:.0f} s so far)")
            try:
                part()
            except (RuntimeError, TritonError) as error:  # of memory, mostly
                text = str(error).strip().partition("\n")[0]
                self.results[f"{part.__name__} failed"] = text
                _say(f"  failed: {text}")
            if self.out is not None:
                write_json(self.out, self.results)
        return self.results

    def compiling(self) -> None:
        """What the other parts need ahead: kernels, by several processes, and then ranges."""
        if self.device.type == "cuda":
            processes = max(1, min(12, len(os.sched_getaffinity(0)) - 2))
            compile_ahead(
                self.space, (*self.ends, *self.drawn), self.device,
                largest_planes=_LARGEST_PLANES, processes=processes,
            )  # fmt: skip
        fit_ranges(self.supernet, self.calibration[:64], subnets=4)

    def evaluation(self) -> None:
        """Subnets at their bits: agreement, time, its share of the floor, and traffic."""
        few = self.images[:32]
        reference = Evaluator(self.supernet, self.calibration[:32], batch_size=16)
        small = GpuEvaluator(self.supernet, self.calibration[:32])
        for subnet in (*self.ends, self.drawn[0]):
            wanted = reference.logits(subnet, few, quantised=True)
            off = float((small.logits(subnet, few, quantised=True) - wanted).abs().max())
            _say(f"  logits differ by {off:.1e}")
            if off > 0:
                self.results["disagreement"] = off
        kernels = self.kernels = GpuEvaluator(self.supernet, self.calibration)
        prepared, one = kernels.prepare(self.images), kernels.prepare(self.images[:1])
        for name, subnets in self._groups():
            both = [
                self._ms(partial(kernels.logits, images=x, quantised=True), subnets)
                for x in (prepared, one)
            ]
            moved = np.mean([self._moved(s) for s in subnets], 0) / self.bandwidth * 1e3
            floor, own = float(moved[0]), float(moved[1])
            self.results[f"evaluation {name}"] = {
                "ms": both[0], "calibration_ms": both[1], "floor_ms": floor, "traffic_ms": own,
                "ratio": both[0] / floor, "peak_gib": self._peak(),
            }  # fmt: skip
            _say(
                f"  {name}: {both[0]:.1f} ms, {both[1]:.1f} of them calibration; floor "
                f"{floor:.1f} ms, ratio {both[0] / floor:.2f}; what the kernels move takes "
                f"{own:.1f} ms; peak {self._peak():.1f} GiB"
            )
        self.prepared = prepared
        self._tell_traffic(self.ends[0])

    def other_patches(self) -> None:
        """Random subnets, and training, with patches for smaller planes too."""
        gradients = self._gradients()
        x, y = self._batch(min(256, self.amounts.batch))
        usual = plans.LARGEST_PLANE
        try:
            for largest in _LARGEST_PLANES:
                plans.LARGEST_PLANE = largest
                plans._plan.cache_clear()
                self.kernels.forget()
                gradients._work.forget()
                way = partial(self.kernels.logits, images=self.prepared, quantised=True)
                ms = self._ms(way, self.drawn)
                step = partial(gradients.step, x, y, self._students())
                speed = len(x) / self._seconds(step, self.amounts.steps)
                self.results[f"patches above {largest}"] = {"ms": ms, "images_per_s": speed}
                _say(
                    f"  patches for planes above {largest} elements: {ms:.1f} ms a random subnet, "
                    f"training {speed:.0f} images/s"
                )
        finally:
            plans.LARGEST_PLANE = usual
            plans._plan.cache_clear()
            self.kernels.forget()

    def layers(self) -> None:
        """The slowest launches of the largest subnet."""
        part = self.kernels.prepare(self.images[: self.amounts.sliced])
        way = partial(self.kernels.logits, self.ends[0], part, quantised=True)
        self._slowest("evaluation", self.kernels._work, way)
        gradients = self._gradients()
        x, y = self._batch(min(128, self.amounts.batch))
        self._slowest(
            "training", gradients._work, lambda: gradients.step(x, y, [Student(self.ends[0])])
        )

    def sliced(self) -> None:
        """Sliced subnets by cuDNN: in float32, and where it agrees in bfloat16."""
        few = self.images[: self.amounts.sliced]
        share = self.amounts.images / len(few)
        sliced = Evaluator(self.supernet, self.calibration, batch_size=min(250, len(few)))
        wanted = sliced.logits(self.ends[0], few[:64], quantised=False)
        with torch.autocast(self.device.type, torch.bfloat16):
            found = sliced.logits(self.ends[0], few[:64], quantised=False)
        error = float((found.float() - wanted).norm() / wanted.norm())
        self.results["bfloat16 error"] = error
        _say(f"  bfloat16 logits are {error:.3f} of their norm off")
        for quantised, half in ((True, False), (False, error < 0.05)):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                for name, subnets in self._groups(1)[:2]:
                    ms = [
                        self._ms(partial(sliced.logits, images=x, quantised=quantised), subnets)
                        for x in (few, few[:1])
                    ]
                    ms_all = ms[1] + (ms[0] - ms[1]) * share
                    kind = f"sliced {'random bits' if quantised else 'full precision'}"
                    kind += f", {'bfloat16' if half else 'float32'}, {name}"
                    self.results[kind] = {"ms": ms_all, "images": len(few)}
                    _say(f"  {kind}: {ms_all:.0f} ms (from {len(few)} images)")

    def kernels_training(self) -> None:
        """Images a second of the kernels, with the largest, the smallest and two random subnets."""
        gradients = self._gradients()
        self._training("kernels", lambda x, y: gradients.step(x, y, self._students()))
        layers = [self._layers(student.subnet) for student in self._students()]
        moved = sum(sum(traffic.training(one).values()) for one in layers)
        _say(f"  at the kernels' traffic alone: {self.bandwidth / moved:.0f} images/s")

    def torch_training(self) -> None:
        """The same of autograd in bfloat16, channels last, on subnets whose shapes cuDNN knows."""
        torch.backends.cudnn.benchmark = True
        gradients = TorchGradients(self._plain())

        def step(x: Tensor, y: Tensor) -> None:
            with torch.autocast(self.device.type, torch.bfloat16):
                gradients.step(x, y, self._students())

        self._training("torch", step)
        torch.backends.cudnn.benchmark = False

    def compiled(self) -> None:
        """What ``torch.compile`` does for torch's training of the largest subnet alone."""
        plain = self._plain()
        subnet, n = self.ends[0], min(256, self.amounts.batch)
        x, y = self._batch(n)

        def logits(x: Tensor) -> Tensor:
            return forward(plain.slice(subnet), x)

        torch.backends.cudnn.benchmark = True
        for name, way in (("eager", logits), ("compiled", torch.compile(logits))):

            def step(way: Callable[[Tensor], Tensor] = way) -> None:
                plain.zero_grad()
                with torch.autocast(self.device.type, torch.bfloat16):
                    loss = nn.functional.cross_entropy(way(x), y)
                loss.backward()

            speed = n / self._seconds(step, self.amounts.steps)
            self.results[f"torch, largest subnet, {name}"] = speed
            _say(f"  {name}: {speed:.0f} images/s")
        gradients = self._gradients()
        own = self._seconds(lambda: gradients.step(x, y, [Student(subnet)]), self.amounts.steps)
        self.results["kernels, largest subnet"] = n / own
        _say(f"  kernels: {n / own:.0f} images/s")
        torch.backends.cudnn.benchmark = False

    def _training(self, name: str, step: Callable[[Tensor, Tensor], object]) -> None:
        n, best = min(64, self.amounts.batch), 0.0
        while n <= min(self.amounts.batch, len(self.images)):
            x, y = self._batch(n)
            try:
                self._peak(begin=True)
                speed = n / self._seconds(partial(step, x, y), self.amounts.steps)
            except torch.OutOfMemoryError:
                _say(f"  {name}: batch {n} does not fit")
                break
            best = max(best, speed)
            self.results[f"training, {name}, batch {n}"] = {
                "images_per_s": speed, "peak_gib": self._peak()
            }  # fmt: skip
            _say(f"  {name}: batch {n}, {speed:.0f} images/s, peak {self._peak():.1f} GiB")
            n *= 2
        self.results[f"training, {name}"] = best

    def _slowest(self, name: str, work: Any, way: Callable[[], object]) -> None:
        way()
        with timed(work) as found:
            way()
            launches = found()
        total = sum(one.ms for one in launches)
        by_kind: dict[str, float] = {}
        for one in launches:
            by_kind[one.what] = by_kind.get(one.what, 0.0) + one.ms
        _say(
            f"  {name}: {total:.1f} ms in launches; "
            + ", ".join(
                f"{what} {ms:.1f}" for what, ms in sorted(by_kind.items(), key=lambda x: -x[1])
            )
        )
        for one in launches[:_SHOWN]:
            _say(
                f"    {one.ms:7.2f} ms {100 * one.ms / total:4.1f} % {one.rate:6.0f} GB/s "
                f"{one.what} {one.layer} {one.shape}"
            )
        self.results[f"layers, {name}"] = [_row(one) for one in launches]

    def _tell_traffic(self, subnet: Subnet) -> None:
        layers = self._layers(subnet)
        ways = traffic.floor, traffic.inference, traffic.calibration, traffic.training
        by_size = {way.__name__: way(layers) for way in ways}
        self.results["megabytes an image, largest"] = {
            name: {str(size): moved / 1e6 for size, moved in found.items()}
            for name, found in by_size.items()
        }
        for name, found in by_size.items():
            texts = [f"{size} px {moved / 1e6:.2f}" for size, moved in found.items()]
            total = sum(found.values()) / 1e6
            _say(f"  largest, {name}: {total:.1f} MB an image; {', '.join(texts)}")

    def _groups(self, n: int | None = None) -> list[tuple[str, Sequence[Subnet]]]:
        return [("random", self.drawn[:n]), ("largest", self.ends[:1]), ("smallest", self.ends[1:])]

    def _layers(self, subnet: Subnet) -> Sequence[Layer]:
        return self.space.layers(subnet)

    def _moved(self, subnet: Subnet) -> tuple[float, float]:
        """Bytes at the floor, and those that the kernels move, calibration included."""
        layers, amounts = self._layers(subnet), self.amounts
        own = amounts.images * sum(traffic.inference(layers).values())
        own += amounts.calibration * sum(traffic.calibration(layers).values())
        return amounts.images * sum(traffic.floor(layers).values()), own

    def _students(self) -> list[Student]:
        return [Student(subnet) for subnet in (*self.ends, *self.drawn[:2])]

    def _gradients(self) -> GpuGradients:
        if self.device.type == "cuda":
            return GpuGradients(self.supernet)
        # What is interpreted knows no bfloat16.
        exact = torch.float32
        return GpuGradients(self.supernet, forward_type=exact, backward_type=exact)

    def _plain(self) -> Supernet:
        """The same weights in a network that rounds nothing between blocks."""
        plain = Supernet(Space(replace(self.space.spec, between_bits=FLOAT_BITS)))
        plain.load_state_dict(self.supernet.state_dict())
        return plain.to(self.device)

    def _batch(self, n: int) -> tuple[Tensor, Tensor]:
        return self.images[:n], torch.arange(n, device=self.device) % self.space.spec.classes

    def _ms(self, way: Callable[[Subnet], object], subnets: Sequence[Subnet]) -> float:
        """Milliseconds of a subnet, when all have run once before."""
        self._peak(begin=True)

        def each() -> None:
            for subnet in subnets:
                way(subnet)

        return 1e3 * self._seconds(each, 1) / len(subnets)

    def _seconds(self, work: Callable[[], object], repeats: int) -> float:
        """Mean time of a call after one that is not counted; of fewer where they take long."""
        work()
        self._wait()
        begun, done, passed = time.perf_counter(), 0, 0.0
        while done < repeats and passed < _ENOUGH_S:
            work()
            self._wait()
            done, passed = done + 1, time.perf_counter() - begun
        return passed / done

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _peak(self, *, begin: bool = False) -> float:
        """GiB of memory at the peak since it was last asked to begin."""
        if self.device.type != "cuda":
            return 0.0
        if begin:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.max_memory_allocated()) / 2**30


def _row(one: Launched) -> dict[str, object]:
    return {**vars(one), "gb_per_s": one.rate}


def _say(text: str) -> None:
    print(text, flush=True)
